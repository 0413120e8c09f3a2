"""One process at a time in a run's folder, on this machine and among machines that share the folder.

On one machine a lock of the system decides: it is free as soon as its holder has ended, in whatever way. File systems
without locks, and those whose locks end at the machine, are why a lease is held as well: a file that its holder touches
every RENEWAL seconds. Whoever wants it watches it; after EXPIRES seconds of the watcher's own clock without a change
it is taken over, and the former holder writes no more.
"""

import contextlib
import errno
import logging
import os
import platform
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from filelock import FileLock, SoftFileLease, Timeout

from onecycle.errors import ConfigError

log = logging.getLogger("onecycle")

LOCK, LEASE = ".lock", ".lease"
EXPIRES, RENEWAL = 60.0, 10.0  # seconds; every process must use the same EXPIRES
CHECK_SECONDS = 1.0
WITHOUT_LOCKS = (errno.ENOSYS, errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP)


class BusyError(ConfigError):
    """Another process trains in the folder."""


class LostLeaseError(ConfigError):
    """Another process has taken this run over, because this one was not heard of for EXPIRES seconds."""


@contextlib.contextmanager
def exclusive(folder: Path) -> Iterator[Callable[[], None]]:
    """Keep other processes from training in a folder; gives a function that raises LostLeaseError once that failed.

    Raises BusyError, with who trains there, where another process does.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / LOCK
    with contextlib.ExitStack() as held:
        try:
            held.enter_context(FileLock(path, blocking=False, fallback_to_soft=False))
            path.write_text(f"process {os.getpid()} on {platform.node()}\n")
        except Timeout:
            raise _refusal(folder, path.read_text().strip()) from None
        except OSError as error:
            if error.errno not in WITHOUT_LOCKS:
                raise
        yield _lease(folder, held)


def _lease(folder: Path, held: contextlib.ExitStack) -> Callable[[], None]:
    lease = SoftFileLease(
        folder / LEASE, lease_duration=EXPIRES, heartbeat_interval=RENEWAL, thread_local=False,
        timeout=1.2 * EXPIRES, poll_interval=RENEWAL / 10,
    )  # fmt: skip
    looks = [_touched(folder)]

    def is_renewed() -> bool:
        if len(looks) == 1:
            log.info("%s: waiting up to %.0f s for %s", folder, EXPIRES, _holder(lease))
        looks.append(_touched(folder))
        return looks[-1] not in (None, looks[0])

    try:
        held.enter_context(lease.acquire(cancel_check=is_renewed))
    except Timeout:
        raise _refusal(folder, _holder(lease)) from None
    checked = time.monotonic()

    def check() -> None:
        """Look at the disk at most every CHECK_SECONDS: a step may take milliseconds."""
        nonlocal checked
        if lease.compromise is None:
            if time.monotonic() - checked < CHECK_SECONDS:
                return
            checked, owner = time.monotonic(), lease.owner
            if owner is None or owner.token == lease.token:
                return
        raise LostLeaseError([f"{folder}: taken over by another process, because this one was not heard of"])

    return check


def _touched(folder: Path) -> tuple[int, int] | None:
    """Which file the lease is, and when it was renewed; None where there is none."""
    with contextlib.suppress(OSError):
        found = (folder / LEASE).stat()
        return found.st_ino, found.st_mtime_ns
    return None


def _holder(lease: SoftFileLease) -> str:
    owner = lease.owner
    # filelock appends the container to the host's name.
    return "" if owner is None else f"process {owner.pid} on {owner.hostname.partition('?')[0]}"


def _refusal(folder: Path, holder: str) -> BusyError:
    return BusyError([f"{folder}: {holder or 'another process'} is training this run"])
