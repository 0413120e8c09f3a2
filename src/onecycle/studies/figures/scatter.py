"""One quantity against another, with the uncertainty of both: accuracy against time."""

import pandas as pd
from matplotlib.figure import Figure

from onecycle.studies.figures import drawing
from onecycle.studies.figures.labels import Labels, label_of, legend_texts
from onecycle.studies.figures.points import finished, is_lower_better, levels_of, numbers, part_of, refuse_mixed
from onecycle.studies.figures.style import line_styles


def scatter(
    rows: pd.DataFrame, *, x: str, y: str, by: str = "arm", labels: Labels | None = None, title: str | None = None
) -> Figure:
    """Mean ± sd of y against mean ± sd of x: a point for each value of `by`, with its seeds as faint dots.

    A cross at the bad edge stands at the mean x of the runs that diverged. Raises ValueError where there is nothing to
    draw.
    """
    refuse_mixed(rows, [by])
    figure, (axes,) = drawing.panel_grid(size=(7.0, 4.6))
    axes.margins(0.1)
    lower, notes, lost = is_lower_better(y, None), dict[str, None](), []
    styles = line_styles(levels_of(rows, by), linestyle="none", markersize=7.5)
    for group, style in styles.items():
        part = part_of(rows, by, group)
        table = pd.DataFrame({"x": numbers(part, x), "y": finished(part, y)})
        seeds, missing = table.dropna(), table["x"][part["status"] == "diverged"].dropna()
        if len(seeds):
            (x_mean, y_mean), (x_sd, y_sd) = seeds.mean(), seeds.std()
            axes.errorbar([x_mean], [y_mean], xerr=[x_sd], yerr=[y_sd], **style, elinewidth=1.3, capsize=0,
                          markeredgecolor="white", zorder=4)  # fmt: skip
        if len(seeds) > 1:
            drawing.seed_dots(axes, seeds["x"], seeds["y"], style["color"])
            notes |= {"one seed": None, "mean ± sd": None}
        if len(missing):
            lost.append((missing.mean(), style["color"]))
    if not axes.lines and not lost:
        raise ValueError(f"no run has values of both {x} and {y}")
    for pile, (place, colour) in enumerate(lost):
        drawing.cross(axes, place, min(pile, 4), colour, lower)
    if lost:
        drawing.make_room(axes, min(len(lost), 5), lower)
    drawing.finish([axes], label_of(x, labels), label_of(y, labels), title, heading=label_of(by, labels),
                   entries=legend_texts(styles, labels), notes=[*notes, *["diverged"] * bool(lost)])  # fmt: skip
    return figure
