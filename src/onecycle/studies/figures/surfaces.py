"""The loss around trained weights."""

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from scipy.interpolate import CubicSpline

from onecycle.studies.figures import drawing
from onecycle.studies.figures.labels import Labels, label_of, level_text
from onecycle.studies.figures.points import levels_of, part_of

LEVELS = 14  # of the contours, spaced evenly in the logarithm
FINER = 8  # how many times finer than its points a surface is drawn


def surfaces(rows: pd.DataFrame, *, by: str = "arm", labels: Labels | None = None, title: str | None = None) -> Figure:
    """`surface` of the first run that has one, a panel for each value of `by`, with one logarithmic colour scale.

    A surface: the loss at a along direction 1 and b along direction 2, both in filter norms, a row for each a. It is
    drawn through these points by cubic splines of its logarithm, where all are finite; else a loss that is not finite
    stays grey. The title says of how many seeds it is one. Raises ValueError where there is nothing to draw.
    """
    rows = rows[rows["surface"].map(lambda surface: isinstance(surface, dict))]
    names = levels_of(rows, by)
    if not names:
        raise ValueError("no run has a surface")
    found = [_finer(**part_of(rows, by, name)["surface"].iloc[0]) for name in names]
    columns = min(len(names), 3) if len(names) != 4 else 2
    size = (4.8, 3.9) if len(names) == 1 else (8.4, 6.4 / columns + 0.95)
    figure, grid = drawing.panel_grid([level_text(name, labels) for name in names], size=size)
    low, high = min(loss.min() for *_, loss in found), max(loss.max() for *_, loss in found)
    levels = np.geomspace(low, max(high, 1.01 * low), LEVELS)
    for axes, place in zip(grid, found, strict=True):
        filled = _contours(axes, *place, {"levels": levels, "norm": LogNorm(levels[0], levels[-1])})
    seeds = rows["seed"].nunique()
    title = f"{title}, one seed" + f" of {seeds}" * (seeds > 1) if title else None
    drawing.finish(grid, "direction 1 (filter norms)", "direction 2 (filter norms)", title)
    bar = figure.colorbar(filled, ax=grid, pad=0.02)
    drawing.ticks(bar.ax, "y", drawing.round_numbers(low, high))
    drawing.colour_bar(bar, label_of("loss", labels))
    return figure


def _contours(axes: Axes, a: Any, b: Any, loss: Any, style: dict[str, Any]) -> Any:
    """Filled contours, their lines and the centre, where training ended; returns what a colour bar shows."""
    filled = axes.contourf(a, b, loss.T, extend="both", **style)
    axes.contour(a, b, loss.T, colors="white", linewidths=0.5, alpha=0.7, **style)
    axes.plot([0], [0], "+", markersize=10, markeredgewidth=2, color="white", label="_centre")
    axes.set(aspect="equal", facecolor="0.83")
    axes.grid(visible=False)
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(MaxNLocator(4, prune="both"))  # the outer numbers of two panels would touch
    return filled


def _finer(a: list[float], b: list[float], loss: list[list[float | None]]) -> tuple[Any, Any, Any]:
    """a, b and the loss [a, b] on a finer grid that contains the measured points, unchanged."""
    known = np.ma.masked_less_equal(np.ma.masked_invalid(np.array(loss, float)), 0.0)
    if known.mask.any():
        return a, b, known
    finer = [np.interp(np.arange(FINER * (len(v) - 1) + 1) / FINER, np.arange(len(v)), v) for v in (a, b)]
    return *finer, np.exp(CubicSpline(b, CubicSpline(a, np.log(known.data))(finer[0]), axis=1)(finer[1]))
