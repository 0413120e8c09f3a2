import math
import os
import random
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.trial import TrialState

from onecycle.callbacks import optuna_storage
from onecycle.errors import ConfigError
from onecycle.studies.search import axes as search_axes
from onecycle.studies.search import coordinate as search
from onecycle.studies.search import trials
from onecycle.studies.search.coordinate import Values
from studying import ended, finished, killed, results, start, unchanged

SPACE = {"lr": {"low": 0.01, "high": 1.0, "log": True}}


def block(**changes: Any) -> dict[str, Any]:
    return {"arm": "optuna", "method": "optuna", "budget": 12, "space": SPACE, **changes}


def bowl(values: Values) -> float:
    return -abs(math.log10(values["lr"] / 0.1))


def solve(folder: Path, score: Callable[[Values], float | None] = bowl, **changes: Any) -> search.Path:
    folder.mkdir(exist_ok=True)
    walk = trials.search(block(**changes), 1, folder)
    return search.follow(walk, lambda points: [score(point) for point in points])


def stored(folder: Path) -> list[optuna.trial.FrozenTrial]:
    return optuna.load_study(
        study_name="optuna", storage=optuna_storage.open_storage(f"journal:{folder / trials.JOURNAL}")
    ).trials


def test_tpe_comes_near_the_optimum_of_a_known_function(tmp_path: Path) -> None:
    path = solve(tmp_path, budget=40)
    assert (len(path.steps), path.end) == (40, search.SPENT)
    assert path.best.values["lr"] == pytest.approx(0.1, rel=0.15)
    assert path.best.score == max(step.score for step in path.steps)
    later = [bowl(step.values) for step in path.steps[20:]]
    assert sum(later) / 20 > sum(bowl(step.values) for step in path.steps[:10]) / 10


def test_equal_seeds_draw_alike(tmp_path: Path) -> None:
    paths = [solve(tmp_path / name, seed=seed) for name, seed in (("a", 1), ("b", 1), ("c", 2))]
    first, same, other = ([step.values for step in path.steps] for path in paths)
    assert first == same
    assert first != other


def test_a_search_that_was_interrupted_goes_on_with_the_point_that_was_running(tmp_path: Path) -> None:
    seen: list[Values] = []

    def killed(values: Values) -> float:
        seen.append(values)
        if len(seen) == 5:
            raise KeyboardInterrupt
        return bowl(values)

    with pytest.raises(KeyboardInterrupt):
        solve(tmp_path, killed)
    assert [trial.state for trial in stored(tmp_path)] == [TrialState.COMPLETE] * 4 + [TrialState.RUNNING]
    again: list[Values] = []

    def noted(values: Values) -> float:
        again.append(values)
        return bowl(values)

    path = solve(tmp_path, noted)
    assert again[:5] == seen  # four are read back, the fifth is run after all
    assert len({point["lr"] for point in again}) == len(again) == len(path.steps) == 12  # and none is drawn twice
    assert [trial.state for trial in stored(tmp_path)] == [TrialState.COMPLETE] * 12


def test_diverged_and_failed_runs_are_told_as_failed_and_the_search_goes_on(tmp_path: Path) -> None:
    answers: list[float | None] = [math.nan, None, 0.5, 0.7]
    queue = iter(answers)
    path = solve(tmp_path, lambda values: next(queue), budget=4)
    found = stored(tmp_path)
    assert [trial.state.name for trial in found] == ["FAIL", "FAIL", "COMPLETE", "COMPLETE"]
    assert [trial.user_attrs.get("outcome") for trial in found] == ["diverged", "failed", None, None]
    assert [step.score for step in path.steps] == [-math.inf, -math.inf, 0.5, 0.7]
    assert path.best.number == 3


def test_two_searches_on_one_storage_share_the_budget(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trials, "_is_gone", lambda owner: False)  # as of two processes
    storage = f"sqlite:///{tmp_path / 'trials.db'}"
    first = trials.search(block(storage=storage, budget=6), 1, tmp_path)
    second = trials.search(block(storage=storage, budget=6), 1, tmp_path)
    asked = [next(first)[0], next(second)[0]]
    scores: dict[Any, Any] = {first: bowl(asked[0]), second: bowl(asked[1])}
    ended = 0
    while ended < 2:
        for walk in list(scores):
            try:
                (point,) = walk.send([scores[walk]])
            except StopIteration:
                ended += 1
                del scores[walk]
                continue
            asked.append(point)
            scores[walk] = bowl(point)
    study = optuna.load_study(study_name="optuna", storage=storage)
    assert len([trial for trial in study.trials if trial.state == TrialState.COMPLETE]) == 6
    assert {round(trial.params["lr"], 6) for trial in study.trials} <= {round(point["lr"], 6) for point in asked}


