"""The runs that a study consists of, and the file study.json that names them. Without torch and pandas."""

import itertools
import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from onecycle.errors import ConfigError
from onecycle.runs import record as run
from onecycle.runs.identity import settings

log = logging.getLogger(__name__)

PLAN = "study.json"


@dataclass(frozen=True)
class Point:
    """One run of a study: its short label, its values by axis, and its overrides in Hydra's syntax."""

    label: str
    values: dict[str, Any]
    overrides: tuple[str, ...]


@dataclass(frozen=True)
class Changes:
    """What the command line says beside the study's name: other values for axes, and overrides of every run."""

    axes: dict[str, list[Any]] = field(default_factory=dict)
    common: tuple[str, ...] = ()


@dataclass(frozen=True)
class Plan:
    """What study.json in a study's folder holds: the study at its scale, its runs and the command behind them."""

    study: dict[str, Any]
    points: list[Point]
    command: str


def write_plan(folder: Path, plan: Plan) -> None:
    """Note what a study consists of, before its first run."""
    runs = [{"label": p.label, "values": p.values, "overrides": list(p.overrides)} for p in plan.points]
    entries = {"study": plan.study, "command": plan.command, "runs": runs}
    folder.mkdir(parents=True, exist_ok=True)
    run.write_atomically(folder / PLAN, json.dumps(entries, indent=1) + "\n")


def read_plan(folder: Path) -> Plan:
    """The plan in a study's folder; raises ConfigError where there is none."""
    try:
        entries = json.loads((folder / PLAN).read_text())
        runs = [Point(entry["label"], entry["values"], tuple(entry["overrides"])) for entry in entries["runs"]]
        return Plan(entries["study"], runs, entries["command"])
    except FileNotFoundError:
        raise ConfigError([f"{folder}: holds no study yet; run it: make study NAME={folder.name}"]) from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigError([f"{folder / PLAN}: is not a study's plan ({error})"]) from None


def records(folder: Path) -> list[tuple[Path, dict[str, Any]]]:
    """Every run's folder and record below a study's folder; one that cannot be read counts as none, with a warning."""
    found = []
    for path in sorted(folder.glob(f"*/{run.RESULT}")):
        try:
            result = run.read_result(path.parent)
        except ConfigError as error:
            log.warning("%s: it counts as none.", error)
            continue
        if result:
            found.append((path.parent, result))
    return found


def finished(folder: Path) -> dict[tuple[str, ...], Path]:
    """The folder of every finished or diverged run by the overrides that can change a result.

    After a change of the program the same overrides may have two records: the newer one counts.
    """
    found: dict[tuple[str, ...], Path] = {}
    started: dict[tuple[str, ...], str] = {}
    for path, result in records(folder):
        key, start = settings(result["overrides"]), result.get("started", "")
        if result["status"] in run.DONE and start >= started.get(key, ""):
            found[key], started[key] = path, start
    return found


def points(study: Mapping[str, Any], changes: Changes | None = None) -> list[Point]:
    """Every run of a study at its scale, seed by seed, so that an interrupted study has whole comparisons.

    Raises ConfigError for changes of an axis that the study does not have.
    """
    changes = changes or Changes()
    blocks = study.get("runs") or []
    axes = {"seed", *(key for block in blocks for key in block.get("axes") or {})}
    unknown = [key for key in changes.axes if key not in axes]
    if unknown:
        raise ConfigError(
            [f"{key}: is no axis of {study['name']}, which has {', '.join(sorted(axes))}" for key in unknown]
        )
    seeds = changes.axes.get("seed", list(study["seeds"]))
    return [_point(study, block, values, changes.common) for seed in seeds for block in blocks
            for values in _combinations(block, changes.axes, seed)]  # fmt: skip


def search_points(
    study: Mapping[str, Any], block: Mapping[str, Any], number: int, values: Mapping[str, float], changes: Changes
) -> list[Point]:
    """The runs of one point of a search, one for each seed; `number` is the point's place in the search."""
    seeds = changes.axes.get("seed", list(study["seeds"]))
    made = [_point(study, block, {**values, "seed": seed}, changes.common) for seed in seeds]
    return [replace(point, values=point.values | {"number": number}) for point in made]


def again(point: Point, seed: int) -> Point:
    """A run of the best point of an arm with a seed that was not selected on, as the arm "best of …"."""
    arm = f"best of {point.values['arm']}"
    label = f"{arm},seed={seed}"
    kept = [override for override in point.overrides if not override.startswith(("seed=", "study.label="))]
    values = {key: value for key, value in point.values.items() if key != "number"} | {"arm": arm, "seed": seed}
    return Point(label, values, (*kept, f"study.label={override_text(label)}", f"seed={seed}"))


def _combinations(block: Mapping[str, Any], changed: Mapping[str, list[Any]], seed: Any) -> list[dict[str, Any]]:
    axes = {key: changed.get(key, list(values)) for key, values in (block.get("axes") or {}).items()}
    return [{**dict(zip(axes, values, strict=True)), "seed": seed} for values in itertools.product(*axes.values())]


def _point(study: Mapping[str, Any], block: Mapping[str, Any], values: dict[str, Any], common: Sequence[str]) -> Point:
    arm = block.get("arm")
    words = [str(arm)] if arm else []
    words += [f"{column(key)}={value}" for key, value in values.items() if not key.startswith("+")]
    label = ",".join(words)
    settings = {**study["fixed"], **(block.get("fixed") or {}), **values}
    named_by = (f"study={study['name']}", f"study.scale={study['scale']}", f"study.label={override_text(label)}")
    own = tuple(f"{key}={override_text(value)}" for key, value in settings.items())
    overrides = (*(named_by if study["scale"] else ()), *own, *common)
    named = {"arm": arm} if arm else {}
    columns = {column(key): value for key, value in values.items() if not key.startswith("+")}
    return Point(label, named | columns, overrides)


def column(key: str) -> str:
    """The name of a configuration key in tables: its last word."""
    return key.rsplit(".", 1)[-1]


def override_text(value: Any) -> str:
    """A value in the syntax of Hydra's overrides."""
    if isinstance(value, Mapping):
        return "{" + ",".join(f"{key}:{override_text(child)}" for key, child in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ",".join(override_text(child) for child in value) + "]"
    if isinstance(value, str):
        plain = value.isidentifier() and value.lower() not in ("null", "true", "false", "nan", "inf")
        return value if plain else "'" + value.replace("'", r"\'") + "'"
    return json.dumps(value)
