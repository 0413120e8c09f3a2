"""How far a study is: runs done of all, and the time that is left."""

import contextlib
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from onecycle.errors import ConfigError
from onecycle.runs import record as run
from onecycle.studies.plan import Changes, Point

EVERY_SECONDS = 2.0  # how often the records of a parallel launcher's runs are counted


class Progress:
    """Counts the runs of a study. total: all that there will be, as far as is known.

    The time left is the mean time from one run that was trained to the next, times the runs to come.
    """

    def __init__(self, total: int) -> None:
        self.total, self.done = total, 0
        self.trained, self.seconds = 0, 0.0

    def add(self, seconds: float | None) -> None:
        """One more run is done; seconds: what it took, None where it was only read back, or failed."""
        self.done += 1
        if seconds is not None:
            self.trained, self.seconds = self.trained + 1, self.seconds + seconds

    def __str__(self) -> str:
        return f"[{self.done}/{self.total}]"

    @property
    def left(self) -> str:
        """The time that is left, to be written behind a line; empty where it is unknown, or nothing is left."""
        runs = self.total - self.done
        if not self.trained or runs <= 0:
            return ""
        minutes = self.seconds / self.trained * runs / 60
        return f"; about {minutes:.0f} min left" if minutes >= 1.5 else "; about a minute left"


def expected(study: Mapping[str, Any], points: Sequence[Point], changed: Changes) -> int:
    """How many runs a study will have at most: its points, the budgets of its searches, the best of each arm again."""
    seeds = len(changed.axes.get("seed", study["seeds"]))
    searches = study.get("searches") or ()
    arms = {point.values.get("arm") for point in points} | {block["arm"] for block in searches}
    again = len(arms) * len(study.get("confirm") or ())
    return len(points) + seeds * sum(block["budget"] for block in searches) + again


class Records:
    """The records of some of a study's runs, as they are written by other processes."""

    def __init__(self, points: Sequence[Point], folder: Path) -> None:
        self.folder = folder
        self.waiting = {run.settings(point.overrides): point.label for point in points}
        self.seen: dict[Path, int] = {}
        self.before = [label for label, result in self.new() if result["status"] in run.DONE]
        self.waiting |= {run.settings(p.overrides): p.label for p in points if p.label not in self.before}

    def new(self) -> list[tuple[str, dict[str, Any]]]:
        """Label and record of every run that has come to its end, or failed, since the last call."""
        found = []
        for path in sorted(self.folder.glob(f"*/{run.RESULT}")):
            with contextlib.suppress(OSError, ConfigError):  # it was removed meanwhile, or is damaged
                written = path.stat().st_mtime_ns
                if self.seen.get(path) == written:
                    continue
                self.seen[path] = written
                result = run.read_result(path.parent)
                key = run.settings(result["overrides"]) if result else ()
                if result and result["status"] != "running" and key in self.waiting:
                    found.append((self.waiting.pop(key), result))
        return found


@contextlib.contextmanager
def counting(
    points: Sequence[Point], folder: Path, progress: Progress, say: Callable[[str, dict[str, Any] | None], None]
) -> Iterator[None]:
    """While other processes make runs, say which have ended: label and record, None for one that was there before."""
    records = Records(points, folder)
    for label in records.before:
        progress.add(None)
        say(label, None)
    end, ended = progress.done + len(points) - len(records.before), threading.Event()

    def count() -> None:
        last = time.perf_counter()
        while True:
            is_over = ended.wait(EVERY_SECONDS)
            for label, result in records.new():
                now = time.perf_counter()
                progress.add(now - last)
                last = now
                say(label, result)
            if is_over:
                return

    thread = threading.Thread(target=count, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
        progress.done = end  # runs that failed before they had a record
