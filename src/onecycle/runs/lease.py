"""Who may write into a run's folder that several machines share, on a file system whose locks cannot be trusted.

A lease is a file .lease-N; the highest N holds. It is taken by creating the next number, which a file system lets one
process alone do, and kept by writing into it again and again. Whoever wants it watches it: a lease that does not change
for `expires` seconds of the watcher's own clock is void, so no two clocks are ever compared. Nobody takes a number away
again: one who was stopped, and goes on when another has taken over, sees the higher number and writes no more.
"""

import contextlib
import json
import logging
import os
import platform
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from onecycle.errors import ConfigError

log = logging.getLogger("onecycle")

NAME = ".lease-"
EXPIRES = 60.0  # seconds
RENEWALS = 6  # so many within that time


class LostLeaseError(ConfigError):
    """Another process has taken this run over, because nothing was heard of this one."""


class Lease:
    """The right to write into `folder`; see the module. clock: seconds since whenever, stopped machines included.

    alone: no other process of this machine can hold it (the folder's lock is ours), so what one of them left is void.
    """

    def __init__(
        self, folder: Path, *, alone: bool, expires: float = EXPIRES, clock: Callable[[], float] | None = None
    ) -> None:
        self.folder, self.alone, self.expires = folder, alone, expires
        self.clock = clock or _now
        self.number = 0
        self._name = uuid.uuid4().hex
        self._renewed = -float("inf")
        self._beats = 0
        self._writing = threading.Lock()  # the renewing thread, and whoever checks

    @contextlib.contextmanager
    def held(self, wait: Callable[[float], Any] = time.sleep) -> Iterator["Lease"]:
        """Take the lease, renew it from a thread, and give it back.

        Raises ConfigError where another process holds it and renews it.
        """
        self.take(wait)
        ended = threading.Event()
        thread = threading.Thread(target=self._renew_until, args=(ended,), name="lease", daemon=True)
        thread.start()
        try:
            yield self
        finally:
            ended.set()
            thread.join()
            with contextlib.suppress(LostLeaseError, OSError):
                self.check()
                self._write(released=True)

    def take(self, wait: Callable[[float], Any] = time.sleep) -> None:
        """Hold the lease, if need be after watching another's for `expires` seconds. Raises ConfigError; see `held`."""
        while True:
            highest = self._highest()
            if highest and not self._is_void(highest, wait):
                raise ConfigError([f"{self.folder}: another process is training this run ({self._said(highest)})"])
            if self._create(highest + 1):
                return

    def check(self) -> None:
        """Return at once while the lease is fresh, and look into the folder when it is not.

        Raises LostLeaseError where another process has taken over.
        """
        if self.clock() - self._renewed > self.expires / 2:
            self._renew()

    def _renew(self) -> None:
        if self._highest() > self.number:
            raise LostLeaseError([f"{self.folder}: taken over by another process, because this one was not heard of"])
        self._write()

    def _renew_until(self, ended: threading.Event) -> None:
        # A file system that is away for a while is no reason to stop: the next check looks again.
        while not ended.wait(self.expires / RENEWALS):
            with contextlib.suppress(OSError):
                try:
                    self._renew()
                except LostLeaseError:
                    self._renewed = -float("inf")
                    return

    def _is_void(self, number: int, wait: Callable[[float], Any]) -> bool:
        first = self._read(number)
        if first.get("released") or (self.alone and first.get("machine") == _machine()):
            return True
        log.info("%s: waiting up to %.0f s for %s", self.folder, self.expires, self._said(number))
        began = self.clock()
        while self.clock() - began <= self.expires:
            wait(self.expires / RENEWALS)
            if self._highest() != number or self._read(number) != first:
                return False
        return True

    def _create(self, number: int) -> bool:
        path = self._path(number)
        try:
            # Not opened for writing at first: a file that is there already stays as it is.
            os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644))
        except FileExistsError:
            return False
        if self._highest() != number:  # a number that was free only because the ones above it had replaced it
            path.unlink(missing_ok=True)
            return False
        self.number = number
        self._write()
        for old in self._numbers():
            if old < number:
                self._path(old).unlink(missing_ok=True)
        return True

    def _write(self, released: bool = False) -> None:
        with self._writing:
            self._write_alone(released)

    def _write_alone(self, released: bool) -> None:
        self._beats += 1
        entry = {
            "name": self._name, "machine": _machine(), "host": platform.node(), "process": os.getpid(),
            "beats": self._beats, "released": released,
        }  # fmt: skip
        began = self.clock()
        path = self._path(self.number)
        part = path.with_name(f".{self._name}.part")
        path.parent.mkdir(parents=True, exist_ok=True)  # somebody may have removed the folder
        part.write_text(json.dumps(entry))
        if not path.exists() and self._highest() > self.number:  # swept away by the one who took over
            part.unlink()
            raise LostLeaseError([f"{self.folder}: taken over by another process, because this one was not heard of"])
        part.replace(path)
        self._renewed = began

    def _read(self, number: int) -> dict[str, Any]:
        with contextlib.suppress(OSError, ValueError):
            entry = json.loads(self._path(number).read_text())
            if isinstance(entry, dict):
                return entry
        return {}

    def _said(self, number: int) -> str:
        entry = self._read(number)
        return f"process {entry.get('process', 'unknown')} on {entry.get('host', 'an unknown machine')}"

    def _path(self, number: int) -> Path:
        return self.folder / f"{NAME}{number}"

    def _numbers(self) -> list[int]:
        return [int(path.name.removeprefix(NAME)) for path in self.folder.glob(f"{NAME}[0-9]*")]

    def _highest(self) -> int:
        return max(self._numbers(), default=0)


def _now() -> float:
    """Seconds that also pass while the machine is suspended, where the system counts them."""
    clock = getattr(time, "CLOCK_BOOTTIME", None)
    return time.monotonic() if clock is None else time.clock_gettime(clock)


def _machine() -> str:
    """What tells one running machine from another, though two may have the same name."""
    with contextlib.suppress(OSError):
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return f"{platform.node()}-{uuid.getnode()}"
