"""What is read from the curves of single runs: histories, and the numbers of an LR range test."""

import csv
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

METRICS = "metrics.csv"
BLOW_UP = 1.25  # a loss is blown up where it exceeds its minimum by a quarter and still rises
SMOOTHING = 11  # steps of the average of a range test's loss, in its numbers as in its figure


def history(folder: Path, *names: str) -> list[list[float]]:
    """Columns of a run's metrics.csv, over those rows that have them all; empty lists where there is no file."""
    try:
        with (folder / METRICS).open(newline="") as file:
            lines = [line for line in csv.DictReader(file) if all(line.get(name) for name in names)]
    except FileNotFoundError:
        return [[] for _ in names]
    return [[float(line[name]) for line in lines] for name in names]


def moving_average(values: Array, count: int) -> Array:
    """Centred average over `count` values, over fewer at both ends; one more where it is even, to have a middle."""
    count = min(count, len(values))
    if count <= 1:
        return values
    # Longer than the values the window would lengthen the result, even it would move it by half a step.
    window = np.ones(count + 1 - count % 2 if count < len(values) else count - 1 + count % 2)
    total: Array = np.convolve(values, window, mode="same") / np.convolve(np.ones(len(values)), window, mode="same")
    return total


def range_test(folder: Path) -> dict[str, float]:
    """Where the averaged loss of a range test is lowest, and the largest usable LR behind that.

    lr_at_minimum: the LR of the lowest average. usable_lr: the last LR before the loss exceeds 1.25 times that minimum,
    on average and by itself, or is not finite; the last LR of the test where it never does. usable_lr_log2: its
    logarithm, in which it varies evenly from run to run. NaN without a curve.
    """
    lrs, losses = history(folder, "lr", "train/loss")
    wrong = [step for step, loss in enumerate(losses) if not math.isfinite(loss)]
    sound = np.asarray(losses[: wrong[0] if wrong else None], float)
    if not len(sound):
        return dict.fromkeys(("lr_at_minimum", "usable_lr", "usable_lr_log2", "lowest_loss"), math.nan)
    curve = moving_average(sound, SMOOTHING)
    best = int(np.argmin(curve))
    limit = BLOW_UP * curve[best]
    # The average rises half a window before the loss does.
    beyond = np.flatnonzero((curve[best:] > limit) & (sound[best:] > limit))
    last = best + int(beyond[0]) - 1 if len(beyond) else len(sound) - 1
    found = {"lr_at_minimum": lrs[best], "usable_lr": lrs[last], "lowest_loss": float(curve[best])}
    return found | {"usable_lr_log2": math.log2(lrs[last])}


DERIVED: dict[str, Callable[[Path], dict[str, float]]] = {"range_test": range_test}
