"""Colours over a plane: heat maps of two hyperparameters, the points of a search, the loss around trained weights."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import FuncNorm, ListedColormap, LogNorm, Normalize
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.patheffects import withStroke
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray
from scipy.interpolate import RectBivariateSpline

from onecycle.studies import responses
from onecycle.studies.figures import columns, drawing
from onecycle.studies.figures.columns import Labels, label_of, numbers
from onecycle.studies.figures.drawing import INK, MUTED, VOID
from onecycle.studies.rows import levels, select
from onecycle.studies.verdicts import estimate

Array = NDArray[np.float64]
RIDGE: dict[str, Any] = {"color": "C1", "marker": "o"}
HATCHED: dict[str, Any] = {"hatch": "////", "edgecolor": "0.77", "linewidth": 0}
GUIDE: dict[str, Any] = {"color": INK, "linestyle": (0, (5, 3)), "linewidth": 1.2}
SHEARS = {"ratio": -1, "product": 1, "none": 0}
SMALLEST, LARGEST = 5.0, 13.0  # markers of points, in points
LEVELS = 14  # of a surface's contours, spaced evenly in the logarithm
FINER = 8  # how many times finer than its points a surface is drawn


def heat_map_pair(
    rows: pd.DataFrame, *, x: str, y: str, z: str, transform: Literal["ratio", "product", "none"],
    labels: Labels | None = None, title: str | None = None,
) -> Figure:  # fmt: skip
    """Mean z over (x, y), and beside it over (x/y, y) or (x·y, y), where a ridge of slope +1 or −1 is upright.

    A factor has the same length on both axes, so that a slope of 1 is seen at 45°. Below a cell's mean stands its sd,
    below the cross of one with diverged runs how many did; one without a run is hatched. The dots are the ridge's
    points, the line is their fit, the dashed one has the claimed slope. The title has the ridge's power p, the best x
    going as y to the power of p: the effect of the claim `ridge_power`, with half of its 90 % interval.
    """
    if transform not in SHEARS:
        raise ValueError(f"transform={transform}: must be {', '.join(SHEARS)}")
    columns.refuse_mixed(rows, [x, y])
    runs, lower, shear = responses.Runs(rows), columns.is_lower_better(z), SHEARS[transform]
    grid = responses.grid(runs, x, y, z)
    if np.isnan(grid.z).all():
        raise ValueError(f"no run has a value of {z}")
    heights, places, sides = responses.ridge(runs, x, y, z)
    inside = (sides == 0) & np.isfinite(places)
    ridge, power = np.exp([places[inside], heights[inside]]), float(responses.ridge_exponent(heights, places, sides))
    table = pd.DataFrame({"row": rows.index, "z": columns.finite_numbers(rows, z).to_numpy()})
    cells = dict(list(table.groupby(list(runs.places([y, x]).T))))
    figure, panels, size = _panels(grid, shear)
    scale, symbols = _scale(grid.z[np.isfinite(grid.z)], lower), [columns.symbol(x), columns.symbol(y)]
    claimed = f"{symbols[0]} ∝ {symbols[1]}$^{{{-shear}}}$" if shear else f"the same for any {symbols[1]}"
    for axes, by in zip(panels, (0, shear), strict=False):
        mesh = _cells(axes, grid, cells, by, scale, lower, size)
        _ridge_lines(axes, ridge, grid, by, {"_guide": -shear, "_fit": power})
    notes: list[Any] = [Line2D([], [], **RIDGE, markersize=6, linewidth=2, label="best of each row, fit")]
    notes = notes * bool(ridge.size) + [Line2D([], [], **GUIDE, label="claimed slope")]
    notes += ["diverged"] * bool(np.isinf(grid.z).any())
    notes += [Patch(label="no run", facecolor=VOID, **HATCHED)] * bool(np.isnan(grid.z).any())
    drawing.finish_figure(panels, "", "", title, notes=notes)
    bar = _colour_bar(figure, mesh, panels, label_of(z, labels))
    for axes in panels:
        axes.set(ylabel=label_of(y, labels), xlabel=f"{symbols[0]} {'/' if shear < 0 else '·'} {symbols[1]}")
    panels[-1].set_title(f"upright where {claimed}", parse_math=True)
    panels[0].set(xlabel=label_of(x, labels), anchor="W")  # above the other, which is wider
    panels[0].set_title(f"{_power_text(rows, x, y, z)}, claimed: {claimed}", parse_math=True)
    figure.draw_without_rendering()  # so that the ticks know their room
    for axis, values in ((panels[0].xaxis, grid.x), *((axes.yaxis, grid.y) for axes in panels)):
        drawing.ticks(axis, values)
    decimals = max(0, 1 - math.floor(math.log10((scale.vmax or 1) - (scale.vmin or 0))))
    drawing.ticks(bar.yaxis, np.unique(np.round(scale.inverse(np.linspace(0, 1, 8)[1:-1]), decimals)).tolist())
    return figure


def _ridge_lines(axes: Axes, ridge: Array, grid: responses.Grid, shear: int, powers: Mapping[str, float]) -> None:
    """The ridge's points, and lines through their middle, else the grid's: of the claimed power, and of the fit."""
    if ridge.size:
        axes.plot(ridge[0] * ridge[1] ** shear, ridge[1], **RIDGE, markeredgecolor="white", linestyle="none",
                  markersize=6, label="_ridge", zorder=4)  # fmt: skip
    x, y = (np.exp(np.log(values).mean()) for values in (ridge if ridge.size else (grid.x, grid.y)))
    ends = np.array(axes.get_ylim())
    for name, power in powers.items():
        style = GUIDE if name == "_guide" else {"color": RIDGE["color"], "linewidth": 2.2}
        axes.plot(x * (ends / y) ** power * ends**shear, ends, label=name, zorder=3, scalex=False, scaley=False,
                  path_effects=[withStroke(linewidth=4, foreground="white")], **style)  # fmt: skip


def _panels(grid: responses.Grid, shear: int) -> tuple[drawing.StudyFigure, list[Axes], tuple[float, float]]:
    """A figure, its panel for the cells and, beside or below, one for sheared cells; a cell's width and height."""
    across, up = (float(np.log(edges(values)[[0, -1]]) @ [-1, 1]) for values in (grid.x, grid.y))
    both, cell = across + abs(shear) * up, across / len(grid.x)
    beside = 7.0 / (across + both)
    ratios = [across, both] if shear and cell * beside >= 0.36 else [both]  # narrower cells have no room for numbers
    count = 2 // len(ratios) if shear else 1
    scale = min(beside if len(ratios) == 2 else 6.6 / both, 0.9 / cell, 1.3 * len(grid.y) / up)
    figure = drawing.StudyFigure(figsize=(max(7.0, sum(ratios) * scale + 2.2), count * (up * scale + 0.75) + 0.9))
    found = figure.subplots(count, len(ratios), squeeze=False, width_ratios=ratios)
    return figure, list(found.flat), (cell * scale, up / len(grid.y) * scale)


