import json
import logging
import os
import time
from pathlib import Path
from typing import Any

import pytest
from hydra.core.utils import JobReturn, JobStatus
from onecycle.studies.progress import Progress, expected

from onecycle.studies.launching import launch
from onecycle.studies.plan import Changes, Point

POINTS = [Point(f"seed={seed}", {"seed": seed}, ("study.label=x", f"seed={seed}")) for seed in range(4)]


def record(folder: Path, point: Point, status: str = "finished") -> None:
    """Write a record as a run in another process does."""
    entries: dict[str, Any] = {
        "schema": 1, "status": status, "identity": "x", "name": "x", "overrides": list(point.overrides),
        "test": {"accuracy": 0.25}, "train": None, "val": None, "hyperparameters": {
            "peak_lr": 0.1, "momentum": 0.9, "batch_size": 8},
        "data": {"name": "x", "train_size": 8}, "seconds": {"total": 1.0}, "epochs": 1.0, "steps": 1, "parameters": 1,
        "images_per_second": 1.0, "device": "cpu", "precision": "32-true", "environment": {"threads": 1},
    }  # fmt: skip
    place = folder / point.label
    place.mkdir(exist_ok=True)
    (place / ".part").write_text(json.dumps(entries))
    (place / ".part").replace(place / "result.json")


def test_the_time_left_is_that_of_the_runs_so_far_times_those_to_come() -> None:
    progress = Progress(10)
    assert (str(progress), progress.left) == ("[0/10]", "")
    progress.add(None)  # read back: it says nothing of the time that a run takes
    assert (str(progress), progress.left) == ("[1/10]", "")
    progress.add(60.0)
    progress.add(120.0)
    assert (str(progress), progress.left) == ("[3/10]", "; about 10 min left")  # 7 runs of 90 seconds
    progress.total = 4
    assert progress.left == "; about 2 min left"
    progress.add(0.0)
    assert progress.left == ""


@pytest.mark.parametrize(
    ("study", "changed", "runs"),
    [
        ({"seeds": [0, 1]}, Changes(), 4),
        ({"seeds": [0, 1], "searches": [{"arm": "a", "budget": 30}, {"arm": "b", "budget": 5}]}, Changes(), 4 + 70),
        ({"seeds": [0, 1], "searches": [{"arm": "a", "budget": 30}]}, Changes({"seed": [0, 1, 2]}), 4 + 90),
        ({"seeds": [0], "searches": [{"arm": "a", "budget": 3}], "confirm": [1, 2]}, Changes(), 4 + 3 + 2 * 2),
    ],
)
def test_budgets_times_seeds_and_the_best_of_every_arm_count_beforehand(
    study: dict[str, Any], changed: Changes, runs: int
) -> None:
    assert expected(study, POINTS, changed) == runs


class AtOnce:
    """A parallel launcher whose runs are made elsewhere: it returns when their records are there."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def launch(self, job_overrides: list[list[str]], initial_job_idx: int) -> list[JobReturn]:
        done = []
        for point in POINTS:
            if point.label != "seed=0":
                time.sleep(0.05)
                record(self.folder, point, "failed" if point.label == "seed=2" else "finished")
            job = JobReturn(overrides=list(point.overrides), status=JobStatus.COMPLETED)
            job.return_value = 0.25
            done.append(job)
        return done


def test_under_a_parallel_launcher_the_records_are_counted_while_they_come(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level(logging.INFO)
    monkeypatch.setattr("onecycle.studies.progress.EVERY_SECONDS", 0.01)
    record(tmp_path, POINTS[0])  # of an earlier start
    record(tmp_path, POINTS[2], "failed")
    os.utime(tmp_path / POINTS[2].label / "result.json", (1, 1))
    progress = Progress(6)
    checked: list[Point] = []
    launcher: Any = AtOnce(tmp_path)
    done = launch(launcher, POINTS, tmp_path, alone=False, progress=progress, check=checked.append)
    assert (len(done), progress.done, checked) == (4, 4, POINTS)
    assert [line.partition(";")[0] for line in caplog.messages] == [
        "[1/6] seed=0: read back", "[2/6] seed=1: 25.00%", "[3/6] seed=2: failed", "[4/6] seed=3: 25.00%",
    ]  # fmt: skip
    assert [line.partition(";")[2] for line in caplog.messages[1:]] == [" about a minute left"] * 3
