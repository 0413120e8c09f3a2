"""Searches: where they went, and how good the best was after how many runs."""

import math
from collections.abc import Sequence

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import Normalize
from matplotlib.figure import Figure

from onecycle.studies.axes import colour_bar, entry, frame, legends, logarithmic, panel_grid, panel_title, ticks
from onecycle.studies.points import Direction, Rows, direction_of, number, positive, require, select, values_of
from onecycle.studies.style import GRID, INK, MUTED, SMALL, Labels, colours, label_of, plain, symbol, value_text

Spot = tuple[float, float, float]


def path(
    rows: Rows, *, x: str, y: str, z: str, order: str = "number", panels: str | None = None,
    loose: Sequence[str] = (), labels: Labels | None = None, title: str | None = None,
) -> Figure:  # fmt: skip
    """The points that a search tried over the plane of x and y, both logarithmic, joined in the order of `order`.

    The colour is z, the mean over the seeds of a point; hollow points diverged; the ring is the best z. Thin lines are
    those of equal x · y. A panel for each value of `panels`; the points of the `loose` ones, which follow from nothing,
    are not joined. Raises ValueError for columns that no row has.
    """
    require("path", rows, x, y, z, order, panels)
    values = values_of(rows, panels)
    groups = [_spots(select(rows, panels, value), x, y, z, order) for value in values]
    everything = [spot for spots in groups for spot in spots]
    known = [spot[2] for spot in everything if math.isfinite(spot[2])]
    if not known:
        raise ValueError(f"path: no run has values of {x}, {y} and {z}")
    shades = matplotlib.cm.ScalarMappable(Normalize(min(known), max(known)), "viridis")
    figure, grid = panel_grid(len(values), height=4.2)
    for axes, value, spots in zip(grid, values, groups, strict=True):
        logarithmic(axes, "x", x, [spot[0] for spot in spots])
        logarithmic(axes, "y", y, [spot[1] for spot in spots])
        _draw(axes, spots, shades, direction_of(z, None), joined=value not in loose)
        if panels:
            panel_title(axes, value_text(panels, value, labels))
    low, high = _limits(everything)
    for axes in grid:
        axes.set(xlim=low, ylim=high)
        _contours(axes)
        ticks(axes, "x", [])
        ticks(axes, "y", [])
    frame(figure, grid, label_of(x, labels), label_of(y, labels), title)
    colour_bar(figure.colorbar(shades, ax=grid, pad=0.02), label_of(z, labels))
    grid[-1].annotate(f"thin: equal {symbol(x)}{symbol(y)}", (0.98, 0.02), xycoords="axes fraction", ha="right",
                      fontsize=SMALL, color=MUTED)  # fmt: skip
    return figure


def progress(
    rows: Rows, *, y: str, select_by: str, by: str = "arm", order: str = "number", labels: Labels | None = None,
    y_limits: Sequence[float] | None = None, title: str | None = None,
) -> Figure:  # fmt: skip
    """The y of the point that `select_by` finds best among the first n, against n: a line for each value of `by`.

    What is selected on and what is shown differ on purpose: the first are held-out images, the second may be the test
    set. Raises ValueError for columns that no row has.
    """
    require("progress", rows, y, select_by, by, order)
    groups = values_of(rows, by)
    figure, (axes,) = panel_grid(1)
    entries = []
    for group, colour in zip(groups, colours(groups), strict=True):
        chosen = _best_so_far(select(rows, by, group), y, select_by, order)
        if not chosen:
            continue
        axes.plot(range(1, len(chosen) + 1), chosen, color=colour, linewidth=1.8, drawstyle="steps-post", label="_best")
        axes.plot([len(chosen)], [chosen[-1]], color=colour, marker="o", markersize=6, linestyle="none", label="_end")
        entries.append(entry(value_text(by, group, labels), colour, "o"))
    if not entries:
        raise ValueError(f"progress: no run has values of both {y} and {select_by}")
    if y_limits:
        axes.set_ylim(*y_limits)
    ticks(axes, "y", [])
    frame(figure, [axes], "points tried", f"{label_of(y, labels)} of the best so far", title)
    legends([axes], entries, [])
    return figure


