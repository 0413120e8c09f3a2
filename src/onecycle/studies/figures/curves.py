"""Lines of one quantity against another: points of a study, training curves, the best of a search so far."""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from onecycle.studies.figures import drawing
from onecycle.studies.figures.columns import (
    Direction,
    Labels,
    finite_numbers,
    is_lower_better,
    label_of,
    level_text,
    levels_of,
    number_text,
    numbers,
    panel_texts,
    part_of,
    points_of,
)  # fmt: skip
from onecycle.studies.rows import history, moving_average

Curve = tuple[NDArray[np.float64], NDArray[np.float64], float | None]  # x, y, and where the run diverged
NOTES = {"mean ± 1 sd": "_band", "single seed": "_seed", "diverged": "_diverged"}  # what the legend says of each mark
# Tell lines apart that coincide.
DASHES: tuple[Any, ...] = ("-", (0, (5, 1.5)), (0, (1.2, 1.2)), (0, (6, 1.5, 1.2, 1.5)))


def response_curves(
    rows: pd.DataFrame, *, x: str, y: str, by: str | None = None, panels: str | None = None, log_x: bool = True,
    y_limits: Sequence[float] | None = None, direction: Direction | None = None, optimum: bool = True,
    labels: Labels | None = None, title: str | None = None,
) -> Figure:  # fmt: skip
    """Mean ± sd of y against x: a line for each value of `by`, a panel for each value of `panels`, with one y axis.

    direction: whether the optimum, marked by a ring, is the lowest ("loss") or the highest ("accuracy"); by default y's
    name says so. A point where a run diverged is no optimum and no line leads there, since its mean is that of the
    other seeds alone; its cross stands in a strip beyond the values and `y_limits`, with how many diverged.
    """
    rows = rows.assign(**{x: numbers(rows, x)})
    lower, values = is_lower_better(y, direction), levels_of(rows, panels)
    styles = drawing.line_styles(levels_of(rows, by))
    figure, grid = drawing.panel_grid(panel_texts(panels, values, labels))
    drawn: list[tuple[Axes, str, pd.DataFrame]] = []
    for axes, value in zip(grid, values, strict=True):
        for group, style in styles.items():
            table, seeds = points_of(part_of(part_of(rows, panels, value), by, group), x, y)
            drawn.append((axes, style["color"], table))
            _line(axes, table, style, optimum=optimum, lower=lower)
            drawing.seed_dots(axes, seeds["place"], seeds["value"], style["color"])
    points = pd.concat([table for *_, table in drawn])
    if points.empty:
        raise ValueError(f"no run has values of {x} and {y}")
    if log_x:
        drawing.logarithmic(grid[0], "x", x, points.index)
    if y_limits:
        grid[0].set_ylim(*y_limits)
    bottom, top = grid[0].get_ylim()
    _crosses(grid, drawn, lower)
    counts = (points["n"] + points["diverged"])[points["n"] > 0]
    runs = f"mean ± sd, n = {counts.min()}" + f"–{counts.max()}" * bool(counts.min() < counts.max())
    notes = ["optimum"] * any(line.get_label() == "_optimum" for axes in grid for line in axes.lines)
    notes += ["mean, n = 1" if counts.max() == 1 else runs] * bool(len(counts))
    notes += ["diverged, no value"] * bool(points["diverged"].any())
    drawing.finish_figure(grid, label_of(x, labels), label_of(y, labels), title, x_ticks=set(points.index),
                          styles=styles if by else None, labels=labels, heading=label_of(by, labels) if by else "",
                          notes=notes)  # fmt: skip
    low, high = grid[0].get_ylim()
    for axes in grid if (low, high) != (bottom, top) else ():  # the strip of the crosses has no ticks and no lines
        axes.set_yticks([tick for tick in axes.get_yticks() if bottom <= tick <= top])
        beyond = (top, high) if high > top else (low, bottom)
        axes.axhspan(*beyond, color=drawing.VOID, linewidth=0, label="_strip", zorder=5.5)
        axes.set_ylim(low, high)
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


