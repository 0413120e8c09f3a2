"""Axes, ticks, legends and marks as every figure has them."""

import math
import textwrap
from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import Any, Literal

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colorbar import Colorbar
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullLocator, ScalarFormatter

from onecycle.studies.figures.points import Direction, Point, positive
from onecycle.studies.figures.style import GRID, INK, MUTED, SMALL, TEXT, TITLE, VOID, plain

# Where crosses of diverged runs stand, in heights of the axes from their edge, and how far above each other.
EDGE, STEP = 0.035, 0.055


def panel_grid(
    count: int, *, width: float | None = None, height: float | None = None, columns: int = 3
) -> tuple[Figure, list[Axes]]:
    """A figure with `count` dressed panels, at most `columns` beside each other, each `height` inches high."""
    columns = min(count, columns if count != 4 else 2)
    lines = -(-count // columns)
    size = width or (7.0 if count == 1 else 8.4), (height or (4.2 if lines == 1 else 3.0)) * lines
    figure = Figure(figsize=size, layout=spacious())
    panels = list(figure.subplots(lines, columns, squeeze=False, sharex=True, sharey=True).flat)
    for unused in panels[count:]:
        unused.remove()
    for index, axes in enumerate(panels[:count]):
        dress(axes)
        if index + columns >= count:
            axes.tick_params(labelbottom=True)
    return figure, panels[:count]


def spacious() -> ConstrainedLayoutEngine:
    """The layout of every figure: room at its edges, and between panels for the outer numbers of two axes."""
    return ConstrainedLayoutEngine(w_pad=0.09, h_pad=0.06, wspace=0.02, hspace=0.02)


def dress(axes: Axes) -> None:
    """A light grid behind the data, no frame at the top and right."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(MUTED)
    axes.grid(color=GRID, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(labelsize=SMALL, color=MUTED, labelcolor=INK, length=3)


def panel_title(axes: Axes, text: str) -> None:
    """A panel's own title."""
    axes.set_title(text, fontsize=TEXT, color=INK, pad=7)


def logarithmic(axes: Axes, which: str, column: str, values: Iterable[float]) -> None:
    """Make an axis logarithmic. Raises ValueError where one of its values is not positive."""
    positive(values, column, f"set log_{which}: false")
    (axes.set_xscale if which == "x" else axes.set_yscale)("log")


def frame(figure: Figure, panels: Sequence[Axes], x: str, y: str, title: str | None) -> None:
    """The figure's title, wrapped to its width, and the axes' texts: of several panels once for all."""
    if title:
        text = textwrap.fill(title, int(figure.get_figwidth() * 8.8))
        figure.suptitle(text, fontsize=TITLE, color=INK, fontweight="bold", linespacing=1.25)
    if len(panels) == 1:
        panels[0].set_xlabel(x, fontsize=TEXT, color=INK)
        panels[0].set_ylabel(y, fontsize=TEXT, color=INK)
        return
    for write, text in ((figure.supxlabel, x), (figure.supylabel, y)):
        if text:
            write(text, fontsize=TEXT, color=INK)


def ticks(axes: Axes, which: Literal["x", "y"], values: Iterable[float]) -> None:
    """Ticks at `values` where they are few, as many as have room, else at round numbers; once the limits stand."""
    inches = length(axes, which)
    axis = axes.xaxis if which == "x" else axes.yaxis
    low, high = axes.get_xlim() if which == "x" else axes.get_ylim()
    log = axis.get_scale() == "log"
    distinct = sorted({value for value in values if low <= value <= high})
    if log:
        axis.set_minor_locator(NullLocator())
    if len(distinct) <= 12 and (log or which == "x") and distinct:
        places = _with_room(distinct, low, high, inches, log, which)
    elif log:
        places = _with_room(round_numbers(low, high), low, high, inches, log, which)
    else:
        large = max(abs(low), abs(high)) >= 1000
        axis.set_major_formatter(FuncFormatter(_tick) if large else ScalarFormatter(useOffset=False))
        return
    axis.set_major_locator(FixedLocator(places))
    axis.set_major_formatter(FuncFormatter(_tick))


def length(axes: Axes, which: str) -> float:
    """How long an axis will be, in inches: its share of the figure without the room of its texts and the legend."""
    figure, place = axes.get_figure(), axes.get_subplotspec()
    assert isinstance(figure, Figure)
    assert place is not None
    grid = place.get_gridspec()
    shares = np.asarray(grid.get_width_ratios() if which == "x" else grid.get_height_ratios(), float)
    share = shares[place.colspan.start if which == "x" else place.rowspan.start] / shares.sum()
    room = figure.get_figwidth() - 1.6 if which == "x" else figure.get_figheight() - 0.6 - 0.3 * len(shares)
    return float(share * room)


def _tick(value: float, _: Any) -> str:
    return plain(value)


def _with_room(values: Sequence[float], low: float, high: float, inches: float, log: bool, which: str) -> list[float]:
    """Every value, or every second, third, … so that the texts do not touch."""
    if which == "x":
        sizes = {value: 0.085 * len(plain(value)) + 0.1 for value in values}
    else:
        sizes = dict.fromkeys(values, 0.25)

    def place(value: float) -> float:
        return inches * (math.log(value / low) / math.log(high / low) if log else (value - low) / (high - low))

    for stride in range(1, len(values) + 1):
        kept = list(values[::stride])
        if all(place(b) - place(a) >= (sizes[a] + sizes[b]) / 2 for a, b in pairwise(kept)):
            return kept
    return list(values[:1])


def round_numbers(low: float, high: float) -> list[float]:
    """Round numbers between two positive limits, three to about ten of them."""
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    found: list[float] = []
    fine = (1, 1.2, 1.4, 1.6, 1.8, 2, 2.5, 3, 4, 5, 6, 7, 8, 9)
    for steps, enough in (((1,), 4), ((1, 3), 4), ((1, 2, 5), 4), ((1, 1.5, 2, 3, 5, 7), 3), (fine, 1)):
        everything = (float(f"{step * 10.0**power:.6g}") for power in range(first, last + 1) for step in steps)
        found = [value for value in everything if low <= value <= high]
        if len(found) >= enough:
            break
    return found or [float(value) for value in MaxNLocator(5).tick_values(low, high) if low <= value <= high]


def crosses(
    axes: Axes, lines: Sequence[tuple[Sequence[Point], str]], direction: Direction, limits: tuple[float, float]
) -> int:
    """Mark diverged runs at the bad edge of the axes, those at one x above each other. Returns the highest pile.

    Where some runs of a point alone diverged, their number stands beside the cross, and the mean of the others if it
    lies beyond `limits`.
    """
    piles: Counter[float] = Counter()
    for line, colour in lines:
        for point in line:
            if point.diverged:
                cross(axes, point.x, piles[point.x], colour, direction, _others(point, limits))
                piles[point.x] += 1
    return max(piles.values(), default=0)


def _others(point: Point, limits: tuple[float, float]) -> str:
    if not point.values:
        return ""
    beyond = not limits[0] <= point.mean <= limits[1]
    text = f"{point.diverged} of {point.diverged + len(point.values)}"
    return text + f", else {plain(float(f'{point.mean:.2g}'))}" * beyond


def cross(axes: Axes, x: float, pile: int, colour: str, direction: Direction, text: str = "") -> None:
    """The mark of a diverged run at x, a text on its left: on top for losses, at the bottom for accuracies."""
    height = EDGE + STEP * pile
    if text:
        axes.annotate(text, (x, 1 - height if direction == "loss" else height), (-7, 0), color=INK, fontsize=SMALL - 1,
                      xycoords=axes.get_xaxis_transform(), textcoords="offset points", ha="right", va="center",
                      zorder=7)  # fmt: skip
    axes.plot(
        [x], [1 - height if direction == "loss" else height], linestyle="none", marker="X", markersize=8,
        color=colour, markeredgecolor="white", markeredgewidth=0.8, label="_diverged", clip_on=False, zorder=6,
        transform=axes.get_xaxis_transform(),
    )  # fmt: skip


def make_room(axes: Axes, piles: int, direction: Direction) -> None:
    """Move the bad edge of the y axis away from the data by the height of the crosses."""
    low, high = axes.get_ylim()
    log = axes.get_yscale() == "log"
    share = min(0.5, EDGE + STEP * piles)
    if log:
        factor = (high / low) ** (share / (1 - share))
        axes.set_ylim((low, high * factor) if direction == "loss" else (low / factor, high))
    else:
        extra = (high - low) * share / (1 - share)
        axes.set_ylim((low, high + extra) if direction == "loss" else (low - extra, high))


def strip(axes: Axes, values: tuple[float, float], direction: Direction) -> None:
    """Set the part of the y axis beyond the limits of the values, where crosses stand, apart: no ticks, no lines."""
    low, high = axes.get_ylim()
    inside = [tick for tick in axes.get_yticks() if values[0] <= tick <= values[1]]
    axes.set_yticks(inside)
    span = (values[1], high) if direction == "loss" else (low, values[0])
    axes.axhspan(*span, facecolor=VOID, edgecolor="none", label="_strip", zorder=5.5)
    axes.set_ylim(low, high)


def ring(axes: Axes, x: float, y: float, colour: str) -> None:
    """The mark of a line's optimum."""
    axes.plot([x], [y], linestyle="none", marker="o", markersize=13, markerfacecolor="none", markeredgecolor=colour,
              markeredgewidth=1.8, label="_optimum", clip_on=False, zorder=5)  # fmt: skip


def entry(text: str, colour: str, marker: str) -> Line2D:
    """The legend's entry for a line with markers."""
    return Line2D([], [], color=colour, marker=marker, markersize=6, linewidth=1.8, label=text)


def colour_bar(bar: Colorbar, text: str, places: Sequence[float] | None = None) -> None:
    """A colour bar's text and ticks, without its frame."""
    if places is not None:
        bar.set_ticks(list(places), labels=[plain(place) for place in places])
    bar.ax.tick_params(labelsize=SMALL, color=MUTED, labelcolor=INK)
    bar.outline.set_visible(False)
    bar.set_label(text, fontsize=TEXT, color=INK)


NOTES = {
    "optimum": {"marker": "o", "markersize": 11, "markerfacecolor": "none", "markeredgewidth": 1.6},
    "diverged": {"marker": "X", "markersize": 8, "markeredgecolor": "white"},
    "published": {"marker": "D", "markersize": 7, "markerfacecolor": "white", "markeredgewidth": 1.5},
    "one seed": {"marker": "o", "markersize": 4, "alpha": 0.45, "markeredgewidth": 0},
    "single run": {"marker": "o", "markersize": 6, "markerfacecolor": "white", "markeredgecolor": INK},
    "mean": {"marker": "o", "markersize": 7},
    "mean ± sd": {"marker": "o", "markersize": 7},
    "single seed": {"linestyle": "-", "linewidth": 0.9, "alpha": 0.7},
    "mean ± 1 sd": {"linestyle": "-", "linewidth": 8, "alpha": 0.25, "solid_capstyle": "butt"},
}


def note(name: str) -> Line2D:
    """The legend's entry for a mark that means the same in all colours; what follows a comma is said of it."""
    style: dict[str, Any] = {"linestyle": "none", **NOTES[name.partition(",")[0]]}
    return Line2D([], [], color=MUTED, label=name, **style)


def legends(panels: Sequence[Axes], entries: Sequence[Any], notes: Sequence[str], title: str = "") -> None:
    """The legend of the lines, under its title, and that of the marks: beside the panels, or below for long texts."""
    marks = [note(name) for name in notes]
    longest = max((len(entry.get_label()) for entry in entries), default=0)
    style: dict[str, Any] = {"frameon": False, "fontsize": SMALL, "labelcolor": INK, "handletextpad": 0.6}
    heads: dict[str, Any] = {"title": title or None, "title_fontproperties": {"size": SMALL}, "alignment": "left"}
    if longest > 20 or not entries:
        figure = panels[0].get_figure()
        assert isinstance(figure, Figure)
        columns = max(1, int(figure.get_figwidth() * 10 / (max(longest, 12) + 5)))
        if entries or marks:
            figure.legend(handles=[*entries, *marks], loc="outside lower center", ncols=columns, **heads, **style)
        return
    upper, lower = _corners(panels)
    apart = upper is not lower or len(entries) + len(marks) < 9
    first = upper.legend(handles=[*entries, *([] if apart else marks)], loc="upper left", bbox_to_anchor=(1.01, 1),
                         borderaxespad=0, **heads, **style)  # fmt: skip
    if marks and apart:
        if upper is lower:
            upper.add_artist(first).set_clip_on(False)  # else it is given no room
        lower.legend(handles=marks, loc="lower left", bbox_to_anchor=(1.01, 0), borderaxespad=0, **style)


def _corners(panels: Sequence[Axes]) -> tuple[Axes, Axes]:
    """The uppermost and the lowest panel of the last column."""
    spots = [(axes.get_subplotspec(), axes) for axes in panels]
    columns = [(spot.colspan.start, spot.rowspan.start, axes) for spot, axes in spots if spot is not None]
    last = [(row, axes) for column, row, axes in columns if column == max(columns, key=lambda one: one[0])[0]]
    return last[0][1], last[-1][1]
