"""The columns that claims and figures name, and those that the rows of a study will have, before there is a row."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from onecycle.config.hyperparameters import Hyperparameters
from onecycle.config.rules import PARTS
from onecycle.config.validate import did_you_mean
from onecycle.errors import ConfigError
from onecycle.studies import claim_form, curves
from onecycle.studies import rows as table
from onecycle.studies.study import Point, column

# Parameters of figures that name a column of the rows, where they are texts.
NAMING = ("x", "y", "z", "by", "panels", "points", "order", "select_by", "column")
OF_METRICS = {"histories": ("x", "y")}  # these are columns of a run's metrics.csv
RECORD: dict[str, Any] = {
    "status": "finished", "name": "", "test": {"accuracy": 0.0, "loss": 0.0}, "train": {"accuracy": 0.0, "loss": 0.0},
    "val": None, "epochs": 0.0, "steps": 0, "parameters": 0, "data": {"name": "", "train_size": 0},
    "hyperparameters": Hyperparameters(1, 0, 1, 1).coordinates(),
    "seconds": dict.fromkeys(("setup", "fit", "test", "total"), 0.0), "images_per_second": 0.0,
    "device": "cpu", "precision": "", "environment": {"threads": 1},
}  # fmt: skip


def known(study: Mapping[str, Any], points: Sequence[Point], config: DictConfig, folder: Path) -> set[str]:
    """The columns that follow from the form of a record, the axes, `derive`, and the records of other studies.

    Raises ConfigError for an unknown `derive`.
    """
    derive = study.get("derive")
    if derive and derive not in curves.DERIVED:
        raise ConfigError([f"study.derive={derive}: unknown; there are {', '.join(curves.DERIVED)}"])
    record = dict(RECORD)
    if config.data.val_size or _sets(study, "data.val_size"):
        record["val"] = record["train"]
    if config.evaluation.tta != "none" or _sets(study, "evaluation.tta"):
        record["test"] = record["test"] | {"accuracy_tta": 0.0}
    found = {key for point in points for key in point.values}
    for block in study.get("searches") or ():
        found |= {"arm", "number", "seed"}
        found |= {column(key) for part in ("coordinates", "space") for key in block.get(part) or {}}
    found |= set(table.row_of(Point("", {}, ()), folder, record))
    if derive:
        found |= set(curves.DERIVED[derive](folder / ".no_run"))
    for name in study.get("records_of") or ():
        found |= {"study", *(key for row in table.rows(folder.parent / name) for key in row)}
    return found


def _sets(study: Mapping[str, Any], key: str) -> bool:
    """Whether a run of the study may set a key, or one below it, by itself."""
    groups = [study.get("fixed"), *_own(study)]
    return any(name.lstrip("+~").startswith(key) for group in groups for name in group or {})


def _own(study: Mapping[str, Any]) -> Iterator[Mapping[str, Any] | None]:
    for block in [*(study.get("runs") or ()), *(study.get("searches") or ())]:
        yield from (block.get("fixed"), block.get("axes"))


def may_measure_more(study: Mapping[str, Any], config: DictConfig) -> bool:
    """Whether there may be columns that stand in a record alone: what callbacks measure, here or in other studies."""
    added = [name for name, part in (config.get("callbacks") or {}).items() if part is not None]
    return (
        bool(study.get("records_of"))
        or _sets(study, "callbacks")
        or any(f"callbacks.{name}" not in PARTS for name in added)
    )


def measures_alike(study: Mapping[str, Any]) -> bool:
    """Whether every run of a study has the same callbacks, so that the first record has the columns of all."""
    return not any(name.lstrip("+~").startswith("callbacks") for group in _own(study) for name in group or {})


def problems(study: Mapping[str, Any], columns: Collection[str]) -> list[str]:
    """A line for each claim or figure that names a column that is not among `columns`."""
    return [
        f"{where}: no column {name!r}{did_you_mean(name, columns) or '; there are ' + ', '.join(sorted(columns))}"
        for where, name in dict.fromkeys(named(study))
        if name not in columns
    ]


def named(study: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Every column that a study names, behind the place that names it."""
    for claim in study.get("claims") or ():
        where = f"claim {claim['id']}"
        yield from ((where, name) for name in claim_form.columns(claim).values())
        yield from ((where, name) for wanted in claim_form.filters(claim) for name in wanted)
    for number, figure in enumerate(study.get("figures") or ()):
        where = f"study.figures[{number}]"
        yield from ((f"{where}.where", name) for name in figure.get("where") or {})
        others = OF_METRICS.get(figure.get("kind"), ())
        for parameter in NAMING:
            if isinstance(figure.get(parameter), str) and parameter not in others:
                yield f"{where}.{parameter}", figure[parameter]
