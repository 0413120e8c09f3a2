"""The runs of a study through Hydra's launcher, with the progress of the whole."""

import contextlib
import logging
import math
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from hydra.core.utils import JobReturn, JobStatus
from hydra.plugins.launcher import Launcher
from omegaconf import DictConfig

from onecycle.errors import StorageError, dead_workers_named
from onecycle.runs import record as run
from onecycle.studies import plan
from onecycle.studies.progress import Progress, counting

log = logging.getLogger(__name__)


def launcher_runs_one_by_one(config: DictConfig) -> bool:
    """Whether the launcher is Hydra's own, which runs in this process."""
    return str(config.hydra.launcher._target_).endswith("BasicLauncher")


def launch(
    launcher: Launcher, points: Sequence[plan.Point], folder: Path, *, alone: bool, progress: Progress | None = None,
    check: Callable[[plan.Point], None] = lambda point: None,
) -> list[JobReturn]:  # fmt: skip
    """All runs, one after the other in this process, or at once by a parallel launcher, with the progress of the whole.

    Runs that are done are read back by the run itself, which compares identities. check: called with each run that has
    ended without a failure, under a parallel launcher when all have; what it raises ends the study.
    """
    progress = progress or Progress(len(points))
    if not alone:
        return _launch_at_once(launcher, points, folder, progress, check)
    results: list[JobReturn] = []
    before = {key: (path, written(path)) for key, path in plan.finished(folder).items()}
    with only_this_module_speaks():
        for number, point in enumerate(points):
            started = time.perf_counter()
            result = launcher.launch([list(point.overrides)], initial_job_idx=number)[0]
            results.append(result)
            stop_if_unwritable(result)
            seconds, outcome = time.perf_counter() - started, "failed; the study goes on"
            is_trained = result.status != JobStatus.FAILED
            if is_trained and is_unchanged(before.get(run.settings(point.overrides))):
                is_trained, outcome = False, "read back"
            elif is_trained:
                outcome = f"{seconds:.0f} s"
            progress.add(seconds if is_trained else None)
            accuracy = ""
            if result.status == JobStatus.COMPLETED:
                accuracy = "diverged, " if math.isnan(result.return_value) else f"{result.return_value:.2%}, "
            log.info("%s %s: %s%s%s", str(progress), point.label, accuracy, outcome, progress.left)
            if result.status == JobStatus.COMPLETED:
                check(point)
    return results


def _launch_at_once(
    launcher: Launcher, points: Sequence[plan.Point], folder: Path, progress: Progress,
    check: Callable[[plan.Point], None],
) -> list[JobReturn]:  # fmt: skip
    def say(label: str, result: dict[str, Any] | None) -> None:
        outcome = "read back" if result is None else str(result["status"])
        if result and result["status"] == "finished":
            outcome = f"{(result['val'] or result['test'])['accuracy']:.2%}"
        log.info("%s %s: %s%s", str(progress), label, outcome, progress.left)

    jobs = [list(point.overrides) for point in points]
    if not jobs:
        return []
    with dead_workers_named(), counting(points, folder, progress, say):
        results = list(launcher.launch(jobs, initial_job_idx=0))
    for point, result in zip(points, results, strict=True):
        if result.status == JobStatus.COMPLETED:
            check(point)
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
