"""From a study's rows to the figures that its configuration names, and what a page says of their places."""

import logging
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

import matplotlib.style
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from onecycle.studies.figures import comparisons, curves, maps
from onecycle.studies.figures.columns import finite_numbers, label_of, mean_and_sd
from onecycle.studies.figures.drawing import SHEET, StudyFigure
from onecycle.studies.rows import filter_text, is_number, metric_lines, plain_columns, select
from onecycle.studies.search.trials import optuna_figure

log = logging.getLogger(__name__)

# Each raises ValueError where there is nothing to draw.
KINDS: dict[str, Callable[..., Figure | None]] = {
    "curves": curves.response_curves, "histories": curves.histories, "lists": curves.lists,
    "progress": curves.search_progress, "arms": comparisons.arms, "scatter": comparisons.scatter,
    "stacked": comparisons.stacked, "layers": comparisons.norms_by_layer, "heat_map_pair": maps.heat_map_pair,
    "path": maps.search_path, "surfaces": maps.surfaces, "optuna": optuna_figure,
}  # fmt: skip
TAGS = ("train/loss", "lr", "val/accuracy", "test/accuracy")  # of the curves on a page
CURVE_POINTS = 120


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
        parameters = _published(study, kind, parameters, chosen) | parameters
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
        if isinstance(figure, StudyFigure):
            figure.metric = next((parameters[key] for key in ("z", "y") if key in parameters), "")
        if figure is not None:
            drawn[name] = figure
    return drawn, problems


def _published(study: Mapping[str, Any], kind: str, given: Mapping[str, Any], rows: pd.DataFrame) -> dict[str, Any]:
    """The parameter of a figure with the published values of its y: of arms by their name, else by their filters."""
    published = study.get("published") or {"metric": "", "rows": ()}
    entries = [{"metric": published["metric"], "of": {}} | entry for entry in published["rows"]]
    known = [
        (entry["of"], entry["value"]) for entry in entries
        if entry["metric"] == given.get("y") and is_number(entry["value"])
        and entry["of"] and not select(rows, entry["of"]).empty
    ]  # fmt: skip
    by = given.get("by", "arm")
    return {"published": known} if kind == "curves" else {
        "reference": {of[by]: value for of, value in known if isinstance(of.get(by), str)}
    } if kind == "arms" else {}  # fmt: skip


def page_data(rows: pd.DataFrame, figures: Mapping[str, Figure], folder: Path, metrics: Sequence[str]) -> Any:
    """What a page in `folder` shows of saved figures: every run, with values as texts and curves by tag, and marks."""
    own = {name: figure for name, figure in figures.items() if isinstance(figure, StudyFigure)}
    known = [name for name in plain_columns(rows) if rows[name].dropna().map(is_number).all()]
    shown = [name for name in dict.fromkeys([*(figure.metric for figure in own.values()), *metrics]) if name in known]
    numbers = pd.DataFrame({name: finite_numbers(rows, name) for name in shown}, index=rows.index)
    labels, lost = rows["label"].str.replace(r",?seed=[^,]*", "", regex=True), rows["status"] == "diverged"
    runs = [
        {"label": rows["label"][run] or "run", "folder": quote(os.path.relpath(rows["folder"][run], folder)) + "/",
         "name": f"seed {rows['seed'][run]}" + ", diverged" * bool(lost[run]),
         "values": [mean_and_sd(number, np.nan) for number in numbers.loc[run]], "curves": _curves(rows["folder"][run])}
        for run in rows.index
    ]  # fmt: skip
    found: dict[str, dict[str, Any]] = {}
    for name, figure in own.items():
        width, height = 100 * figure.get_size_inches()  # in hundredths of an inch, from the top left
        marks = []
        for mark in sorted(figure.marks, key=lambda mark: (not mark.closed, -len(mark.points))):  # small ones above
            part, n = numbers.loc[mark.rows], len(mark.rows)
            points = mark.transform.transform(mark.points) * 100 / figure.dpi
            marks.append({
                "points": " ".join(f"{x:.0f},{height - y:.0f}" for x, y in points), "closed": mark.closed,
                "runs": rows.index.get_indexer(mark.rows).tolist(), "metric": label_of(figure.metric),
                "n": f"{n - lost[mark.rows].sum()} of {n}" if lost[mark.rows].any() else n,
                "title": " or ".join(labels[mark.rows].unique()[:3]),
                "means": [*map(mean_and_sd, part.mean(), part.std())],
            })  # fmt: skip
        found[name] = {"size": f"{width:.0f} {height:.0f}", "marks": marks}
    return {"runs": runs, "figures": found, "metrics": [*map(label_of, shown)], "tags": TAGS}


def _curves(folder: str) -> dict[str, list[list[float]]]:
    """Steps and values of a run's curves by tag, averaged over neighbours where there are many, to four digits."""
    lines, found = metric_lines(Path(folder)), {}
    for tag in TAGS:
        pairs = [(line["step"], line[tag]) for line in lines if line.get("step") and line.get(tag)]
        if len(pairs := [pair for pair in np.array(pairs, float) if np.isfinite(pair).all()]):
            parts = np.array_split(pairs, min(CURVE_POINTS, len(pairs)))
            found[tag] = np.transpose([[float(f"{mean:.4g}") for mean in part.mean(axis=0)] for part in parts]).tolist()
    return found
