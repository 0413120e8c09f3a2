"""What a user is told without a traceback."""

import contextlib
import errno
from collections.abc import Iterator
from concurrent.futures import BrokenExecutor

from hydra.errors import CompactHydraException


class ConfigError(CompactHydraException, ValueError):
    """A configuration that cannot be run; one line for each problem. Hydra shows it without a traceback."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems

    def __reduce__(self) -> tuple[type["ConfigError"], tuple[list[str]]]:
        """Pickle by the problems, so that it comes back whole from another process."""
        return type(self), (self.problems,)


class FaultError(CompactHydraException):
    """Something around a run broke: nobody's mistake, but no traceback's worth either."""


class StorageError(FaultError):
    """What a run has to write cannot be written."""


class WorkerError(FaultError):
    """A process that a parallel launcher had started has died."""


class ClusterError(FaultError):
    """The cluster that a launcher hands its runs to cannot be reached, or refuses them."""


FULL = (errno.ENOSPC, errno.EDQUOT)
REFUSED = (errno.EACCES, errno.EPERM, errno.EROFS, errno.EIO, errno.ENOTDIR, errno.ESTALE)


@contextlib.contextmanager
def storage_errors_named(again: str) -> Iterator[None]:
    """Turn a disk that is full or refuses to be written into a StorageError; `again` says what to do afterwards."""
    try:
        yield
    except OSError as error:
        if error.errno in FULL:
            raise StorageError(f"The disk is full: {error}. Free some space and {again}.") from error
        if error.errno in REFUSED:
            raise StorageError(f"Cannot be written: {error}. Make it writable and {again}.") from error
        raise


@contextlib.contextmanager
def dead_workers_named() -> Iterator[None]:
    """Turn a process pool's report of a worker that was killed into a WorkerError."""
    try:
        yield
    except BrokenExecutor as error:
        raise WorkerError(
            "A worker process died, for want of memory or because it was killed. The same command goes on: what is "
            "finished is kept, and what was interrupted continues."
        ) from error
