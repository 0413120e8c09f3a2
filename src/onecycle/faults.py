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


class DiskFullError(CompactHydraException):
    """No room for what a run has to write; nobody's mistake, but no traceback's worth either."""


@contextlib.contextmanager
def full_disk_named(again: str) -> Iterator[None]:
    """Turn "no space left" into a DiskFullError that says what to do `again` once there is room."""
    try:
        yield
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        raise DiskFullError(f"The disk is full: {error}. Free some space and {again}.") from error