def _crosses(grid: Sequence[Axes], drawn: Sequence[tuple[Axes, str, pd.DataFrame]], lower: bool) -> None:
    """Crosses for diverged runs, those at one x above each other, with room for them."""
    bottom, top = grid[0].get_ylim()
    piles: Counter[tuple[Axes, Any]] = Counter()
    for axes, colour, table in drawn:
        for x, point in table[table["diverged"] > 0].iterrows():
            text, mean = f"{point['diverged']:.0f} of {point['diverged'] + point['n']:.0f}", point["mean"]
            if not bottom <= mean <= top:
                text += f", else {number_text(float(f'{mean:.2g}'))}"
            drawing.cross(axes, x, piles[axes, x], colour, lower, text if point["n"] else "")
            piles[axes, x] += 1
    if piles:
        drawing.make_room(grid[0], max(piles.values()), lower)


def histories(rows: pd.DataFrame, *, x: str, y: str, smooth: int = 1, by: str = "arm", **form: Any) -> Figure:
    """Columns of metrics.csv against each other, a line for each value of `by`.

    smooth: points of the centred moving average. form: parameters of `training_curves`.
    """
    found = {}
    for index, folder, status in zip(rows.index, rows["folder"], rows["status"], strict=True):
        xs, ys = history(Path(folder), x, y)
        found[index] = _curve(xs, ys, smooth, diverged=status == "diverged")
    return training_curves(rows, found, x=x, y=y, by=by, **form)


def lists(rows: pd.DataFrame, *, column: str, by: str = "arm", **form: Any) -> Figure:
    """A list of a run over the position in it from 0 to 1. form: parameters of `training_curves`."""
    found = {}
    for index, values in rows[column].items():
        ys = values if isinstance(values, list) else []
        found[index] = _curve(np.linspace(0, 1, len(ys)), ys)
    return training_curves(rows, found, x="position", y=column, by=by, **form)


def _curve(xs: Any, ys: Any, smooth: int = 1, *, diverged: bool = False) -> Curve:
    """The finite part of a curve, smoothed."""
    x, y = np.asarray(xs, float), np.asarray(ys, float)
    finite = np.isfinite(x) & np.isfinite(y)
    ended = x[~finite] if not finite.all() else x[-1:] if diverged else []
    return x[finite], moving_average(y[finite], smooth), float(ended[0]) if len(ended) else None


def training_curves(
    rows: pd.DataFrame, found: Mapping[Any, Curve], *, x: str, y: str, by: str, panels: str | None = None,
    log_x: bool = False, log_y: bool = False, y_limits: Sequence[float] | None = None,
    direction: Direction | None = None, spread: Literal["band", "seeds"] = "band", labels: Labels | None = None,
    title: str | None = None,
) -> Figure:  # fmt: skip
    """A curve for each row; those of one value of `by` are seeds of one line, in a panel for each value of `panels`.

    found: the curves by the rows' index. Seeds of equal length: their mean, with a band of ± 1 sd where it lies within
    `y_limits`, or with spread: seeds each faintly; of unequal length: each faintly, and the mean over their common
    beginning. A seed that is not finite from some place on ends in a cross there. A value of exactly 0 is a gap on a
    logarithmic axis. labels: "label" holds the legend's title.
    """
    if log_y:
        found = {index: (xs, np.where(ys == 0, np.nan, ys), lost) for index, (xs, ys, lost) in found.items()}
    everything = {float(place) for xs, *_ in found.values() for place in xs}
    if not everything:
        raise ValueError(f"no run has a finite value of {y}")
    lower, values = is_lower_better(y, direction), levels_of(rows, panels)
    styles = drawing.line_styles(levels_of(rows, by), linewidth=2, marker="")
    figure, grid = drawing.panel_grid(panel_texts(panels, values, labels))
    if log_x:
        drawing.logarithmic(grid[0], "x", x, everything)
    if log_y:
        drawing.logarithmic(grid[0], "y", y, (value for _, ys, _ in found.values() for value in ys))
    piles: Counter[Axes] = Counter()
    for axes, value in zip(grid, values, strict=True):
        for group, style in styles.items():
            seeds = [found[index] for index in part_of(part_of(rows, panels, value), by, group).index]
            _seeds(axes, seeds, style["color"], y_limits, band=spread == "band")
            lost = [end for *_, end in seeds if end is not None]
            for end in lost:
                drawing.cross(axes, end, piles[axes], style["color"], lower)
            piles[axes] += bool(lost)
    if y_limits:
        grid[0].set_ylim(*y_limits)
    elif any(piles.values()):
        drawing.make_room(grid[0], max(piles.values()), lower)
    drawn = {artist.get_label() for axes in grid for artist in (*axes.lines, *axes.collections)}
    drawing.finish_figure(grid, label_of(x, labels), label_of(y, labels), title, x_ticks=everything, styles=styles,
                          labels=labels, heading=(labels or {}).get("label", ""),
                          notes=[note for note in NOTES if NOTES[note] in drawn])  # fmt: skip
    return figure