def test_a_pruner_gives_each_run_the_trial_to_report_to(tmp_path: Path) -> None:
    (point,) = next(trials.search(block(pruner="median", pruner_options={"n_startup_trials": 1}), 1, tmp_path))
    callback = point["+callbacks.pruning"]
    assert callback["_target_"] == "onecycle.callbacks.pruning.Pruning"
    first = optuna_storage.running_trial(
        callback["storage"], "optuna", callback["trial"], "median", {"n_startup_trials": 1}
    )
    first.report(0.9, 1)
    assert not first.should_prune()
    study = optuna.load_study(study_name="optuna", storage=optuna_storage.open_storage(callback["storage"]))
    study.tell(0, 0.9)
    worse = study.ask()
    options = {"n_startup_trials": 1}
    second = optuna_storage.running_trial(callback["storage"], "optuna", worse._trial_id, "median", options)
    second.report(0.1, 1)
    assert second.should_prune()


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"space": {}}, "space: is empty; name at least one key, such as schedule.peak_lr"),
        ({"space": {"lr": {"low": 1.0, "high": 0.1}}}, "lr: "),
        ({"space": {"lr": {"low": 0.0, "high": 0.1, "log": True}}}, "lr: "),
        ({"space": {"lr": {"low": 0.1}}}, "lr: "),
        ({"space": {"lr": {"lo": 0.1}}}, "lr.lo: is unknown; there are low, high, log, step, integer, complement"),
        ({"sampler": "magic"}, "sampler=magic: unknown; there are tpe, random, "),
        ({"sampler_options": {"magic": 1}}, "sampler=tpe: "),
        ({"pruner": "magic"}, "pruner=magic: unknown; there are none, median, "),
    ],
)
def test_a_mistake_is_one_line(changes: dict[str, Any], line: str) -> None:
    with pytest.raises(ConfigError) as caught:
        trials.search(block(**changes), 1, None)
    assert len(caught.value.problems) == 1
    assert caught.value.problems[0].startswith(line)


@pytest.mark.parametrize(
    "where", ["sqlite:////nowhere/at/all.db", "journal:/nowhere/at/all.journal", "magic", "oracle://"]
)
def test_a_storage_that_cannot_be_opened_is_one_line(tmp_path: Path, where: str) -> None:
    with pytest.raises(ConfigError) as caught:
        trials.search(block(storage=where), 1, tmp_path)
    (line,) = caught.value.problems
    assert line.startswith(f"storage={where}: ")
    assert "\n" not in line


def test_without_optuna_the_message_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(ConfigError) as caught:
        trials.search(block(), 1, None)
    assert str(caught.value) == "method=optuna: Optuna is not installed; python -m pip install 'onecycle[search]'"


def test_the_axes_come_from_hydras_own_words() -> None:
    words = ["schedule.peak_lr=tag(log,interval(0.01,1))", "trainer.max_epochs=range(1,9)", "model.width=range(8,33,8)",
             "model.norm=batch,group", "data.subset_size=1000,null", "seed=3", "experiment=debug"]  # fmt: skip
    space, rest = search_axes.space_of(words)
    assert space == {
        "schedule.peak_lr": {"low": 0.01, "high": 1.0, "log": True},
        "trainer.max_epochs": {"low": 1, "high": 8, "integer": True, "log": False},
        "model.width": {"low": 8, "high": 32, "integer": True, "log": False, "step": 8},
        "model.norm": {"choices": ["batch", "group"]},
        "data.subset_size": {"choices": [1000, None]},
    }
    assert rest == ["seed=3", "experiment=debug"]
    with pytest.raises(ConfigError, match="must have whole numbers"):
        search_axes.space_of(["a=range(0.1,0.5,0.1)"])


@pytest.mark.slow
def test_from_the_shell_runs_are_pruned_read_back_and_drawn(tmp_path: Path) -> None:
    command = [
        sys.executable, "-m", "onecycle.train", "-m", "hydra/sweeper=tpe", "experiment=debug", "data.val_size=50",
        "schedule.peak_lr=tag(log,interval(0.01,1))", "hydra.sweeper.budget=6", "hydra.sweeper.pruner=percentile",
        "+hydra.sweeper.pruner_options.percentile=50", "+hydra.sweeper.pruner_options.n_startup_trials=2",
        "evaluation.every_n_epochs=1", "trainer.max_epochs=3", f"output={tmp_path / 'logs'}",
    ]  # fmt: skip
    environment = os.environ | {"OMP_NUM_THREADS": "1", "ONECYCLE_CACHE": str(tmp_path / "cache")}
    first, again = (
        subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=240)
        for _ in range(2)
    )
    assert first.returncode == again.returncode == 0, first.stdout + first.stderr + again.stdout + again.stderr
    folder = tmp_path / "logs" / "sweeps" / "debug"
    states = [trial.state for trial in stored(folder)]
    records = [path.read_text() for path in folder.glob("*/result.json")]
    assert len(states) == len(records) == 6
    assert TrialState.PRUNED in states
    assert sum('"status": "pruned"' in record for record in records) == states.count(TrialState.PRUNED)
    assert again.stdout.count("read back") == 6
    assert (folder / "report" / "optuna_history.png").exists()


