"""A study in TensorBoard: its figures, and the mean and spread over seeds of each point's curves."""

import csv
import math
import re
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from onecycle.studies.curves import METRICS

if TYPE_CHECKING:
    from matplotlib.figure import Figure

TAGS = ("train/loss", "train/accuracy", "test/loss", "test/accuracy", "val/loss", "val/accuracy")
Curve = dict[int, float]


def write_aggregates(folder: Path, figures: Mapping[str, "Figure"], rows: Sequence[Mapping[str, Any]]) -> None:
    """Write events below `folder`: figures in the folder itself, one run each for mean, mean + sd and mean − sd."""
    from torch.utils.tensorboard import SummaryWriter

    with SummaryWriter(str(folder)) as writer:
        for name, figure in figures.items():
            writer.add_figure(name, figure, close=False)
    for label, members in by_point(rows).items():
        curves = [read_curves(Path(row["folder"])) for row in members]
        bands = {tag: band([curve.get(tag, {}) for curve in curves]) for tag in TAGS}
        for suffix, sign in (("mean", 0), ("plus sd", 1), ("minus sd", -1)):
            if sign and len(members) < 2:
                continue
            with SummaryWriter(str(folder / re.sub(r"[^\w=.,+-]+", "_", label) / suffix)) as writer:
                for tag in TAGS:
                    for step, (mean, sd) in bands[tag].items():
                        writer.add_scalar(tag, mean + sign * sd, step)


def by_point(rows: Sequence[Mapping[str, Any]]) -> dict[str, list[Mapping[str, Any]]]:
    """Rows that differ in their seed alone, by their common label."""
    groups: dict[str, list[Mapping[str, Any]]] = {}
    for row in rows:
        groups.setdefault(re.sub(r",?seed=[^,]*", "", row["label"]) or "all", []).append(row)
    return groups


def read_curves(folder: Path) -> dict[str, Curve]:
    """Every column of a run's metrics.csv by step, without what is not finite."""
    curves: dict[str, Curve] = {}
    path = folder / METRICS
    if not path.exists():
        return curves
    with path.open(newline="") as file:
        for line in csv.DictReader(file):
            for tag in TAGS:
                value = float(line.get(tag) or math.nan)
                if math.isfinite(value):
                    curves.setdefault(tag, {})[int(line["step"])] = value
    return curves


def band(curves: Sequence[Curve]) -> dict[int, tuple[float, float]]:
    """Mean and sample standard deviation (0 for a single curve) at the steps that all curves have."""
    steps = set.intersection(*(set(curve) for curve in curves)) if curves else set()
    result = {}
    for step in sorted(steps):
        values = [curve[step] for curve in curves]
        result[step] = (statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else 0.0)
    return result
