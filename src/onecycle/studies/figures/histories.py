"""Training curves: columns of the runs' metrics.csv, and lists among their measures."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from onecycle.studies.figures import drawing
from onecycle.studies.figures.labels import Labels, label_of, legend_texts, panel_texts
from onecycle.studies.figures.points import Direction, is_lower_better, levels_of, part_of
from onecycle.studies.figures.style import line_styles
from onecycle.studies.rows import history, moving_average

Curve = tuple[NDArray[np.float64], NDArray[np.float64], float | None]  # x, y, and where the run diverged
NOTES = {"mean ± 1 sd": "_band", "single seed": "_seed", "diverged": "_diverged"}  # what the legend says of each mark


def histories(rows: pd.DataFrame, *, x: str, y: str, smooth: int = 1, by: str = "arm", **form: Any) -> Figure:
    """Columns of metrics.csv against each other, a line for each value of `by`.

    smooth: points of the centred moving average. form: parameters of `draw_curves`.
    """
    found = {}
    for index, folder, status in zip(rows.index, rows["folder"], rows["status"], strict=True):
        xs, ys = history(Path(folder), x, y)
        found[index] = _curve(xs, ys, smooth, diverged=status == "diverged")
    return draw_curves(rows, found, x=x, y=y, by=by, **form)


def lists(rows: pd.DataFrame, *, column: str, by: str = "arm", **form: Any) -> Figure:
    """A list among the runs' measures, over the position in it from 0 to 1. form: parameters of `draw_curves`."""
    found = {}
    for index, values in rows[column].items():
        ys = values if isinstance(values, list) else []
        found[index] = _curve([place / max(1, len(ys) - 1) for place in range(len(ys))], ys)
    return draw_curves(rows, found, x="position", y=column, by=by, **form)


def _curve(xs: Sequence[float], ys: Sequence[float | None], smooth: int = 1, *, diverged: bool = False) -> Curve:
    """The finite part of a curve, smoothed."""
    x, y = np.asarray(xs, float), np.asarray(ys, float)
    finite = np.isfinite(x) & np.isfinite(y)
    ended = x[~finite] if not finite.all() else x[-1:] if diverged else []
    return x[finite], moving_average(y[finite], smooth), float(ended[0]) if len(ended) else None


def draw_curves(
    rows: pd.DataFrame, found: Mapping[Any, Curve], *, x: str, y: str, by: str, panels: str | None = None,
    log_x: bool = False, log_y: bool = False, y_limits: Sequence[float] | None = None,
    direction: Direction | None = None, spread: Literal["band", "seeds"] = "band", labels: Labels | None = None,
    title: str | None = None,
) -> Figure:  # fmt: skip
    """A curve for each row; those of one value of `by` are seeds of one line, in a panel for each value of `panels`.

    found: the curves by the rows' index. Seeds of equal length: their mean, with a band of ± 1 sd where it lies within
    `y_limits`, or with spread: seeds each faintly; of unequal length: each faintly, and the mean over their common
    beginning. A seed that is not finite from some place on ends in a cross there. A value of exactly 0 is a gap on a
    logarithmic axis. labels: "label" holds the legend's title. Raises ValueError where there is nothing to draw.
    """
    if log_y:
        found = {index: (xs, np.where(ys == 0, np.nan, ys), lost) for index, (xs, ys, lost) in found.items()}
    everything = {float(place) for xs, *_ in found.values() for place in xs}
    if not everything:
        raise ValueError(f"no run has a finite value of {y}")
    lower, values, styles = (
        is_lower_better(y, direction),
        levels_of(rows, panels),
        line_styles(levels_of(rows, by), linewidth=2, marker=""),
    )
    figure, grid = drawing.panel_grid(panel_texts(panels, values, labels))
    if log_x:
        drawing.logarithmic(grid[0], "x", x, everything)
    if log_y:
        drawing.logarithmic(grid[0], "y", y, (value for _, ys, _ in found.values() for value in ys))
    piles = [0] * len(grid)
    for place, (axes, value) in enumerate(zip(grid, values, strict=True)):
        for group, style in styles.items():
            seeds = [found[index] for index in part_of(part_of(rows, panels, value), by, group).index]
            _line(axes, seeds, style["color"], y_limits, band=spread == "band")
            lost = [end for *_, end in seeds if end is not None]
            for end in lost:
                drawing.cross(axes, end, piles[place], style["color"], lower)
            piles[place] += bool(lost)
    if y_limits:
        grid[0].set_ylim(*y_limits)
    elif any(piles):
        drawing.make_room(grid[0], max(piles), lower)
    drawn = {artist.get_label() for axes in grid for artist in (*axes.lines, *axes.collections)}
    drawing.finish(grid, label_of(x, labels), label_of(y, labels), title, x_ticks=everything,
                   entries=legend_texts(styles, labels), notes=[note for note in NOTES if NOTES[note] in drawn],
                   heading=(labels or {}).get("label", ""))  # fmt: skip
    return figure


def _line(axes: Axes, seeds: Sequence[Curve], colour: str, limits: Sequence[float] | None, *, band: bool) -> None:
    """The seeds of one line: mean and band, and each that the mean does not show whole."""
    drawn = [seed for seed in seeds if len(seed[0])]
    whole = [seed for seed in drawn if seed[2] is None] or drawn
    if not whole:
        return
    x, y = (pd.DataFrame([pd.Series(seed[part]) for seed in whole]) for part in (0, 1))
    mean, sd, equal = y.mean(skipna=False), y.std(skipna=False), len({len(seed[0]) for seed in whole}) == 1
    axes.plot(
        x.mean(), mean, color=colour, linewidth=2, label="_mean", zorder=3, marker="o" if len(mean) == 1 else None
    )
    if len(whole) > 1 and equal and band:
        # The band of a mean beyond the axes would be a block from one edge to the other.
        shown = mean.between(*limits) if limits else None
        axes.fill_between(x.mean(), mean - sd, mean + sd, where=shown, color=colour, alpha=0.2, linewidth=0,
                          label="_band", zorder=2)  # fmt: skip
    each = not equal or (len(whole) > 1 and not band)
    for xs, ys, lost in drawn:
        if each or (lost is not None and len(whole) < len(drawn)):
            axes.plot(xs, ys, color=colour, linewidth=0.9, alpha=0.45, label="_seed", zorder=2)
