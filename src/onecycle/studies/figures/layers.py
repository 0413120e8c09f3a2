"""Gradient norms by layer, from the input to the output of a network."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from onecycle.studies.figures import drawing
from onecycle.studies.figures.labels import Labels, label_of, legend_texts
from onecycle.studies.figures.points import levels_of, part_of
from onecycle.studies.figures.style import line_styles


def layers(
    rows: pd.DataFrame, *, groups: Mapping[str, str], by: str = "arm", value: str = "values",
    y_label: str | None = None, labels: Labels | None = None, title: str | None = None,
) -> Figure:  # fmt: skip
    """`gradient_norms` of every layer: a panel for each fraction of training, a line for each value of `by`.

    groups: the fractions, each with its title. value: "values" or "relative" to the weights. Seeds are drawn as their
    geometric mean, and each as faint dots. A line has a gap where its network has no such layer. Raises ValueError
    where there is nothing to draw.
    """
    found = {
        (fraction, name): [
            dict(zip(norms[str(fraction)]["layers"], norms[str(fraction)][value], strict=True))
            for norms in part_of(rows, by, name)["gradient_norms"]
            if isinstance(norms, dict) and str(fraction) in norms
        ]
        for fraction in groups
        for name in levels_of(rows, by)
    }
    # In the order of the deepest network, of which the others are a part.
    deepest_first = sorted((seed for seeds in found.values() for seed in seeds), key=len, reverse=True)
    places = list(dict.fromkeys(layer for seed in deepest_first for layer in seed))
    if not places:
        raise ValueError("no run has gradient norms")
    styles = line_styles(levels_of(rows, by))
    size = (7.0, 2.5 if len(groups) > 1 else 3.8)
    figure, grid = drawing.panel_grid(list(groups.values()), size=size, columns=1)
    panels = dict(zip(groups, grid, strict=True))
    grid[0].set_yscale("log")
    for (fraction, name), seeds in found.items():
        table = pd.DataFrame(seeds, columns=places, dtype=float).where(lambda norms: norms > 0)
        style = styles[name]
        panels[fraction].plot(np.exp(np.log(table).mean()).to_numpy(), label="_mean", zorder=3, **style)
        if len(table) > 1:
            for place in range(len(places)):
                drawing.seed_dots(panels[fraction], [place] * len(table), table.iloc[:, place], style["color"])
    _name_layers(grid[-1], places)
    drawing.finish(grid, "", y_label or label_of("gradient_norm", labels), title, entries=legend_texts(styles, labels))
    return figure


def _name_layers(axes: Axes, names: Sequence[str]) -> None:
    """The layers' names below the axis, their parts below each other; slanted where they would touch."""
    texts = [name.replace("residual", "branch").replace(".", "\n") for name in names]
    room = drawing.inches(axes)[0] / len(names) / drawing.LETTER
    slanted = max(len(line) for text in texts for line in text.split("\n")) > room
    style: dict[str, Any] = {"rotation": 45, "ha": "right", "rotation_mode": "anchor"} if slanted else {}
    axes.set_xticks(range(len(names)), list(names) if slanted else texts, **style)
    axes.set_xlim(-0.5, len(names) - 0.5)
