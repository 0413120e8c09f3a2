import json
import math
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import optuna
import pandas as pd
import pytest
from lightning.pytorch.trainer.states import TrainerFn
from omegaconf import OmegaConf
from optuna.trial import TrialState

from onecycle.callbacks import optuna_storage
from onecycle.callbacks.options import PRUNED
from onecycle.callbacks.pruning import Pruning
from onecycle.errors import ConfigError
from onecycle.studies.figures import draw
from onecycle.studies.search import coordinate, trials
from onecycle.studies.search.coordinate import Score, Values
from onecycle.studies.search.options import OptunaSearch, space_of
from studying import ended, results, start

SPACE = {"lr": {"low": 0.01, "high": 1.0, "log": True}}
SEARCH = [
    "-m", "hydra/sweeper=tpe", "experiment=debug", "data.val_size=50", "schedule.peak_lr=tag(log,interval(0.01,1))",
    "hydra.sweeper.budget=6",
]  # fmt: skip


def options(**changes: Any) -> OptunaSearch:
    return OptunaSearch.model_validate({"arm": "optuna", "method": "optuna", "budget": 12, "space": SPACE, **changes})


def bowl(values: Values) -> float:
    return -abs(math.log10(values["lr"] / 0.1))


def solve(folder: Path, score: Callable[[Values], Score] = bowl, **changes: Any) -> coordinate.SearchPath:
    folder.mkdir(exist_ok=True)
    path = coordinate.SearchPath()
    trials.optuna_search(options(**changes), lambda points: [score(point) for point in points], path, folder=folder)
    return path


def stored(where: str) -> list[optuna.trial.FrozenTrial]:
    return optuna.load_study(study_name="optuna", storage=optuna_storage.open_storage(where)).trials


def test_tpe_comes_near_the_optimum_of_a_known_function_and_equal_seeds_draw_alike(tmp_path: Path) -> None:
    path, again, other = (solve(tmp_path / f"{place}", budget=30, seed=seed) for place, seed in enumerate((1, 1, 2)))
    assert (len(path.steps), path.end) == (30, coordinate.SPENT)
    assert path.best.values["lr"] == pytest.approx(0.1, rel=0.15)
    assert path.best.score == max(step.score for step in path.steps)
    assert sum(step.score for step in path.steps[20:]) > sum(step.score for step in path.steps[:10])
    assert path.steps == again.steps
    assert path.steps[0].values != other.steps[0].values


def test_optunas_figures_are_drawn(tmp_path: Path) -> None:
    solve(tmp_path / "study", budget=6)
    figures = [{"kind": "optuna", "arm": "optuna", "show": show, "name": show} for show in trials.PLOTS]
    drawn, problems = draw({"figures": figures}, pd.DataFrame([{"folder": str(tmp_path / "study" / "run")}]))
    assert (set(drawn), problems) == (set(trials.PLOTS), [])


def test_a_search_that_was_interrupted_goes_on_with_the_point_that_was_running(tmp_path: Path) -> None:
    asked: list[Values] = []

    def score(values: Values) -> float:
        asked.append(values)
        if len(asked) == 5:
            raise KeyboardInterrupt
        return bowl(values)

    with pytest.raises(KeyboardInterrupt):
        solve(tmp_path, score)
    states = [trial.state for trial in stored(trials.journal(tmp_path))]
    assert states == [TrialState.COMPLETE] * 4 + [TrialState.RUNNING]
    path = solve(tmp_path, score)
    assert asked[5:10] == asked[:5]  # four are read back, the fifth is run after all
    assert len({point["lr"] for point in asked[5:]}) == len(path.steps) == 12  # and none is drawn twice
    assert [trial.state for trial in stored(trials.journal(tmp_path))] == [TrialState.COMPLETE] * 12


def test_diverged_and_failed_runs_are_told_as_failed_and_the_search_goes_on(tmp_path: Path) -> None:
    answers: Iterator[float | None] = iter([0.5, math.nan, None, 0.7])
    path = solve(tmp_path, lambda values: next(answers), budget=4)
    found = stored(trials.journal(tmp_path))
    assert [trial.state.name for trial in found] == ["COMPLETE", "FAIL", "FAIL", "COMPLETE"]
    assert [trial.user_attrs.get("outcome") for trial in found] == [None, "diverged", "failed", None]
    assert [step.score for step in path.steps] == [0.5, -math.inf, -math.inf, 0.7]
    assert [step.reason for step in path.steps[1:3]] == ["it diverged", "it failed"]
    assert path.best.number == 3


