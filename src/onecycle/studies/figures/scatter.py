"""One quantity against another, with the uncertainty of both: accuracy against time."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.text import Annotation
from matplotlib.transforms import Bbox

from onecycle.studies.figures.axes import cross, frame, legends, logarithmic, make_room, panel_grid, ticks
from onecycle.studies.figures.points import (
    Direction,
    Rows,
    direction_of,
    diverged,
    is_number,
    number,
    require,
    same_setting,
    select,
    spread,
    values_of,
)
from onecycle.studies.figures.style import INK, MARKERS, MUTED, SMALL, Labels, colours, label_of, value_text

# Where a name may stand beside its point, best first: offset in points, horizontal and vertical alignment.
PLACES = (
    (9, 0, "left", "center"), (0, 9, "center", "bottom"), (-9, 0, "right", "center"), (0, -9, "center", "top"),
    (7, 7, "left", "bottom"), (7, -7, "left", "top"), (-7, 7, "right", "bottom"), (-7, -7, "right", "top"),
    (20, 20, "left", "bottom"), (20, -20, "left", "top"), (-20, 20, "right", "bottom"), (-20, -20, "right", "top"),
)  # fmt: skip


@dataclass(frozen=True)
class Cloud:
    """The runs of one point: what they measured in both directions, and the x of those that diverged."""

    name: str
    colour: str
    marker: str
    xs: tuple[float, ...]
    ys: tuple[float, ...]
    lost: tuple[float, ...]

    @property
    def centre(self) -> tuple[float, float]:
        """The mean in both directions."""
        return spread(self.xs)[0], spread(self.ys)[0]


def scatter(
    rows: Rows, *, x: str, y: str, by: str | None = None, points: str | None = None, connect: bool = False,
    log_x: bool = False, log_y: bool = False, x_limits: Sequence[float] | None = None,
    y_limits: Sequence[float] | None = None, direction: Direction | None = None, labels: Labels | None = None,
    title: str | None = None,
) -> Figure:  # fmt: skip
    """Points of y against x: mean ± sd in both directions for each value of `by`, whose name stands beside it.

    points: a column that tells several points of one value of `by` apart, as `epochs`; `connect` joins them by a line,
    without `points` it joins the means of all. Without `by` every run is a dot. Raises ValueError for columns that no
    row has.
    """
    require("scatter", rows, x, y, by, points)
    lines = _clouds(rows, x, y, by, points, labels)
    shown = [cloud for line in lines for cloud in line if cloud.xs]
    if not shown and not any(cloud.lost for line in lines for cloud in line):
        raise ValueError(f"scatter: no run has values of both {x} and {y}")
    figure, (axes,) = panel_grid(1, height=4.6)
    if log_x:
        logarithmic(axes, "x", x, [value for cloud in shown for value in (*cloud.xs, *cloud.lost)])
    if log_y:
        logarithmic(axes, "y", y, [value for cloud in shown for value in cloud.ys])
    for cloud in shown:
        _draw(axes, cloud)
    if connect:
        _connect(axes, lines if points else [shown])
    piles = _finish(axes, lines, direction_of(y, direction), x_limits, y_limits)
    frame(figure, [axes], label_of(x, labels), label_of(y, labels), title)
    several = ["one seed", "mean ± sd"] * any(len(cloud.xs) > 1 for cloud in shown)
    legends([axes], [], several + ["diverged"] * bool(piles))
    if by:
        _annotate(figure, axes, [[cloud for cloud in line if cloud.xs][-1:] for line in lines], shown)
    return figure


def _clouds(rows: Rows, x: str, y: str, by: str | None, points: str | None, labels: Labels | None) -> list[list[Cloud]]:
    """For each value of `by` its points, by the value of `points`."""
    groups = values_of(rows, by)
    ordered = all(is_number(group) for group in groups)
    result = []
    for index, (group, colour) in enumerate(zip(groups, colours(groups), strict=True)):
        part = select(rows, by, group)
        marker = "o" if ordered else MARKERS[index % len(MARKERS)]
        name = value_text(by, group, labels) if by else ""
        members = [select(part, points, value) for value in values_of(part, points)] if by else [[row] for row in part]
        result.append([_cloud(runs, x, y, name, colour, marker) for runs in members])
    return result


def _cloud(runs: Rows, x: str, y: str, name: str, colour: str, marker: str) -> Cloud:
    same_setting(runs, name or "scatter")
    found: list[tuple[float, float]] = []
    lost = []
    for run in runs:
        place, value = number(run, x), number(run, y)
        if diverged(run, y):
            lost += [place] if place is not None and math.isfinite(place) else []
        elif place is not None and value is not None:
            found.append((place, value))
    return Cloud(name, colour, marker, tuple(a for a, _ in found), tuple(b for _, b in found), tuple(lost))


def _draw(axes: Axes, cloud: Cloud) -> None:
    (x, x_sd), (y, y_sd) = spread(cloud.xs), spread(cloud.ys)
    axes.errorbar([x], [y], xerr=[x_sd], yerr=[y_sd], color=cloud.colour, marker=cloud.marker, markersize=7.5,
                  linestyle="none", elinewidth=1.3, capsize=0, markeredgecolor="white", markeredgewidth=0.8,
                  label="_mean", zorder=4)  # fmt: skip
    if len(cloud.xs) > 1:
        axes.plot(cloud.xs, cloud.ys, linestyle="none", marker="o", markersize=4, color=cloud.colour,
                  markeredgewidth=0, alpha=0.4, label="_seeds", zorder=3)  # fmt: skip


def _connect(axes: Axes, lines: Sequence[Sequence[Cloud]]) -> None:
    for line in lines:
        centres = sorted(cloud.centre for cloud in line if cloud.xs)
        if centres:
            colour = line[0].colour if len({cloud.colour for cloud in line}) == 1 else MUTED
            axes.plot(*zip(*centres, strict=True), color=colour, linewidth=1.4, alpha=0.8, label="_line", zorder=1)


def _finish(
    axes: Axes, lines: Sequence[Sequence[Cloud]], direction: Direction, x_limits: Sequence[float] | None,
    y_limits: Sequence[float] | None,
) -> int:  # fmt: skip
    """Crosses, limits and ticks, once the clouds are drawn. Returns how many heights of crosses there are."""
    axes.margins(0.1)
    piles = _lost(axes, lines, direction)
    if x_limits:
        axes.set_xlim(*x_limits)
    if y_limits:
        axes.set_ylim(*y_limits)
    elif piles:
        make_room(axes, piles, direction)
    ticks(axes, "x", [])
    ticks(axes, "y", [])
    return piles


def _lost(axes: Axes, lines: Sequence[Sequence[Cloud]], direction: Direction) -> int:
    """A cross for every arm with diverged runs, at their mean x, each arm at its own height. Returns how many."""
    lost = [(cloud.colour, spread(cloud.lost)[0]) for line in lines for cloud in line if cloud.lost]
    for pile, (colour, place) in enumerate(lost):
        cross(axes, place, min(pile, 4), colour, direction)
    return min(len(lost), 5)


def _annotate(figure: Figure, axes: Axes, named: Sequence[Sequence[Cloud]], shown: Sequence[Cloud]) -> None:
    """Names beside their points, each where it hides least."""
    figure.draw_without_rendering()
    scale = figure.dpi / 72
    taken: list[tuple[Bbox, float]] = []
    for cloud in shown:
        (x, y), (x_sd, y_sd) = cloud.centre, (spread(cloud.xs)[1], spread(cloud.ys)[1])
        spots = [((x, y), 5.0, 3.0), *(((a, b), 2.0, 1.0) for a, b in zip(cloud.xs, cloud.ys, strict=True))]
        for spot, size, weight in spots:
            a, b = axes.transData.transform(spot)
            taken.append((Bbox.from_extents(a, b, a, b).padded(size * scale), weight))
        if math.isfinite(x_sd):
            for low, high in (((x - x_sd, y), (x + x_sd, y)), ((x, y - y_sd), (x, y + y_sd))):
                corners = axes.transData.transform([low, high])
                taken.append((Bbox(corners).padded(scale), 0.5))
    for cloud in sorted((cloud for last in named for cloud in last), key=lambda one: one.centre):
        text = _best_place(figure, axes, cloud, taken)
        taken.append((text.get_window_extent(), 4.0))


def _best_place(figure: Figure, axes: Axes, cloud: Cloud, taken: Sequence[tuple[Bbox, float]]) -> Annotation:
    frame = axes.get_window_extent()
    options: list[tuple[float, int, Any]] = []
    for rank, (dx, dy, ha, va) in enumerate(PLACES):
        text = axes.annotate(
            cloud.name, cloud.centre, (dx, dy), textcoords="offset points", ha=ha, va=va, fontsize=SMALL, color=INK,
            zorder=7, arrowprops={"arrowstyle": "-", "color": MUTED, "linewidth": 0.7} if abs(dx) == 20 else None,
        )  # fmt: skip
        text.set_in_layout(False)
        box = text.get_window_extent()
        cost = sum(weight for other, weight in taken if box.overlaps(other))
        cost += 10.0 * (not frame.contains(box.x0, box.y0) or not frame.contains(box.x1, box.y1))
        options.append((cost, rank, text))
    best = min(options)
    for option in options:
        if option is not best:
            option[2].remove()
    text = best[2]
    assert isinstance(text, Annotation)
    return text
