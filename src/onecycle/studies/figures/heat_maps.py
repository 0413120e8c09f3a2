"""Two hyperparameters against each other: a heat map, the same in coordinates that straighten its ridge."""

import math
from collections.abc import Sequence
from typing import Any, Literal

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch, Polygon
from matplotlib.patheffects import withStroke
from matplotlib.transforms import ScaledTranslation
from numpy.typing import NDArray

from onecycle.studies.estimate import estimate
from onecycle.studies.figures.axes import colour_bar, dress, frame, length, note, panel_title, spacious, ticks
from onecycle.studies.figures.points import Direction, Rows, direction_of, require
from onecycle.studies.figures.style import (
    INK,
    MUTED,
    OKABE_ITO,
    SMALL,
    TEXT,
    VOID,
    Labels,
    contrast,
    label_of,
    symbol,
)
from onecycle.studies.responses import Grid, Runs, ridge, ridge_power
from onecycle.studies.responses import grid as grid_of

Array = NDArray[np.float64]
Transform = Literal["ratio", "product"]
RIDGE, HATCH = OKABE_ITO[1], "#C4C4C4"
LOWERED = 0.24  # of a cell's height


def heat_map_pair(
    rows: Rows, *, x: str, y: str, z: str, transform: Transform, z_label: str | None = None,
    direction: Direction | None = None, labels: Labels | None = None, title: str | None = None,
) -> Figure:  # fmt: skip
    """Mean z over (x, y), and over (x/y, y) or (x·y, y), where a ridge of slope +1 or −1 is upright.

    transform: "ratio" or "product". A cell with a diverged run is grey, hatched and crossed; one without a run is grey
    and hatched. The dots are the ridge's points, the line is their fit. The title has its power p, the best x going as
    y to the power of p: the effect of the claim `ridge_power`, the mean over seeds, with its 90 % interval from two
    seeds on. labels: may hold the transformed axis's text at "transformed".
    """
    if transform not in ("ratio", "product"):
        raise ValueError(f"heat_map_pair: transform={transform}: must be ratio or product")
    require("heat_map_pair", rows, x, y, z)
    grid, lower = grid_of(Runs(pd.DataFrame(rows)), x, y, z), direction_of(z, direction) == "loss"
    if np.isnan(grid.z).all():
        raise ValueError(f"heat_map_pair: no run has a value of {z}")
    found = ridge(grid, lower)
    power, scale = ridge_power(found), _scale(grid, lower)
    figure = Figure(figsize=(9.2, max(3.4, 1.5 + 0.62 * len(grid.y))), layout=spacious())
    wider = min(1.9, max(1.0, _slots(grid) / len(grid.x)))
    left, right = figure.subplots(1, 2, sharey=True, width_ratios=[1, wider])
    for axes, shear in ((left, 0), (right, -1 if transform == "ratio" else 1)):
        dress(axes)
        mesh = _cells(axes, grid, shear, scale, lower)
        _ridge_line(axes, found, power, shear)
    _axis_texts(left, right, grid, (x, y), transform, labels)
    claimed = f"{symbol(x)} ∝ {symbol(y)}$^{{{1 if transform == 'ratio' else -1}}}$"
    panel_title(left, _power_text(rows, (x, y, z), power, lower) + f"\nclaimed: {claimed}")
    panel_title(right, f"upright where {claimed}")
    bar = figure.colorbar(mesh, ax=[left, right], pad=0.015, extend=_extend(grid, scale, lower))
    colour_bar(bar, z_label or label_of(z, labels))
    _legend(figure, grid, bool(found))
    frame(figure, [left, right], "", "", title)
    return figure


def _means(grid: Grid) -> Array:
    """The means of the cells without a diverged run; NaN for others."""
    return np.where(np.isinf(grid.z), np.nan, grid.z)


