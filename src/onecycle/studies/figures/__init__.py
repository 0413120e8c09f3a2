"""From a study's rows to the figures that its configuration names."""

import logging
from collections.abc import Callable, Mapping
from typing import Any

import matplotlib.style
import pandas as pd
from matplotlib.figure import Figure

from onecycle.studies.figures import comparisons, curves, maps
from onecycle.studies.figures.drawing import SHEET
from onecycle.studies.rows import filter_text, select
from onecycle.studies.search.trials import optuna_figure

log = logging.getLogger(__name__)

# Each raises ValueError where there is nothing to draw.
KINDS: dict[str, Callable[..., Figure | None]] = {
    "curves": curves.response_curves, "histories": curves.histories, "lists": curves.lists,
    "progress": curves.search_progress, "arms": comparisons.arms, "scatter": comparisons.scatter,
    "stacked": comparisons.stacked, "layers": comparisons.norms_by_layer, "heat_map_pair": maps.heat_map_pair,
    "path": maps.search_path, "surfaces": maps.surfaces, "optuna": optuna_figure,
}  # fmt: skip


def draw(study: Mapping[str, Any], rows: pd.DataFrame) -> tuple[dict[str, Figure], list[str]]:
    """The study's figures by file name, figure, figure_2, … or what `name` says, and why others could not be drawn.

    A line for each unknown kind, for parameters that a kind does not take, and for columns that no row has.
    """
    drawn: dict[str, Figure] = {}
    problems: list[str] = []
    rows = rows.assign(**{"": ""})  # the column of figures without `by` or `panels`: all runs have the same value
    for number, settings in enumerate(study.get("figures") or ()):
        parameters = dict(settings)
        kind, where = parameters.pop("kind", None), parameters.pop("where", None)
        name = parameters.pop("name", f"figure_{number + 1}" if number else "figure")
        if kind not in KINDS:
            problems.append(f"study.figures[{number}].kind={kind}: unknown; there are {', '.join(KINDS)}")
            continue
        chosen = select(rows, where)
        if chosen.empty:  # a part of a study, or a smaller scale, need not have the runs of every figure
            log.warning("%s is left out: no run has %s.", name, filter_text(where))
            continue
        try:
            with matplotlib.style.context(SHEET):
                figure = KINDS[kind](chosen, **parameters)
        except (ValueError, TypeError, KeyError) as error:
            reason = f"no row has the column {error}" if isinstance(error, KeyError) else error
            problems.append(f"study.figures[{number}]: {kind}: {reason}")
            continue
        if figure is not None:
            drawn[name] = figure
    return drawn, problems
