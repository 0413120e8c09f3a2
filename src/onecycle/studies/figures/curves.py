"""Lines of one quantity against another, over the runs of a study."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from onecycle.studies.figures import drawing
from onecycle.studies.figures.labels import Labels, label_of, legend_texts, panel_texts, plain
from onecycle.studies.figures.points import Direction, is_lower_better, levels_of, part_of, points_of, seeds_of
from onecycle.studies.figures.style import VOID, line_styles


def curves(
    rows: pd.DataFrame, *, x: str, y: str, by: str | None = None, panels: str | None = None, log_x: bool = True,
    y_limits: Sequence[float] | None = None, direction: Direction | None = None, optimum: bool = True,
    labels: Labels | None = None, title: str | None = None,
) -> Figure:  # fmt: skip
    """Mean ± sd of y against x: a line for each value of `by`, a panel for each value of `panels`, with one y axis.

    direction: whether the optimum, marked by a ring, is the lowest ("loss") or the highest ("accuracy"); by default y's
    name says so. A point where a run diverged is no optimum and no line leads there, since its mean is that of the
    other seeds alone; how many diverged stands beside the cross. Crosses have a strip of their own, beyond the values
    and beyond `y_limits`. Raises ValueError where there is nothing to draw.
    """
    lower, values, styles = is_lower_better(y, direction), levels_of(rows, panels), line_styles(levels_of(rows, by))
    figure, grid = drawing.panel_grid(panel_texts(panels, values, labels))
    drawn: list[tuple[Axes, str, pd.DataFrame]] = []
    for axes, value in zip(grid, values, strict=True):
        for group, style in styles.items():
            runs = part_of(part_of(rows, panels, value), by, group)
            drawn.append((axes, style["color"], points_of(runs, x, y)))
            _line(axes, drawn[-1][2], style, optimum=optimum, lower=lower)
            seeds = seeds_of(runs, x, y)
            drawing.seed_dots(axes, seeds["place"], seeds["value"], style["color"])
    points = pd.concat([table for *_, table in drawn])
    if points.empty:
        raise ValueError(f"no run has values of {x} and {y}")
    if log_x:
        drawing.logarithmic(grid[0], "x", x, points.index)
    if y_limits:
        grid[0].set_ylim(*y_limits)
    limits = grid[0].get_ylim()
    has_strip = _crosses(grid, drawn, lower)
    drawing.finish(grid, label_of(x, labels), label_of(y, labels), title, x_ticks=set(points.index),
                   entries=legend_texts(styles, labels) if by else None, notes=_notes(points, optimum),
                   heading=label_of(by, labels) if by else "")  # fmt: skip
    for axes in grid if has_strip else ():
        _strip(axes, *limits)
    return figure


def _line(axes: Axes, table: pd.DataFrame, style: dict[str, Any], *, optimum: bool, lower: bool) -> None:
    """Means with their deviations, and the optimum of one line."""
    axes.errorbar(table.index, table["mean"], yerr=table["sd"], **style, linestyle="none", elinewidth=1.3, zorder=3)
    whole = table["mean"].where(table["diverged"] == 0)
    axes.plot(table.index, whole, color=style["color"], label="_line", zorder=3)
    if optimum and whole.notna().any():
        best = whole.idxmin() if lower else whole.idxmax()
        axes.plot([best], [whole[best]], **drawing.HOLLOW, markersize=13, markeredgecolor=style["color"],
                  markeredgewidth=1.8, label="_optimum", clip_on=False, zorder=5)  # fmt: skip


def _crosses(grid: Sequence[Axes], drawn: Sequence[tuple[Axes, str, pd.DataFrame]], lower: bool) -> bool:
    """Crosses for diverged runs, those at one x above each other, with room for them; returns whether there are any."""
    bottom, top = grid[0].get_ylim()
    piles: Counter[tuple[Axes, Any]] = Counter()
    for axes, colour, table in drawn:
        for x, point in table[table["diverged"] > 0].iterrows():
            text, mean = f"{point['diverged']:.0f} of {point['diverged'] + point['n']:.0f}", point["mean"]
            if not bottom <= mean <= top:
                text += f", else {plain(float(f'{mean:.2g}'))}"
            drawing.cross(axes, x, piles[axes, x], colour, lower, text if point["n"] else "")
            piles[axes, x] += 1
    if piles:
        drawing.make_room(grid[0], max(piles.values()), lower)
    return bool(piles)


def _strip(axes: Axes, bottom: float, top: float) -> None:
    """Sets the part of the y axis beyond the values, where crosses stand, apart: no ticks, no lines."""
    low, high = axes.get_ylim()
    axes.set_yticks([tick for tick in axes.get_yticks() if bottom <= tick <= top])
    beyond = (top, high) if high > top else (low, bottom)
    axes.axhspan(*beyond, color=VOID, linewidth=0, label="_strip", zorder=5.5)
    axes.set_ylim(low, high)


def _notes(points: pd.DataFrame, optimum: bool) -> list[str]:
    counts = (points["n"] + points["diverged"])[points["n"] > 0]
    best = optimum and ((points["n"] > 0) & (points["diverged"] == 0)).any()
    runs = f"mean ± sd, n = {counts.min()}" + f"–{counts.max()}" * bool(counts.min() < counts.max())
    return (["optimum"] * bool(best) + ["mean, n = 1" if counts.max() == 1 else runs] * bool(len(counts))
            + ["diverged, no value"] * bool(points["diverged"].any()))  # fmt: skip
