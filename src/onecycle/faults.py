"""What a user is told without a traceback."""

import contextlib
import errno
from collections.abc import Iterator

from hydra.errors import CompactHydraException


class ConfigError(CompactHydraException, ValueError):
    """A configuration that cannot be run; one line for each problem. Hydra shows it without a traceback."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems

    def __reduce__(self) -> tuple[type["ConfigError"], tuple[list[str]]]:
        """Pickle by the problems, so that it comes back whole from another process."""
        return type(self), (self.problems,)


class StorageError(CompactHydraException):
    """What a run has to write cannot be written; nobody's mistake, but no traceback's worth either."""


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