def _power_text(rows: pd.DataFrame, x: str, y: str, z: str) -> str:
    """The ridge's power as a claim has it, with half of its interval."""
    found = estimate(rows, "ridge_power", {"x": x, "y": y, "z": z})
    if math.isnan(found.effect):
        return "no ridge inside the grid"
    half = np.ptp(found.interval) / 2
    exponent = f"{found.effect:z.2f}" + (rf" \pm {half:.2f}" if math.isfinite(half) else "")
    return f"best {columns.symbol(x)} ∝ {columns.symbol(y)}$^{{{exponent}}}$"


def _colour_bar(figure: Figure, colours: ScalarMappable, panels: Sequence[Axes], label: str) -> Any:
    bar = figure.colorbar(colours, ax=panels, pad=0.02, label=label)
    bar.outline.set_visible(False)
    return bar.ax


def _scale(values: Array, lower: bool) -> Any:
    """Colours by the logarithm of the distance from the best: good cells are told apart, and bad ones are as well."""
    if not len(values) or values.min() == values.max():
        return Normalize(*(values[:1] - 1.0, values[:1] + 1.0) if len(values) else (0.0, 1.0))
    best, sign = (values.min(), 1) if lower else (values.max(), -1)
    reach = abs(best - np.median(values)) or np.ptp(values)
    shade = lambda z: sign * np.log1p(np.maximum(sign * (z - best), 0) / reach)  # noqa: E731
    return FuncNorm((shade, lambda u: best + sign * reach * np.expm1(sign * u)), values.min(), values.max())


