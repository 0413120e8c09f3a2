"""ResNet-9 on CIFAR subsets in one learning-rate cycle: a template and a laboratory."""

import os
import sys
import time
from pathlib import Path
from typing import Any


def __getattr__(name: str) -> Any:
    """The Python API, imported only when it is asked for: `load` needs torch, `train` needs Hydra, `records` pandas."""
    if name == "load":
        from onecycle.runs.trained import load_network

        return load_network
    if name == "train":
        from onecycle.cli import train_by_words

        return train_by_words
    if name == "records":
        from onecycle.runs.table import records

        return records
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def is_machine_busy() -> bool:
    """Whether other processes keep at least a quarter of the cores busy; False where Linux does not tell."""
    counts = []
    try:
        for seconds in (0, 0.004, 0.004):
            time.sleep(seconds)
            running = Path("/proc/loadavg").read_text().split()[3].partition("/")[0]
            counts.append(int(running) - 1)  # without this process
    except (OSError, ValueError, IndexError):
        return False
    return sorted(counts)[1] >= (os.cpu_count() or 1) / 4


# OpenMP's threads wait for each other in a loop, for milliseconds if need be. Nothing is faster on a quiet machine;
# beside other work they use up the time that the late thread needs (docs/benchmarks.md). Read when torch is loaded.
WAITING = {"OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME"}
if "torch" not in sys.modules and not WAITING & set(os.environ) and is_machine_busy():
    os.environ["OMP_WAIT_POLICY"] = "passive"
