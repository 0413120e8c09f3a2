"""Arms beside each other: bars, accuracy against time, the parts of a training step, gradient norms by layer."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from onecycle.studies.figures import columns, drawing
from onecycle.studies.figures.columns import Labels, label_of, numbers
from onecycle.studies.figures.drawing import INK, MUTED, line_styles
from onecycle.studies.rows import levels, select

# Components of a training step in the order of the bars; the colours are theirs in every figure.
COMPONENTS = {
    "convolution": "C0", "norm": "C4", "activation": "C2", "pooling": "C5", "head and loss": "C3", "optimizer": "C1",
    "data": "C7", "casts": "0.5", "other": "0.82",
}  # fmt: skip
LABELLED_SHARE, MERGED_SHARE = 5, 2  # percent
COLUMNS = 5  # of the components' legend


def arms(
    rows: pd.DataFrame, *, y: str, by: str = "arm", reference: Mapping[str, float] | None = None,
    form: Literal["bars", "dots"] | None = None, labels: Labels | None = None, title: str | None = None,
) -> Figure:  # fmt: skip
    """Mean ± sd of y for each arm, from top to bottom, the value printed beside it, its seeds below the line.

    form: "bars" from zero or "dots" on axes around the values; by default dots where all values are so far from zero
    that bars would hide their differences. reference: the published value of an arm, a hollow diamond.
    """
    if form not in (None, "bars", "dots"):
        raise ValueError(f"form={form}: must be bars or dots")
    table, seeds = columns.points_of(rows, by, y)
    names = sorted(columns.numbers(rows, by).dropna().unique()) if table.index.dtype == float else levels(rows, by)
    if table["n"].isna().all():
        raise ValueError(f"no run has a value of {y}")
    table, published = table.reindex(names), pd.Series(reference or {}, dtype=float).reindex(names)
    values = pd.concat([columns.finite_numbers(rows, y), published]).dropna()
    bars = form == "bars" if form else len(values) > 0 and 0 <= values.min() < 0.5 * values.max()
    figure, (axes,) = drawing.panel_grid(size=(7.0, 1.5 + 0.42 * len(names)))
    places = range(len(names))
    if bars:
        axes.barh(places, table["mean"].fillna(0.0), height=0.62, color="C0", alpha=0.3, zorder=2)
    axes.errorbar(table["mean"], places, xerr=table["sd"], color="C0", fmt="none" if bars else "o", markersize=8,
                  elinewidth=2, capsize=3.5, capthick=1.5, zorder=4)  # fmt: skip
    for place, (_, arm) in enumerate(table.iterrows()):
        drawing.mark(axes, arm["rows"] if arm["n"] > 0 else (), arm["mean"], place)
    heights = [names.index(name) + 0.2 for name in seeds["place"]]
    axes.plot(seeds["value"], heights, "o", color="white", markeredgecolor=INK, label="_seeds", zorder=5)
    for place, value in zip(places, published, strict=True):
        if math.isfinite(value):
            axes.plot([value], [place], **drawing.PUBLISHED, markeredgecolor=INK)
    axes.margins(x=0.1)
    _write_numbers(axes, table, columns.is_lower_better(y))
    notes = ["single run"] * (len(seeds) > 0) + ["diverged"] * bool((table["diverged"] > 0).any())
    drawing.finish_figure([axes], label_of(y, labels), "", title, notes=notes)
    _name_bars(axes, [columns.level_text(name, labels) for name in names])
    return figure


def _name_bars(axes: Axes, names: Sequence[str]) -> None:
    """One line for each name, from top to bottom, without a grid between them."""
    axes.set_yticks(range(len(names)), names)
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.grid(visible=False, axis="y")
    axes.tick_params(axis="y", length=0, labelsize=10.5)


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


def scatter(
    rows: pd.DataFrame, *, x: str, y: str, by: str = "arm", labels: Labels | None = None, title: str | None = None
) -> Figure:
    """Mean ± sd of y against mean ± sd of x: a point for each value of `by`, with its seeds as faint dots.

    A cross at the bad edge stands at the mean x of the runs that diverged.
    """
    columns.refuse_mixed(rows, [by])
    _, (axes,) = drawing.panel_grid(size=(7.0, 4.6))
    axes.margins(0.1)
    table = pd.DataFrame({"x": numbers(rows, x), "y": columns.finite_numbers(rows, y)})
    styles = line_styles(levels(rows, by), linestyle="none", markersize=7.5)
    lost: dict[str, dict[float, tuple[str, Any]]] = {}
    for group, style in styles.items():
        part = select(rows, {by: group})
        seeds, missing = table.loc[part.index].dropna(), table["x"][part.index[part["status"] == "diverged"]].dropna()
        drawing.mark(axes, seeds.index, *seeds.mean())
        if len(seeds):
            (x_mean, y_mean), (x_sd, y_sd) = seeds.mean(), seeds.std()
            axes.errorbar([x_mean], [y_mean], xerr=[x_sd], yerr=[y_sd], **style, elinewidth=1.3, capsize=0,
                          markeredgecolor="white", zorder=4)  # fmt: skip
        if len(seeds) > 1:
            drawing.seed_dots(axes, seeds["x"], seeds["y"], style["color"])
        if len(missing):
            lost[style["color"]] = {missing.mean(): ("", missing.index)}
    if not axes.lines and not lost:
        raise ValueError(f"no run has values of both {x} and {y}")
    notes = ["one seed", "mean ± sd"] * any(line.get_label() == "_seeds" for line in axes.lines)
    return drawing.finish_figure(
        [axes], label_of(x, labels), label_of(y, labels), title, styles=styles, labels=labels,
        notes=notes + ["diverged"] * bool(lost), heading=label_of(by, labels), lost=[lost],
        lower=columns.is_lower_better(y),
    )  # fmt: skip


def stacked(
    rows: pd.DataFrame, *, by: str, prefix: str = "", reference: Mapping[str, Mapping[str, float]] | None = None,
    labels: Labels | None = None, title: str | None = None,
) -> Figure:  # fmt: skip
    """The shares of a training step by component: for each value of `by` a bar of the means over its runs.

    Shares from 5 % on are printed, and each bar's milliseconds. Components below 2 % of every bar, and those of an
    unknown name, are drawn as one with "other". reference: published amounts by component, a bar each.
    """
    rows = rows[rows["breakdown_ms"].map(lambda parts: isinstance(parts, dict))]
    names = levels(rows, by)
    if not names:
        raise ValueError("no run has a breakdown_ms")
    members = [select(rows, {by: name}) for name in names]
    amounts = [pd.DataFrame([*runs["breakdown_ms"]]).mean() for runs in members]
    table = pd.DataFrame([*amounts, *map(pd.Series, (reference or {}).values())]).fillna(0)
    total, table = table.sum(axis=1), 100 * table.div(table.sum(axis=1), axis=0)
    kept = [name for name in COMPONENTS if name != "other" and name in table and table[name].max() >= MERGED_SHARE]
    rest = table.drop(columns=kept)
    table = table[kept].assign(**{"other": rest.sum(axis=1)} if len(rest.columns) else {})
    figure, (axes,) = drawing.panel_grid(size=(7.0, 1.7 + 0.55 * len(table)))
    axes.set_xlim(0, 114)
    merged = f"other, each below {MERGED_SHARE} %" if set(rest) - {"other"} else "other"
    left = table.cumsum(axis=1) - table
    bars = []
    for name, widths in table.items():
        bars.append(axes.barh(table.index, widths, left=left[name], height=0.64, color=COMPONENTS[name],
                              edgecolor="white", linewidth=0.8, label=merged if name == "other" else name))  # fmt: skip
        texts = widths.map("{:.0f}%".format).where(widths >= LABELLED_SHARE, "")
        axes.bar_label(bars[-1], texts, label_type="center", color=drawing.contrast(COMPONENTS[name]))
    for place, runs in enumerate(members):
        drawing.mark(axes, runs.index, [0, 0, 100, 100], place + np.array([-0.32, 0.32, 0.32, -0.32]), closed=True)
        text = f"{columns.number_text(float(f'{total[place]:.3g}'))} ms"
        axes.annotate(text, (100, place), (6, 0), textcoords="offset points", va="center")
    drawing.finish_figure([axes], "share of a training step (%)", "", title)
    _name_bars(axes, [prefix + columns.level_text(name, labels) for name in names] + [*(reference or ())])
    # A legend fills its columns from top to bottom; it is read from left to right.
    handles = [bar for column in range(COLUMNS) for bar in bars[column::COLUMNS]]
    figure.legend(handles=handles, loc="outside lower center", ncols=COLUMNS, handlelength=1.1, handleheight=1.1,
                  columnspacing=1.4)  # fmt: skip
    return figure


def norms_by_layer(
    rows: pd.DataFrame, *, groups: Mapping[str, str], by: str = "arm", value: str = "values",
    y_label: str | None = None, labels: Labels | None = None, title: str | None = None,
) -> Figure:  # fmt: skip
    """`gradient_norms` of every layer: a panel for each fraction of training, a line for each value of `by`.

    groups: the fractions, each with its title. value: "values" or "relative" to the weights. Seeds are drawn as their
    geometric mean, and each as faint dots. A line has a gap where its network has no such layer.
    """
    found = rows["gradient_norms"].dropna()
    tables = {
        str(fraction): {index: dict(zip(norms[str(fraction)]["layers"], norms[str(fraction)][value], strict=True))
                        for index, norms in found.items() if str(fraction) in norms}
        for fraction in groups
    }  # fmt: skip
    # In the order of the deepest network, of which the others are a part.
    deepest_first = sorted((run for table in tables.values() for run in table.values()), key=len, reverse=True)
    places = list(dict.fromkeys(layer for run in deepest_first for layer in run))
    if not places:
        raise ValueError("no run has gradient norms")
    styles = line_styles(levels(rows, by))
    size = (7.0, 2.5 if len(groups) > 1 else 3.8)
    figure, grid = drawing.panel_grid(list(groups.values()), size=size, columns=1)
    grid[0].set_yscale("log")
    for axes, runs in zip(grid, tables.values(), strict=True):
        table = pd.DataFrame.from_dict(runs, orient="index", dtype=float).reindex(columns=places)
        logs = np.log(table.where(table > 0))
        for name, style in styles.items():
            seeds = logs.loc[logs.index.intersection(select(rows, {by: name}).index)]
            axes.plot(np.exp(seeds.mean()).to_numpy(), label="_mean", zorder=3, **style)
            drawing.mark(axes, seeds.index, range(len(places)), np.exp(seeds.mean()))
            if len(seeds) > 1:
                drawing.seed_dots(axes, range(len(places)), np.exp(seeds).T, style["color"])
    drawing.finish_figure(grid, "", y_label or label_of("gradient_norm", labels), title, styles=styles, labels=labels)
    _name_layers(grid[-1], places)
    return figure


def _name_layers(axes: Axes, names: Sequence[str]) -> None:
    """The layers' names below the axis, their parts below each other; slanted where they would touch."""
    texts = [name.replace("residual", "branch").replace(".", "\n") for name in names]
    room = drawing.inches(axes)[0] / len(names) / drawing.LETTER
    slanted = max(len(line) for text in texts for line in text.split("\n")) > room
    style: dict[str, Any] = {"rotation": 45, "ha": "right", "rotation_mode": "anchor"} if slanted else {}
    axes.set_xticks(range(len(names)), list(names) if slanted else texts, **style)
    axes.set_xlim(-0.5, len(names) - 0.5)