def edges(values: Array) -> Array:
    """Borders of cells on a logarithmic axis: the geometric means between their centres."""
    logs = np.log(values)
    steps = np.diff(logs) if len(values) > 1 else np.array([math.log(2)])
    return np.exp(np.concatenate([logs[:1] - steps[0] / 2, logs[:-1] + np.diff(logs) / 2, logs[-1:] + steps[-1] / 2]))


def _cells(
    axes: Axes, grid: responses.Grid, rows: Mapping[Any, pd.DataFrame], shear: int, scale: Normalize, lower: bool,
    size: tuple[float, float],
) -> Any:  # fmt: skip
    """The cells, of a `size` in inches, with their texts; shear −1 puts x/y on the horizontal axis, +1 x·y, 0 x."""
    across, up = np.meshgrid(edges(grid.x), edges(grid.y))
    across = across * up**shear
    axes.set(xscale="log", yscale="log", xlim=(across.min(), across.max()), ylim=(up.min(), up.max()), aspect="equal")
    axes.grid(visible=False)
    scheme, cells = matplotlib.colormaps["viridis_r" if lower else "viridis"], np.ma.masked_invalid(grid.z)
    void = np.ma.masked_array(np.zeros_like(grid.z), ~cells.mask)
    axes.pcolor(across, up, void, cmap=ListedColormap([VOID]), label="_void", **HATCHED)
    mesh = axes.pcolormesh(across, up, cells, cmap=scheme, norm=scale, edgecolors="white", linewidth=1.0)
    # Three digits and a point are about 3.2 of their heights wide, with a margin; they stand above the dots of the
    # ridge, which lie in the middle of a row, and what stands below it is smaller. Lines end at the texts.
    letters, away = min(9.5, 72 * size[0] / 3.2), min(11.0, 18 * size[1])
    for (line, column), runs in rows.items():
        value, lost = grid.z[line, column], runs["z"].isna().sum()
        colour, sd = scheme(scale(value)) if math.isfinite(value) else VOID, runs["z"].std()
        mean = f"{value:.{1 if abs(value) >= 10 else 2}f}" if math.isfinite(value) else ""
        below = f"{lost} of {len(runs)}" if lost else f"±{sd:.{1 if sd >= 0.095 else 2}f}" if math.isfinite(sd) else ""
        box = {"facecolor": colour, "edgecolor": "none", "pad": 0.6}
        for text, up_by, height in ((mean, away, letters), (below, -away, 0.8 * letters)):
            axes.annotate(text, (grid.x[column] * grid.y[line] ** shear, grid.y[line]), (shear * up_by, up_by),
                          textcoords="offset points", ha="center", va="center", fontsize=height, zorder=5, bbox=box,
                          color=drawing.contrast(colour))  # fmt: skip
        corners = np.s_[[line, line, line + 1, line + 1], [column, column + 1, column + 1, column]]
        drawing.mark(axes, runs["row"], across[corners], up[corners], closed=True)
    lines, places = np.nonzero(np.isinf(grid.z))
    axes.plot(grid.x[places] * grid.y[lines] ** shear, grid.y[lines], "X", color=MUTED, markeredgecolor="white",
              markersize=8, label="_diverged", zorder=5)  # fmt: skip
    return mesh


