"""Curves of single runs: training histories and LR range tests."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patheffects import withStroke
from numpy.typing import NDArray

from onecycle.studies.curves import moving_average
from onecycle.studies.figures.axes import (
    cross,
    frame,
    legends,
    length,
    logarithmic,
    make_room,
    panel_grid,
    panel_title,
    ticks,
)
from onecycle.studies.figures.points import Direction, direction_of
from onecycle.studies.figures.style import INK, SMALL, Labels, colours, label_of, plain

Array = NDArray[np.float64]
Spread = Literal["band", "seeds"]
SEEDS = {"mean ± 1 sd": "_band", "single seed": "_seed"}  # what the legend says of the marks of seeds


@dataclass(frozen=True, eq=False)
class Run:
    """One seed's curve, its finite part, smoothed; where it diverged, if it did.

    On a logarithmic axis a value of exactly 0 is NaN, a gap.
    """

    x: Array
    y: Array
    lost_at: float | None


def training_curves(
    series: Sequence[Mapping[str, Any]], *, y: str, x: str = "epoch", smooth: int = 1, log_x: bool = False,
    log_y: bool = False, marks: Sequence[Mapping[str, Any]] | None = None, y_limits: Sequence[float] | None = None,
    direction: Direction | None = None, spread: Spread = "band", labels: Labels | None = None, title: str | None = None,
) -> Figure:  # fmt: skip
    """Curves y over x, a panel for each `group` of the series; those that share label and group are seeds.

    series: {"label", "x": [...], "y": [...], "group"?, "diverged"?}. Seeds of equal length: their mean, with a band of
    ± 1 sd where it lies within the limits of y, or with spread: seeds each faintly; of unequal length: each faintly,
    and the mean over their common beginning. A seed that is not finite from some place on ends in a cross there. Labels
    that are numbers are ordered by size. smooth: points of the centred moving average. marks: {"label", "x", "text",
    "group"?}, vertical lines in the colour of the series of that label. labels: "label" holds the legend's title,
    "group" the template of the panels' titles. Raises ValueError where there is nothing to draw.
    """
    names, groups = _distinct(series, "label"), _distinct(series, "group")
    if not names:
        raise ValueError("training_curves: no series to draw")
    palette = dict(zip(names, colours([_typed(name) for name in names]), strict=True))
    figure, grid = panel_grid(len(groups))
    drawn = [{name: _runs(series, name, group, smooth, gaps=log_y) for name in names} for group in groups]
    for axes, group, lines in zip(grid, groups, drawn, strict=True):
        runs = [run for line in lines.values() for run in line]
        if not any(len(run.x) for run in runs):
            raise ValueError(f"training_curves: no finite value of {y}{f' in panel {group!r}' if group else ''}")
        if log_x:
            logarithmic(axes, "x", x, [value for run in runs for value in run.x])
        if log_y:
            logarithmic(axes, "y", y, [value for run in runs for value in run.y])
        for name, line in lines.items():
            _line(axes, line, palette[name], y_limits, band=spread == "band")
        if group:
            panel_title(axes, _group_text(group, labels))
    lost = _finish(grid, drawn, palette, direction_of(y, direction), y_limits)
    for axes, group, piles in zip(grid, groups, lost, strict=True):
        chosen = [mark for mark in marks or () if str(mark.get("group", group)) == group]
        _marks(axes, chosen, palette, direction_of(y, direction), piles)
    frame(figure, grid, label_of(x, labels), label_of(y, labels), title)
    entries = [Line2D([], [], color=palette[name], linewidth=2, label=_text(name, labels)) for name in names if name]
    legends(grid, entries, _notes(grid) + ["diverged"] * any(lost), (labels or {}).get("label", ""))
    return figure


def _distinct(series: Sequence[Mapping[str, Any]], name: str) -> list[str]:
    """Labels or groups: by size if all are numbers, else by appearance."""
    found = list(dict.fromkeys(str(one.get(name, "")) for one in series))
    return sorted(found, key=float) if all(isinstance(_typed(one), float) for one in found) else found


def _typed(text: str) -> float | str:
    try:
        return float(text)
    except ValueError:
        return text


def _text(name: str, labels: Labels | None) -> str:
    value = _typed(name)
    return (labels or {}).get(name, plain(value) if isinstance(value, float) else name)


def _group_text(group: str, labels: Labels | None) -> str:
    text = _text(group, labels)
    return text if group in (labels or {}) else (labels or {}).get("group", "{}").format(text)


def _runs(series: Sequence[Mapping[str, Any]], name: str, group: str, smooth: int, *, gaps: bool) -> list[Run]:
    result = []
    for one in series:
        if str(one["label"]) == name and str(one.get("group", "")) == group:
            x, y = np.asarray(one["x"], float), np.asarray(one["y"], float)
            finite = np.isfinite(x) & np.isfinite(y)
            lost = None
            if (one.get("diverged") or not finite.all()) and len(x):
                lost = float(x[len(x) - 1 if finite.all() else np.flatnonzero(~finite)[0]])
            y = moving_average(y[finite], smooth)
            result.append(Run(x[finite], np.where(y == 0, np.nan, y) if gaps else y, lost))
    return result


def _notes(grid: Sequence[Axes]) -> list[str]:
    """The legend's entries for what is drawn of seeds."""
    drawn = {artist.get_label() for axes in grid for artist in (*axes.lines, *axes.collections)}
    return [note for note, mark in SEEDS.items() if mark in drawn]


