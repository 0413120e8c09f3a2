"""What is seen inside a network: gradient norms by layer, and the loss around its weights."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, NullLocator
from numpy.typing import NDArray

from onecycle.studies.figures.axes import (
    colour_bar,
    entry,
    frame,
    legends,
    length,
    panel_grid,
    panel_title,
    round_numbers,
    ticks,
)
from onecycle.studies.figures.style import MARKERS, Labels, colours, label_of

Array = NDArray[np.float64]
LETTER_INCHES = 0.078
FINER = 8  # how many times finer than its points a loss surface is drawn


def layers(
    series: Sequence[Mapping[str, Any]],
    *,
    y_label: str | None = None,
    log_y: bool = True,
    labels: Labels | None = None,
    title: str | None = None,
) -> Figure:
    """A value of every layer, from the input to the output: a panel for each `group`, a line for each `label`.

    series: {"label", "group"?, "layers": [names], "values": [...]}; those that share label and group are seeds: their
    geometric mean, and each as faint dots. A line has a gap where its network has no such layer. y_label: by default
    the gradient norm. Raises ValueError where there is nothing to draw.
    """
    if not any(one["layers"] for one in series):
        raise ValueError("layers: no values to draw")
    names = list(dict.fromkeys(str(one["label"]) for one in series))
    groups = list(dict.fromkeys(str(one.get("group", "")) for one in series))
    places = {name: place for place, name in enumerate(merged([one["layers"] for one in series]))}
    figure, grid = panel_grid(len(groups), width=7.0, height=2.5 if len(groups) > 1 else 3.8, columns=1)
    styles = list(zip(names, colours(names), MARKERS * len(names), strict=False))
    for axes, group in zip(grid, groups, strict=True):
        for name, colour, marker in styles:
            chosen = [one for one in series if (str(one["label"]), str(one.get("group", ""))) == (name, group)]
            _layer_line(axes, chosen, places, colour, marker)
        if not axes.lines:
            raise ValueError(f"layers: {f'panel {group!r}' if group else 'no layer'} has no finite value above zero")
        if group:
            panel_title(axes, (labels or {}).get(group, group))
    for axes in grid:
        axes.set_yscale("log" if log_y else "linear")
        ticks(axes, "y", [])
    grid[-1].set_xlim(-0.5, len(places) - 0.5)
    _name_layers(grid[-1], list(places))
    frame(figure, grid, "", y_label or label_of("gradient_norm", labels), title)
    texts = [(labels or {}).get(name, name) for name in names]
    legends(grid, [entry(text, *style[1:]) for text, style in zip(texts, styles, strict=True)], [])
    return figure


def _name_layers(axes: Axes, names: Sequence[str]) -> None:
    """The layers' names below the axis, their parts below each other; slanted where they would touch."""
    texts = [name.replace("residual", "branch").replace(".", "\n") for name in names]
    room = length(axes, "x") / len(names) / LETTER_INCHES
    if all(len(line) <= room for text in texts for line in text.split("\n")):
        axes.set_xticks(range(len(names)), texts)
    else:
        axes.set_xticks(range(len(names)), list(names), rotation=45, ha="right", rotation_mode="anchor")


def merged(lists: Sequence[Sequence[str]]) -> list[str]:
    """All names of several lists in one order that keeps each list's own: a new name follows the one before it."""
    result: list[str] = []
    for names in lists:
        place = 0
        for name in names:
            if name not in result:
                result.insert(place, name)
            place = result.index(name) + 1
    return result


def _layer_line(
    axes: Axes, seeds: Sequence[Mapping[str, Any]], places: Mapping[str, int], colour: str, marker: str
) -> None:
    """One label's geometric mean over its seeds, and the seeds as dots where there are several."""
    found: dict[int, list[float]] = {}
    for seed in seeds:
        for name, value in zip(seed["layers"], seed["values"], strict=True):
            if value is not None and math.isfinite(value) and value > 0:
                found.setdefault(places[name], []).append(float(value))
    if not found:
        return
    xs = sorted(found)
    every = list(range(xs[0], xs[-1] + 1))
    means = [float(np.exp(np.mean(np.log(found[x])))) if x in found else math.nan for x in every]
    axes.plot(every, means, color=colour, marker=marker, markersize=5.5, linewidth=1.8, label="_mean", zorder=3)
    singles = [(x, value) for x in xs for value in found[x] if len(found[x]) > 1]
    if singles:
        axes.plot(*zip(*singles, strict=True), linestyle="none", marker="o", markersize=3.5, color=colour,
                  markeredgewidth=0, alpha=0.4, label="_seeds", zorder=2)  # fmt: skip