@pytest.mark.slow
def test_killed_while_it_trains_it_goes_on_from_its_database(tmp_path: Path) -> None:
    folder, chance = tmp_path / "logs", random.Random(2)
    command = [
        "-m", "hydra/sweeper=tpe", "experiment=debug", "data.val_size=50", "hydra.sweeper.budget=6",
        "schedule.peak_lr=tag(log,interval(0.01,1))", f"hydra.sweeper.storage=sqlite:///{tmp_path / 'trials.db'}",
    ]  # fmt: skip
    before: dict[Path, tuple[bytes, int]] = {}
    for count in (0, 2, 4):
        done = killed(start(folder, *command), folder, count, chance.uniform(0, 0.8))
        assert unchanged(before, done)
        assert count <= len(done) < 6
        before = done
    last = ended(start(folder, *command))
    assert last.returncode == 0, last.stdout
    assert unchanged(before, finished(folder))
    assert len(finished(folder)) == len(results(folder)) == 6
    study = optuna.load_study(study_name="optuna", storage=f"sqlite:///{tmp_path / 'trials.db'}")
    assert [trial.state for trial in study.trials] == [TrialState.COMPLETE] * 6
    scores = sorted(record["val"]["accuracy"] for record in results(folder).values())
    assert sorted(trial.value for trial in study.trials if trial.value is not None) == pytest.approx(scores)


@pytest.mark.slow
def test_two_processes_share_one_storage(tmp_path: Path) -> None:
    command = [
        sys.executable, "-m", "onecycle.train", "-m", "hydra/sweeper=tpe", "experiment=debug", "data.val_size=50",
        "schedule.peak_lr=tag(log,interval(0.01,1))", "hydra.sweeper.budget=6",
        f"hydra.sweeper.storage=sqlite:///{tmp_path / 'trials.db'}", f"output={tmp_path / 'logs'}",
    ]  # fmt: skip
    environment = os.environ | {"OMP_NUM_THREADS": "1", "ONECYCLE_CACHE": str(tmp_path / "cache")}
    pipes: Any = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    both = [subprocess.Popen(command, env=environment, cwd=tmp_path, **pipes) for _ in range(2)]
    outputs = [process.communicate(timeout=240)[0] for process in both]
    assert [process.returncode for process in both] == [0, 0], "".join(outputs)
    study = optuna.load_study(study_name="optuna", storage=f"sqlite:///{tmp_path / 'trials.db'}")
    done = [trial for trial in study.trials if trial.state == TrialState.COMPLETE]
    folder = tmp_path / "logs" / "sweeps" / "debug"
    assert len(done) == len(list(folder.glob("*/result.json"))) == 6
    assert len({trial.user_attrs[trials.OWNER] for trial in done}) == 2  # both of them worked
    assert len({trial.params["schedule.peak_lr"] for trial in done}) == 6


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["hydra.sweeper.sampler=magic"], "hydra.sweeper.sampler=magic: unknown; there are tpe, random, "),
        (["hydra.sweeper.budget=0"], "hydra.sweeper.budget=0: must be a whole number of points, at least 1"),
        (["schedule.peak_lr=interval(1,0.1)"], "hydra.sweeper.schedule.peak_lr: "),
        (["schedule.peak_lr=interval(-1,1)"], "schedule.peak_lr=-1.0: must be a finite number above 0"),
        (["batch_size=choice(64,0)"], "batch_size=0: must be"),
    ],
)
def test_a_mistake_on_the_command_line_is_one_line_and_leaves_nothing(
    tmp_path: Path, words: list[str], line: str
) -> None:
    command = [
        sys.executable, "-m", "onecycle.train", "-m", "hydra/sweeper=tpe", "experiment=debug", "data.val_size=50",
        "schedule.peak_lr=tag(log,interval(0.01,1))", f"output={tmp_path / 'logs'}", *words,
    ]  # fmt: skip
    refused = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert refused.returncode == 2, refused.stdout + refused.stderr
    (shown,) = refused.stderr.splitlines()
    assert shown.startswith(line)
    assert not (tmp_path / "logs").exists()
