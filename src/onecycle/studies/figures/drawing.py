"""What every figure needs: styles, panels, ticks, marks of single and of diverged runs, texts, legends, files."""

import textwrap
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib
import matplotlib.style
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import to_hex, to_rgb
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, LogLocator, MaxNLocator, NullLocator, StrMethodFormatter

from onecycle.studies.figures.columns import Labels, level_text, number_text
from onecycle.studies.rows import is_number

SHEET = Path(__file__).with_name("onecycle.mplstyle")
INK, MUTED, VOID = "0.12", "0.42", "0.94"
EDGE, STEP = 0.035, 0.055  # of crosses, in heights of the axes: from their bad edge, and from each other
FORMS = {"png": None, "svg": "Date"}
LETTER = 0.085  # inches of a letter of the style sheet's font
HOLLOW: dict[str, Any] = {"marker": "o", "linestyle": "none", "markerfacecolor": "none"}
PUBLISHED: dict[str, Any] = {"marker": "D", "linestyle": "none", "markersize": 7, "markeredgewidth": 1.5,
                             "markerfacecolor": "none", "label": "_published", "zorder": 6}  # fmt: skip
MARK: dict[str, Any] = {"marker": "o", "linestyle": "none", "color": MUTED}
# Where runs diverged, for each panel: by a line's colour, and by x, the text on the left of a cross and its rows.
Lost = Sequence[Mapping[str, Mapping[float, tuple[str, Collection[Any]]]]]
NOTES: dict[str, dict[str, Any]] = {
    "optimum": {"markersize": 11, "markerfacecolor": "none", "markeredgewidth": 1.6},
    "diverged": {"marker": "X", "markersize": 8, "markeredgecolor": "white"},
    "published": {"marker": "D", "markersize": 7, "markerfacecolor": "white", "markeredgewidth": 1.5},
    "one seed": {"markersize": 4, "alpha": 0.45, "markeredgewidth": 0},
    "single run": {"markersize": 6, "markerfacecolor": "white", "markeredgecolor": INK},
    "mean ± sd": {"markersize": 7},
    "single seed": {"marker": None, "linestyle": "-", "linewidth": 0.9, "alpha": 0.7},
    "mean ± 1 sd": {"marker": None, "linestyle": "-", "linewidth": 8, "alpha": 0.25, "solid_capstyle": "butt"},
}


class Mark(NamedTuple):
    """A place of a figure that shows rows of the study: a point, a line or, closed, an area."""

    transform: Any  # of its points to pixels
    points: Any  # [point, x or y]
    rows: list[Any]  # of the frame's index
    closed: bool


class StudyFigure(Figure):
    """A figure that knows which rows it shows where, and of which column."""

    marks: tuple[Mark, ...] = ()
    metric = ""


def mark(axes: Axes, rows: Iterable[Any], x: Any, y: Any, *, closed: bool = False, transform: Any = None) -> None:
    """Note which rows are shown at x and y: a point, a line or an area. transform: by default of the data."""
    figure: Any = axes.get_figure(root=True)
    points = np.column_stack([np.atleast_1d(x), np.atleast_1d(y)]).astype(float)
    if len(points := points[np.isfinite(points).all(axis=1)]) and len(found := list(rows)):
        figure.marks += (Mark(transform or axes.transData, points, found, closed),)


def line_styles(values: Sequence[Any], **more: Any) -> dict[Any, dict[str, Any]]:
    """A colour and a marker for each value: numbers from light to dark in the order given, words from the palette."""
    if all(map(is_number, values)):
        # From green: yellow is faint on white.
        shades = np.linspace(0.76, 0.02, len(values)) if len(values) > 1 else [0.3]
        looks = [(to_hex(matplotlib.colormaps["viridis"](shade)), "o") for shade in shades]
    else:
        looks = [(f"C{place}", "os^DvPp"[place % 7]) for place in range(len(values))]
    return {value: {"color": colour, "marker": marker, **more}
            for value, (colour, marker) in zip(values, looks, strict=True)}  # fmt: skip


def contrast(colour: Any) -> str:
    """The colour of a text that is readable on another: dark or white, by the relative luminance of WCAG 2."""
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in to_rgb(colour)]
    return INK if np.dot(linear, (0.2126, 0.7152, 0.0722)) > 0.25 else "white"


