"""Searches: where they went, and how good the best was after how many runs."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patheffects import withStroke

from onecycle.studies.figures.axes import colour_bar, frame, legends, logarithmic, panel_grid, panel_title, ticks
from onecycle.studies.figures.points import (
    SETTINGS,
    Direction,
    Rows,
    direction_of,
    key,
    number,
    positive,
    require,
    select,
    values_of,
)
from onecycle.studies.figures.style import GRID, INK, MUTED, SMALL, TEXT, Labels, colours, label_of, symbol, value_text

Spot = tuple[float, float, float, float]  # x, y, z and what the size shows
SMALLEST, LARGEST = 5.0, 13.0  # markers, in points
DASHES: tuple[Any, ...] = (
    "-",
    (0, (5, 1.5)),
    (0, (1.2, 1.2)),
    (0, (6, 1.5, 1.2, 1.5)),
)  # tell lines apart that coincide


def path(
    rows: Rows, *, x: str, y: str, z: str, order: str = "number", panels: str | None = None,
    loose: Sequence[str] = (), size: str | None = None, labels: Labels | None = None, title: str | None = None,
) -> Figure:  # fmt: skip
    """The points that a search tried over the plane of x and y, both logarithmic, joined in the order of `order`.

    The colour is z, the mean over the seeds of a point; hollow points diverged; the ring is the best z. The marker
    grows with the column `size`, by its rank among all values; small markers lie on large ones. Thin lines are those of
    equal x · y. A panel for each value of `panels`; the points of the `loose` ones, which follow from nothing, are not
    joined. Raises ValueError for columns that no row has.
    """
    require("path", rows, x, y, z, order, panels, size)
    values = values_of(rows, panels)
    groups = [_spots(select(rows, panels, value), x, y, z, size, order) for value in values]
    everything = [spot for spots in groups for spot in spots]
    known = [spot[2] for spot in everything if math.isfinite(spot[2])]
    if not known:
        raise ValueError(f"path: no run has values of {x}, {y} and {z}")
    ranks = sorted({spot[3] for spot in everything if math.isfinite(spot[3])})
    shades = matplotlib.cm.ScalarMappable(Normalize(min(known), max(known)), "viridis")
    figure, grid = panel_grid(len(values), height=4.2)
    for axes, value, spots in zip(grid, values, groups, strict=True):
        logarithmic(axes, "x", x, [spot[0] for spot in spots])
        logarithmic(axes, "y", y, [spot[1] for spot in spots])
        _draw(axes, spots, shades, ranks, joined=value not in loose)
        if panels:
            panel_title(axes, value_text(panels, value, labels))
    low, high = _limits(everything)
    for axes, spots in zip(grid, groups, strict=True):
        axes.set(xlim=low, ylim=high)
        _contours(axes)
        _best(axes, spots, direction_of(z, None), " %" * ("accuracy" in z))
    for axes in grid[-2:] if len(grid) == 4 else grid:  # a text for all would lie on the legend
        axes.set_xlabel(label_of(x, labels), fontsize=TEXT, color=INK)
    frame(figure, grid, label_of(x, labels) if len(grid) == 1 else "", label_of(y, labels), title)
    colour_bar(figure.colorbar(shades, ax=grid, pad=0.02), label_of(z, labels))
    _legend(figure, f"equal {symbol(x)}{symbol(y)}", symbol(size) if size else "", ranks,
            diverged=any(not math.isfinite(spot[2]) for spot in everything))  # fmt: skip
    return figure


def progress(
    rows: Rows, *, y: str, select_by: str, by: str = "arm", order: str = "number", levels: Sequence[str] = (),
    labels: Labels | None = None, y_limits: Sequence[float] | None = None, title: str | None = None,
) -> Figure:  # fmt: skip
    """The y of the point that `select_by` finds best among the first n, against n: a line for each value of `by`.

    What is selected on and what is shown differ on purpose: the first are held-out images, the second may be the test
    set. Values of `by` among `levels`, as a grid, whose points have no order, are horizontal lines at their best. The
    legend has every line's last value. Raises ValueError for columns that no row has.
    """
    require("progress", rows, y, select_by, by, order)
    groups = [group for group in values_of(rows, by) if group not in levels]
    figure, (axes,) = panel_grid(1, height=4.8)
    entries, unit = [], " %" * ("accuracy" in y)
    for place, (group, colour) in enumerate(zip(groups, colours(groups), strict=True)):
        chosen = _best_so_far(_means(select(rows, by, group), order, y, select_by), select_by)
        if not chosen:
            continue
        style = {"color": colour, "linewidth": 2.2, "linestyle": DASHES[place % len(DASHES)]}
        axes.plot(range(1, len(chosen) + 1), chosen, drawstyle="steps-post", label="_best", zorder=3, **style)
        entries.append(Line2D([], [], label=f"{value_text(by, group, labels)}: {chosen[-1]:.1f}{unit}", **style))
    if not entries:
        raise ValueError(f"progress: no run has values of both {y} and {select_by}")
    for group in levels:
        part = select(rows, by, group)
        best = _best_so_far(_settings(part, y, select_by), select_by)
        if best:
            axes.axhline(best[-1], color=INK, linewidth=1.1, label="_level", zorder=2)
            text = f"{value_text(by, group, labels)}, best of {len(best)}: {best[-1]:.1f}{unit}"
            entries.append(Line2D([], [], color=INK, linewidth=1.1, label=text))
    if y_limits:
        axes.set_ylim(*y_limits)
    ticks(axes, "y", [])
    frame(figure, [axes], "points tried", f"{label_of(y, labels)} of the best so far", title)
    legends([axes], entries, [])
    return figure


def _settings(rows: Rows, *columns: str) -> list[list[float]]:
    """The means over seeds of columns for each setting, as `_means` for points without an order."""
    groups: dict[tuple[Any, ...], list[Mapping[str, Any]]] = {}
    for row in rows:
        groups.setdefault(tuple(key(row.get(name)) for name in SETTINGS), []).append(row)
    return [[_mean([number(run, column) for run in runs]) for column in columns] for runs in groups.values()]


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


def _spots(rows: Rows, x: str, y: str, z: str, size: str | None, order: str) -> list[Spot]:
    means = _means(rows, order, x, y, z, size or x)
    spots = [(a, b, c, float(f"{d:.6g}")) for a, b, c, d in means if math.isfinite(a) and math.isfinite(b)]
    if not size:
        spots = [(a, b, c, math.nan) for a, b, c, _ in spots]
    for column, place in ((x, 0), (y, 1)):
        positive([spot[place] for spot in spots], column, "choose other rows with `where`")
    return spots


def _best_so_far(means: Sequence[Sequence[float]], select_by: str) -> list[float]:
    """The first of each pair, for the pair whose second is the best up to there; empty where none has a second."""
    sign = 1.0 if direction_of(select_by, None) == "accuracy" else -1.0
    best, shown, result = -math.inf, math.nan, []
    for value, score in means:
        if math.isfinite(score) and sign * score > best:
            best, shown = sign * score, value
        result.append(shown)
    return result if math.isfinite(best) else []


def _draw(
    axes: Axes, spots: Sequence[Spot], shades: matplotlib.cm.ScalarMappable, ranks: Sequence[float], *, joined: bool
) -> None:
    if joined:
        xs, ys = [spot[0] for spot in spots], [spot[1] for spot in spots]
        axes.plot(xs, ys, color=MUTED, linewidth=0.9, alpha=0.6, label="_path", zorder=2)
        axes.annotate("start", (xs[0], ys[0]), (0, 8), textcoords="offset points", ha="center", fontsize=SMALL,
                      color=INK, zorder=5)  # fmt: skip
    for x, y, z, size in sorted(spots, key=lambda spot: -_points(spot[3], ranks)):
        colour = shades.to_rgba(np.array([z]))[0] if math.isfinite(z) else "none"
        axes.plot([x], [y], marker="o", markersize=_points(size, ranks), linestyle="none", color=colour, zorder=3,
                  markeredgecolor="white" if math.isfinite(z) else MUTED, markeredgewidth=0.9,
                  label="_point")  # fmt: skip


def _points(size: float, ranks: Sequence[float]) -> float:
    """How large a marker is, in points: by the rank of its value."""
    if len(ranks) < 2 or not math.isfinite(size):
        return 9.0
    return SMALLEST + (LARGEST - SMALLEST) * ranks.index(size) / (len(ranks) - 1)


def _best(axes: Axes, spots: Sequence[Spot], better: Direction, unit: str) -> None:
    """The ring around the best point, and its z in that corner of the panel with the fewest points."""
    sound = [spot for spot in spots if math.isfinite(spot[2])]
    if not sound:
        return
    x, y, z, _ = (max if better == "accuracy" else min)(sound, key=lambda spot: spot[2])
    axes.plot([x], [y], marker="o", markersize=LARGEST + 4, linestyle="none", markerfacecolor="none",
              markeredgecolor=INK, markeredgewidth=1.6, label="_best", zorder=4)  # fmt: skip
    places = axes.transAxes.inverted().transform(axes.transData.transform([spot[:2] for spot in spots]))

    def taken(corner: tuple[float, float]) -> int:
        return sum(abs(a - corner[0]) < 0.5 and abs(b - corner[1]) < 0.15 for a, b in places)

    across, up = min(((0, 1), (1, 1), (0, 0), (1, 0)), key=taken)
    axes.annotate(f"best, {z:.1f}{unit}", (0.03 + 0.94 * across, 0.03 + 0.94 * up), xycoords="axes fraction",
                  ha="right" if across else "left", va="top" if up else "bottom", fontsize=SMALL, color=INK, zorder=5,
                  path_effects=[withStroke(linewidth=3, foreground="white")])  # fmt: skip


def _legend(figure: Figure, equal: str, name: str, ranks: Sequence[float], *, diverged: bool) -> None:
    """What rings, sizes, hollow points and thin lines mean, below the panels."""
    dot: dict[str, Any] = {"linestyle": "none", "marker": "o", "color": MUTED, "markeredgecolor": "white"}
    hollow = {**dot, "markerfacecolor": "none", "markeredgecolor": MUTED}
    chosen = dict.fromkeys([ranks[0], ranks[len(ranks) // 2], ranks[-1]]) if name and ranks else []
    entries = [Line2D([], [], **dot, markersize=_points(rank, ranks), label=f"{name} = {rank:.2g}") for rank in chosen]
    entries.append(Line2D([], [], **{**hollow, "markeredgecolor": INK}, markersize=LARGEST, label="best"))
    entries += [Line2D([], [], **hollow, markersize=8, label="diverged")] * diverged
    entries.append(Line2D([], [], color="#c4c4c4", linewidth=1, label=equal))
    figure.legend(handles=entries, loc="outside lower center", ncols=6, frameon=False, fontsize=SMALL,
                  labelcolor=INK)  # fmt: skip


def _limits(spots: Sequence[Spot]) -> list[tuple[float, float]]:
    """Limits of both axes: a factor of two beyond the points."""
    return [(min(spot[place] for spot in spots) / 2, max(spot[place] for spot in spots) * 2) for place in (0, 1)]


def _contours(axes: Axes) -> None:
    """Ticks, and in place of a grid thin lines of equal x · y, a factor of four apart; once the limits stand."""
    axes.grid(visible=False)
    ticks(axes, "x", [])
    ticks(axes, "y", [])
    (left, right), (bottom, top) = axes.get_xlim(), axes.get_ylim()
    first, last = math.floor(math.log(left * bottom, 4)), math.ceil(math.log(right * top, 4))
    for power in range(first, last + 1):
        product = 4.0**power
        axes.plot([left, right], [product / left, product / right], color=GRID, linewidth=1, label="_equal", zorder=1)
