"""Refuses a study whose claims or figures name a column that its rows will not have, as early as that is known."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from onecycle.config.hyperparameters import Hyperparameters
from onecycle.config.validate import did_you_mean
from onecycle.errors import ConfigError
from onecycle.runs import record as run
from onecycle.runs.identity import settings
from onecycle.studies import curves
from onecycle.studies.effects import columns_of, filters_of
from onecycle.studies.plan import Point, column, finished
from onecycle.studies.rows import row_of
from onecycle.studies.study import ClaimOptions

# Parameters of figures that name a column of the rows, where they are texts.
NAMING = ("x", "y", "z", "by", "panels", "select_by", "column")
OF_METRICS = {"histories": ("x", "y")}  # these are columns of a run's metrics.csv
MEASURE_NOTHING = ("progress", "training_log", "checkpoint", "divergence", "figures")  # callbacks
RECORD: dict[str, Any] = {
    "status": "finished", "name": "", "test": {"accuracy": 0.0, "loss": 0.0}, "train": {"accuracy": 0.0, "loss": 0.0},
    "val": None, "epochs": 0.0, "steps": 0, "parameters": 0, "data": {"name": "", "train_size": 0},
    "hyperparameters": Hyperparameters(1, 0, 1, 1).coordinates(),
    "seconds": dict.fromkeys(("setup", "fit", "test", "total"), 0.0), "images_per_second": 0.0,
    "device": "cpu", "precision": "", "environment": {"threads": 1},
}  # fmt: skip


class ColumnCheck:
    """Raises ConfigError for a claim or figure that names a column which no row of the study can have.

    What callbacks measure is known with the first record, and where the runs have different callbacks, or those of
    other studies are read, only with all of them.
    """

    def __init__(self, study: dict[str, Any], points: Sequence[Point], config: DictConfig, folder: Path) -> None:
        self.study, self.folder = study, folder
        self.known = known_columns(study, points, config)
        blocks = [*(study.get("runs") or ()), *(study.get("searches") or ())]
        differ = any(_sets(group, "callbacks") for block in blocks for group in (block.get("fixed"), block.get("axes")))
        added = [name for name, part in (config.get("callbacks") or {}).items() if part is not None]
        measures = bool(set(added) - set(MEASURE_NOTHING)) or _sets(study.get("fixed"), "callbacks")
        self.is_open = measures and not differ and not study.get("records_of")
        if not (measures or differ or study.get("records_of")):
            self._refuse(self.known)

    def check(self, point: Point) -> None:
        """Look at the record of a run that has ended, if it is the first; raises as above."""
        path = finished(self.folder).get(settings(point.overrides)) if self.is_open else None
        record = run.read_result(path) if path else None
        if path and record and record["status"] == "finished":
            self.is_open = False
            self._refuse(self.known | row_of(point, path, record).keys())

    def _refuse(self, known: Collection[str]) -> None:
        lines = [
            f"{where}: no column {name!r}{did_you_mean(name, known) or '; there are ' + ', '.join(sorted(known))}"
            for where, name in dict.fromkeys(named_columns(self.study))
            if name not in known
        ]
        if lines:
            raise ConfigError(lines)


def known_columns(study: Mapping[str, Any], points: Sequence[Point], config: DictConfig) -> set[str]:
    """The columns that result from the form of a record, the axes, the searches and `derive`."""
    blocks, searches = list(study.get("runs") or ()), list(study.get("searches") or ())
    groups = [study.get("fixed"), *(block.get(key) for block in blocks + searches for key in ("fixed", "axes"))]
    record = dict(RECORD)
    if config.data.val_size or any(_sets(group, "data.val_size") for group in groups):
        record["val"] = record["train"]
    if config.evaluation.tta != "none" or any(_sets(group, "evaluation.tta") for group in groups):
        record["test"] = record["test"] | {"accuracy_tta": 0.0}
    found = {key for point in points for key in point.values} | row_of(Point("", {}, ()), Path(), record).keys()
    for block in searches:
        keys = [*(block.get("coordinates") or ()), *(block.get("space") or ())]
        found |= {"arm", "number", "seed", "coordinate", "decision", *map(column, keys)}
    return found | (curves.DERIVED[study["derive"]](Path()).keys() if study.get("derive") else set())


def _sets(group: Mapping[str, Any] | None, key: str) -> bool:
    return any(name.lstrip("+~").startswith(key) for name in group or {})


def named_columns(study: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Every column that a study names, after the place that names it."""
    for claim in study.get("claims") or ():
        where = f"claim {claim['id']}"
        given = {name: value for name, value in claim.items() if name not in ClaimOptions.model_fields}
        yield from ((where, name) for name in columns_of(claim["effect"], given).values())
        yield from ((where, name) for wanted in filters_of(given) for name in wanted)
    for number, figure in enumerate(study.get("figures") or ()):
        where = f"study.figures[{number}]"
        yield from ((f"{where}.where", name) for name in figure.get("where") or {})
        for parameter in set(NAMING) - set(OF_METRICS.get(figure["kind"], ())):
            if isinstance(figure.get(parameter), str):
                yield f"{where}.{parameter}", figure[parameter]
