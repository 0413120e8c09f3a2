"""Arms beside each other."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from onecycle.studies.figures.axes import frame, legends, panel_grid, ticks
from onecycle.studies.figures.points import (
    Direction,
    Point,
    Rows,
    direction_of,
    point,
    require,
    same_setting,
    select,
    values_of,
)
from onecycle.studies.figures.style import INK, MUTED, OKABE_ITO, SMALL, TEXT, Labels, label_of, value_text

COLOUR = OKABE_ITO[0]
FEW = 3  # seeds, of which each is worth more than their mean
Form = Literal["bars", "dots"]


def arms(
    rows: Rows, *, y: str, by: str = "arm", order: Sequence[str] | None = None,
    reference: Mapping[str, float] | None = None, direction: Direction | None = None, form: Form | None = None,
    labels: Labels | None = None, title: str | None = None,
) -> Figure:  # fmt: skip
    """Mean ± sd of y for each arm, from top to bottom in the order given, the value printed beside it.

    form: "bars" from zero or "dots" on axes around the values; by default dots where all values are so far from zero
    that bars would hide their differences. Up to three seeds are drawn larger than more. reference: the
    published value of an arm, a hollow diamond; a name that is no arm becomes a vertical line with that name. Raises
    ValueError for columns that no row has.
    """
    require("arms", rows, y, by)
    names = _ordered(values_of(rows, by), order)
    found = [_point(select(rows, by, name), place, y, f"{by}={name}") for place, name in enumerate(names)]
    if not any(one.values or one.diverged for one in found):
        raise ValueError(f"arms: no run has a value of {y}")
    published = dict(reference or {})
    values = [value for one in found for value in one.values] + list(published.values())
    if form not in (None, "bars", "dots"):
        raise ValueError(f"arms: form={form}: must be bars or dots")
    bars = form == "bars" if form else bool(values) and 0 <= min(values) < 0.5 * max(values)
    figure, (axes,) = panel_grid(1, height=1.5 + 0.42 * len(names))
    for one in found:
        _arm(axes, one, bars)
    _references(axes, published, names)
    reach = [one.mean + sign * one.sd for one in found if math.isfinite(one.sd) for sign in (-1, 1)]
    _limits(axes, values + reach, bars)
    _numbers(axes, found, direction_of(y, direction))
    axes.set_yticks(range(len(names)), [value_text(by, name, labels) for name in names], fontsize=TEXT)
    axes.set_ylim(len(names) - 0.45, -0.55)
    axes.grid(visible=False, axis="y")
    axes.tick_params(axis="y", length=0)
    ticks(axes, "x", [])
    frame(figure, [axes], label_of(y, labels), "", title)
    notes = ["published"] * any(name in published for name in names)
    legends([axes], [], _notes(found)[0] + notes + _notes(found)[1])
    return figure


def _notes(found: Sequence[Point]) -> tuple[list[str], list[str]]:
    """The legend's entries for seeds and for diverged runs."""
    few = any(1 < len(one.values) <= FEW for one in found)
    many = any(len(one.values) > FEW for one in found)
    return ["single run"] * few + ["one seed"] * many, ["diverged"] * any(one.diverged for one in found)


def _point(runs: Rows, place: float, y: str, where: str) -> Point:
    same_setting(runs, where)
    return point(runs, place, y)


def _ordered(names: Sequence[str], order: Sequence[str] | None) -> list[str]:
    """The arms that have runs: those of `order` first, in its order."""
    wanted = [name for name in order or () if name in names]
    return wanted + [name for name in names if name not in wanted]


def _arm(axes: Axes, one: Point, bars: bool) -> None:
    """Mean ± sd of one arm, and its seeds below the line so that they hide nothing."""
    if one.values:
        if bars:
            axes.barh([one.x], [one.mean], height=0.62, color=COLOUR, alpha=0.3, label="_bar", zorder=2)
        axes.errorbar([one.mean], [one.x], xerr=[one.sd], color=COLOUR, marker="none" if bars else "o", markersize=8,
                      elinewidth=2, capsize=3.5, capthick=1.5, label="_mean", zorder=4)  # fmt: skip
    if len(one.values) > 1:
        few: dict[str, Any] = {"markersize": 6.5, "color": "white", "markeredgecolor": INK, "markeredgewidth": 1.0}
        many: dict[str, Any] = {"markersize": 4.5, "color": MUTED, "markeredgewidth": 0, "alpha": 0.55}
        axes.plot(one.values, [one.x + 0.2] * len(one.values), linestyle="none", marker="o", label="_seeds", zorder=5,
                  **(few if len(one.values) <= FEW else many))  # fmt: skip


def _references(axes: Axes, published: Mapping[str, float], names: Sequence[str]) -> None:
    for name, value in published.items():
        if name in names:
            axes.plot([value], [names.index(name)], linestyle="none", marker="D", markersize=7, markeredgewidth=1.5,
                      markerfacecolor="none", markeredgecolor=INK, label="_published", zorder=6)  # fmt: skip
        else:
            axes.axvline(value, color=MUTED, linewidth=1.2, linestyle=(0, (4, 3)), label="_reference", zorder=1)
            axes.annotate(name, (value, 1), (0, 3), xycoords=axes.get_xaxis_transform(), textcoords="offset points",
                          ha="center", va="bottom", fontsize=SMALL, color=MUTED)  # fmt: skip


def _limits(axes: Axes, values: Sequence[float], bars: bool) -> None:
    """From zero for bars, from below it only where a value is; a margin around the values for dots."""
    low, high = (min(values), max(values)) if values else (0.0, 1.0)
    room = (high - low) or 0.1 * abs(high) or 1.0
    axes.set_xlim((min(0.0, 1.06 * low), 1.06 * high) if bars else (low - 0.15 * room, high + 0.12 * room))


def _numbers(axes: Axes, found: Sequence[Point], direction: Direction) -> None:
    """The values in a column right of the axes, and crosses for diverged runs at the bad edge."""
    digits = _digits(found)
    for one in found:
        total = len(one.values) + one.diverged
        text = f"{one.mean:,.{digits}f}" if one.values else "diverged"
        if math.isfinite(one.sd):
            text += f" ± {one.sd:,.{digits}f}" if one.sd == 0 or one.sd >= 0.5 * 10**-digits else f" ± <{10**-digits:g}"
        if one.values and total > 1:
            text += f"  ({len(one.values)} of {total})" if one.diverged else f"  (n = {total})"
        axes.annotate(text, (1, one.x), (8, 0), xycoords=axes.get_yaxis_transform(), textcoords="offset points",
                      va="center", fontsize=SMALL, color=INK, annotation_clip=False)  # fmt: skip
        if one.diverged:
            axes.plot([0.985 if direction == "loss" else 0.015], [one.x], linestyle="none", marker="X", markersize=9,
                      color=MUTED, markeredgecolor="white", markeredgewidth=0.8, label="_diverged", clip_on=False,
                      transform=axes.get_yaxis_transform(), zorder=7)  # fmt: skip


def _digits(found: Sequence[Point]) -> int:
    """Decimals, for all arms the same and in all figures those of their size: one for accuracies in percent."""
    largest = max((abs(one.mean) for one in found if one.values), default=1.0)
    return 0 if largest >= 1000 else 1 if largest >= 10 else 3
