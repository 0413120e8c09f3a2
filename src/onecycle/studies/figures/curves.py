"""Lines of one quantity against another: points of a study, training curves, the best of a search so far."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from onecycle.studies.figures import columns, drawing
from onecycle.studies.figures.columns import Direction, Labels, label_of, numbers
from onecycle.studies.rows import Filter, history, moving_average, select
from onecycle.studies.rows import levels as levels_of

Seed = tuple[pd.Series, float | None]  # y by x, where it is finite, and the x where the run diverged
NOTES = {"mean ± 1 sd": "_band", "single seed": "_seed"}  # what the legend says of each mark
# Tell lines apart that coincide.
DASHES: tuple[Any, ...] = ("-", (0, (5, 1.5)), (0, (1.2, 1.2)), (0, (6, 1.5, 1.2, 1.5)))


def response_curves(
    rows: pd.DataFrame, *, x: str, y: str, by: str = "", panels: str = "", log_x: bool = True,
    y_limits: Sequence[float] | None = None, direction: Direction | None = None, optimum: bool = True,
    published: Sequence[tuple[Filter, float]] = (), labels: Labels | None = None, title: str | None = None,
) -> Figure:  # fmt: skip
    """Mean ± sd of y against x: a line for each value of `by`, a panel for each value of `panels`, with one y axis.

    direction: whether the optimum, marked by a ring, is the lowest ("loss") or the highest ("accuracy"); by default y's
    name says so. A point where a run diverged is no optimum and no line leads there, since its mean is that of the
    other seeds alone; its cross stands in a strip beyond the values and `y_limits`, with how many diverged. published:
    which rows a published value of y is about, and the value, a hollow diamond.
    """
    rows = rows.assign(**{x: numbers(rows, x)})
    lower, values = columns.is_lower_better(y, direction), levels_of(rows, panels)
    styles = drawing.line_styles(levels_of(rows, by))
    _, grid = drawing.panel_grid(columns.panel_texts(panels, values, labels))
    drawn: list[pd.DataFrame] = []
    lost: list[dict[str, dict[float, tuple[str, Any]]]] = [{} for _ in grid]
    for axes, value, marks in zip(grid, values, lost, strict=True):
        for group, style in styles.items():
            table, seeds = columns.points_of(select(rows, {panels: value, by: group}), x, y)
            drawn.append(table)
            _line(axes, table, style, optimum=optimum, lower=lower)
            for place, point in table.iterrows():
                drawing.mark(axes, point["rows"], place, point["mean"])
            for of, number in published:
                is_here = (of.get(panels, value), of.get(by, group)) == (value, group)
                if x in of and is_here and not select(rows, {panels: value, by: group, **of}).empty:
                    axes.plot([of[x]], [number], **drawing.PUBLISHED, markeredgecolor=style["color"])
            drawing.seed_dots(axes, seeds["place"], seeds["value"], style["color"])
            if table["diverged"].any():
                marks[style["color"]] = _how_many(table[table["diverged"] > 0], y_limits)
    points = pd.concat(drawn)
    if points.empty:
        raise ValueError(f"no run has values of {x} and {y}")
    if log_x:
        drawing.logarithmic(grid[0].xaxis, x, points.index)
    if y_limits:
        grid[0].set_ylim(*y_limits)
    notes = ["optimum"] * any(line.get_label() == "_optimum" for axes in grid for line in axes.lines)
    notes += ["mean ± sd"] * bool((points["n"] > 1).any())
    notes += ["diverged, no value"] * any(lost)
    return drawing.finish_figure(
        grid, label_of(x, labels), label_of(y, labels), title, x_ticks=set(points.index), lost=lost, lower=lower,
        styles=styles if by else None, labels=labels, heading=label_of(by, labels), notes=notes,
    )  # fmt: skip


def _line(axes: Axes, table: pd.DataFrame, style: dict[str, Any], *, optimum: bool, lower: bool) -> None:
    """Means with their deviations, and the optimum of one line."""
    axes.errorbar(table.index, table["mean"], yerr=table["sd"], **style, linestyle="none", elinewidth=1.3, zorder=3)
    whole = table["mean"].where(table["diverged"] == 0)
    axes.plot(table.index, whole, color=style["color"], label="_line", zorder=3)
    if optimum and whole.notna().any():
        best = whole.idxmin() if lower else whole.idxmax()
        axes.plot([best], [whole[best]], **drawing.HOLLOW, markersize=13, markeredgecolor=style["color"],
                  markeredgewidth=1.8, label="_optimum", clip_on=False, zorder=5)  # fmt: skip


def _how_many(table: pd.DataFrame, limits: Sequence[float] | None) -> dict[float, tuple[str, Any]]:
    """What stands beside the cross of each point: how many diverged, and the mean of the others if it is not seen."""
    texts = {}
    for x, mean, _, n, diverged, rows in table.itertuples():
        text = f"{diverged} of {diverged + n}" if n else ""
        if n and limits and not limits[0] <= mean <= limits[1]:
            text += f", else {columns.number_text(float(f'{mean:.2g}'))}"
        texts[x] = text, rows
    return texts


def histories(rows: pd.DataFrame, *, x: str, y: str, **form: Any) -> Figure:
    """Columns of metrics.csv against each other, a line for each value of `by`; form: as of `training_curves`."""
    found = [history(Path(folder), x, y) for folder in rows["folder"]]
    return training_curves(rows, [pd.Series(ys, xs, dtype=float) for xs, ys in found], x=x, y=y, **form)


def lists(rows: pd.DataFrame, *, column: str, **form: Any) -> Figure:
    """A list of a run over the position in it from 0 to 1; form: as of `training_curves`."""
    found = [values if isinstance(values, list) else [] for values in rows[column]]
    curves = [pd.Series(ys, np.linspace(0, 1, len(ys)), dtype=float) for ys in found]
    return training_curves(rows, curves, x="position", y=column, **form)


def training_curves(
    rows: pd.DataFrame, curves: Sequence[pd.Series], *, x: str, y: str, by: str = "arm", panels: str = "",
    smooth: int = 1, log_x: bool = False, log_y: bool = False, y_limits: Sequence[float] | None = None,
    direction: Direction | None = None, spread: Literal["band", "seeds"] = "band",
    reference: Mapping[str, float] | None = None, labels: Labels | None = None, title: str | None = None,
) -> Figure:  # fmt: skip
    """The curve of each row, y by x: those of one value of `by` are seeds of one line, in a panel for each of `panels`.

    Seeds of equal length: their mean, with a band of ± 1 sd where it lies within `y_limits`, or with spread: seeds each
    faintly; of unequal length: each faintly, and the mean over their common beginning. A seed that is not finite from
    some place on ends in a cross there. smooth: points of the centred moving average. A logarithmic axis with values of
    exactly 0 is linear below the lowest other one. reference: a published x of a line, a hollow diamond on the axis.
    labels: "label" holds the legend's title.
    """
    found = dict(zip(rows.index, map(_seed, curves, [smooth] * len(curves), rows["status"]), strict=True))
    shown = pd.concat([curve for curve, _ in found.values()])
    if shown.empty:
        raise ValueError(f"no run has a finite value of {y}")
    lower, values = columns.is_lower_better(y, direction), levels_of(rows, panels)
    styles = drawing.line_styles(levels_of(rows, by), linewidth=2, marker="")
    _, grid = drawing.panel_grid(columns.panel_texts(panels, values, labels))
    if log_x:
        drawing.logarithmic(grid[0].xaxis, x, shown.index)
    if log_y:
        drawing.logarithmic(grid[0].yaxis, y, shown[shown != 0])
        if (shown == 0).any():
            drawing.logarithmic_to_zero(grid[0].yaxis, shown)
    lost: list[dict[str, dict[float, tuple[str, Any]]]] = [{} for _ in grid]
    for axes, value, marks in zip(grid, values, lost, strict=True):
        for group, style in styles.items():
            members = select(rows, {panels: value, by: group}).index
            seeds = [found[index] for index in members]
            _seeds(axes, seeds, members, style["color"], y_limits, band=spread == "band")
            for end in {end for _, end in seeds if end is not None}:
                ended = [row for row, seed in zip(members, seeds, strict=True) if seed[1] == end]
                marks.setdefault(style["color"], {})[end] = "", ended
            if reference and group in reference:
                at = reference[group], 0.02  # of the axes' height
                axes.plot(*at, **drawing.PUBLISHED, mec=style["color"], transform=axes.get_xaxis_transform())
    if y_limits:
        grid[0].set_ylim(*y_limits)
    drawn = {artist.get_label() for axes in grid for artist in (*axes.lines, *axes.collections)}
    notes = [note for note in NOTES if NOTES[note] in drawn] + ["diverged"] * any(lost)
    return drawing.finish_figure(
        grid, label_of(x, labels), label_of(y, labels), title, x_ticks=set(shown.index), lost=lost, lower=lower,
        styles=styles, labels=labels, heading=(labels or {}).get("label", ""), notes=notes,
    )  # fmt: skip


def _seed(curve: pd.Series, smooth: int, status: str) -> Seed:
    """The finite part of a curve, smoothed, and where it ended if it diverged."""
    finite = curve[np.isfinite(curve)]
    ended = curve.index[~np.isfinite(curve)] if len(finite) < len(curve) else curve.index[-1:]
    has_end = len(ended) and (len(finite) < len(curve) or status == "diverged")
    return pd.Series(moving_average(finite.to_numpy(), smooth), finite.index), float(ended[0]) if has_end else None


def _seeds(axes: Axes, seeds: Sequence[Seed], rows: pd.Index, colour: str, limits: Any, *, band: bool) -> None:
    """The seeds of one line: mean and band, and each that the mean does not show whole."""
    drawn = [(curve, end) for curve, end in seeds if len(curve)]
    whole = [curve for curve, end in drawn if end is None] or [curve for curve, _ in drawn]
    if not whole:
        return
    x = pd.DataFrame([pd.Series(curve.index) for curve in whole]).mean()
    table = pd.DataFrame([pd.Series(curve.to_numpy()) for curve in whole])
    mean, sd, equal = table.mean(skipna=False), table.std(skipna=False), len(set(map(len, whole))) == 1
    axes.plot(x, mean, color=colour, linewidth=2, label="_mean", zorder=3, marker="o" if len(mean) == 1 else None)
    drawing.mark(axes, rows, x, mean)
    if len(whole) > 1 and equal and band:
        # The band of a mean beyond the axes would be a block from one edge to the other.
        shown = mean.between(*limits) if limits else None
        axes.fill_between(x, mean - sd, mean + sd, where=shown, color=colour, alpha=0.2, linewidth=0, label="_band",
                          zorder=2)  # fmt: skip
    for curve, end in drawn:
        if not equal or (len(whole) > 1 and not band) or (end is not None and len(whole) < len(drawn)):
            axes.plot(curve.index, curve, color=colour, linewidth=0.9, alpha=0.45, label="_seed", zorder=2)


def search_progress(
    rows: pd.DataFrame, *, y: str, select_by: str, by: str = "arm", levels: Sequence[str] = (),
    labels: Labels | None = None, title: str | None = None,
) -> Figure:  # fmt: skip
    """The y of the point that `select_by` finds best among the first n, against n: a line for each value of `by`.

    What is selected on and what is shown differ on purpose: the first are held-out images, the second may be the test
    set. Values of `by` among `levels`, as a grid, whose points have no order, are horizontal lines at their best. The
    legend has every line's last value. Searches that were repeated, from each `start`, are averaged.
    """
    # Without a number a point is known by its label, without the seed.
    labels_alone = rows["label"].str.replace(r",?seed=\d+", "", regex=True)
    keys = rows["number"].astype(object).where(rows["number"].notna(), labels_alone)
    score = columns.finite_numbers(rows, select_by) * (-1 if columns.is_lower_better(select_by) else 1)
    table = pd.DataFrame({"y": columns.finite_numbers(rows, y), "score": score})
    _, (axes,) = drawing.panel_grid(size=(7.0, 4.8))
    searches = [name for name in levels_of(rows, by) if name not in levels]
    styles, entries = drawing.line_styles(searches), dict[str, dict[str, Any]]()
    for place, name in enumerate([*searches, *levels]):
        found: list[pd.Series] = []
        marks: list[tuple[Any, int, float]] = []
        for start in levels_of(rows, "start") or [None]:
            part = select(rows, {by: name} if start is None else {by: name, "start": start}).index
            members = table.loc[part].groupby(keys.loc[part])
            points = members.mean(skipna=False)
            is_best = points["score"] > points["score"].cummax().shift(fill_value=-np.inf).ffill()
            if is_best.any():
                found.append(points["y"].where(is_best).ffill().reset_index(drop=True))
                marks += [(members.groups[key], count, points["y"][key])
                          for count, key in enumerate(points.index, start=1) if is_best[key]]  # fmt: skip
        if not found:
            continue
        best, text = pd.DataFrame(found).ffill(axis=1).mean().tolist(), columns.level_text(name, labels)
        if name in styles:
            line = {"color": styles[name]["color"], "linewidth": 2.2, "linestyle": DASHES[place % len(DASHES)]}
            axes.plot(range(1, len(best) + 1), best, drawstyle="steps-post", label="_best", zorder=3, **line)
            for members_of, count, height in marks if len(found) == 1 else ():
                drawing.mark(axes, members_of, count, height)
        else:
            line, text = {"color": drawing.INK, "linewidth": 1.1}, f"{text}, best of {len(best)}"
            axes.axhline(best[-1], label="_level", zorder=2, **line)
        entries[f"{text}: {best[-1]:.1f}" + " %" * ("accuracy" in y)] = line
    if not entries:
        raise ValueError(f"no run has values of both {y} and {select_by}")
    label = f"{label_of(y, labels)} of the best so far"
    return drawing.finish_figure([axes], "points tried", label, title, styles=entries)
