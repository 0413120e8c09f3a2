"""The runs of a study, what a command line changes of them, and the file study.json. Without torch and pandas."""

import itertools
import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import yaml
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from onecycle.config.compose import plain, without_hydra
from onecycle.config.validate import training_errors
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
    """What study.json in a study's folder holds: the study at its scale, its runs and the command that made them."""

    study: dict[str, Any]
    points: list[Point]
    command: str


def read_changes(arguments: Sequence[str], study: Mapping[str, Any]) -> Changes:
    """What a command line, whose values are valid, changes of a study."""
    axes: dict[str, list[Any]] = {}
    common = []
    known = _axes(study)
    for override in OverridesParser.create().parse_overrides(list(arguments)):
        key = override.get_key_element().lstrip("+~")
        if key == "study" or key.startswith(("study.", "hydra.", "hydra/")):
            continue
        if override.is_sweep_override():
            axes[key] = [yaml.safe_load(value) for value in override.sweep_string_iterator()]
        elif key in known:
            axes[key] = [override.value()]
        else:
            common.append(override.input_line or "")
    return Changes(axes, tuple(common))


def refuse_values(values: Mapping[str, Sequence[Any]], config: DictConfig) -> None:
    """Raise ConfigError, one line each, for values of keys that the configuration's own rules refuse.

    Nothing is said of a key that the configuration has not, for the runs may choose its group, nor of such a choice.
    """
    problems = []
    for key, given in values.items():
        is_group = OmegaConf.is_dict(OmegaConf.select(config, key, throw_on_resolution_failure=False))
        for value in given:
            if is_group and isinstance(value, str):
                continue
            own = without_hydra(config)
            try:
                OmegaConf.update(own, key, value)
                problems += [line for line in training_errors(plain(own)) if line.startswith(f"{key}=")]
            except (OmegaConfBaseException, ValueError):
                continue
    if problems:
        raise ConfigError(list(dict.fromkeys(problems)))


def write_plan(folder: Path, plan: Plan) -> None:
    """Note what a study consists of, before its first run."""
    entries = {"study": plan.study, "command": plan.command, "runs": [asdict(point) for point in plan.points]}
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


def finished_runs(folder: Path) -> dict[tuple[str, ...], tuple[Path, dict[str, Any]]]:
    """Folder and record of every finished or diverged run, by the overrides that can change a result.

    Of two records of the same overrides the newer one counts. One that cannot be read counts as none, with a warning.
    """
    found = []
    for path in sorted(folder.glob(f"*/{run.RESULT}")):
        try:
            result = run.read_result(path.parent)
        except ConfigError as error:
            log.warning("%s: it counts as none.", error)
            continue
        if result and result["status"] in run.DONE:
            found.append((path.parent, result))
    found.sort(key=lambda one: one[1].get("started", ""))
    return {settings(result["overrides"]): (path, result) for path, result in found}


def points(study: Mapping[str, Any], changes: Changes | None = None) -> list[Point]:
    """Every run of a study at its scale, seed by seed, so that an interrupted study has whole comparisons.

    Raises ConfigError for changes of an axis that the study does not have.
    """
    changes = changes or Changes()
    axes = _axes(study)
    if unknown := [key for key in changes.axes if key not in axes]:
        known = ", ".join(sorted(axes))
        raise ConfigError([f"{key}: is no axis of {study['name']}, which has {known}" for key in unknown])
    found = []
    for seed, block in itertools.product(seeds_of(study, changes), study.get("runs") or ()):
        own = {key: changes.axes.get(key, values) for key, values in (block.get("axes") or {}).items()}
        for values in itertools.product(*own.values()):
            found.append(_point(study, block, dict(zip(own, values, strict=True)) | {"seed": seed}, changes))
    return found


def search_points(
    study: Mapping[str, Any], block: Mapping[str, Any], number: int, values: Mapping[str, float], changes: Changes,
    seeds: Sequence[int] | None = None,
) -> list[Point]:  # fmt: skip
    """The runs of one point of a search, one for each of `seeds`, else for each of the study's.

    number: the point's place in the search.
    """
    made = [_point(study, block, {**values, "seed": seed}, changes) for seed in seeds or seeds_of(study, changes)]
    return [replace(point, values=point.values | {"number": number}) for point in made]


def confirmation(point: Point, seed: int) -> Point:
    """A run of the best point of an arm with a seed that was not selected on, as the arm "best of …"."""
    values = {key: value for key, value in point.values.items() if key != "number"}
    values |= {"arm": f"best of {values['arm']}", "seed": seed}
    label = f"{values['arm']},seed={seed}"
    kept = [override for override in point.overrides if not override.startswith(("seed=", "study.label="))]
    return Point(label, values, (*kept, f"study.label={override_text(label)}", f"seed={seed}"))


def seeds_of(study: Mapping[str, Any], changes: Changes) -> list[Any]:
    """The seeds of a study's runs."""
    return list(changes.axes.get("seed", study["seeds"]))


def _axes(study: Mapping[str, Any]) -> set[str]:
    return {"seed", *(key for block in study.get("runs") or () for key in block.get("axes") or ())}


def _point(study: Mapping[str, Any], block: Mapping[str, Any], values: dict[str, Any], changes: Changes) -> Point:
    columns = {"arm": block["arm"]} if block.get("arm") else {}
    apart = {"start": values["seed"]} if study.get("starts") else {}
    axes = {column(key): value for key, value in values.items() if not key.startswith("+")}
    varied = ",".join(f"{name}={value}" for name, value in axes.items())
    label = ",".join([*columns.values(), varied])
    named_by = [f"+study.label={override_text(varied)}"]  # of a search around a configuration
    if study["scale"]:
        named_by = [f"study={study['name']}", f"study.scale={study['scale']}", f"study.label={override_text(label)}"]
    given = {**study["fixed"], **(block.get("fixed") or {}), **values}
    own = [f"{key}={override_text(value)}" for key, value in given.items()]
    return Point(label, columns | axes | apart, (*named_by, *own, *changes.common))


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
        is_plain = value.isidentifier() and value.lower() not in ("null", "true", "false", "nan", "inf")
        return value if is_plain else "'" + value.replace("'", r"\'") + "'"
    return json.dumps(value)