def _extend(grid: Grid, scale: Normalize, lower: bool) -> str:
    """Whether the colour bar has an arrow for values beyond it."""
    means = [value for value in _means(grid).flat if math.isfinite(value)]
    beyond = means and (min(means) < (scale.vmin or 0.0) or max(means) > (scale.vmax or 0.0))
    return "neither" if not beyond else "min" if not lower else "max"


def _slots(grid: Grid) -> float:
    """How many cells wide the sheared grid is."""
    columns = len(grid.x)
    step = math.log(grid.x[-1] / grid.x[0]) / (columns - 1) if columns > 1 else math.log(2)
    return columns + math.log(grid.y[-1] / grid.y[0]) / step


def _power_text(rows: Rows, columns: tuple[str, str, str], power: float, lower: bool) -> str:
    """The ridge's power as a claim has it, with its interval; that of the mean map where seeds alone have none."""
    x, y, z = columns
    if math.isnan(power):
        return "no ridge inside the grid"
    parameters = {"x": x, "y": y, "z": z, "better": "lower" if lower else "higher"}
    result = estimate(pd.DataFrame(rows), "ridge_power", parameters)
    value, width = (power if math.isnan(result.effect) else result.effect), result.uncertainty
    exponent = f"{round(value, 2) + 0.0:.2f}" + (rf" \pm {width:.2f}" if width >= 0.005 else "")
    return f"best {symbol(x)} ∝ {symbol(y)}$^{{{exponent}}}$"


def _scale(grid: Grid, lower: bool) -> Normalize:
    """Colours for the better cells: those three times as far from the best as the median are all the same."""
    means = _means(grid)
    finite = means[np.isfinite(means)]
    if not len(finite):
        return Normalize(0.0, 1.0)
    best = finite.max() if not lower else finite.min()
    worst = finite.min() if not lower else finite.max()
    if best == worst:
        return Normalize(best - 1.0, best + 1.0)
    reach = 3 * abs(best - np.median(finite)) or abs(best - worst)
    end = max(worst, best - reach) if not lower else min(worst, best + reach)
    return Normalize(min(best, end), max(best, end))


def edges(values: Sequence[float]) -> Array:
    """Borders of cells on a logarithmic axis: the geometric means between their centres."""
    logs = np.log(np.asarray(values, float))
    if len(logs) == 1:
        return np.exp(np.array([logs[0] - 0.5 * math.log(2), logs[0] + 0.5 * math.log(2)]))
    inner = (logs[:-1] + logs[1:]) / 2
    return np.exp(np.concatenate([[2 * logs[0] - inner[0]], inner, [2 * logs[-1] - inner[-1]]]))


def corners(grid: Grid, shear: int) -> tuple[Array, Array]:
    """Corners of all cells as [y, x]; shear −1 puts x/y on the horizontal axis, +1 x·y, 0 x."""
    across, up = np.meshgrid(edges(grid.x), edges(grid.y))
    return across * up**shear, up


def _cells(axes: Axes, grid: Grid, shear: int, scale: Normalize, lower: bool) -> Any:
    across, up = corners(grid, shear)
    # Three digits and a point are about 3.2 of their heights wide, with a margin.
    size = min(SMALL, 72 * length(axes, "x") / (_slots(grid) if shear else len(grid.x)) / 3.2)
    axes.set(xscale="log", yscale="log", xlim=(across.min(), across.max()), ylim=(up.min(), up.max()))
    axes.grid(visible=False)
    means = _means(grid)
    scheme = matplotlib.colormaps["viridis" if not lower else "viridis_r"]
    # Numbers stand in the lower part of their cells: the ridge's dots lie in the middle of a row.
    figure = axes.get_figure()
    assert isinstance(figure, Figure)
    low = axes.transData + ScaledTranslation(*_lowered(axes, grid, shear), figure.dpi_scale_trans)
    mesh = axes.pcolormesh(across, up, np.ma.masked_invalid(means), cmap=scheme, norm=scale, edgecolors="white",
                           linewidth=1.0)  # fmt: skip
    for row, high in enumerate(grid.y):
        for column, wide in enumerate(grid.x):
            value, centre = means[row, column], (wide * high**shear, high)
            has_run = not math.isnan(grid.z[row, column])
            if math.isfinite(value):
                colour = scheme(scale(value))
                halo = [withStroke(linewidth=3, foreground=colour)]
                axes.text(*centre, _value_text(value), ha="center", va="center", fontsize=size, color=contrast(colour),
                          zorder=5, transform=low, path_effects=halo)  # fmt: skip
                continue
            ring = [(row, column), (row, column + 1), (row + 1, column + 1), (row + 1, column)]
            axes.add_patch(Polygon([(across[at], up[at]) for at in ring], facecolor=VOID, edgecolor=HATCH,
                                   hatch="////", linewidth=0, label="_void"))  # fmt: skip
            if has_run:
                axes.plot(*centre, linestyle="none", marker="X", markersize=9, color=MUTED, markeredgecolor="white",
                          label="_diverged", zorder=5)  # fmt: skip
    return mesh


