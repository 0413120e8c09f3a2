"""From a study's rows to the figures that its configuration names: the one place that reads curves for plots."""

import logging
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from onecycle.errors import ConfigError
from onecycle.studies import curves
from onecycle.studies import rows as table
from onecycle.studies.figures import curves as plots

if TYPE_CHECKING:
    from matplotlib.figure import Figure

log = logging.getLogger(__name__)

Parameters = dict[str, Any]


def draw(study: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> tuple[dict[str, "Figure"], list[str]]:
    """The study's figures by file name, figure, figure_2, … or what `name` says, and why others could not be drawn.

    A line for each unknown kind, for parameters that a kind does not take, and for columns that no row has.
    """
    drawn: dict[str, Figure] = {}
    problems: list[str] = []
    for number, settings in enumerate(study.get("figures") or (), start=1):
        parameters = dict(settings)
        kind, name = (
            parameters.pop("kind", None),
            parameters.pop("name", "figure" if number == 1 else f"figure_{number}"),
        )
        where = parameters.pop("where", None)
        if kind not in KINDS:
            problems.append(f"study.figures[{number - 1}].kind={kind}: unknown; there are {', '.join(KINDS)}")
            continue
        chosen = [rows[place] for place in np.flatnonzero(table.chosen(pd.DataFrame(rows), where))]
        if not chosen:  # a part of a study, or a smaller scale, need not have the runs of every figure
            log.warning("%s is left out: no run has %s.", name, table.filter_text(where))
            continue
        try:
            figure = KINDS[kind](chosen, parameters)
        except (ValueError, TypeError, KeyError) as error:
            said = f"no row has the column {error}" if isinstance(error, KeyError) else error
            problems.append(f"study.figures[{number - 1}]: {said}")
            continue
        if figure is not None:
            drawn[name] = figure
    return drawn, problems


def _of_rows(function: Callable[..., "Figure"]) -> Callable[[list[Mapping[str, Any]], Parameters], "Figure"]:
    return lambda rows, parameters: function(rows, **parameters)


def _histories(rows: list[Mapping[str, Any]], parameters: Parameters) -> "Figure":
    """Columns of metrics.csv against each other, a line for each value of `by`, a panel for each of `panels`."""
    own = dict(parameters)
    x, y, by, panels = own.pop("x"), own.pop("y"), own.pop("by", "arm"), own.pop("panels", None)
    series = []
    for row in rows:
        xs, ys = curves.history(Path(row["folder"]), x, y)
        if xs:
            line = {"label": str(row[by]), "x": xs, "y": ys, "diverged": row["status"] == "diverged"}
            series.append(line | ({"group": str(row[panels])} if panels else {}))
    return plots.training_curves(series, x=x, y=y, **own)


def _lists(rows: list[Mapping[str, Any]], parameters: Parameters) -> "Figure":
    """A list among the run's measures, over the position in it from 0 to 1."""
    own = dict(parameters)
    column, by, panels = own.pop("column"), own.pop("by", "arm"), own.pop("panels", None)
    series = []
    for row in rows:
        values = [math.nan if value is None else value for value in row.get(column) or ()]
        if values:
            line = {"label": str(row[by]), "x": [i / max(1, len(values) - 1) for i in range(len(values))], "y": values}
            series.append(line | ({"group": str(row[panels])} if panels else {}))
    return plots.training_curves(series, x="position", y=column, **own)


def _stacked(rows: list[Mapping[str, Any]], parameters: Parameters) -> "Figure":
    """Milliseconds of a step by component, the mean over the runs of each value of `by`."""
    own = dict(parameters)
    by, prefix = own.pop("by"), own.pop("prefix", "")
    groups: dict[str, list[Mapping[str, float]]] = {}
    for row in rows:
        if row.get("breakdown_ms"):
            groups.setdefault(f"{prefix}{row[by]}", []).append(row["breakdown_ms"])
    parts = {
        name: {part: sum(run[part] for run in runs) / len(runs) for part in runs[0]} for name, runs in groups.items()
    }
    return plots.stacked(parts, **own)


def _layers(rows: list[Mapping[str, Any]], parameters: Parameters) -> "Figure":
    """Gradient norms by layer; `groups` says in words what the fractions of training are."""
    own = dict(parameters)
    by, groups, value = own.pop("by", "arm"), own.pop("groups"), own.pop("value", "values")
    series = []
    for row in rows:
        for fraction, text in groups.items():
            norms = (row.get("gradient_norms") or {}).get(str(fraction))
            if norms:
                series.append({"label": str(row[by]), "group": text, "layers": norms["layers"], "values": norms[value]})
    return plots.layers(series, **own)


def _surfaces(rows: list[Mapping[str, Any]], parameters: Parameters) -> "Figure":
    """Loss surfaces, one panel for each value of `by`: the first run that has one; the title says of how many."""
    own = dict(parameters)
    by = own.pop("by", "arm")
    panels = {str(row[by]): row["surface"] for row in reversed(rows) if row.get("surface")}
    ordered = dict.fromkeys(str(row[by]) for row in rows)
    seeds = {row.get("seed") for row in rows if row.get("surface")}
    if own.get("title"):
        own["title"] += f", one seed of {len(seeds)}" if len(seeds) > 1 else ", one seed"
    return plots.surfaces([{"label": name, **panels[name]} for name in ordered if name in panels], **own)


def _optuna(rows: list[Mapping[str, Any]], parameters: Parameters) -> "Figure | None":
    """One of Optuna's own figures; none where it finds too few trials, or too equal ones."""
    from onecycle.studies.search import trials  # Optuna is optional

    try:
        return trials.plot(rows, **parameters)
    except ConfigError:
        raise
    except (ValueError, RuntimeError, ZeroDivisionError) as error:
        log.warning("Optuna's %s is left out: %s.", parameters["show"], str(error).rstrip("."))
        return None


KINDS: dict[str, Callable[[list[Mapping[str, Any]], Parameters], "Figure | None"]] = {
    "curves": _of_rows(plots.curves), "arms": _of_rows(plots.arms), "scatter": _of_rows(plots.scatter),
    "heat_map_pair": _of_rows(plots.heat_map_pair), "histories": _histories, "lists": _lists, "stacked": _stacked,
    "layers": _layers, "surfaces": _surfaces, "path": _of_rows(plots.path), "progress": _of_rows(plots.progress),
    "optuna": _optuna,
}  # fmt: skip
