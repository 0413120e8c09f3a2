"""Trains one tiny run again and again, killed at another moment each time, and compares what is left in the end.

A program of its own: it forks, which only a process without other threads may do, and a fork needs no seconds to
import torch. `python killing.py FOLDER PLAN [OVERRIDES…]`, where PLAN is a JSON list of [how, where, visit]: a
signal's name, and either a share of the run's time or a place in the program and the how-manieth visit to it. Below
zero it is the time, in tenths of the run's, of a second kill. Prints one JSON line for each: how the process that was
killed ended, how the last one did, and what differs afterwards.
"""

import json
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

import onecycle.training_run
from helpers import composed_of, only_folder, plain_values, record_of, rows
from onecycle.config.validate import flat, validated
from onecycle.runs import checkpoints, summary
from onecycle.training.classifier import Classifier

Hook = Callable[[], None]


TINY = [
    "experiment=debug", "data.source.train_size=320", "data.val_size=40", "evaluation.every_n_epochs=1",
    "batch_size=40", "trainer.max_epochs=2", "callbacks.figures=null", "callbacks.progress=null",
    "ema={decay_per_step:0.9,every_n_steps:2}", "data.augment.flip=alternating",
    "callbacks.checkpoint.every_n_steps=1", "trainer.detect_anomaly=false",
]  # fmt: skip


def before(owner: Any, name: str, visit: int, hook: Hook) -> None:
    """Call `hook` right before the visit-th call of a function."""
    original, visits = getattr(owner, name), [0]

    def hooked(*arguments: Any, **named: Any) -> Any:
        visits[0] += 1
        if visits[0] == visit:
            hook()
        return original(*arguments, **named)

    setattr(owner, name, hooked)


PLACES: dict[str, tuple[Any, str]] = {
    "validation": (Classifier, "validation_step"),
    "step": (Classifier, "training_step"),
    "flush": (checkpoints, "_flush"),  # a checkpoint is written but not in its place
    "replace": (Path, "replace"),  # between the old one's new name and the new one's
    "serialize": (torch, "save"),
    "test": (Classifier, "test_step"),
    "record": (summary, "_log_results"),
}


def start(cfg: Any, sweep: Path, how: str = "", place: Any = None, visit: int = 0) -> int:
    """Train in a process of its own; returns its number."""
    number = os.fork()
    if number:
        return number
    try:
        with (sweep.parent / f"{sweep.name}.log").open("a") as log:
            os.dup2(log.fileno(), 1)
            os.dup2(log.fileno(), 2)
        signal.signal(signal.SIGHUP, signal.SIG_DFL)  # nohup leaves it ignored
        if isinstance(place, str):
            before(*PLACES[place], visit, lambda: os.kill(os.getpid(), signal.Signals[how]))
        onecycle.training_run.train(cfg, [], sweep=sweep, progress=False)
        os._exit(0)
    except KeyboardInterrupt:
        os._exit(130)
    except BaseException:  # the child must not go on with the parent's work
        traceback.print_exc()
        os._exit(1)


def ended(number: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(number, 0)[1])


def result_of(sweep: Path) -> dict[str, Any]:
    """Everything of a run that must not depend on how often it was killed, by dotted keys."""
    folder = only_folder(sweep)
    checkpoint = checkpoints.read_checkpoint(folder / "checkpoints" / "last.ckpt")
    checkpoint["onecycle"].pop("seconds")
    parts = ("status", "identity", "test", "train", "val", "steps", "epochs", "error", "hyperparameters", "data")
    files = sorted(path.name for path in (folder / "checkpoints").iterdir())
    record = {part: record_of(folder).get(part) for part in parts}
    return flat(plain_values({"checkpoint": checkpoint, "rows": rows(folder), "record": record, "files": files}))


def main() -> None:
    folder, plan, overrides = Path(sys.argv[1]), json.loads(sys.argv[2]), sys.argv[3:]
    torch.set_num_threads(1)
    cfg = validated(composed_of(*TINY, f"data.cache={folder / 'cache'}", f"output={folder}", *overrides))
    for name in ("warm", "whole"):  # the first one fills the cache
        began = time.perf_counter()
        assert ended(start(cfg, folder / name)) == 0, (folder / f"{name}.log").read_text()
        took = time.perf_counter() - began
    whole = result_of(folder / "whole")
    for number, (how, place, visit) in enumerate(plan):
        sweep = folder / f"killed{number}"
        process = start(cfg, sweep, how, place, visit)
        if not isinstance(place, str):
            time.sleep(place * took)
            os.kill(process, signal.Signals[how])
        code = ended(process)
        if visit < 0:  # and once more, wherever that is now
            process = start(cfg, sweep)
            time.sleep(-0.1 * visit * took)
            os.kill(process, signal.SIGKILL)
            ended(process)
        last = ended(start(cfg, sweep))
        told = (folder / f"{sweep.name}.log").read_text()
        ours = result_of(sweep) if last == 0 else {}
        different = [key for key in ours | whole if ours.get(key, ...) != whole.get(key, ...)] if ours else [told]
        print(
            json.dumps({"how": [how, place, visit], "code": code, "last": last, "differences": different}), flush=True
        )


if __name__ == "__main__":
    main()
