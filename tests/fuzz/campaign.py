"""Many inputs of one kind, one after the other: `make fuzz`, or `PYTHONPATH=tests python -m fuzz.campaign`.

An input that is answered wrongly is named by kind, seed and number: record-0-1234.json is made again by
`RECORD.input(seed=0, index=1234)`, and belongs into corpus/regressions/record/ once the program is right.
"""

import argparse
import contextlib
import faulthandler
import logging
import os
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType

from fuzz.kinds import MARKER, Kind, WrongError

LIMIT = 10.0  # seconds for one input; honest files take milliseconds
MEMORY = 12 << 30  # bytes of addresses in the long run, of which importing torch alone takes a third
NAMES = ("record", "config", "image", "checkpoint")


class HangError(BaseException):
    """An input took longer than LIMIT. No Exception: the program catches those that garbage raises."""


@dataclass
class Tally:
    """What came of a campaign. slowest: seconds. failures: one text for each input that was answered wrongly."""

    kind: str
    inputs: int = 0
    accepted: int = 0
    refused: int = 0
    slowest: float = 0.0
    seconds: float = 0.0
    failures: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        return (
            f"{self.kind}: {self.inputs:,} inputs, {self.accepted:,} accepted, {self.refused:,} refused, "
            f"{len(self.failures)} wrong, slowest {self.slowest:.2f} s, {self.seconds:.0f} s in all"
        )


@contextlib.contextmanager
def _at_most(seconds: float) -> Iterator[None]:
    """Raise HangError after a while; where the interpreter itself is stuck, end it with every thread's stack."""

    def expired(number: int, frame: FrameType | None) -> None:
        raise HangError(f"took longer than {seconds:g} s")

    before = signal.signal(signal.SIGALRM, expired)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    faulthandler.dump_traceback_later(3 * seconds, exit=True, file=2)  # pytest replaces sys.stderr
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        faulthandler.cancel_dump_traceback_later()
        signal.signal(signal.SIGALRM, before)


def run(kind: Kind, count: int, seed: int, failed: Path, limit: float = LIMIT) -> Tally:
    """Give `count` inputs to the program; those that are answered wrongly are kept in `failed`.

    The input under way lies in `failed` as well, so that it is there when the interpreter dies of it.
    """
    tally = Tally(kind.name)
    failed.mkdir(parents=True, exist_ok=True)
    started = time.perf_counter()
    with tempfile.TemporaryDirectory() as scratch, contextlib.chdir(scratch), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of torch and Pillow, on what is strange in an input
        for index in range(count):
            kept = failed / f"{kind.name}-{seed}-{index}{kind.suffix}"
            kept.write_bytes(kind.input(seed, index))
            problem = _answer(kind, kept, Path(scratch) / f"input{kind.suffix}", tally, limit)
            if problem:
                tally.failures.append(f"{kept}: {problem}")
            else:
                kept.unlink()
    tally.seconds = time.perf_counter() - started
    return tally


def _answer(kind: Kind, kept: Path, path: Path, tally: Tally, limit: float) -> str:
    """Why the program's answer to one input is wrong; empty where it is right."""
    shutil.copyfile(kept, path)
    tally.inputs += 1
    started = time.perf_counter()
    try:
        with _at_most(limit):
            accepted = kind.check(path)
    except (Exception, HangError, RecursionError) as error:
        where = traceback.extract_tb(error.__traceback__)[-1]
        place = "" if isinstance(error, WrongError) else f" (raised in {Path(where.filename).name}:{where.lineno})"
        return f"{type(error).__name__}: {' '.join(str(error).split())[:300]}{place}"
    finally:
        tally.slowest = max(tally.slowest, time.perf_counter() - started)
    if Path(MARKER).exists():
        Path(MARKER).unlink()
        return "code in it was run"
    tally.accepted += accepted
    tally.refused += not accepted
    return ""


def kind_named(name: str) -> Kind:
    """One of NAMES; what it needs is imported only now."""
    if name in ("record", "config"):
        from fuzz import texts

        return {"record": texts.RECORD, "config": texts.CONFIG}[name]
    if name == "image":
        from fuzz import images

        return images.IMAGE
    from fuzz import sealed

    return sealed.CHECKPOINT


def main() -> int:
    """Run each kind in a process of its own, whose crash or want of memory is seen and whose last input is kept."""
    parser = argparse.ArgumentParser(prog="fuzz.campaign")
    parser.add_argument("kinds", nargs="*", metavar="kind", help=f"of {', '.join(NAMES)}; all of them by default")
    parser.add_argument("--count", type=int, default=10_000, help="inputs of each kind (10000)")
    parser.add_argument("--seed", type=int, default=0, help="another seed, other inputs (0)")
    parser.add_argument("--failed", type=Path, default=Path("logs/fuzz"), help="where failing inputs are kept")
    parser.add_argument("--here", action="store_true", help="in this process")
    asked = parser.parse_args()
    unknown = set(asked.kinds) - set(NAMES)
    if unknown:
        parser.error(f"unknown: {', '.join(sorted(unknown))}; the kinds are {', '.join(NAMES)}")
    names = asked.kinds or NAMES
    return max([_here(name, asked) if asked.here else _in_a_process(name, asked) for name in names])


def _here(name: str, asked: argparse.Namespace) -> int:
    faulthandler.enable()
    logging.disable()
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    tally = run(kind_named(name), asked.count, asked.seed, asked.failed.resolve())
    print(tally, *(f"  {failure}" for failure in tally.failures), sep="\n", flush=True)
    return int(bool(tally.failures))


def _in_a_process(name: str, asked: argparse.Namespace) -> int:
    options = [name, "--here", "--count", str(asked.count), "--seed", str(asked.seed), "--failed", str(asked.failed)]
    done = subprocess.run([sys.executable, "-m", "fuzz.campaign", *options], env=os.environ | {"OMP_NUM_THREADS": "1"})
    if done.returncode not in (0, 1):
        print(f"{name}: the interpreter ended with {done.returncode}; its last input is the newest in {asked.failed}")
    return done.returncode if done.returncode >= 0 else 1


if __name__ == "__main__":
    sys.exit(main())