def _lowered(axes: Axes, grid: Grid, shear: int) -> tuple[float, float]:
    """From the middle of a cell to the place of its number, along the slant of a sheared one: inches across and up."""
    (left, right), (bottom, top) = axes.get_xlim(), axes.get_ylim()
    up = -LOWERED * math.log(top / bottom) / len(grid.y)
    return (
        shear * up * length(axes, "x") / math.log(right / left),
        up * length(axes, "y") / math.log(top / bottom),
    )


def _value_text(value: float) -> str:
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"


def _ridge_line(axes: Axes, found: Sequence[tuple[float, float]], power: float, shear: int) -> None:
    """The ridge's points and its fit through their middle, over the height of the grid; both below the numbers."""
    if found:
        xs, ys = [wide * high**shear for wide, high in found], [high for _, high in found]
        axes.plot(xs, ys, linestyle="none", marker="o", markersize=7, color=RIDGE, markeredgecolor="white",
                  label="_ridge", zorder=4)  # fmt: skip
    if math.isnan(power):
        return
    (x, y), heights = np.exp(np.log(found).mean(axis=0)), np.array(axes.get_ylim())
    wide = x * (heights / y) ** power
    limits = axes.get_xlim()
    axes.plot(wide * heights**shear, heights, color=RIDGE, linewidth=2.2, label="_fit", zorder=3, scalex=False,
              scaley=False, path_effects=[withStroke(linewidth=4, foreground="white")])  # fmt: skip
    axes.set_xlim(limits)


def _axis_texts(
    left: Axes, right: Axes, grid: Grid, names: tuple[str, str], transform: Transform, labels: Labels | None
) -> None:
    x, y = names
    ticks(left, "x", grid.x)
    ticks(left, "y", grid.y)
    ticks(right, "x", [])
    default = f"{symbol(x)} {'/' if transform == 'ratio' else '·'} {symbol(y)}"
    for axes, text in ((left, label_of(x, labels)), (right, (labels or {}).get("transformed", default))):
        axes.set_xlabel(text, fontsize=TEXT, color=INK)
    left.set_ylabel(label_of(y, labels), fontsize=TEXT, color=INK)


def _legend(figure: Figure, grid: Grid, has_ridge: bool) -> None:
    entries: list[Any] = []
    if has_ridge:
        entries.append(
            Line2D([], [], color=RIDGE, marker="o", markersize=6, linewidth=2, label="best of each row, fit")
        )
    if np.isinf(grid.z).any():
        entries.append(note("diverged"))
    if np.isnan(grid.z).any():
        entries.append(Patch(facecolor=VOID, edgecolor=HATCH, hatch="////", linewidth=0, label="no run"))
    if entries:
        figure.legend(handles=entries, loc="outside lower center", ncols=3, frameon=False, fontsize=SMALL,
                      labelcolor=INK)  # fmt: skip
