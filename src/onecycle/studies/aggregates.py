"""A study in TensorBoard: its figures, and the mean and spread over seeds of each point's curves."""

import csv
import math
import re
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from onecycle.studies.curves import METRICS

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

TAGS = ("train/loss", "train/accuracy", "test/loss", "test/accuracy", "val/loss", "val/accuracy")
Curve = dict[int, float]  # values by step


def write_aggregates(folder: Path, figures: Mapping[str, "Figure"], rows: "pd.DataFrame") -> None:
    """Write events to `folder` anew: figures in the folder itself, one run each for mean, mean + sd and mean − sd."""
    from torch.utils.tensorboard import SummaryWriter

    shutil.rmtree(folder, ignore_errors=True)
    with SummaryWriter(str(folder)) as writer:
        for name, figure in figures.items():
            writer.add_figure(name, figure, close=False)
    labels = rows["label"].str.replace(r",?seed=[^,]*", "", regex=True)
    for label, members in rows["folder"].groupby(labels, sort=False):
        curves = [read_curves(Path(path)) for path in members]
        bands = {tag: band([curve.get(tag, {}) for curve in curves]) for tag in TAGS}
        for suffix, sign in (("mean", 0), ("plus sd", 1), ("minus sd", -1)):
            if sign and len(members) < 2:
                continue
            with SummaryWriter(str(folder / re.sub(r"[^\w=.,+-]+", "_", label or "all") / suffix)) as writer:
                for tag, points in bands.items():
                    for step, mean, sd in points:
                        writer.add_scalar(tag, mean + sign * sd, step)


def read_curves(folder: Path) -> dict[str, Curve]:
    """The columns TAGS of a run's metrics.csv, without what is not finite."""
    curves: dict[str, Curve] = {}
    if not (folder / METRICS).exists():
        return curves
    with (folder / METRICS).open(newline="") as file:
        for line in csv.DictReader(file):
            for tag in TAGS:
                value = float(line.get(tag) or math.nan)
                if math.isfinite(value):
                    curves.setdefault(tag, {})[int(line["step"])] = value
    return curves


def band(curves: Sequence[Curve]) -> list[tuple[int, float, float]]:
    """Step, mean and sample standard deviation (0 for a single curve) at the steps that all curves have."""
    steps = sorted(set.intersection(*map(set, curves)))
    values = np.array([[curve[step] for step in steps] for curve in curves])
    spread = values.std(axis=0, ddof=1) if len(curves) > 1 else np.zeros(len(steps))
    return list(zip(steps, values.mean(axis=0).tolist(), spread.tolist(), strict=True))