def _seeds(axes: Axes, seeds: Sequence[Curve], colour: str, limits: Sequence[float] | None, *, band: bool) -> None:
    """The seeds of one line: mean and band, and each that the mean does not show whole."""
    drawn = [seed for seed in seeds if len(seed[0])]
    whole = [seed for seed in drawn if seed[2] is None] or drawn
    if not whole:
        return
    x, y = (pd.DataFrame([pd.Series(seed[part]) for seed in whole]) for part in (0, 1))
    mean, sd, equal = y.mean(skipna=False), y.std(skipna=False), len({len(seed[0]) for seed in whole}) == 1
    marker = "o" if len(mean) == 1 else None
    axes.plot(x.mean(), mean, color=colour, linewidth=2, label="_mean", zorder=3, marker=marker)
    if len(whole) > 1 and equal and band:
        # The band of a mean beyond the axes would be a block from one edge to the other.
        shown = mean.between(*limits) if limits else None
        axes.fill_between(x.mean(), mean - sd, mean + sd, where=shown, color=colour, alpha=0.2, linewidth=0,
                          label="_band", zorder=2)  # fmt: skip
    each = not equal or (len(whole) > 1 and not band)
    for xs, ys, lost in drawn:
        if each or (lost is not None and len(whole) < len(drawn)):
            axes.plot(xs, ys, color=colour, linewidth=0.9, alpha=0.45, label="_seed", zorder=2)


def search_progress(
    rows: pd.DataFrame, *, y: str, select_by: str, by: str = "arm", levels: Sequence[str] = (),
    labels: Labels | None = None, title: str | None = None,
) -> Figure:  # fmt: skip
    """The y of the point that `select_by` finds best among the first n, against n: a line for each value of `by`.

    What is selected on and what is shown differ on purpose: the first are held-out images, the second may be the test
    set. Values of `by` among `levels`, as a grid, whose points have no order, are horizontal lines at their best. The
    legend has every line's last value.
    """
    # Without a number a point is known by its label, without the seed.
    labels_alone = rows["label"].str.replace(r",?seed=\d+", "", regex=True)
    keys = rows["number"].astype(object).where(rows["number"].notna(), labels_alone)
    sign = -1 if is_lower_better(select_by) else 1
    columns = pd.DataFrame({"y": finite_numbers(rows, y), "score": sign * finite_numbers(rows, select_by)})
    figure, (axes,) = drawing.panel_grid(size=(7.0, 4.8))
    entries, unit = dict[str, dict[str, Any]](), " %" * ("accuracy" in y)
    searches = [name for name in levels_of(rows, by) if name not in levels]
    styles = drawing.line_styles(searches) | {name: {} for name in levels}
    for place, (name, style) in enumerate(styles.items()):
        part = part_of(rows, by, name).index
        points = columns.loc[part].groupby(keys.loc[part]).mean(skipna=False)
        is_best = points["score"] > points["score"].cummax().shift(fill_value=-np.inf).ffill()
        if not is_best.any():
            continue
        best, text = points["y"].where(is_best).ffill().tolist(), level_text(name, labels)
        if style:
            line = {"color": style["color"], "linewidth": 2.2, "linestyle": DASHES[place % len(DASHES)]}
            axes.plot(range(1, len(best) + 1), best, drawstyle="steps-post", label="_best", zorder=3, **line)
        else:
            line, text = {"color": drawing.INK, "linewidth": 1.1}, f"{text}, best of {len(best)}"
            axes.axhline(best[-1], label="_level", zorder=2, **line)
        entries[f"{text}: {best[-1]:.1f}{unit}"] = line
    if not entries:
        raise ValueError(f"no run has values of both {y} and {select_by}")
    label = f"{label_of(y, labels)} of the best so far"
    drawing.finish_figure([axes], "points tried", label, title, styles=entries)
    return figure
