"""How good the best point of a search was after how many points."""

from collections.abc import Sequence
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from onecycle.studies.figures import drawing
from onecycle.studies.figures.labels import Labels, label_of, level_text
from onecycle.studies.figures.path import means_of
from onecycle.studies.figures.points import finished, is_lower_better, levels_of, part_of
from onecycle.studies.figures.style import INK, line_styles

# Tell lines apart that coincide.
DASHES: tuple[Any, ...] = ("-", (0, (5, 1.5)), (0, (1.2, 1.2)), (0, (6, 1.5, 1.2, 1.5)))


def progress(
    rows: pd.DataFrame, *, y: str, select_by: str, by: str = "arm", levels: Sequence[str] = (),
    labels: Labels | None = None, title: str | None = None,
) -> Figure:  # fmt: skip
    """The y of the point that `select_by` finds best among the first n, against n: a line for each value of `by`.

    What is selected on and what is shown differ on purpose: the first are held-out images, the second may be the test
    set. Values of `by` among `levels`, as a grid, whose points have no order, are horizontal lines at their best. The
    legend has every line's last value. Raises ValueError where there is nothing to draw.
    """
    # Without a number a point is known by its label, without the seed.
    labels_alone = rows["label"].str.replace(r",?seed=\d+", "", regex=True)
    keys = rows["number"].astype(object).where(rows["number"].notna(), labels_alone)
    sign = -1 if is_lower_better(select_by, None) else 1
    columns = {"y": finished(rows, y), "score": sign * finished(rows, select_by)}
    figure, (axes,) = drawing.panel_grid(size=(7.0, 4.8))
    entries, unit = dict[str, dict[str, Any]](), " %" * ("accuracy" in y)
    styles = line_styles([name for name in levels_of(rows, by) if name not in levels])
    for place, (name, style) in enumerate(styles.items()):
        best = _best_so_far(means_of(keys, columns, part_of(rows, by, name).index))
        if best:
            line = {"color": style["color"], "linewidth": 2.2, "linestyle": DASHES[place % len(DASHES)]}
            axes.plot(range(1, len(best) + 1), best, drawstyle="steps-post", label="_best", zorder=3, **line)
            entries[f"{level_text(name, labels)}: {best[-1]:.1f}{unit}"] = line
    if not entries:
        raise ValueError(f"no run has values of both {y} and {select_by}")
    for name in levels:
        best = _best_so_far(means_of(keys, columns, part_of(rows, by, name).index))
        if best:
            line = {"color": INK, "linewidth": 1.1}
            axes.axhline(best[-1], label="_level", zorder=2, **line)
            entries[f"{level_text(name, labels)}, best of {len(best)}: {best[-1]:.1f}{unit}"] = line
    drawing.finish([axes], "points tried", f"{label_of(y, labels)} of the best so far", title, entries=entries)
    return figure


def _best_so_far(points: pd.DataFrame) -> list[float]:
    """The y of the point with the best score up to each; empty where none has one."""
    best = points["score"] > points["score"].cummax().shift(fill_value=-float("inf")).ffill()
    return points["y"].where(best).ffill().tolist() if best.any() else []
