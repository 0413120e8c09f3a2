"""What the tests of figures share: a figure as a study's file describes it, and what was drawn in it."""

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.container import ErrorbarContainer
from matplotlib.figure import Figure
from matplotlib.legend import Legend

from onecycle.studies.figures import draw


def run(**columns: Any) -> dict[str, Any]:
    return {"status": "finished", "seed": 0, **columns}


def figure_of(rows: list[dict[str, Any]], **settings: Any) -> Figure:
    drawn, problems = draw({"figures": [settings]}, pd.DataFrame(rows))
    assert not problems
    return drawn["figure"]


def problem_of(rows: list[dict[str, Any]], **settings: Any) -> str:
    drawn, (problem,) = draw({"figures": [settings]}, pd.DataFrame(rows))
    assert not drawn
    return problem


def marked(axes: Axes, label: str) -> list[tuple[list[float], list[float]]]:
    """x and y of every line with a label."""
    found = [np.asarray(line.get_xydata(), float).T.tolist() for line in axes.lines if line.get_label() == label]
    return [(x, y) for x, y in found]


def bars(axes: Axes) -> list[Any]:
    """Every series with error bars: its x, its y and the ends of its bars, [[x, y], [x, y]] each."""
    found: list[Any] = [one for one in axes.containers if isinstance(one, ErrorbarContainer)]
    return [(list(bar.lines[0].get_xdata()), list(bar.lines[0].get_ydata()),
             [part.tolist() for lines in bar.lines[2] for part in lines.get_segments()]) for bar in found]  # fmt: skip


def legends(figure: Figure) -> list[list[str]]:
    """The texts of every legend, its title first if it has one."""
    inside = [child for axes in figure.axes for child in axes.get_children() if isinstance(child, Legend)]
    texts = [[one.get_title().get_text(), *(text.get_text() for text in one.get_texts())]
             for one in [*inside, *figure.legends]]  # fmt: skip
    return [[text for text in one if text.strip()] for one in texts]


def tick_texts(axes: Any, which: str = "x") -> list[str]:
    axes.get_figure().draw_without_rendering()
    return [label.get_text() for label in getattr(axes, f"get_{which}ticklabels")()]
