"""What is read from the curves of single runs: histories, and the numbers of an LR range test."""

import csv
import math
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from onecycle.studies.shapes import BLOW_UP

METRICS = "metrics.csv"
SMOOTHING = 0.9  # of the range test's loss: an exponential average over about ten steps


def history(folder: Path, *names: str) -> list[list[float]]:
    """Columns of a run's metrics.csv, over those rows that have them all; empty lists where there is no file."""
    try:
        with (folder / METRICS).open(newline="") as file:
            lines = [line for line in csv.DictReader(file) if all(line.get(name) for name in names)]
    except FileNotFoundError:
        return [[] for _ in names]
    return [[float(line[name]) for line in lines] for name in names]


def smoothed(values: Sequence[float], weight: float = SMOOTHING) -> list[float]:
    """Exponential average that starts unbiased; a value that is not finite stays so from there on."""
    average, result = 0.0, []
    for number, value in enumerate(values, start=1):
        average = weight * average + (1 - weight) * value
        result.append(average / (1 - weight**number))
    return result


def range_test(folder: Path) -> dict[str, float]:
    """Where the smoothed loss of a range test is lowest, and the largest usable LR behind that.

    lr_at_minimum: the LR of the lowest loss. usable_lr: the last LR before the loss exceeds 1.25 times its minimum, or
    is not finite; the last LR of the test where it never does. usable_lr_log2: its logarithm, in which it varies evenly
    from run to run. NaN without a curve.
    """
    lrs, losses = history(folder, "lr", "train/loss")
    if not losses:
        return dict.fromkeys(("lr_at_minimum", "usable_lr", "usable_lr_log2", "lowest_loss"), math.nan)
    curve = np.array(smoothed(losses))
    best = int(np.nanargmin(curve))
    beyond = [step for step in range(best, len(curve)) if not curve[step] <= BLOW_UP * curve[best]]
    last = beyond[0] - 1 if beyond else len(curve) - 1
    found = {"lr_at_minimum": lrs[best], "usable_lr": lrs[last], "lowest_loss": float(curve[best])}
    return found | {"usable_lr_log2": math.log2(lrs[last])}


DERIVED: dict[str, Callable[[Path], dict[str, float]]] = {"range_test": range_test}
