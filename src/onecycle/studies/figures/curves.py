"""One pure function per kind of figure: rows, and the parameters of a study's YAML file, to a Figure.

Several rows that differ only in their seed are one point: the mean, ± one sample standard deviation, and each seed as
a faint dot. Diverged runs are crosses at the bad edge of the axes. In `labels`, a column's name holds its text,
"column=value" one value's text, "column=" the template of a panel's title, as "N = {}".
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from onecycle.studies.figures.axes import (
    crosses,
    entry,
    frame,
    legends,
    logarithmic,
    make_room,
    panel_grid,
    panel_title,
    ring,
    strip,
    ticks,
)
from onecycle.studies.figures.bars import arms
from onecycle.studies.figures.heat_maps import heat_map_pair, ridge, ridge_power
from onecycle.studies.figures.histories import training_curves
from onecycle.studies.figures.networks import layers, surfaces
from onecycle.studies.figures.paths import path, progress
from onecycle.studies.figures.points import (
    Direction,
    Point,
    Rows,
    direction_of,
    is_number,
    points,
    require,
    select,
    values_of,
)
from onecycle.studies.figures.scatter import scatter
from onecycle.studies.figures.stacked import stacked
from onecycle.studies.figures.style import MARKERS, Labels, colours, label_of, panel_text, save, value_text

__all__ = [
    "arms",
    "curves",
    "heat_map_pair",
    "layers",
    "path",
    "progress",
    "ridge",
    "ridge_power",
    "save",
    "scatter",
    "stacked",
    "surfaces",
    "training_curves",
]


@dataclass(frozen=True)
class Line:
    """One line of a panel."""

    points: list[Point]
    colour: str
    marker: str


def curves(
    rows: Rows, *, x: str, y: str, by: str | None = None, panels: str | None = None, log_x: bool = True,
    log_y: bool = False, y_limits: Sequence[float] | None = None, direction: Direction | None = None,
    optimum: bool = True, labels: Labels | None = None, title: str | None = None,
) -> Figure:  # fmt: skip
    """Lines of y against x: one for each value of `by`, a panel for each value of `panels`, all with the same y axis.

    direction: whether the optimum, marked by a ring, is the lowest ("loss") or the highest ("accuracy"); by default y's
    name says so. A point where a run diverged is no optimum and no line leads there, since its mean is that of the
    other seeds alone; how many diverged stands beside the cross. Crosses have a strip of their own, beyond the values
    and beyond `y_limits`. Raises ValueError for columns that no row has.
    """
    require("curves", rows, x, y, by, panels)
    better, groups, values = direction_of(y, direction), values_of(rows, by), values_of(rows, panels)
    styles = list(zip(groups, colours(groups), _markers(groups), strict=True))
    figure, grid = panel_grid(len(values))
    drawn: list[list[Line]] = []
    for axes, value in zip(grid, values, strict=True):
        part = select(rows, panels, value)
        lines = [Line(points(select(part, by, group), x, y), colour, marker) for group, colour, marker in styles]
        if not any(line.points for line in lines):
            raise ValueError(f"curves: no run{f' of {panels}={value}' if panels else ''} has values of {x} and {y}")
        everything = [point for line in lines for point in line.points]
        if log_x:
            logarithmic(axes, "x", x, [point.x for point in everything])
        if log_y:
            logarithmic(axes, "y", y, [value for point in everything for value in point.values])
        _draw(axes, lines, better, optimum)
        if panels:
            panel_title(axes, panel_text(panels, value, labels))
        drawn.append(lines)
    _finish(grid, drawn, better, y_limits)
    frame(figure, grid, label_of(x, labels), label_of(y, labels), title)
    entries = [entry(value_text(by, group, labels), colour, marker) for group, colour, marker in styles] if by else []
    legends(grid, entries, _notes(drawn, optimum), label_of(by, labels) if by else "")
    return figure


def _notes(drawn: Sequence[Sequence[Line]], optimum: bool) -> list[str]:
    everything = [point for lines in drawn for line in lines for point in line.points]
    best = optimum and any(point.values and not point.diverged for point in everything)
    counts = sorted({len(point.values) + point.diverged for point in everything if point.values})
    runs = [f"mean ± sd, n = {'–'.join(map(str, dict.fromkeys([counts[0], counts[-1]])))}"] if counts else []
    if counts and counts[-1] == 1:
        runs = ["mean, n = 1"]
    return ["optimum"] * best + runs + ["diverged, no value"] * any(point.diverged for point in everything)


def _markers(groups: Sequence[Any]) -> list[str]:
    ordered = all(is_number(group) for group in groups)
    return ["o" if ordered else MARKERS[index % len(MARKERS)] for index in range(len(groups))]


def _draw(axes: Axes, lines: Sequence[Line], direction: Direction, optimum: bool) -> None:
    """Means with their deviations, single seeds, and optima of one panel."""
    for line in lines:
        shown = [point for point in line.points if point.values]
        if not shown:
            continue
        xs, means = [point.x for point in shown], [point.mean for point in shown]
        axes.errorbar(xs, means, yerr=[point.sd for point in shown], color=line.colour, marker=line.marker,
                      markersize=5.5, linestyle="none", elinewidth=1.3, capsize=2.5, label="_mean",
                      zorder=3)  # fmt: skip
        whole = [math.nan if point.diverged else point.mean for point in shown]
        axes.plot(xs, whole, color=line.colour, linewidth=1.8, label="_line", zorder=3)
        singles = [(point.x, value) for point in shown for value in point.values if len(point.values) > 1]
        if singles:
            axes.plot(*zip(*singles, strict=True), linestyle="none", marker="o", markersize=3.5, color=line.colour,
                      markeredgewidth=0, alpha=0.4, label="_seeds", zorder=2)  # fmt: skip
        sound = [point for point in shown if not point.diverged]
        if optimum and sound:
            best = (min if direction == "loss" else max)(sound, key=lambda point: point.mean)
            ring(axes, best.x, best.mean, line.colour)


def _finish(
    grid: Sequence[Axes], drawn: Sequence[Sequence[Line]], direction: Direction, limits: Sequence[float] | None
) -> None:
    """Crosses, limits and ticks, once every panel has its lines."""
    if limits:
        grid[0].set_ylim(*limits)
    values = grid[0].get_ylim()
    piles = [
        crosses(axes, [(line.points, line.colour) for line in lines], direction, values)
        for axes, lines in zip(grid, drawn, strict=True)
    ]
    xs = sorted({point.x for lines in drawn for line in lines for point in line.points})
    if max(piles):
        make_room(grid[0], max(piles), direction)
    for axes in grid:
        ticks(axes, "x", xs)
        ticks(axes, "y", [])
        if max(piles):
            strip(axes, values, direction)
