"""Parts of a whole: where the time of a training step goes."""

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from onecycle.studies.figures import drawing
from onecycle.studies.figures.labels import Labels, level_text, plain
from onecycle.studies.figures.points import levels_of, part_of
from onecycle.studies.figures.style import contrast

# Components of a training step in the order of the bars; the colours are theirs in every figure.
COMPONENTS = {
    "convolution": "C0", "norm": "C4", "activation": "C2", "pooling": "C5", "head and loss": "C3", "optimizer": "C1",
    "data": "C7", "casts": "0.5", "other": "0.82",
}  # fmt: skip
LABELLED_SHARE, MERGED_SHARE = 0.05, 0.02
COLUMNS = 5  # of the legend


def stacked(
    rows: pd.DataFrame, *, by: str, prefix: str = "", labels: Labels | None = None, title: str | None = None
) -> Figure:
    """Milliseconds of a step by component: for each value of `by` a bar of the means over its runs.

    Shares from 5 % on are printed, after the total those that have no room in the bar. Components below 2 % of every
    bar, and those of an unknown name, are drawn as one with "other".
    """
    rows = rows[rows["breakdown_ms"].map(lambda parts: isinstance(parts, dict))]
    levels = levels_of(rows, by)
    if not levels:
        raise ValueError("no run has a breakdown_ms")
    means = [pd.DataFrame(part_of(rows, by, level)["breakdown_ms"].tolist()).mean() for level in levels]
    table = pd.DataFrame(means).fillna(0.0)
    large = table.div(table.sum(axis=1), axis=0).max() >= MERGED_SHARE
    names = [name for name in COMPONENTS if large.get(name, False) and name != "other"]
    others = [name for name in table if name not in names]
    table = table[names].assign(**{"other": table[others].sum(axis=1)} if others else {})
    figure, (axes,) = drawing.panel_grid(size=(7.0, 1.7 + 0.55 * len(table)))
    axes.set_xlim(0, 1.14 * table.sum(axis=1).max())
    for place, parts in enumerate(table.to_dict("records")):
        more = ", ".join(_bar(axes, place, parts))
        total = sum(parts.values())
        text = f"{plain(float(f'{total:.3g}'))} ms" + f" ({more})" * bool(more)
        axes.annotate(text, (total, place), (6, 0), textcoords="offset points", va="center")
    drawing.name_bars(axes, [prefix + level_text(level, labels) for level in levels])
    drawing.finish([axes], "time of a training step (ms)", "", title)
    other = f"other, each below {100 * MERGED_SHARE:.0f} %" if set(others) > {"other"} else "other"
    entries = [Patch(facecolor=COMPONENTS[name], label=other if name == "other" else name) for name in table]
    # A legend fills its columns from top to bottom; it is read from left to right.
    entries = [entry for column in range(COLUMNS) for entry in entries[column::COLUMNS]]
    figure.legend(handles=entries, loc="outside lower center", ncols=COLUMNS, handlelength=1.1, handleheight=1.1,
                  columnspacing=1.4)  # fmt: skip
    return figure


def _bar(axes: Axes, place: int, parts: dict[str, float]) -> list[str]:
    """Draw one bar; returns the names and shares that are worth a text but have no room for it."""
    without_room = []
    left, total, scale = 0.0, sum(parts.values()), drawing.inches(axes)[0] / axes.get_xlim()[1]
    for name, width in parts.items():
        colour, text = COMPONENTS[name], f"{100 * width / total:.0f}%"
        axes.barh(place, width, left=left, height=0.64, color=colour, edgecolor="white", linewidth=0.8)
        if width / total >= LABELLED_SHARE and width * scale >= drawing.LETTER * len(text):
            axes.text(left + width / 2, place, text, ha="center", va="center", color=contrast(colour))
        elif width / total >= LABELLED_SHARE and name != "other":
            without_room.append(f"{name} {text}")
        left += width
    return without_room
