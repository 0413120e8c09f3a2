"""What a user is told without a traceback."""

import contextlib
import errno
import os
import re
import sys
import traceback
from collections.abc import Callable, Iterator
from concurrent.futures import BrokenExecutor
from typing import TextIO


def masked(text: str) -> str:
    """A text with *** for the password of each URL in it: what is shown or written holds none."""
    return re.sub(r"(://[^\s/:@]*):\S*@", r"\1:***@", text)


class ConfigError(ValueError):
    """A configuration that cannot be run; one line for each problem."""

    exit_code = 2

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


class InfrastructureError(Exception):
    """Something around a run failed that the user can mend: a line is shown, no traceback."""

    exit_code = 1


def show(error: Exception) -> None:
    """Write a line for each problem to standard error, and after `MOST_SHOWN` of them how many there are more."""
    problems = error.problems if isinstance(error, ConfigError) else [" ".join(str(error).split())]
    for problem in problems[:MOST_SHOWN]:
        print(one_line(problem), file=sys.stderr)
    if len(problems) > MOST_SHOWN:
        print(f"and {len(problems) - MOST_SHOWN:,} more", file=sys.stderr)


@contextlib.contextmanager
def errors_shown() -> Iterator[None]:
    """Show what the user can mend and end the process, without the lines that Hydra writes around an error."""
    try:
        yield
    except (ConfigError, InfrastructureError) as error:
        show(error)
        raise SystemExit(error.exit_code) from None
    except KeyboardInterrupt:
        raise SystemExit(130) from None


class HarmlessStream:
    """A text stream that raises no error: what its encoding lacks is replaced, what nobody reads any more is lost."""

    def __init__(self, stream: TextIO) -> None:
        self.stream = stream
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")

    def __getattr__(self, name: str) -> object:
        return getattr(self.stream, name)

    def write(self, text: str) -> int:
        """Write the text, without passwords, if that is possible."""
        return self._tried(lambda: self.stream.write(masked(text))) or len(text)

    def flush(self) -> None:
        """Write what is buffered if that is possible."""
        self._tried(self.stream.flush)

    def _tried(self, action: Callable[[], int | None]) -> int | None:
        try:
            return action()
        except (OSError, ValueError):
            with contextlib.suppress(OSError, ValueError):  # else the interpreter fails at its end
                os.dup2(os.open(os.devnull, os.O_WRONLY), self.stream.fileno())
            return None


def make_output_harmless() -> None:
    """Let no standard output change what a command does; one that was closed is opened to nowhere."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name) or os.fdopen(os.open(os.devnull, os.O_WRONLY), "w")
        setattr(sys, name, HarmlessStream(stream))


@contextlib.contextmanager
def plain_command(manual: str | None) -> Iterator[None]:
    """What every command without Hydra does: print its manual and end where that is asked for, show a user's errors."""
    if {"-h", "--help"} & set(sys.argv):
        print(manual)
        raise SystemExit(0)
    make_output_harmless()
    with errors_shown():
        yield


class StorageError(InfrastructureError):
    """What a run has to write cannot be written."""


class ClusterError(InfrastructureError):
    """The cluster that a launcher hands its runs to cannot be reached, or refuses them."""


FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
REFUSED = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EIO, errno.ESTALE)


@contextlib.contextmanager
def storage_errors_named(again: str) -> Iterator[None]:
    """Turn a disk that is full or refuses to be written into a StorageError; `again` says what to do afterwards.

    Its exit code is 2 where the path is at fault.
    """
    try:
        yield
    except OSError as error:
        # Also said of a folder that cannot be made in /proc, and where no folder for temporary files is writable.
        is_missing = error.errno == errno.ENOENT
        is_refused = traceback.extract_tb(error.__traceback__)[-1].name in ("mkdir", "makedirs", "_get_default_tempdir")
        if error.errno in FULL:
            raise StorageError(f"The disk is full: {error}. Free some space and {again}.") from error
        if error.errno in REFUSED or (is_missing and is_refused):
            refused = StorageError(f"Cannot be written: {error}. Make it writable and {again}.")
            refused.exit_code = 1 if error.errno in REFUSED[4:] else 2
            raise refused from error
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