def _line(axes: Axes, runs: Sequence[Run], colour: str, limits: Sequence[float] | None, *, band: bool) -> None:
    """The seeds of one series: mean and band, and each that the mean does not show whole."""
    whole = [run for run in runs if run.lost_at is None and len(run.x)] or [run for run in runs if len(run.x)]
    if not whole:
        return
    equal = len({len(run.x) for run in whole}) == 1
    shared, lines = common(whole)
    mean = lines.mean(axis=0)
    single = "o" if len(shared) == 1 else None
    axes.plot(shared, mean, color=colour, linewidth=2, label="_mean", zorder=3, marker=single)
    if len(whole) > 1 and equal and band:
        sd = lines.std(axis=0, ddof=1)
        # The band of a mean beyond the axes would be a block from one edge to the other.
        shown = (mean >= limits[0]) & (mean <= limits[1]) if limits else np.isfinite(mean)
        axes.fill_between(
            shared, mean - sd, mean + sd, where=shown, color=colour, alpha=0.2, linewidth=0, label="_band", zorder=2
        )
    for run in runs:
        if not equal or run not in whole or (len(whole) > 1 and not band):
            axes.plot(run.x, run.y, color=colour, linewidth=0.9, alpha=0.45, label="_seed", zorder=2)


def common(runs: Sequence[Run]) -> tuple[Array, Array]:
    """Curves at common places: those of the first run, as far as all reach; curves as [seed, place].

    Curves of equal length are interpolated between their points; of unequal length, cut to the shortest.
    """
    first = runs[0].x
    if len({len(run.x) for run in runs}) > 1:
        shortest = min(len(run.x) for run in runs)
        return first[:shortest], np.stack([run.y[:shortest] for run in runs])
    if all(np.array_equal(run.x, first) for run in runs) or not len(first):
        return first, np.stack([run.y for run in runs])
    low, high = max(run.x[0] for run in runs), min(run.x[-1] for run in runs)
    shared = first[(first >= low) & (first <= high)]
    return shared, np.stack([np.interp(shared, run.x, run.y) for run in runs])


def _finish(
    grid: Sequence[Axes],
    drawn: Sequence[Mapping[str, Sequence[Run]]],
    palette: Mapping[str, str],
    direction: Direction,
    limits: Sequence[float] | None,
) -> list[int]:
    """Crosses where diverged runs ended, each series at its own height; limits, ticks. Returns how many heights."""
    lost = []
    for axes, lines in zip(grid, drawn, strict=True):
        ended = {name: [run.lost_at for run in line if run.lost_at is not None] for name, line in lines.items()}
        rows = [(name, places) for name, places in ended.items() if places]
        for pile, (name, places) in enumerate(rows):
            for place in places:
                cross(axes, place, pile, palette[name], direction)
        lost.append(len(rows))
    if limits:
        grid[0].set_ylim(*limits)
    elif any(lost):
        make_room(grid[0], max(lost), direction)
    runs = [run for lines in drawn for line in lines.values() for run in line]
    for axes in grid:
        ticks(axes, "x", {float(place) for run in runs for place in run.x})
        ticks(axes, "y", [])
    return lost


def _marks(
    axes: Axes, marks: Sequence[Mapping[str, Any]], palette: Mapping[str, str], direction: Direction, piles: int
) -> None:
    """Vertical lines from left to right with their texts, one below the other so that they do not touch."""
    for level, mark in enumerate(sorted(marks, key=lambda mark: float(mark["x"]))):
        colour = palette.get(str(mark.get("label")), INK)
        axes.axvline(mark["x"], color=colour, linewidth=1.2, linestyle=(0, (4, 3)), label="_mark", zorder=1)
        place = axes.transAxes.inverted().transform(axes.transData.transform((mark["x"], axes.get_ylim()[0])))[0]
        fits = place + 0.075 * len(mark["text"]) / length(axes, "x") < 1
        height = 0.98 - 0.055 * piles - 0.065 * (level % 5)
        axes.annotate(
            mark["text"], (mark["x"], height if direction == "loss" else 1 - height), (5 if fits else -5, 0),
            xycoords=axes.get_xaxis_transform(), textcoords="offset points", ha="left" if fits else "right",
            va="top" if direction == "loss" else "bottom", fontsize=SMALL, color=colour, zorder=8,
            path_effects=[withStroke(linewidth=3, foreground="white")],
        )  # fmt: skip
