"""One process of a machine at a time in a run's folder."""

import contextlib
import fcntl
import os
import platform
from collections.abc import Iterator
from pathlib import Path

from onecycle.errors import ConfigError

LOCK = ".lock"


@contextlib.contextmanager
def held(folder: Path) -> Iterator[bool]:
    """Keep every other process from training in a folder; gives whether the file system has locks at all.

    Raises ConfigError, with who trains there, where another process does.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / LOCK).open("a+") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.seek(0)
            holder = lock.readline().strip() or "another process"
            raise ConfigError([f"{folder}: {holder} is training this run"]) from None
        except OSError:
            yield False
            return
        lock.truncate(0)
        lock.write(f"process {os.getpid()} on {platform.node()}\n")
        lock.flush()
        yield True
