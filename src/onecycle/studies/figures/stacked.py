"""Parts of a whole: where the time of a training step goes."""

from collections.abc import Mapping, Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from onecycle.studies.figures.axes import frame, panel_grid, ticks
from onecycle.studies.figures.style import INK, OKABE_ITO, SMALL, TEXT, Labels, contrast, plain

# Components of a training step in the order of the bars; the colours are theirs in every figure.
COMPONENTS = {
    "convolution": OKABE_ITO[0], "norm": OKABE_ITO[4], "activation": OKABE_ITO[2], "pooling": OKABE_ITO[5],
    "head and loss": OKABE_ITO[3], "optimizer": OKABE_ITO[1], "data": OKABE_ITO[7], "casts": "#7F7F7F",
    "other": "#D0D0D0",
}  # fmt: skip
# Of components that the list does not name, in turn.
FURTHER = ("#8C564B", "#B5A642", "#4B5320", "#800020")
LABELLED_SHARE, MERGED_SHARE = 0.05, 0.02
OTHER = "other"
COLUMNS = 5  # of the legend
AXES_INCHES, LETTER_INCHES = 5.2, 0.085


def stacked(
    parts: Mapping[str, Mapping[str, float]], *, unit: str = "ms", labels: Labels | None = None,
    title: str | None = None,
) -> Figure:  # fmt: skip
    """A bar for each group, from top to bottom, of its components.

    Shares from 5 % on are printed, behind the total those that have no room in the bar. Components below 2 % of every
    group are drawn as one with "other". labels: may hold texts of components and groups, and the axis's text at
    "value". Raises ValueError without parts.
    """
    if not parts:
        raise ValueError("stacked: no parts to draw")
    totals = {group: sum(values.values()) for group, values in parts.items()}
    for group, total in totals.items():
        if not total > 0:
            raise ValueError(f"stacked: the parts of {group!r} sum to {total:g}; they must be above zero")
    parts, merged = _merged(parts, totals)
    texts = {OTHER: f"other, each below {100 * MERGED_SHARE:.0f} %"} if merged else {}
    texts |= labels or {}
    figure, (axes,) = panel_grid(1, height=1.7 + 0.55 * len(parts))
    axes.set_xlim(0, 1.14 * max(totals.values()))
    names = ordered({name: None for values in parts.values() for name in values})
    further = iter(FURTHER * len(names))
    palette = {name: COMPONENTS.get(name) or next(further) for name in names}
    for place, (group, values) in enumerate(parts.items()):
        more = ", ".join(f"{texts.get(name, name)} {share}" for name, share in _bar(axes, place, values, palette))
        text = f"{_rounded(totals[group])} {unit}" + f" ({more})" * bool(more)
        axes.annotate(text, (totals[group], place), (6, 0), textcoords="offset points", va="center", fontsize=SMALL,
                      color=INK)  # fmt: skip
    axes.set_yticks(range(len(parts)), [texts.get(group, group) for group in parts], fontsize=TEXT)
    axes.set_ylim(len(parts) - 0.5, -0.5)
    axes.grid(visible=False, axis="y")
    axes.tick_params(axis="y", length=0)
    ticks(axes, "x", [])
    frame(figure, [axes], texts.get("value", f"time of a training step ({unit})"), "", title)
    _legend(figure, [Patch(facecolor=palette[name], label=texts.get(name, name)) for name in names])
    return figure


def _legend(figure: Figure, entries: Sequence[Patch]) -> None:
    # A legend fills its columns from top to bottom; it is read from left to right.
    entries = [entry for column in range(COLUMNS) for entry in entries[column::COLUMNS]]
    figure.legend(handles=entries, loc="outside lower center", ncols=COLUMNS, frameon=False, fontsize=SMALL,
                  labelcolor=INK, handlelength=1.1, handleheight=1.1, handletextpad=0.5, columnspacing=1.4)  # fmt: skip


def _merged(
    parts: Mapping[str, Mapping[str, float]], totals: Mapping[str, float]
) -> tuple[dict[str, dict[str, float]], bool]:
    """The parts with those too thin to tell apart joined to "other", and whether there were any."""
    names = dict.fromkeys(name for values in parts.values() for name in values if name != OTHER)
    thin = {
        name
        for name in names
        if all(values.get(name, 0.0) < MERGED_SHARE * totals[group] for group, values in parts.items())
    }
    joined = {}
    for group, values in parts.items():
        joined[group] = {name: value for name, value in values.items() if name not in thin}
        if thin:
            joined[group][OTHER] = values.get(OTHER, 0.0) + sum(values.get(name, 0.0) for name in thin)
    return joined, bool(thin)


def ordered(names: Mapping[str, None]) -> list[str]:
    """Components in the fixed order, those that it does not name before the last, "other"."""
    known = [name for name in COMPONENTS if name in names and name != OTHER]
    return known + [name for name in names if name not in COMPONENTS] + [OTHER] * (OTHER in names)


def _bar(axes: Axes, place: int, values: Mapping[str, float], palette: Mapping[str, str]) -> list[tuple[str, str]]:
    """Draw one bar; returns the names and shares that are worth a text but have no room for it."""
    without_room = []
    left, total, inches = 0.0, sum(values.values()), AXES_INCHES / axes.get_xlim()[1]
    for name, colour in palette.items():
        width = values.get(name, 0.0)
        axes.barh([place], [width], left=left, height=0.64, color=colour, edgecolor="white", linewidth=0.8,
                  label=f"_{name}")  # fmt: skip
        text = f"{100 * width / total:.0f}%"
        if width / total >= LABELLED_SHARE and width * inches >= LETTER_INCHES * len(text):
            axes.text(left + width / 2, place, text, ha="center", va="center",
                      fontsize=SMALL, color=contrast(colour))  # fmt: skip
        elif width / total >= LABELLED_SHARE and name != OTHER:
            without_room.append((name, text))
        left += width
    return without_room


def _rounded(value: float) -> str:
    return plain(float(f"{value:.3g}"))
