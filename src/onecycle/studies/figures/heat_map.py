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
from numpy.typing import NDArray

from onecycle.studies import responses
from onecycle.studies.figures import drawing
from onecycle.studies.figures.labels import Labels, label_of, symbol
from onecycle.studies.figures.points import refuse_mixed
from onecycle.studies.figures.style import MUTED, VOID, contrast
from onecycle.studies.verdicts import estimate

Array = NDArray[np.float64]
RIDGE: dict[str, Any] = {"color": "C1", "marker": "o", "markeredgecolor": "white"}
CROSS: dict[str, Any] = {"color": MUTED, "marker": "X", "markeredgecolor": "white", "linestyle": "none"}
HATCHED: dict[str, Any] = {"facecolor": VOID, "edgecolor": "0.77", "hatch": "////", "linewidth": 0}
LOWERED = 0.24  # of a cell's height: numbers stand below the ridge's dots, which lie in the middle of a row


def heat_map_pair(
    rows: pd.DataFrame, *, x: str, y: str, z: str, transform: Literal["ratio", "product"],
    labels: Labels | None = None, title: str | None = None,
) -> Figure:  # fmt: skip
    """Mean z over (x, y), and over (x/y, y) or (x·y, y), where a ridge of slope +1 or −1 is upright.

    transform: "ratio" or "product". A cell with a diverged run is grey, hatched and crossed; one without a run is grey
    and hatched. The dots are the ridge's points, the line is their fit. The title has its power p, the best x going as
    y to the power of p: the effect of the claim `ridge_power`, the mean over seeds, with its 90 % interval from two
    seeds on.
    """
    if transform not in ("ratio", "product"):
        raise ValueError(f"transform={transform}: must be ratio or product")
    refuse_mixed(rows, [x, y])
    grid, lower = responses.grid(responses.Runs(rows), x, y, z), responses.lower_is_better(z)
    if np.isnan(grid.z).all():
        raise ValueError(f"no run has a value of {z}")
    figure = Figure(figsize=(9.2, max(3.4, 1.5 + 0.62 * len(grid.y))))
    across = edges(grid.x)
    # How many cells wide the sheared grid is.
    slots = len(grid.x) * (1 + math.log(grid.y[-1] / grid.y[0]) / math.log(across[-1] / across[0]))
    left, right = figure.subplots(1, 2, sharey=True, width_ratios=[1, min(1.9, slots / len(grid.x))])
    scale, shear = _scale(grid.z[np.isfinite(grid.z)], lower), -1 if transform == "ratio" else 1
    mesh, _ = (_cells(axes, grid, power, scale, lower, drawing.inches(axes)[0] / columns)
               for axes, power, columns in ((left, 0, len(grid.x)), (right, shear, slots)))  # fmt: skip
    ridge = responses.ridge(grid, lower)
    for axes, power in ((left, 0), (right, shear)):
        _ridge_line(axes, ridge, power)
    drawing.finish([left, right], "", "", title)
    drawing.ticks(left, "x", grid.x)
    drawing.ticks(left, "y", grid.y)
    left.set(xlabel=label_of(x, labels), ylabel=label_of(y, labels))
    right.set_xlabel(f"{symbol(x)} {'/' if transform == 'ratio' else '·'} {symbol(y)}")
    claimed = f"{symbol(x)} ∝ {symbol(y)}$^{{{-shear}}}$"
    left.set_title(f"{_power_text(rows, x, y, z, ridge)}\nclaimed: {claimed}")
    right.set_title(f"upright where {claimed}")
    known = grid.z[np.isfinite(grid.z)]
    assert scale.vmin is not None
    assert scale.vmax is not None
    extend = "max" if (known > scale.vmax).any() else "min" if (known < scale.vmin).any() else "neither"
    drawing.colour_bar(figure.colorbar(mesh, ax=[left, right], pad=0.015, extend=extend), label_of(z, labels))
    _legend(figure, grid.z, bool(ridge))
    return figure


def _legend(figure: Figure, z: Array, has_ridge: bool) -> None:
    line = Line2D([], [], color=RIDGE["color"], marker="o", markersize=6, linewidth=2, label="best of each row, fit")
    entries: list[Any] = [line] * has_ridge + [drawing.note("diverged")] * bool(np.isinf(z).any())
    entries += [Patch(label="no run", **HATCHED)] * bool(np.isnan(z).any())
    if entries:
        figure.legend(handles=entries, loc="outside lower center", ncols=3)