def test_a_pruner_gives_each_run_the_trial_to_report_to(tmp_path: Path) -> None:
    callbacks: list[dict[str, Any]] = []

    def score(values: Values) -> float:
        callback = dict(values["+callbacks.pruning"])
        callbacks.append(callback)
        assert callback.pop("_target_") == "onecycle.callbacks.pruning.Pruning"
        trial = Pruning(**callback).trial
        reached = 0.9 if len(callbacks) == 1 else 0.1
        trial.report(reached, 1)
        if trial.should_prune():
            trial.set_user_attr(PRUNED, True)
        return reached

    path = solve(tmp_path, score, budget=2, pruner="median", pruner_options={"n_startup_trials": 1})
    states = [trial.state for trial in stored(trials.journal(tmp_path))]
    assert states == [TrialState.COMPLETE, TrialState.PRUNED]
    assert [step.score for step in path.steps] == [0.9, -math.inf]
    assert path.steps[1].reason == "it was pruned"


@pytest.mark.parametrize(
    "where",
    ["sqlite:////nowhere/at/all.db", "journal:/nowhere/at/all.journal", "magic", "oracle://", "sqlite://u:p/w@h@db"],
)
def test_a_storage_that_cannot_be_opened_is_one_line(tmp_path: Path, where: str) -> None:
    with pytest.raises(ConfigError) as caught:
        solve(tmp_path, storage=where)
    (line,) = caught.value.problems
    assert line.startswith(f"storage={where.replace('p/w@h', '***')}: ")
    assert "\n" not in line


def test_a_run_whose_trial_has_ended_reports_nothing(tmp_path: Path) -> None:
    study = optuna.create_study(storage=optuna_storage.open_storage(trials.journal(tmp_path)), study_name="optuna")
    trial = study.ask()
    study.tell(trial, state=TrialState.FAIL)
    callback = Pruning(trials.journal(tmp_path), "optuna", trial._trial_id, "median", {})
    fitting: Any = SimpleNamespace(state=SimpleNamespace(fn=TrainerFn.FITTING), global_step=1)
    callback.on_validation_end(fitting, SimpleNamespace(monitored={"accuracy": 0.5}))
    assert stored(trials.journal(tmp_path))[0].intermediate_values == {}


def test_a_trial_whose_run_was_read_back_is_pruned_like_the_one_that_made_it(tmp_path: Path) -> None:
    seen: list[Values] = []

    def score(values: Values) -> float:
        if not seen:  # later trials have the same values, and so the same run
            callback = dict(values["+callbacks.pruning"])
            callback.pop("_target_")
            Pruning(**callback).trial.set_user_attr(PRUNED, True)
        seen.append(values)
        return 0.5

    solve(tmp_path, score, budget=2, pruner="median", space={"norm": {"choices": ["batch"]}})
    assert [trial.state for trial in stored(trials.journal(tmp_path))] == [TrialState.PRUNED] * 2


PASSWORD = "s3cret"
SHARED = f"mysql://u:{PASSWORD}@nowhere/db"
# A database behind a password, and several commands of one process.
COMMANDS = """
import json, optuna, sys
url, file, commands = json.load(sys.stdin)

class Database(optuna.storages.RDBStorage):
    def __init__(self, where):
        if where != url:
            raise OSError("access denied")
        super().__init__(f"sqlite:///{file}")

optuna.storages.RDBStorage = Database
import onecycle.cli
for name, words in commands:
    sys.argv = ["onecycle", *words]
    getattr(onecycle.cli, name)()
"""


def commands(folder: Path, *given: tuple[str, list[str]], **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", COMMANDS], input=json.dumps([SHARED, str(folder / "trials.db"), given]), cwd=folder,
        env=os.environ | {"ONECYCLE_CACHE": str(folder / "cache"), "OMP_NUM_THREADS": "1"} | environment,
        capture_output=True, text=True, timeout=240,
    )  # fmt: skip


