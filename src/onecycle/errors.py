"""What a user is told without a traceback."""

import contextlib
import errno
import re
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import BrokenExecutor

from hydra.errors import CompactHydraException


def masked(text: str) -> str:
    """A text with *** for the password of each URL in it: what is shown or written holds none."""
    return re.sub(r"(://[^\s/:@]*):\S*@", r"\1:***@", text)


class ConfigError(CompactHydraException, ValueError):
    """A configuration that cannot be run; one line for each problem. Hydra shows it without a traceback."""

    def __init__(self, problems: list[str]) -> None:
        self.problems = [masked(problem) for problem in problems]
        super().__init__("\n".join(self.problems))

    def __reduce__(self) -> tuple[type["ConfigError"], tuple[list[str]]]:
        """Pickle by the problems, so that it comes back whole from another process."""
        return type(self), (self.problems,)


MOST_SHOWN = 20


def problems_of(check: Callable[[], object]) -> list[str]:
    """The problems of the ConfigError that `check` raises; none where it raises none."""
    try:
        check()
    except ConfigError as error:
        return error.problems
    return []


def one_line(problem: str) -> str:
    """A problem as a line that a terminal shows as it is: line feeds and escapes in what it quotes are spelt out."""
    return "".join(sign if sign.isprintable() else ascii(sign)[1:-1] for sign in problem)


def reason_of(error: BaseException) -> str:
    """What the system or a library says of an error, on one line; the error's name where it says nothing."""
    return getattr(error, "strerror", None) or " ".join(str(error).split())[:200] or type(error).__name__


def show(error: ConfigError) -> None:
    """Write a line for each problem to standard error, and after `MOST_SHOWN` of them how many there are more."""
    for problem in error.problems[:MOST_SHOWN]:
        print(one_line(problem), file=sys.stderr)
    if len(error.problems) > MOST_SHOWN:
        print(f"and {len(error.problems) - MOST_SHOWN:,} more", file=sys.stderr)


@contextlib.contextmanager
def config_errors_shown() -> Iterator[None]:
    """Show a configuration's errors and end the process with 2, without the lines that Hydra writes around an error."""
    try:
        yield
    except ConfigError as error:
        show(error)
        raise SystemExit(2) from None


class InfrastructureError(CompactHydraException):
    """Something around a run failed that the user can mend: a line is shown, no traceback."""


class StorageError(InfrastructureError):
    """What a run has to write cannot be written."""


class ClusterError(InfrastructureError):
    """The cluster that a launcher hands its runs to cannot be reached, or refuses them."""


REFUSED = (errno.EACCES, errno.EPERM, errno.EROFS, errno.EIO, errno.ENOTDIR, errno.ESTALE)


@contextlib.contextmanager
def storage_errors_named(again: str) -> Iterator[None]:
    """Turn a disk that is full or refuses to be written into a StorageError; `again` says what to do afterwards."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise StorageError(f"The disk is full: {error}. Free some space and {again}.") from error
        if error.errno in REFUSED:
            raise StorageError(f"Cannot be written: {error}. Make it writable and {again}.") from error
        raise


@contextlib.contextmanager
def dead_workers_named() -> Iterator[None]:
    """Turn a process pool's report of a worker that was killed into one line."""
    try:
        yield
    except BrokenExecutor as error:
        raise InfrastructureError(
            "A worker process died, for want of memory or because it was killed. The same command goes on: what is "
            "finished is kept, and what was interrupted continues."
        ) from error
