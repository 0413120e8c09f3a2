"""Where a search went over the plane of two hyperparameters."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patheffects import withStroke

from onecycle.studies.figures import drawing
from onecycle.studies.figures.labels import Labels, label_of, panel_texts, symbol
from onecycle.studies.figures.points import finished, is_lower_better, levels_of, numbers, part_of
from onecycle.studies.figures.style import INK, MUTED

SMALLEST, LARGEST = 5.0, 13.0  # markers, in points


def path(
    rows: pd.DataFrame, *, x: str, y: str, z: str, panels: str | None = None, loose: Sequence[str] = (),
    size: str | None = None, labels: Labels | None = None, title: str | None = None,
) -> Figure:  # fmt: skip
    """The points that a search tried over the plane of x and y, both logarithmic, joined in the order of `number`.

    The colour is z, the mean over the seeds of a point; hollow points diverged; the ring is the best z. The marker
    grows with the column `size`, by its rank among all values; small markers lie on large ones. Thin lines are those of
    equal x · y. A panel for each value of `panels`; the points of the `loose` ones, which were drawn at random, are not
    joined. Raises ValueError where there is nothing to draw.
    """
    values = levels_of(rows, panels)
    columns = {"x": numbers(rows, x), "y": numbers(rows, y), "z": finished(rows, z)}
    columns["size"] = numbers(rows, size) if size else columns["z"] * 0.0
    parts = [part_of(rows, panels, value).index for value in values]
    tables = [means_of(rows["number"], columns, part).dropna(subset=["x", "y"]) for part in parts]
    table = pd.concat(tables, keys=range(len(values)))
    if table["z"].isna().all():
        raise ValueError(f"no run has values of {x}, {y} and {z}")
    rank = table["size"].map(lambda value: float(f"{value:.6g}")).rank(method="dense") - 1
    table["marker"] = SMALLEST + (LARGEST - SMALLEST) * rank / rank.max() if rank.max() > 0 else 9.0
    shades = ScalarMappable(Normalize(table["z"].min(), table["z"].max()))
    figure, grid = drawing.panel_grid(panel_texts(panels, values, labels), size=(7.0 if len(values) == 1 else 8.4, 4.2))
    drawing.logarithmic(grid[0], "x", x, table["x"])
    drawing.logarithmic(grid[0], "y", y, table["y"])
    grid[0].set(**{f"{which}lim": (table[which].min() / 2, table[which].max() * 2) for which in ("x", "y")})
    for place, (axes, value) in enumerate(zip(grid, values, strict=True)):
        if place in table.index.get_level_values(0):
            _draw(axes, table.loc[place], shades, joined=value not in loose)
            _best(axes, table.loc[place], is_lower_better(z, None), " %" * ("accuracy" in z))
    drawing.finish(grid, label_of(x, labels) if len(grid) == 1 else "", label_of(y, labels), title)
    _equal_products(grid)
    for axes in grid[-2:] if len(grid) == 4 else grid:  # a text for all would lie on the legend
        axes.set_xlabel(label_of(x, labels))
    drawing.colour_bar(figure.colorbar(shades, ax=grid, pad=0.02), label_of(z, labels))
    _legend(figure, table, symbol(size) if size else "", f"equal {symbol(x)}{symbol(y)}")
    return figure


def _legend(figure: Figure, table: pd.DataFrame, size: str, equal: str) -> None:
    """What sizes, rings, hollow points and thin lines mean, below the panels."""
    sizes = table.sort_values("marker").drop_duplicates("marker") if size else table[:0]
    entries = {f"{size} = {sizes['size'].iloc[place]:.2g}": sizes["marker"].iloc[place]
               for place in (0, len(sizes) // 2, -1) if len(sizes)}  # fmt: skip
    dot, ring = {**drawing.MARK, "markeredgecolor": "white"}, drawing.HOLLOW
    handles = [Line2D([], [], label=text, markersize=marker, **dot) for text, marker in entries.items()]
    handles.append(Line2D([], [], label="best", markersize=LARGEST, markeredgecolor=INK, **ring))
    if table["z"].isna().any():
        handles.append(Line2D([], [], label="diverged", markersize=8, markeredgecolor=MUTED, **ring))
    handles.append(Line2D([], [], label=equal, color="0.77", linewidth=1))
    figure.legend(handles=handles, loc="outside lower center", ncols=6)


def means_of(keys: Any, columns: dict[str, pd.Series], part: pd.Index) -> pd.DataFrame:
    """The means over seeds of columns for each value of `keys`, over a part of the rows; NaN where a run diverged."""
    return pd.DataFrame(columns).loc[part].groupby(keys.loc[part]).mean(skipna=False)


def _draw(axes: Axes, points: pd.DataFrame, shades: ScalarMappable, *, joined: bool) -> None:
    if joined:
        axes.plot(points["x"], points["y"], color=MUTED, linewidth=0.9, alpha=0.6, label="_path", zorder=2)
        axes.annotate("start", points.iloc[0][["x", "y"]], (0, 8), textcoords="offset points", ha="center", zorder=5)
    for x, y, z, _, marker in points.sort_values("marker", ascending=False, kind="stable").to_numpy():
        known = math.isfinite(z)
        axes.plot([x], [y], "o", markersize=marker, color=shades.to_rgba(z) if known else "none", zorder=3,
                  markeredgecolor="white" if known else MUTED, markeredgewidth=0.9, label="_point")  # fmt: skip


def _best(axes: Axes, points: pd.DataFrame, lower: bool, unit: str) -> None:
    """The ring around the best point, and its z in that corner of the panel with the fewest points."""
    if points["z"].isna().all():
        return
    x, y, z, *_ = points.loc[points["z"].idxmin() if lower else points["z"].idxmax()]
    axes.plot([x], [y], **drawing.HOLLOW, markersize=LARGEST + 4, markeredgecolor=INK, markeredgewidth=1.6,
              label="_best", zorder=4)  # fmt: skip
    spots = axes.transAxes.inverted().transform(axes.transData.transform(points[["x", "y"]].to_numpy()))
    corners = [(left, top) for top in (True, False) for left in (True, False)]
    left, top = min(corners, key=lambda corner: np.sum(
        ((spots[:, 0] < 0.5) == corner[0]) & (np.abs(spots[:, 1] - corner[1]) < 0.15)))  # fmt: skip
    axes.annotate(f"best, {z:.1f}{unit}", (0.03 if left else 0.97, 0.97 if top else 0.03), xycoords="axes fraction",
                  ha="left" if left else "right", va="top" if top else "bottom", zorder=5,
                  path_effects=[withStroke(linewidth=3, foreground="white")])  # fmt: skip


def _equal_products(panels: Sequence[Axes]) -> None:
    """In place of a grid thin lines of equal x · y, a factor of four apart; once the limits stand."""
    (left, right), (bottom, top) = panels[0].get_xlim(), panels[0].get_ylim()
    powers = range(math.floor(math.log(left * bottom, 4)), math.ceil(math.log(right * top, 4)) + 1)
    for axes in panels:
        axes.grid(visible=False)
        for power in powers:
            axes.plot([left, right], [4.0**power / left, 4.0**power / right], color="0.9", linewidth=1, label="_equal",
                      zorder=1, scalex=False, scaley=False)  # fmt: skip