def search_path(
    rows: pd.DataFrame, *, x: str, y: str, z: str, panels: str = "", loose: Sequence[str] = (),
    size: str | None = None, labels: Labels | None = None, title: str | None = None,
) -> Figure:  # fmt: skip
    """The points that a search tried over the plane of x and y, both logarithmic, joined in the order of `number`.

    The colour is z, the mean over the seeds of a point; hollow points diverged; the ring is the best z, which stands
    above the panel. Each `start` has its own path. The marker grows with the column `size`, by its rank among all
    values. Thin lines are those of equal x · y. A panel for each value of `panels`; those in `loose` are not joined.
    """
    values, unit = levels(rows, panels), " %" * ("accuracy" in z)
    points = pd.DataFrame({"x": numbers(rows, x), "y": numbers(rows, y), "z": columns.finite_numbers(rows, z)})
    points["size"] = numbers(rows, size) if size else 0.0
    rows = rows if "start" in rows else rows.assign(start=0)
    keys = [rows["start"], rows["number"]]
    parts = [points.loc[select(rows, {panels: value}).index].groupby(keys) for value in values]
    table = pd.concat([part.mean(skipna=False) for part in parts], keys=range(len(values))).dropna(subset=["x", "y"])
    if table["z"].isna().all():
        raise ValueError(f"no run has values of {x}, {y} and {z}")
    rank = table["size"].map(lambda value: float(f"{value:.6g}")).rank(method="dense") - 1
    table["marker"] = SMALLEST + (LARGEST - SMALLEST) * rank / rank.max() if rank.max() > 0 else 9.0
    shades = ScalarMappable(Normalize(table["z"].min(), table["z"].max()))
    figure, grid = drawing.panel_grid(columns.panel_texts(panels, values, labels))
    for axis, name, which in ((grid[0].xaxis, x, "x"), (grid[0].yaxis, y, "y")):
        drawing.logarithmic(axis, name, table[which])
        grid[0].set(**{f"{which}lim": (table[which].min() / 2, table[which].max() * 2)})
    for place, points in table.groupby(level=0):
        axes, ranked = grid[place], points.sort_values("z", ascending=columns.is_lower_better(z))
        _points(axes, points, shades, joined=values[place] not in loose)
        members = select(rows, {panels: values[place]}).groupby(["start", "number"]).groups
        for (_, *step), point in points.iterrows():
            drawing.mark(axes, members[tuple(step)], point["x"], point["y"])
        if points["z"].notna().any():
            best = ranked.iloc[0]
            axes.plot([best["x"]], [best["y"]], **drawing.HOLLOW, markersize=LARGEST + 4, markeredgecolor=INK,
                      markeredgewidth=1.6, label="_best", zorder=4)  # fmt: skip
            axes.set_title(f"{axes.get_title()}\nbest: {best['z']:.1f}{unit}".lstrip())
    drawing.finish_figure(grid, label_of(x, labels) if len(grid) == 1 else "", label_of(y, labels), title)
    _equal_products(grid)
    for axes in grid[-2:] if len(grid) == 4 else grid:  # a text for all would lie on the legend
        axes.set_xlabel(label_of(x, labels))
    _colour_bar(figure, shades, grid, label_of(z, labels))
    _path_legend(figure, table, columns.symbol(size) if size else "", f"equal {columns.symbol(x)}{columns.symbol(y)}")
    return figure