def surfaces(
    panels: Sequence[Mapping[str, Any]],
    *,
    levels: int | Sequence[float] = 14,
    labels: Labels | None = None,
    title: str | None = None,
) -> Figure:
    """The loss around trained weights, panels beside each other with one logarithmic colour scale.

    panels: {"label", "a": [n], "b": [m], "loss": [m][n]}: the loss at a along direction 1 and b along direction 2, both
    in filter norms. It is drawn through these points by cubic curves of its logarithm, where all are finite and at
    least four in each direction. levels: losses of the contours, or how many, spaced evenly in the logarithm. A loss
    that is not finite stays grey. Raises ValueError where there is nothing to draw.
    """
    if not panels:
        raise ValueError("surfaces: no panels to draw")
    losses = [_loss(panel) for panel in panels]
    bounds = _levels(losses, levels)
    count = len(panels)
    across = min(count, 3) if count != 4 else 2
    figure, grid = panel_grid(
        count, width=4.8 if count == 1 else 8.4, height=3.9 if count == 1 else 6.4 / across + 0.95
    )
    # The dark valley is where training ended.
    style: dict[str, Any] = {"levels": bounds, "norm": LogNorm(bounds[0], bounds[-1])}
    for axes, panel, loss in zip(grid, panels, losses, strict=True):
        filled = _surface(axes, _finer(panel["a"], panel["b"], loss), style)
        panel_title(axes, (labels or {}).get(str(panel["label"]), str(panel["label"])))
    frame(figure, grid, "direction 1 (filter norms)", "direction 2 (filter norms)", title)
    bar = figure.colorbar(filled, ax=grid, pad=0.02)
    bar.ax.yaxis.set_minor_locator(NullLocator())
    colour_bar(bar, label_of("loss", labels), round_numbers(float(bounds[0]), float(bounds[-1])))
    return figure


def _surface(axes: Axes, place: tuple[Any, Any, Any], style: Mapping[str, Any]) -> Any:
    """Filled contours, their lines and the centre; returns what a colour bar shows."""
    filled = axes.contourf(*place, cmap=matplotlib.colormaps["viridis"], extend="both", **style)
    axes.contour(*place, colors="white", linewidths=0.5, alpha=0.7, **style)
    axes.plot([0], [0], linestyle="none", marker="+", markersize=10, markeredgewidth=2, color="white",
              label="_centre")  # fmt: skip
    axes.set(aspect="equal", facecolor="#D4D4D4")
    axes.grid(visible=False)
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(MaxNLocator(4, prune="both"))  # the outer numbers of two panels would touch
    return filled


def _loss(panel: Mapping[str, Any]) -> "np.ma.MaskedArray[Any, np.dtype[np.float64]]":
    rows = [[math.nan if value is None else value for value in row] for row in panel["loss"]]
    loss = np.ma.masked_invalid(np.asarray(rows, float))
    if loss.shape != (len(panel["b"]), len(panel["a"])) or loss.count() == 0:
        raise ValueError(
            f"surfaces: loss of {panel['label']!r} is {loss.shape} with {loss.count()} finite values; "
            f"it must have one row for each of {len(panel['b'])} b, one column for each of {len(panel['a'])} a"
        )
    return np.ma.masked_less_equal(loss, 0.0)


def _finer(a: Sequence[float], b: Sequence[float], loss: Any) -> tuple[Any, Any, Any]:
    """The surface on a finer grid that contains its own points, unchanged."""
    if np.ma.getmaskarray(loss).any() or min(loss.shape) < 4:
        return a, b, loss
    logs = np.log(np.asarray(loss))
    across, up = (np.interp(np.arange(FINER * (len(v) - 1) + 1) / FINER, np.arange(len(v)), v) for v in (a, b))
    return across, up, np.exp(cubic(cubic(logs, FINER).T, FINER).T)


def cubic(values: Array, times: int) -> Array:
    """Catmull-Rom curves through evenly spaced points along the first axis, `times` steps from one to the next.

    Source: Catmull and Rom 1974, "A class of local interpolating splines"; tangents at the ends are one-sided.
    """
    slopes = np.gradient(values, axis=0)
    share = np.arange(times) / times
    square, cube = share**2, share**3
    weights = (2 * cube - 3 * square + 1, cube - 2 * square + share, 3 * square - 2 * cube, cube - square)
    ends = (values[:-1], slopes[:-1], values[1:], slopes[1:])
    inner = sum(np.multiply.outer(end, weight) for end, weight in zip(ends, weights, strict=True))
    smooth = np.moveaxis(np.asarray(inner), -1, 1).reshape(-1, *values.shape[1:])
    return np.concatenate([smooth, values[-1:]])


def _levels(losses: Sequence[Any], levels: int | Sequence[float]) -> Array:
    if not isinstance(levels, int):
        return np.asarray(sorted(levels), float)
    low, high = min(float(loss.min()) for loss in losses), max(float(loss.max()) for loss in losses)
    return np.geomspace(low, high if high > low else 1.01 * low, levels)
