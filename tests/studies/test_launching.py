import logging
import math
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hydra.core.utils import JobReturn, JobStatus

from onecycle.config import compose
from onecycle.errors import StorageError
from onecycle.studies.launching import RunCounter, expected_runs, launch_at_once, launch_one_by_one
from onecycle.studies.plan import Changes, Point
from studying import record_of

POINTS = [Point(f"seed={seed}", {"seed": seed}, ("study.label=x", f"seed={seed}")) for seed in range(4)]


def record(folder: Path, point: Point, status: str = "finished") -> None:
    record_of(folder / point.label, point.overrides, 0.25, status=status)


class Launcher:
    """Hydra's launcher, whose runs return what `run` returns, or fail with what it raises."""

    def __init__(self, run: Callable[[Point], float]) -> None:
        self.run, self.started = run, 0

    def launch(self, job_overrides: list[list[str]], initial_job_idx: int) -> list[JobReturn]:
        done = []
        for overrides in job_overrides:
            self.started += 1
            job = JobReturn(overrides=overrides, status=JobStatus.COMPLETED)
            try:
                job.return_value = self.run(next(point for point in POINTS if list(point.overrides) == overrides))
            except Exception as error:
                job.status, job.return_value = JobStatus.FAILED, error
            done.append(job)
        return done


def test_the_time_left_is_that_of_the_runs_so_far_times_those_to_come() -> None:
    counter = RunCounter(10)
    counter.add("read back: it says nothing of the time that a run takes", None)
    assert (counter.done, counter.left) == (1, "")
    counter.add("trained", 60.0)
    counter.add("trained", 120.0)
    assert (counter.done, counter.left) == (3, "; about 10 min left")  # 7 runs of 90 seconds
    counter.total = 4
    assert counter.left == "; about 2 min left"
    counter.add("trained", 0.0)
    assert counter.left == ""


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
    assert expected_runs(study, POINTS, changed) == runs


def test_runs_one_by_one_are_trained_read_back_or_fail_and_each_has_its_line(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def make(point: Point) -> float:
        logging.getLogger("elsewhere").info("what a run says")
        if point.label == "seed=1":
            raise ValueError
        if point.label != "seed=0":
            record(tmp_path, point)
        return math.nan if point.label == "seed=2" else 0.25

    caplog.set_level(logging.INFO)
    record(tmp_path, POINTS[0])  # of an earlier start
    counter, checked = RunCounter(4), list[Point]()
    launcher: Any = Launcher(make)
    done = launch_one_by_one(launcher, POINTS, tmp_path, counter, checked.append)
    assert [job.status == JobStatus.COMPLETED for job in done] == [True, False, True, True]
    assert checked == [POINTS[0], *POINTS[2:]]
    said = [line for line in caplog.messages if line.startswith("[")]
    assert [line.partition(":")[0] for line in said] == [f"[{n + 1}/4] seed={n}" for n in range(4)]
    for line, word in zip(said, ("read back", "failed", "diverged", "25.00%"), strict=True):
        assert word in line
    assert counter.trained == 2


def test_a_full_disk_stops_the_study_where_another_error_does_not(tmp_path: Path) -> None:
    def make(point: Point) -> float:
        raise StorageError("The disk is full.") if point.label == "seed=1" else ValueError("another error")

    launcher: Any = Launcher(make)
    with pytest.raises(StorageError):
        launch_one_by_one(launcher, POINTS, tmp_path, RunCounter(4), lambda point: None)
    assert launcher.started == 2


def test_under_a_parallel_launcher_the_records_are_counted_while_they_come(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def make(point: Point) -> float:
        if point.label != "seed=0":
            time.sleep(0.2)
            record(tmp_path, point, "failed" if point.label == "seed=2" else "finished")
        return 0.25

    caplog.set_level(logging.INFO)
    monkeypatch.setattr("onecycle.studies.launching.EVERY_SECONDS", 0.01)
    record(tmp_path, POINTS[0])  # of an earlier start
    record(tmp_path, POINTS[2], "failed")
    os.utime(tmp_path / POINTS[2].label / "result.json", (1, 1))
    counter, checked = RunCounter(6), list[Point]()
    launcher: Any = Launcher(make)
    done = launch_at_once(launcher, POINTS, tmp_path, counter, checked.append)
    assert (len(done), counter.done, checked) == (4, 4, POINTS)
    assert [line.partition(";")[0] for line in caplog.messages] == [
        "[1/6] seed=0: read back", "[2/6] seed=1: 25.00%", "[3/6] seed=2: failed", "[4/6] seed=3: 25.00%",
    ]  # fmt: skip
    assert [line.partition(";")[2] for line in caplog.messages[1:]] == [" about a minute left"] * 3


def test_a_full_disk_ends_a_parallel_study_after_the_batch_in_which_it_is_met(tmp_path: Path) -> None:
    def make(point: Point) -> float:
        if point.label == "seed=1":
            raise StorageError("no room")
        return 0.25

    launcher: Any = Launcher(make)
    checked: list[Point] = []
    with pytest.raises(StorageError):
        launch_at_once(launcher, POINTS, tmp_path, RunCounter(4), checked.append, batch=2)
    assert (launcher.started, checked) == (2, POINTS[:1])


@pytest.mark.parametrize(
    ("wanted", "scale", "accelerator", "devices", "expected"),
    [
        (None, "cpu", "cpu", 1, 5), (None, "cpu", "cpu", "auto", 5), (3, "cpu", "cpu", 1, 3), (2, "tiny", "gpu", 1, 2),
        (None, "tiny", "cpu", 1, 1), (None, "gpu", "cpu", 1, 1), (None, "cpu", "gpu", 1, 1), (None, "cpu", "cpu", 2, 1),
    ],
)  # fmt: skip
def test_a_study_makes_a_run_a_core_at_once_on_a_cpu_unless_it_says_how_many(
    wanted: int | None, scale: str, accelerator: str, devices: Any, expected: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compose.joblib, "cpu_count", lambda: 5)
    assert compose.runs_at_once(wanted, scale, accelerator, devices) == expected
    monkeypatch.setattr(compose.joblib, "cpu_count", lambda: 64)
    assert compose.runs_at_once(None, "cpu", "cpu", 1) == 8