def _power_text(rows: pd.DataFrame, x: str, y: str, z: str, ridge: Sequence[tuple[float, float]]) -> str:
    """The ridge's power as a claim has it, with its interval; that of the mean map where seeds alone have none."""
    if math.isnan(responses.ridge_exponent(ridge)):
        return "no ridge inside the grid"
    found = estimate(rows, "ridge_power", {"x": x, "y": y, "z": z})
    power = responses.ridge_exponent(ridge) if math.isnan(found.effect) else found.effect
    exponent = f"{round(power, 2) + 0.0:.2f}"
    if found.uncertainty >= 0.005:
        exponent += rf" \pm {found.uncertainty:.2f}"
    return f"best {symbol(x)} ∝ {symbol(y)}$^{{{exponent}}}$"


def _scale(values: Array, lower: bool) -> Normalize:
    """Colours for the better cells: those three times as far from the best as the median are all the same."""
    if not len(values) or values.min() == values.max():
        return Normalize(*(values[:1] - 1.0, values[:1] + 1.0) if len(values) else (0.0, 1.0))
    best, worst = (values.min(), values.max()) if lower else (values.max(), values.min())
    reach = 3 * abs(best - np.median(values)) or abs(best - worst)
    return Normalize(best, min(worst, best + reach)) if lower else Normalize(max(worst, best - reach), best)


def edges(values: Array) -> Array:
    """Borders of cells on a logarithmic axis: the geometric means between their centres."""
    logs = np.log(values)
    steps = np.diff(logs) if len(values) > 1 else np.array([math.log(2)])
    return np.exp(np.concatenate([[logs[0] - steps[0] / 2], logs[:-1] + np.diff(logs) / 2, [logs[-1] + steps[-1] / 2]]))


def _cells(axes: Axes, grid: responses.Grid, shear: int, scale: Normalize, lower: bool, width: float) -> Any:
    """The cells, each `width` inches wide, and their numbers; shear −1 puts x/y on the horizontal axis, +1 x·y, 0 x."""
    across, up = np.meshgrid(edges(grid.x), edges(grid.y))
    across = across * up**shear
    axes.set(xscale="log", yscale="log", xlim=(across.min(), across.max()), ylim=(up.min(), up.max()))
    axes.grid(visible=False)
    scheme = matplotlib.colormaps["viridis_r" if lower else "viridis"]
    mesh = axes.pcolormesh(across, up, np.ma.masked_invalid(grid.z), cmap=scheme, norm=scale, edgecolors="white",
                           linewidth=1.0)  # fmt: skip
    for (row, column), value in np.ndenumerate(grid.z):
        if math.isfinite(value):
            high = grid.y[row] * (up[row, 0] / up[row + 1, 0]) ** LOWERED
            colour = scheme(scale(value))
            # Three digits and a point are about 3.2 of their heights wide, with a margin.
            axes.text(grid.x[column] * high**shear, high, f"{value:.{1 if abs(value) >= 10 else 2}f}", zorder=5,
                      ha="center", va="center", fontsize=min(9.5, 72 * width / 3.2), color=contrast(colour),
                      path_effects=[withStroke(linewidth=3, foreground=colour)])  # fmt: skip
            continue
        corners = [(row, column), (row, column + 1), (row + 1, column + 1), (row + 1, column)]
        axes.add_patch(Polygon([(across[corner], up[corner]) for corner in corners], label="_void", **HATCHED))
        if math.isinf(value):
            axes.plot(grid.x[column] * grid.y[row] ** shear, grid.y[row], **CROSS, markersize=9, label="_diverged",
                      zorder=5)  # fmt: skip
    return mesh


def _ridge_line(axes: Axes, ridge: Sequence[tuple[float, float]], shear: int) -> None:
    """The ridge's points and its fit through their middle, over the height of the grid; both below the numbers."""
    if ridge:
        xs, ys = np.array(ridge).T
        axes.plot(xs * ys**shear, ys, **RIDGE, linestyle="none", markersize=7, label="_ridge", zorder=4)
    if len(ridge) > 1:
        x, y = np.exp(np.log(ridge).mean(axis=0))
        heights = np.array(axes.get_ylim())
        fit = x * (heights / y) ** responses.ridge_exponent(ridge) * heights**shear
        axes.plot(fit, heights, color=RIDGE["color"], linewidth=2.2, label="_fit", zorder=3, scalex=False, scaley=False,
                  path_effects=[withStroke(linewidth=4, foreground="white")])  # fmt: skip
