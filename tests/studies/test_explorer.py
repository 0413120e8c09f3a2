import json
import math
import random
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hydra.core.utils import JobReturn, JobStatus
from omegaconf import OmegaConf

from onecycle.errors import ConfigError
from onecycle.runs.identity import settings
from onecycle.studies import plan, report
from onecycle.studies import rows as table
from onecycle.studies.figures.columns import label_of
from onecycle.studies.launching import RunCounter
from onecycle.studies.search import explorer as exploring
from onecycle.studies.search.coordinate import read_decisions
from onecycle.studies.search.options import coordinates_of
from onecycle.studies.study import of_search
from studying import comparable, ended, finished, killed, results, start, unchanged

SEARCH = [
    "study=tuning_path", "study.scale=tiny", "seed=0", "schedule.peak_lr=0.016",
]  # fmt: skip
FLAT, RAW = "along λα/(1−ρ), ρ, α", "along λ, ρ, α"
SEARCHED = [
    ("grid", None), *((FLAT, n) for n in range(4)), *((RAW, n) for n in range(3)), ("TPE", 0), ("TPE", 1),
    ("best of grid", None), (f"best of {FLAT}", None), (f"best of {RAW}", None), ("best of TPE", None),
]  # fmt: skip


@pytest.fixture(scope="module")
def searched(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A search that ran through at once, and once again."""
    folder = tmp_path_factory.mktemp("search") / "logs"
    for name in ("first", "again"):
        done = ended(start(folder, *SEARCH))
        assert done.returncode == 0, done.stdout
        (folder.parent / name).write_text(done.stdout)
    return folder


def planned(folder: Path) -> list[dict[str, Any]]:
    runs: list[dict[str, Any]] = json.loads((folder / "studies/tuning_path/study.json").read_text())["runs"]
    return runs


def test_a_search_selects_on_held_out_images_keeps_what_it_decided_and_is_read_back(searched: Path) -> None:
    runs, folder = planned(searched), searched / "studies" / "tuning_path"
    assert [(run["values"]["arm"], run["values"].get("number")) for run in runs] == SEARCHED
    assert runs[2]["values"]["effective_decay"] == 4e-05  # the first step doubles λα/(1−ρ)
    assert (searched.parent / "again").read_text().count("read back") == len(SEARCHED) == len(results(searched))
    records = {settings(record["overrides"]): record for record in results(searched).values()}
    assert {record["data"]["val_size"] for record in records.values()} == {100}
    doubled = records[settings(runs[2]["overrides"])]["val"]["accuracy"]
    shown = (searched.parent / "first").read_text().splitlines()
    (line,) = (line for line in shown if line.startswith(f"{FLAT}, start 0, point 2 of at most 4"))
    assert line.endswith(f"{100 * doubled:.2f} %")
    # The progress is that of the whole: grid, budgets and what is trained again.
    progress = [line.split(" ")[0] for line in shown if line.startswith("[")]
    assert progress == [f"[{number}/{len(SEARCHED)}]" for number in range(1, len(SEARCHED) + 1)]
    decided = read_decisions(folder)
    assert list(decided) == [(arm, 0, number) for arm, number in SEARCHED if number is not None]
    assert decided[FLAT, 0, 0] == {"coordinate": "", "decision": "start"}
    assert {decided[FLAT, 0, number]["decision"] for number in range(1, 4)} <= {"better", "worse"}
    assert decided[FLAT, 0, 1]["coordinate"] == "effective_decay"
    header, body = report.summary_table(plan.read_plan(folder), table.read(folder))
    assert {"coordinate", "decision", label_of("val_accuracy"), label_of("test_accuracy")} <= set(header)
    assert len(body) == len(SEARCHED)


@pytest.mark.parametrize(
    ("first", "decisions"),
    [
        (0.2, [("0.4", "start"), ("0.5", "better"), ("0.4", "worse")]),  # the first seed alone would stay at 1
        (math.nan, [("", "start"), ("0.5", "better"), ("0.4", "worse")]),
        (None, []),
    ],
)
def test_the_mean_over_the_seeds_leads_the_way_unless_one_of_them_failed_or_diverged(
    first: float | None, decisions: list[tuple[str, str]], tmp_path: Path
) -> None:
    accuracies = {(1.0, 0): 0.6, (1.0, 1): first, (2.0, 0): 0.5, (2.0, 1): 0.5, (4.0, 0): 0.4, (4.0, 1): 0.4}
    block: dict[str, Any] = {
        "arm": "a", "method": "coordinate", "budget": 3, "coordinates": {"schedule.peak_lr": {"start": 1.0}},
    }  # fmt: skip
    noted = plan.Plan(of_search("one", [0, 1], block), [], "")

    def launch(points: Sequence[plan.Point]) -> list[JobReturn]:
        made = []
        for point in points:
            accuracy = accuracies[point.values["peak_lr"], point.values["seed"]]
            made.append(JobReturn(status=JobStatus.FAILED if accuracy is None else JobStatus.COMPLETED))
            made[-1].return_value = ValueError() if accuracy is None else accuracy
        return made

    explorer = exploring.Explorer(noted, plan.Changes(), tmp_path, launch, RunCounter(6), alone=True)
    explorer.explore(block)
    assert [(entry["mean_score"], entry["decision"]) for entry in explorer.decided.lines] == decisions


def test_the_best_of_every_arm_is_trained_again_with_other_seeds(searched: Path) -> None:
    records = {settings(record["overrides"]): record for record in results(searched).values()}
    for arm in ("TPE", RAW, FLAT):
        own = [entry for entry in planned(searched) if entry["values"]["arm"] == arm]
        best = max(own, key=lambda entry: records[settings(entry["overrides"])]["val"]["accuracy"])["values"]
        (again,) = (entry for entry in planned(searched) if entry["values"]["arm"] == f"best of {arm}")
        key = "peak_lr" if "peak_lr" in best else "effective_decay"
        assert (again["values"][key], again["values"]["seed"]) == (best[key], 2)
        assert "seed=2" in again["overrides"]


@pytest.mark.slow
def test_a_search_killed_at_any_moment_takes_the_same_way(searched: Path, tmp_path: Path) -> None:
    folder, chance = tmp_path / "logs", random.Random(1)
    before: dict[Path, tuple[bytes, int]] = {}
    for count in sorted(chance.sample(range(len(SEARCHED)), 2)):
        done = killed(start(folder, *SEARCH), folder, count, chance.uniform(0, 0.8))
        assert unchanged(before, done)
        before = done
    last = ended(start(folder, *SEARCH))
    assert last.returncode == 0, last.stdout
    assert unchanged(before, finished(folder))
    drawn = ("TPE", "best of TPE")  # a sampler that goes on draws anew
    ours, theirs = (
        [(run["values"], run["label"]) for run in planned(logs) if run["values"]["arm"] not in drawn]
        for logs in (folder, searched)
    )
    assert ours == theirs
    assert [(run["values"]["arm"], run["values"].get("number")) for run in planned(folder)] == SEARCHED
    mine, undisturbed = results(folder), results(searched)
    assert len(mine) == len(SEARCHED)  # no run that is not in the plan
    same = [name for name in undisturbed if "TPE" not in name]
    assert len(same) == len(SEARCHED) - 3
    assert {name: comparable(mine[name]) for name in same} == {name: comparable(undisturbed[name]) for name in same}


def test_every_search_is_made_from_each_start_with_its_own_seed_and_the_best_of_each_is_confirmed_once(
    tmp_path: Path,
) -> None:
    coordinate_block: dict[str, Any] = {
        "arm": "a", "method": "coordinate", "budget": 2, "coordinates": {"schedule.peak_lr": {"start": 7.0}},
    }  # fmt: skip
    draws: dict[str, Any] = {
        "arm": "o", "method": "optuna", "budget": 1, "space": {"schedule.peak_lr": {"low": 1.0, "high": 9.0}},
    }  # fmt: skip
    study = of_search("one", [0, 1], coordinate_block) | {
        "starts": [{"schedule.peak_lr": 1.0}, {"schedule.peak_lr": 3.0}], "confirm": [5, 6],
    }  # fmt: skip
    noted = plan.Plan(study, [], "")

    def launch(points: Sequence[plan.Point]) -> list[JobReturn]:
        made = [JobReturn(status=JobStatus.COMPLETED) for _ in points]
        for result, point in zip(made, points, strict=True):
            result.return_value = 1 / point.values["peak_lr"]  # the start is better than its double
        return made

    explorer = exploring.Explorer(noted, plan.Changes(), tmp_path, launch, RunCounter(6), alone=True)
    results = [*explorer.explore(coordinate_block), *explorer.explore(draws)]
    explorer.confirm(results)
    columns = ("arm", "start", "seed", "number", "peak_lr")
    assert [tuple(map(point.values.get, columns)) for point in noted.points] == [
        ("a", 0, 0, 0, 1.0), ("a", 0, 0, 1, 2.0), ("a", 1, 1, 0, 3.0), ("a", 1, 1, 1, 6.0),
        ("o", 0, 0, 0, 1.0), ("o", 1, 1, 0, 3.0),
        ("best of a", 0, 5, None, 1.0), ("best of a", 1, 6, None, 3.0),
        ("best of o", 0, 5, None, 1.0), ("best of o", 1, 6, None, 3.0),
    ]  # fmt: skip
    decided = read_decisions(tmp_path)
    assert [decided["a", start, 1]["decision"] for start in (0, 1)] == ["worse", "worse"]


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        ({"start": 0.1}, "has no key"),
        (7, "7 has no key"),
        ({"key": "schedule.peak_rl", "start": 0.1}, "schedule.peak_rl; did you mean peak_lr"),
        ({"key": "hyperparameters.effective_decay"}, "set hyperparameters=effective"),
    ],
)
def test_a_coordinate_names_a_key_of_the_configuration(entry: Any, words: str) -> None:
    config = OmegaConf.create({"schedule": {"peak_lr": 0.1}, "hyperparameters": {"momentum": 0.9}})
    with pytest.raises(ConfigError) as caught:
        coordinates_of([entry, {"key": "schedule.peak_lr"}], config)
    (line,) = caught.value.problems
    assert line.startswith("hydra.sweeper.coordinates: ")
    assert words in line


@pytest.mark.slow
def test_a_search_on_a_pool_tries_both_neighbours_at_once_and_leaves_its_best_as_an_experiment(tmp_path: Path) -> None:
    searching = [
        "-m", "hydra/sweeper=coordinate", "hydra/launcher=local_pool", "hydra.launcher.n_jobs=2", "experiment=debug",
        "hyperparameters=effective", "hydra.sweeper.budget=3", "data.val_size=50", "data.source.train_size=320",
        "trainer.max_epochs=1", "model.norm=group", "model.norm_groups=2", "schedule=one_cycle_cosine",
    ]  # fmt: skip
    done = ended(start(tmp_path / "logs", *searching))
    assert done.returncode == 0, done.stdout
    assert [f"[{number}/3]" in done.stdout for number in (1, 2, 3)] == [True] * 3
    folder = tmp_path / "logs" / "sweeps" / "debug"
    # The first coordinate starts where the configuration stands, and is doubled and halved.
    planned_runs = json.loads((folder / "study.json").read_text())["runs"]
    assert [entry["values"]["effective_decay"] for entry in planned_runs] == [0.002, 0.004, 0.001]
    assert set(read_decisions(folder)) == {("coordinate search", None, number) for number in range(3)}
    assert "Scale: None" not in (folder / "report" / "index.html").read_text()
    (best,) = folder.glob("best_*.yaml")
    records = {settings(record["overrides"]): record for record in results(tmp_path / "logs").values()}
    tried = [records[settings(entry["overrides"])] for entry in planned_runs]
    chosen = max(tried, key=lambda record: record["val"]["accuracy"])  # the first of equals
    assert f"{100 * chosen['val']['accuracy']:.2f} % on held-out images" in best.read_text().splitlines()[1]
    (tmp_path / "own" / "experiment").mkdir(parents=True)
    shutil.copy(best, tmp_path / "own" / "experiment" / "best.yaml")
    rerun = ended(start(tmp_path / "again", "experiment=best", f"hydra.searchpath=[file://{tmp_path / 'own'}]"))
    assert rerun.returncode == 0, rerun.stdout
    (record,) = (json.loads(path.read_text()) for path in tmp_path.glob("again/runs/*/result.json"))
    assert (record["identity"], record["test"]) == (chosen["identity"], chosen["test"])