def _means(rows: Rows, order: str, *columns: str) -> list[list[float]]:
    """The means over seeds of columns, NaN where a run diverged, for each value of `order` in turn."""
    result = []
    for place in values_of(rows, order):
        runs = select(rows, order, place)
        found = [[number(run, column) for run in runs] for column in columns]
        result.append([_mean(values) for values in found])
    return result


def _mean(values: Sequence[float | None]) -> float:
    sound = [value for value in values if value is not None and math.isfinite(value)]
    return math.fsum(sound) / len(sound) if len(sound) == len(values) else math.nan


def _spots(rows: Rows, x: str, y: str, z: str, order: str) -> list[Spot]:
    spots = [(a, b, c) for a, b, c in _means(rows, order, x, y, z) if math.isfinite(a) and math.isfinite(b)]
    for column, place in ((x, 0), (y, 1)):
        positive([spot[place] for spot in spots], column, "choose other rows with `where`")
    return spots


def _best_so_far(rows: Rows, y: str, select_by: str, order: str) -> list[float]:
    sign = 1.0 if direction_of(select_by, None) == "accuracy" else -1.0
    best, shown, result = -math.inf, math.nan, []
    for value, score in _means(rows, order, y, select_by):
        if math.isfinite(score) and sign * score > best:
            best, shown = sign * score, value
        result.append(shown)
    return result if math.isfinite(best) else []


def _draw(
    axes: Axes, spots: Sequence[Spot], shades: matplotlib.cm.ScalarMappable, better: Direction, *, joined: bool
) -> None:
    if joined:
        xs, ys = [spot[0] for spot in spots], [spot[1] for spot in spots]
        axes.plot(xs, ys, color=MUTED, linewidth=0.9, alpha=0.6, label="_path", zorder=2)
        axes.annotate("start", (xs[0], ys[0]), (10, 8), textcoords="offset points", fontsize=SMALL, color=INK, zorder=5)
    for x, y, z in spots:
        colour = shades.to_rgba(np.array([z]))[0] if math.isfinite(z) else "none"
        axes.plot([x], [y], marker="o", markersize=9, linestyle="none", color=colour, label="_point", zorder=3,
                  markeredgecolor="white" if math.isfinite(z) else MUTED, markeredgewidth=0.9)  # fmt: skip
    sound = [spot for spot in spots if math.isfinite(spot[2])]
    if not sound:
        return
    x, y, z = (max if better == "accuracy" else min)(sound, key=lambda spot: spot[2])
    axes.plot([x], [y], marker="o", markersize=15, linestyle="none", markerfacecolor="none",
              markeredgecolor=INK, markeredgewidth=1.6, label="_best", zorder=4)  # fmt: skip
    text = f"best, {plain(round(z, 1))}"
    axes.annotate(text, (x, y), (10, 8), textcoords="offset points", fontsize=SMALL, color=INK, zorder=5)


def _limits(spots: Sequence[Spot]) -> list[tuple[float, float]]:
    """Limits of both axes: a factor of two beyond the points."""
    return [(min(spot[place] for spot in spots) / 2, max(spot[place] for spot in spots) * 2) for place in (0, 1)]


def _contours(axes: Axes) -> None:
    """Thin lines of equal x · y, a factor of four apart."""
    (left, right), (bottom, top) = axes.get_xlim(), axes.get_ylim()
    first, last = math.floor(math.log(left * bottom, 4)), math.ceil(math.log(right * top, 4))
    for power in range(first, last + 1):
        product = 4.0**power
        axes.plot([left, right], [product / left, product / right], color=GRID, linewidth=1, label="_equal", zorder=1)
