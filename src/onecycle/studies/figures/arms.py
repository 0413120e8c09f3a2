"""Arms beside each other."""

import math
from collections.abc import Mapping
from typing import Any, Literal

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from onecycle.studies.figures import drawing
from onecycle.studies.figures.labels import Labels, label_of, level_text
from onecycle.studies.figures.points import finished, is_lower_better, levels_of, points_of, seeds_of
from onecycle.studies.figures.style import INK, MUTED

FEW = 3  # seeds, of which each is worth more than their mean
SEEDS: dict[bool, dict[str, Any]] = {
    True: {"markersize": 6.5, "color": "white", "markeredgecolor": INK, "markeredgewidth": 1.0},
    False: {"markersize": 4.5, "color": MUTED, "markeredgewidth": 0, "alpha": 0.55},
}


def arms(
    rows: pd.DataFrame, *, y: str, by: str = "arm", reference: Mapping[str, float] | None = None,
    form: Literal["bars", "dots"] | None = None, labels: Labels | None = None, title: str | None = None,
) -> Figure:  # fmt: skip
    """Mean ± sd of y for each arm, from top to bottom, the value printed beside it, its seeds below the line.

    form: "bars" from zero or "dots" on axes around the values; by default dots where all values are so far from zero
    that bars would hide their differences. Up to three seeds are drawn larger than more. reference: the published value
    of an arm, a hollow diamond. Raises ValueError where there is nothing to draw.
    """
    if form not in (None, "bars", "dots"):
        raise ValueError(f"form={form}: must be bars or dots")
    names = levels_of(rows, by)
    table = points_of(rows, by, y).reindex(names)
    if table["n"].isna().all():
        raise ValueError(f"no run has a value of {y}")
    published = pd.Series(reference or {}, dtype=float).reindex(names)
    values = pd.concat([finished(rows, y), published]).dropna()
    bars = form == "bars" if form else len(values) > 0 and 0 <= values.min() < 0.5 * values.max()
    figure, (axes,) = drawing.panel_grid(size=(7.0, 1.5 + 0.42 * len(names)))
    places = range(len(names))
    if bars:
        axes.barh(places, table["mean"].fillna(0.0), height=0.62, color="C0", alpha=0.3, zorder=2)
    axes.errorbar(table["mean"], places, xerr=table["sd"], color="C0", fmt="none" if bars else "o", markersize=8,
                  elinewidth=2, capsize=3.5, capthick=1.5, zorder=4)  # fmt: skip
    seeds, few = seeds_of(rows, by, y), table["n"].max() <= FEW
    heights = [names.index(name) + 0.2 for name in seeds["place"]]
    axes.plot(seeds["value"], heights, "o", label="_seeds", zorder=5, **SEEDS[bool(few)])
    axes.plot(published, places, "D", markersize=7, markeredgewidth=1.5, markerfacecolor="none", markeredgecolor=INK,
              label="_published", zorder=6)  # fmt: skip
    ends = pd.concat([values, table["mean"] - table["sd"], table["mean"] + table["sd"]]).dropna()
    low, high = (ends.min(), ends.max()) if len(ends) else (0.0, 1.0)
    room = (high - low) or 0.1 * abs(high) or 1.0
    axes.set_xlim((min(0.0, 1.06 * low), 1.06 * high) if bars else (low - 0.15 * room, high + 0.12 * room))
    drawing.name_bars(axes, [level_text(name, labels) for name in names])
    _write_numbers(axes, table, is_lower_better(y, None))
    notes = ["single run" if few else "one seed"] * (len(seeds) > 0) + ["published"] * bool(published.any())
    notes += ["diverged"] * bool((table["diverged"] > 0).any())
    drawing.finish([axes], label_of(y, labels), "", title, notes=notes)
    return figure


def _write_numbers(axes: Axes, table: pd.DataFrame, lower: bool) -> None:
    """The values in a column right of the axes, with equal decimals, and crosses for diverged runs at the bad edge."""
    largest, right = table["mean"].abs().max(), axes.get_yaxis_transform()
    digits = 0 if largest >= 1000 else 1 if largest >= 10 else 3
    for place, (mean, sd, n, lost) in enumerate(table[["mean", "sd", "n", "diverged"]].fillna({"n": 0}).to_numpy()):
        text = f"{mean:,.{digits}f}" if n else "diverged" if lost > 0 else ""
        if math.isfinite(sd):
            text += f" ± <{10**-digits:g}" if 0 < sd < 0.5 * 10**-digits else f" ± {sd:,.{digits}f}"
        if n and n + lost > 1:
            text += f"  ({n:.0f} of {n + lost:.0f})" if lost else f"  (n = {n:.0f})"
        axes.annotate(text, (1, place), (8, 0), xycoords=right, textcoords="offset points", va="center",
                      annotation_clip=False)  # fmt: skip
        if lost > 0:
            axes.plot([0.985 if lower else 0.015], [place], "X", markersize=9, color=MUTED, markeredgecolor="white",
                      label="_diverged", clip_on=False, transform=right, zorder=7)  # fmt: skip
