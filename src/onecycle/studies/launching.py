"""The runs of a study through Hydra's launcher, with the progress of the whole."""

import contextlib
import logging
import math
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from hydra.core.utils import JobReturn, JobStatus
from hydra.plugins.launcher import Launcher
from omegaconf import DictConfig

from onecycle import run
from onecycle.faults import StorageError, dead_workers_named
from onecycle.studies import plan, table

log = logging.getLogger(__name__)


def launcher_runs_one_by_one(config: DictConfig) -> bool:
    """Whether the launcher is Hydra's own, which runs in this process."""
    return str(config.hydra.launcher._target_).endswith("BasicLauncher")


def launch(launcher: Launcher, points: Sequence[plan.Point], folder: Path, *, alone: bool) -> list[JobReturn]:
    """All runs, in this process one after the other with the progress of the whole, or at once for a parallel launcher.

    Runs that are done are read back by the run itself, which compares identities.
    """
    if not alone:
        jobs = [list(point.overrides) for point in points]
        with dead_workers_named():
            return list(launcher.launch(jobs, initial_job_idx=0)) if jobs else []
    results: list[JobReturn] = []
    before = {key: (path, written(path)) for key, path in table.finished(folder).items()}
    training, trained = 0.0, 0
    with only_this_module_speaks():
        for number, point in enumerate(points, start=1):
            started = time.perf_counter()
            result = launcher.launch([list(point.overrides)], initial_job_idx=number - 1)[0]
            results.append(result)
            stop_if_unwritable(result)
            outcome, seconds = "read back", time.perf_counter() - started
            if result.status == JobStatus.FAILED:
                outcome = "failed; the study goes on"
            elif not is_unchanged(before.get(run.settings(point.overrides))):
                training, trained = training + seconds, trained + 1
                outcome = f"{seconds:.0f} s"
            accuracy = ""
            if result.status == JobStatus.COMPLETED:
                accuracy = "diverged, " if math.isnan(result.return_value) else f"{result.return_value:.2%}, "
            left = _time_left(training, trained, len(points) - number)
            log.info("[%d/%d] %s: %s%s%s", number, len(points), point.label, accuracy, outcome, left)
    return results


def stop_if_unwritable(result: JobReturn) -> None:
    """Raise a run's StorageError: every other run, and the page, would fail at the end of its work in the same way."""
    try:
        _ = result.return_value
    except StorageError:
        log.error("The study stops here; the same command goes on.")
        raise
    except Exception:  # told where it happened, and raised again behind the page
        return


def written(folder: Path) -> int:
    """When a run's record was written, in nanoseconds."""
    return (folder / run.RESULT).stat().st_mtime_ns


def is_unchanged(record: tuple[Path, int] | None) -> bool:
    """Whether there was a record, and it has not been written since."""
    return record is not None and written(record[0]) == record[1]


def _time_left(seconds: float, trained: int, runs: int) -> str:
    """The mean time of the runs so far, times those to come."""
    if not trained or not runs:
        return ""
    minutes = seconds / trained * runs / 60
    return f"; about {minutes:.0f} min left" if minutes >= 1.5 else "; about a minute left"


@contextlib.contextmanager
def only_this_module_speaks() -> Iterator[None]:
    """Keep what every single run says from the terminal, except warnings: it stands in the run's train.log."""

    def mine(record: logging.LogRecord) -> bool:
        return record.name == __name__ or record.levelno >= logging.WARNING

    handlers = list(logging.getLogger().handlers)
    for handler in handlers:
        handler.addFilter(mine)
    try:
        yield
    finally:
        for handler in handlers:
            handler.removeFilter(mine)
