"""The runs of a study through Hydra's launcher, with the progress of the whole."""

import contextlib
import logging
import math
import sys
import threading
import time
import warnings
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from hydra.core.utils import JobReturn, JobStatus
from hydra.plugins.launcher import Launcher

from onecycle.errors import ConfigError, StorageError
from onecycle.runs import record as run
from onecycle.runs.identity import settings
from onecycle.studies import plan

log = logging.getLogger(__name__)

EVERY_SECONDS = 2.0  # how often the records of a parallel launcher's runs are counted
Check = Callable[[plan.Point], None]


class RunCounter:
    """Counts the runs of a study. total: all that there will be, as far as is known."""

    def __init__(self, total: int) -> None:
        self.total, self.done = total, 0
        self.trained, self.seconds = 0, 0.0

    def add(self, text: str, seconds: float | None) -> None:
        """Log that one more run is done; seconds: what it took, None where it was only read back, or failed."""
        self.done += 1
        if seconds is not None:
            self.trained, self.seconds = self.trained + 1, self.seconds + seconds
        filled = round(20 * self.done / max(self.total, self.done))
        bar = f"{'━' * filled}{'╌' * (20 - filled)} " if sys.stdout.isatty() else ""
        log.info("%s[%d/%d] %s%s", bar, self.done, self.total, text, self.left)

    def add_result(self, point: plan.Point, score: float, seconds: float | None) -> None:
        """Log the run of a point by what it returned; seconds: as of `add`."""
        outcome = "diverged" if math.isnan(score) else run.score_text(score)
        self.add(f"{point.label}: {outcome}, {'read back' if seconds is None else f'{seconds:.0f} s'}", seconds)

    @property
    def left(self) -> str:
        """The mean time of a trained run times the runs to come, in words; empty where unknown or none is left."""
        runs = self.total - self.done
        if not self.trained or runs <= 0:
            return ""
        minutes = self.seconds / self.trained * runs / 60
        return f"; about {minutes:.0f} min left" if minutes >= 1.5 else "; about a minute left"


def expected_runs(study: Mapping[str, Any], points: Sequence[plan.Point], changes: plan.Changes) -> int:
    """How many runs a study will have at most: its points, the budgets of its searches, the best of each arm again."""
    searches = study.get("searches") or ()
    arms = {point.values.get("arm") for point in points} | {block["arm"] for block in searches}
    seeds = len(plan.seeds_of(study, changes))
    again = len(arms) * (len(study.get("confirm") or ()) if not study.get("starts") else seeds)
    return len(points) + seeds * sum(block["budget"] for block in searches) + again


def launch_one_by_one(
    launcher: Launcher, points: Sequence[plan.Point], folder: Path, counter: RunCounter, check: Check
) -> list[JobReturn]:
    """All runs, one after the other in this process; those that are done are read back by the run itself.

    check: is called after each run that has not failed; what it raises ends the study. Raises a run's StorageError:
    every other run, and the page, would fail at the end of its work in the same way.
    """
    results: list[JobReturn] = []
    done = plan.finished_runs(folder)
    with runs_log_warnings_only():
        for number, point in enumerate(points):
            started = time.perf_counter()
            result = launcher.launch([list(point.overrides)], initial_job_idx=number)[0]
            results.append(result)
            if result.status != JobStatus.COMPLETED:
                _raise_storage_error(result)
                counter.add(f"{point.label}: failed; the study goes on", None)
                continue
            seconds = None if settings(point.overrides) in done else time.perf_counter() - started
            counter.add_result(point, result.return_value, seconds)
            check(point)
    return results


def launch_at_once(
    launcher: Launcher, points: Sequence[plan.Point], folder: Path, counter: RunCounter, check: Check,
    batch: int | None = None,
) -> list[JobReturn]:  # fmt: skip
    """All runs by a parallel launcher; `check` and StorageError as above, when a batch has ended.

    batch: so many runs are handed over together; None for all, as to a queue that takes them for one job.
    """
    results: list[JobReturn] = []
    logging.getLogger("hydra_plugins.hydra_joblib_launcher").setLevel(logging.WARNING)  # it lists every run
    warnings.filterwarnings("ignore", "A worker stopped while some jobs")  # joblib replaces one whose memory has grown
    while handed_over := points[len(results) :][:batch]:
        with counted(handed_over, folder, counter):
            done = launcher.launch([list(point.overrides) for point in handed_over], initial_job_idx=len(results))
        results += done
        for point, result in zip(handed_over, done, strict=True):
            if result.status == JobStatus.COMPLETED:
                check(point)
            else:
                _raise_storage_error(result)
    return results


def _raise_storage_error(result: JobReturn) -> None:
    """Raise what a failed run raised if that is a StorageError."""
    try:
        _ = result.return_value
    except StorageError:
        log.error("The study stops here; the same command goes on.")
        raise
    except Exception:  # it was shown where it happened, and is raised again after the page
        pass


@contextlib.contextmanager
def counted(points: Sequence[plan.Point], folder: Path, counter: RunCounter) -> Iterator[None]:
    """While other processes make runs, count and log those that have ended."""
    waiting = {settings(point.overrides): point.label for point in points}
    seen: dict[Path, int] = {}
    end, is_over = counter.done + len(points), threading.Event()

    def new_records(ended: Collection[str]) -> Iterator[tuple[str, dict[str, Any]]]:
        """Label and record of each run that has come to one of these states since the last look."""
        for path in sorted(folder.glob(f"*/{run.RESULT}")):
            with contextlib.suppress(OSError, ConfigError):  # it was removed meanwhile, or is damaged
                written = path.stat().st_mtime_ns
                record = run.read_result(path.parent) if seen.get(path) != written else None
                seen[path] = written
                if record and record["status"] in ended and settings(record["overrides"]) in waiting:
                    yield waiting.pop(settings(record["overrides"])), record

    def count() -> None:
        is_last, last = False, time.perf_counter()
        while not is_last:
            is_last = is_over.wait(EVERY_SECONDS)
            for label, record in new_records((*run.DONE, "failed")):
                outcome = record["status"]
                if outcome == "finished":
                    outcome = run.score_text(run.score_of(record["val"] or record["test"]))
                last, before = time.perf_counter(), last
                counter.add(f"{label}: {outcome}", last - before)

    for label, _ in new_records(run.DONE):
        counter.add(f"{label}: read back", None)
    thread = threading.Thread(target=count, daemon=True)
    thread.start()
    try:
        yield
    finally:
        is_over.set()
        thread.join()
        counter.done = end  # runs that failed before they had a record


def is_shown(record: logging.LogRecord) -> bool:
    """Whether a message is a warning, or of the study itself."""
    return record.name == __name__ or record.levelno >= logging.WARNING


@contextlib.contextmanager
def runs_log_warnings_only() -> Iterator[None]:
    """Keep what a run logs from the terminal, except warnings: it stands in the run's train.log."""
    with contextlib.ExitStack() as stack:
        for handler in logging.getLogger().handlers:
            handler.addFilter(is_shown)
            stack.callback(handler.removeFilter, is_shown)
        yield