def _path_legend(figure: Figure, table: pd.DataFrame, size: str, equal: str) -> None:
    """What sizes, rings, hollow points and thin lines mean, below the panels."""
    sizes = table.sort_values("marker").drop_duplicates("marker") if size else table[:0]
    sizes = sizes.iloc[sorted({0, len(sizes) // 2, len(sizes) - 1})] if len(sizes) else sizes
    dot, ring = {**drawing.MARK, "markeredgecolor": "white"}, drawing.HOLLOW
    handles = [Line2D([], [], label=f"{size} = {value:.2g}", markersize=marker, **dot)
               for value, marker in sizes[["size", "marker"]].to_numpy()]  # fmt: skip
    handles.append(Line2D([], [], label="best", markersize=LARGEST, markeredgecolor=INK, **ring))
    handles += [Line2D([], [], label="diverged", markersize=8, markeredgecolor=MUTED, **ring)] * any(table["z"].isna())
    handles.append(Line2D([], [], label=equal, color="0.77", linewidth=1))
    figure.legend(handles=handles, loc="outside lower center", ncols=6)


def _points(axes: Axes, points: pd.DataFrame, shades: ScalarMappable, *, joined: bool) -> None:
    """The points of one panel; small markers lie on large ones."""
    for _, path in points.groupby(level=1) if joined else ():
        axes.plot(path["x"], path["y"], color=MUTED, linewidth=0.9, alpha=0.6, label="_path", zorder=2)
        axes.annotate("start", path.iloc[0][["x", "y"]], (0, 8), textcoords="offset points", ha="center", zorder=5)
    points = points.sort_values("marker", ascending=False, kind="stable")
    colours = shades.to_rgba(points["z"])  # of NaN transparent
    edges = np.where(points["z"].notna(), "white", MUTED).tolist()
    axes.scatter(points["x"], points["y"], s=points["marker"] ** 2, facecolors=colours, edgecolors=edges,
                 linewidths=0.9, label="_points", zorder=3)  # fmt: skip


def _equal_products(panels: Sequence[Axes]) -> None:
    """In place of a grid thin lines of equal x · y, a factor of four apart; once the limits stand."""
    across, up = np.array(panels[0].get_xlim()), panels[0].get_ylim()
    first, last = (math.log(x * y, 4) for x, y in zip(across, up, strict=True))
    products = 4.0 ** np.arange(math.floor(first), math.ceil(last) + 1)
    for axes in panels:
        axes.grid(visible=False)
        axes.plot(across, products / across[:, None], color="0.9", linewidth=1, label="_equal", zorder=1, scalex=False,
                  scaley=False)  # fmt: skip


def surfaces(rows: pd.DataFrame, *, by: str = "arm", labels: Labels | None = None, title: str | None = None) -> Figure:
    """`surface` of the first run that has one, a panel for each value of `by`, with one logarithmic colour scale.

    A surface: the loss at a along direction 1 and b along direction 2, both in filter norms, a row for each a. It is
    drawn through these points by cubic splines of its logarithm, where all are finite; else a loss that is not finite
    stays grey.
    """
    rows = rows[rows["surface"].map(lambda surface: isinstance(surface, dict))]
    names = levels(rows, by)
    if not names:
        raise ValueError("no run has a surface")
    shown = [select(rows, {by: name}) for name in names]
    found = [finer(**one["surface"].iloc[0]) for one in shown]
    size = (4.8, 3.9) if len(names) == 1 else (8.4, 6.4 / min(len(names), 3 if len(names) != 4 else 2) + 0.95)
    figure, grid = drawing.panel_grid([columns.level_text(name, labels) for name in names], size=size)
    low, high = min(loss.min() for *_, loss in found), max(loss.max() for *_, loss in found)
    contours = np.geomspace(low, max(high, 1.01 * low), LEVELS)
    style: dict[str, Any] = {"levels": contours, "norm": LogNorm(contours[0], contours[-1])}
    for axes, runs, (a, b, loss) in zip(grid, shown, found, strict=True):
        drawing.mark(axes, runs.index[:1], [a[0], a[-1], a[-1], a[0]], [b[0], b[0], b[-1], b[-1]], closed=True)
        filled = axes.contourf(a, b, loss.T, extend="both", **style)
        axes.contour(a, b, loss.T, colors="white", linewidths=0.5, alpha=0.7, **style)
        axes.plot([0], [0], "+", markersize=10, markeredgewidth=2, color="white", label="_centre")
        axes.set(aspect="equal", facecolor="0.83")
        axes.grid(visible=False)
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_locator(MaxNLocator(4, prune="both"))  # the outer numbers of two panels would touch
    drawing.finish_figure(grid, "direction 1 (filter norms)", "direction 2 (filter norms)", title)
    bar = _colour_bar(figure, filled, grid, label_of("loss", labels))
    drawing.ticks(bar.yaxis, drawing.round_numbers(low, high))
    return figure


def finer(a: list[float], b: list[float], loss: list[list[float | None]]) -> tuple[Any, Any, Any]:
    """a, b and the loss [a, b] on a finer grid that contains the measured points, unchanged."""
    known = np.ma.masked_less_equal(np.ma.masked_invalid(np.array(loss, float)), 0.0)
    if known.mask.any() or min(len(a), len(b)) < 4:
        return a, b, known
    fine = [np.interp(np.arange(FINER * (len(v) - 1) + 1) / FINER, np.arange(len(v)), v) for v in (a, b)]
    return *fine, np.exp(RectBivariateSpline(a, b, np.log(known.data))(*fine))
