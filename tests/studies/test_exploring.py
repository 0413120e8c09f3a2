import json
import os
import random
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from onecycle import run
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
    plan = json.loads((folder / "studies" / "tuning_path" / "study.json").read_text())
    runs: list[dict[str, Any]] = plan["runs"]
    return runs


def test_a_search_selects_on_held_out_images_and_reads_back_what_it_did(searched: Path) -> None:
    runs = planned(searched)
    assert [(run["values"]["arm"], run["values"].get("number")) for run in runs] == SEARCHED
    assert runs[2]["values"]["effective_decay"] == 4e-05  # the first step doubles λα/(1−ρ)
    assert (searched.parent / "again").read_text().count("read back") == len(SEARCHED) == len(results(searched))
    for record in results(searched).values():
        assert record["data"]["val_size"] == 100
        assert 0 <= record["val"]["accuracy"] <= 1
    doubled = [
        record["val"]["accuracy"]
        for record in results(searched).values()
        if {"hyperparameters.effective_decay=4e-05", "hyperparameters.momentum=0.5", "seed=0"}
        <= set(record["overrides"])
    ]
    spoken = (searched.parent / "first").read_text().splitlines()
    (line,) = (line for line in spoken if line.startswith(f"{FLAT}, point 2 of at most 4"))
    assert line.endswith(f"{100 * doubled[0]:.2f} %")


def test_the_best_of_every_arm_is_trained_again_with_other_seeds(searched: Path) -> None:
    records = {frozenset(run.settings(record["overrides"])): record for record in results(searched).values()}
    runs = planned(searched)
    for arm in ("TPE", RAW, FLAT):
        scores = [
            (records[frozenset(run.settings(entry["overrides"]))]["val"]["accuracy"], entry["values"])
            for entry in runs
            if entry["values"]["arm"] == arm
        ]
        best = max(scores, key=lambda score: score[0])[1]
        (again,) = (entry for entry in runs if entry["values"]["arm"] == f"best of {arm}")
        assert again["values"]["peak_lr" if "peak_lr" in best else "effective_decay"] == best.get(
            "peak_lr", best.get("effective_decay")
        )
        assert again["values"]["seed"] == 2
        assert "seed=2" in again["overrides"]


def test_a_search_killed_at_any_moment_takes_the_same_way(searched: Path, tmp_path: Path) -> None:
    folder, chance = tmp_path / "logs", random.Random(1)
    before: dict[Path, tuple[bytes, int]] = {}
    amid = 0
    for count in sorted(chance.sample(range(len(SEARCHED)), 2)):
        done = killed(start(folder, *SEARCH), folder, count, chance.uniform(0, 0.8))
        assert unchanged(before, done)
        before = done
        amid += 0 < len(done) < len(SEARCHED)
    assert amid
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


def test_a_search_without_held_out_images_is_refused(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "onecycle.train", *SEARCH, "data.val_size=0", f"output={tmp_path / 'logs'}"]
    refused = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert refused.returncode == 2
    assert refused.stderr.splitlines()[0].startswith("data.val_size=0: a search selects on held-out images")


@pytest.mark.slow
def test_a_coordinate_search_from_the_shell_leaves_its_best_as_an_experiment(tmp_path: Path) -> None:
    searching = [
        "-m", "hydra/sweeper=coordinate", "hyperparameters=effective", "hydra.sweeper.budget=3", "experiment=debug",
        "data.val_size=50", "model.norm=group", "model.norm_groups=2", "schedule=one_cycle_cosine",
        f"output={tmp_path / 'logs'}",
    ]  # fmt: skip
    environment = os.environ | {"OMP_NUM_THREADS": "1", "ONECYCLE_CACHE": str(tmp_path / "cache")}
    program = [sys.executable, "-m", "onecycle.train"]
    done = subprocess.run(
        [*program, *searching], env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=240
    )
    assert done.returncode == 0, done.stdout + done.stderr
    folder = tmp_path / "logs" / "sweeps" / "debug"
    plan = json.loads((folder / "study.json").read_text())
    # The first coordinate starts where the configuration stands, and is doubled.
    assert [run["values"]["effective_decay"] for run in plan["runs"]][:2] == [0.002, 0.004]
    assert (folder / "report" / "index.html").exists()
    (best,) = folder.glob("best_*.yaml")
    records = [json.loads(path.read_text()) for path in folder.glob("*/result.json")]
    top = max(record["val"]["accuracy"] for record in records)
    chosen = next(r for r in sorted(records, key=lambda r: r["started"]) if r["val"]["accuracy"] == top)
    assert f"{100 * top:.2f} % on held-out images" in best.read_text().splitlines()[1]
    (tmp_path / "own" / "experiment").mkdir(parents=True)
    shutil.copy(best, tmp_path / "own" / "experiment" / "best.yaml")
    again = ["experiment=best", f"hydra.searchpath=[file://{tmp_path / 'own'}]", f"output={tmp_path / 'again'}"]
    rerun = subprocess.run(
        [*program, *again], env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=240
    )
    assert rerun.returncode == 0, rerun.stdout + rerun.stderr
    (record,) = (json.loads(path.read_text()) for path in tmp_path.glob("again/runs/*/result.json"))
    assert record["identity"] == chosen["identity"]
    assert record["test"] == chosen["test"]


@pytest.mark.parametrize(
    ("coordinates", "line"),
    [
        ("[{start:0.1}]", "hydra.sweeper.coordinates: {'start': 0.1} has no key, the name of a configuration value"),
        ("[7]", "hydra.sweeper.coordinates: 7 has no key, the name of a configuration value"),
        (
            "[{key:schedule.peak_rl}]",
            "hydra.sweeper.coordinates: there is no key schedule.peak_rl in schedule; did you mean peak_lr?",
        ),
        (
            "[{key:schedule.peak_rl,start:0.1}]",
            "hydra.sweeper.coordinates: there is no key schedule.peak_rl in schedule; did you mean peak_lr?",
        ),
        (
            "[{key:hyperparameters.effective_decay}]",
            "hydra.sweeper.coordinates: there is no key hyperparameters.effective_decay in hyperparameters; "
            "set hyperparameters=effective",
        ),
        (
            "[{key:hyperparameters.momentum,start:1.5}]",
            "hydra.sweeper.coordinates: hyperparameters.momentum=1.5: must be a number in [0, 1)",
        ),
        ("[{key:schedule.peak_lr,factor:-2}]", "hydra.sweeper.coordinates.schedule.peak_lr.factor=-2: must be above 1"),
        ("[]", "coordinates: is empty; name at least one key, such as hyperparameters.effective_decay"),
    ],
)
def test_bad_coordinates_are_one_line_each(tmp_path: Path, coordinates: str, line: str) -> None:
    command = [sys.executable, "-m", "onecycle.train", "-m", "hydra/sweeper=coordinate", "data.val_size=50",
               f"hydra.sweeper.coordinates={coordinates}", f"output={tmp_path / 'logs'}"]  # fmt: skip
    refused = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert refused.returncode == 2
    assert refused.stderr.splitlines()[0].endswith(line)
    assert not (tmp_path / "logs").exists()