def save(figure: Figure, folder: Path, name: str, forms: Mapping[str, str | None] = FORMS) -> None:
    """Write name.png and name.svg; the same data give the same bytes. forms: endings, each with its name of a date."""
    folder.mkdir(parents=True, exist_ok=True)
    with matplotlib.style.context(SHEET):
        for form, date in forms.items():
            figure.savefig(folder / f"{name}.{form}", metadata={date: None} if date else None)


def panel_grid(
    titles: Sequence[str] = ("",), *, size: tuple[float, float] | None = None, columns: int = 3
) -> tuple[Figure, list[Axes]]:
    """A figure with panels that share their axes; size: width, and height of one line of panels, in inches."""
    count = len(titles)
    columns = min(count, columns if count != 4 else 2)
    lines = -(-count // columns)
    width, height = size or (7.0 if count == 1 else 8.4, 4.2 if lines == 1 else 3.6)
    figure = StudyFigure(figsize=(width, height * lines))
    panels = list(figure.subplots(lines, columns, squeeze=False, sharex=True, sharey=True).flat)
    for unused in panels[count:]:
        unused.remove()
    for place, (axes, title) in enumerate(zip(panels, titles, strict=False)):
        axes.set_title(title)
        axes.tick_params(labelbottom=place >= count - columns)
    return figure, panels[:count]


def logarithmic(axis: Any, column: str, values: Iterable[float]) -> None:
    """Make an axis logarithmic. Raises ValueError where one of its values is not positive."""
    lowest = min((value for value in values if np.isfinite(value)), default=1.0)
    if lowest <= 0:
        raise ValueError(f"{column}={lowest:g} has no place on a logarithmic axis; choose other rows with `where`")
    axis.axes.set(**{f"{axis.axis_name}scale": "log"})


def logarithmic_to_zero(axis: Any, values: pd.Series) -> None:
    """Make an axis linear from 0 to the decade of the lowest other value, and logarithmic from there."""
    linear = 10.0 ** np.floor(np.log10(values[values > 0].min() if (values > 0).any() else 1.0))
    getattr(axis.axes, f"set_{axis.axis_name}scale")("symlog", linthresh=linear, linscale=0.5)
    axis.set_major_formatter(lambda value, _: number_text(value))


def inches(axes: Axes) -> tuple[float, float]:
    """How wide and high axes are, about: constrained layout moves them when they are drawn."""
    figure: Any = axes.get_figure(root=True)
    box = axes.get_window_extent()
    return box.width / figure.dpi, box.height / figure.dpi


def ticks(axis: Any, values: Collection[float] = ()) -> None:
    """Ticks at `values` where they are few, as many as have room, else at round numbers; once the limits stand."""
    low, high = axis.get_view_interval()
    places = sorted({value for value in values if low <= value <= high})
    if not 0 < len(places) <= 12:
        if axis.get_scale() != "log":
            if max(abs(low), abs(high)) >= 1000:
                axis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
            return
        places = round_numbers(low, high)
    across = axis.axis_name == "x"
    room = LETTER * max(len(number_text(place)) for place in places) + 0.1 if across else 0.25
    axis.set_minor_locator(NullLocator())
    axis.set_major_locator(FixedLocator(places, nbins=int(inches(axis.axes)[0 if across else 1] / room) + 1))
    axis.set_major_formatter(lambda value, _: number_text(value))


def round_numbers(low: float, high: float) -> list[float]:
    """Round numbers between two positive limits, three to about ten of them."""
    locators = [*(LogLocator(subs=steps, numticks=99) for steps in ((1,), (1, 3), (1, 2, 5))), MaxNLocator(5)]
    decades, thirds, fifths, even = (
        [float(f"{place:.6g}") for place in locator.tick_values(low, high) if low <= place <= high]
        for locator in locators
    )
    enough = [places for places in (decades, thirds, fifths) if len(places) >= 4]
    return enough[0] if enough else fifths if len(fifths) == 3 else even


def seed_dots(axes: Axes, x: Any, y: Any, colour: str) -> None:
    """Each seed's value as a faint dot, below the means."""
    axes.plot(x, y, "o", markersize=3.5, color=colour, markeredgewidth=0, alpha=0.4, label="_seeds", zorder=2)


def _crosses(panels: Sequence[Axes], lost: Lost, lower: bool) -> None:
    """The marks of diverged runs in a strip beyond the values, those of each line above the other; it has no ticks."""
    height = min(0.5, EDGE + STEP * max(map(len, lost)))  # of the strip, in heights of the axes
    bottom, top = panels[0].get_ylim()
    scale = panels[0].yaxis.get_transform()
    low, high = scale.transform(np.array([bottom, top]))
    extra = (high - low) * height / (1 - height)
    limits = scale.inverted().transform(np.array([low, high + extra] if lower else [low - extra, high]))
    for axes, lines in zip(panels, lost, strict=True):
        axes.set_yticks([tick for tick in axes.get_yticks() if bottom <= tick <= top])
        strip = (top, limits[1]) if lower else (limits[0], bottom)
        axes.axhspan(*strip, color=VOID, linewidth=0, label="_strip", zorder=5.5)
        for pile, (colour, marks) in enumerate(lines.items()):
            place, across = min(EDGE + STEP * pile, height), axes.get_xaxis_transform()
            for x, (text, rows) in marks.items():
                at = (x, 1 - place if lower else place)
                axes.plot(*at, "X", markersize=8, color=colour, markeredgecolor="white", label="_diverged",
                          transform=across, clip_on=False, zorder=7)  # fmt: skip
                axes.annotate(text, at, (-7, 0), xycoords=across, textcoords="offset points", ha="right", va="center",
                              fontsize="small", zorder=7)  # fmt: skip
                mark(axes, rows, *at, transform=across)
    panels[0].set_ylim(*limits)


def finish_figure(
    panels: Sequence[Axes], x: str, y: str, title: str | None, *, x_ticks: Collection[float] = (),
    styles: Mapping[Any, Mapping[str, Any]] | None = None, labels: Labels | None = None, heading: str = "",
    notes: Sequence[Any] = (), lost: Lost = (), lower: bool = False,
) -> Figure:  # fmt: skip
    """Ticks, the axes' texts, of several panels once for all, the title, wrapped to its width, legend and crosses.

    The title ends with how many runs each mark shows.

    styles: of each line by its value; `heading` stands above them. notes: names in NOTES, what follows a comma is said
    of the mark, or entries. The legend stands beside the panels, or below them without lines or for long texts. Crosses
    stand at the top where lower values are better.
    """
    figure: Any = panels[0].get_figure(root=True)
    counts = sorted({len(one.rows) for one in figure.marks})
    n = f"n = {'–'.join(map(str, counts[:: len(counts) - 1 or 1]))}" if counts else ""
    n = "single runs" if counts == [1] else n
    text = f"{title} ({n})" if title and n else title or n
    figure.suptitle(textwrap.fill(text, int(figure.get_figwidth() * 8.8)), linespacing=1.25)
    for axes, crosses in zip(panels, lost, strict=False):  # the limits contain them
        xs = [x for line in crosses.values() for x in line]
        axes.plot(xs, [0.5] * len(xs), linestyle="none", label="_room", transform=axes.get_xaxis_transform())
    for axes in panels:
        ticks(axes.xaxis, x_ticks)
        ticks(axes.yaxis)
    if len(panels) == 1:
        panels[0].set(xlabel=x, ylabel=y)
    else:
        figure.supylabel(y)
        if x:
            figure.supxlabel(x)
    lines = [Line2D([], [], label=level_text(value, labels), **style) for value, style in (styles or {}).items()]
    marks = [Line2D([], [], label=note, **{**MARK, **NOTES[note.partition(",")[0]]}) if isinstance(note, str) else note
             for note in notes]  # fmt: skip
    if "_published" in {line.get_label() for axes in panels for line in axes.lines}:
        marks.append(Line2D([], [], label="published", **MARK | NOTES["published"]))
    _legend(panels, lines, marks, heading or None)
    if any(lost):
        _crosses(panels, lost, lower)
    return figure


def _legend(panels: Sequence[Axes], lines: list[Any], marks: list[Any], heading: str | None) -> None:
    figure: Any = panels[0].get_figure(root=True)
    longest = max((len(str(line.get_label())) for line in lines), default=0)
    if lines and longest <= 20:
        gap = [Line2D([], [], linestyle="none", label=" ")] * bool(marks)
        last = next(axes for axes in panels if axes.get_subplotspec().is_last_col())  # type: ignore[union-attr]
        last.legend(handles=lines + gap + marks, loc="upper left", bbox_to_anchor=(1.01, 1), title=heading,
                    borderaxespad=0, alignment="left")  # fmt: skip
    elif lines or marks:
        columns = max(1, int(figure.get_figwidth() * 10 / (max(longest, 12) + 5)))
        figure.legend(handles=lines + marks, loc="outside lower center", ncols=columns, title=heading)