@pytest.mark.slow
def test_a_storages_password_is_nowhere_and_its_search_and_runs_go_on(tmp_path: Path) -> None:
    searching = [
        *SEARCH[:-1], "hydra.sweeper.budget=2", f"hydra.sweeper.storage={SHARED}", "hydra.sweeper.pruner=median",
        "data.source.train_size=320", "trainer.max_epochs=1", "callbacks.figures=null", "callbacks.progress=null",
    ]  # fmt: skip
    search = commands(tmp_path, ("train_command", searching))
    assert search.returncode == 0, search.stderr
    folder, records = tmp_path / "logs" / "sweeps" / "debug", results(tmp_path / "logs")
    assert [re.sub(r"[\d.e-]+,", ",", name)[:-9] for name in records] == ["peak_lr=,seed=0"] * 2
    assert (folder / "report" / "optuna_history.png").exists()
    interrupted = tmp_path / "one"
    shutil.copytree(folder / next(iter(records)), interrupted)
    shutil.rmtree(interrupted / "checkpoints")
    (interrupted / "result.json").write_text(json.dumps(next(iter(records.values())) | {"status": "running"}))
    resume = ("train_command", [f"resume={interrupted}"])
    evaluate = ("evaluate_command", [f"run={interrupted}"])
    again = [("train_command", words) for words in (searching, [word.replace(PASSWORD, "***") for word in searching])]
    after = commands(tmp_path, resume, evaluate, *again, ONECYCLE_STORAGE=SHARED)
    assert after.returncode == 0, after.stderr
    assert after.stdout.count("read back") == 4
    assert results(tmp_path / "logs") == records
    resumed = json.loads((interrupted / "result.json").read_text())
    assert (resumed["status"], resumed["test"]) == ("finished", next(iter(records.values()))["test"])
    shown = "".join(done.stdout + done.stderr for done in (search, after))
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert [path for path in files if PASSWORD in path.name or PASSWORD.encode() in path.read_bytes()] == []
    assert PASSWORD not in shown
    assert "mysql://u:***@nowhere/db" in (folder / "report" / "index.html").read_text()


def test_without_optuna_the_message_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(ConfigError, match=r"method=optuna: .*onecycle\[search\]"):
        trials.check_optuna(options())


def test_the_axes_come_from_hydras_own_words() -> None:
    config = OmegaConf.create()
    words = ["schedule.peak_lr=tag(log,interval(0.01,1))", "trainer.max_epochs=range(1,9)", "model.width=range(8,33,8)",
             "model.norm=batch,group", "data.subset_size=1000,null", "seed=3", "experiment=debug"]  # fmt: skip
    space, rest = space_of(words, config)
    assert space == {
        "schedule.peak_lr": {"low": 0.01, "high": 1.0, "log": True},
        "trainer.max_epochs": {"low": 1, "high": 8, "integer": True, "log": False},
        "model.width": {"low": 8, "high": 32, "integer": True, "log": False, "step": 8},
        "model.norm": {"choices": ["batch", "group"]},
        "data.subset_size": {"choices": [1000, None]},
    }
    assert rest == ["seed=3", "experiment=debug"]
    with pytest.raises(ConfigError, match="must have whole numbers"):
        space_of(["a=range(0.1,0.5,0.1)"], config)


@pytest.mark.slow
def test_from_the_shell_runs_are_pruned_read_back_and_drawn(tmp_path: Path) -> None:
    command = [
        *SEARCH, "hydra.sweeper.pruner=percentile", "+hydra.sweeper.pruner_options.percentile=50",
        "+hydra.sweeper.pruner_options.n_startup_trials=2", "evaluation.every_n_epochs=1", "trainer.max_epochs=3",
    ]  # fmt: skip
    first, again = (ended(start(tmp_path / "logs", *command)) for _ in range(2))
    assert first.returncode == again.returncode == 0, first.stdout + again.stdout
    folder = tmp_path / "logs" / "sweeps" / "debug"
    states = [trial.state for trial in stored(trials.journal(folder))]
    statuses = [record["status"] for record in results(tmp_path / "logs").values()]
    assert len(states) == len(statuses) == 6
    assert statuses.count("pruned") == states.count(TrialState.PRUNED) > 0
    assert again.stdout.count("read back") == 6
    assert (folder / "report" / "optuna_history.png").exists()


@pytest.mark.slow
def test_three_processes_share_one_storage_and_lose_nothing(tmp_path: Path) -> None:
    folder, storage = tmp_path / "logs", f"sqlite:///{tmp_path / 'trials.db'}"
    started = [start(folder, *SEARCH, f"hydra.sweeper.storage={storage}") for _ in range(3)]
    outputs = [ended(process) for process in started]
    assert [output.returncode for output in outputs] == [0, 0, 0], "".join(output.stdout for output in outputs)
    done = [trial for trial in stored(storage) if trial.state == TrialState.COMPLETE]
    assert len(done) == len(results(folder)) == 6
    assert len({trial.user_attrs[trials.OWNER] for trial in done}) > 1  # several of them worked
    assert len({trial.params["schedule.peak_lr"] for trial in done}) == 6
