"""From a study's configuration to the runs that it consists of. Without torch: a bad study is refused at once."""

import itertools
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import Any

from onecycle.faults import ConfigError
from onecycle.studies import claims

KEYS = (
    "name", "title", "question", "source", "scale", "force", "label", "records_of", "derive", "seeds", "fixed", "runs",
    "scales", "figures", "published", "claims", "notes",
)  # fmt: skip
SCALED = ("seeds", "fixed", "runs", "minutes", "notes")
BLOCK = ("arm", "fixed", "axes")


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


def at_scale(study: Mapping[str, Any]) -> dict[str, Any]:
    """The study with the values of its scale in place: `seeds` and `runs` replaced, `fixed` joined.

    Raises ConfigError with every problem of the study, one line each.
    """
    problems = [f"study.{key}: unknown{_hint(key, KEYS)}" for key in study if key not in KEYS]
    scales = study.get("scales") or {}
    scale = study.get("scale")
    if scale not in scales:
        problems.append(f"study.scale={scale}: unknown; {study.get('name')} has {', '.join(scales)}")
    if problems:
        raise ConfigError(problems)
    own = scales[scale] or {}
    scaled = {**study, **{key: value for key, value in own.items() if key != "fixed"}}
    scaled["fixed"] = {**(study.get("fixed") or {}), **(own.get("fixed") or {})}
    problems = [f"study.scales.{scale}.{key}: unknown{_hint(key, SCALED)}" for key in own if key not in SCALED]
    problems += _run_problems(scaled) + [
        line for claim in scaled.get("claims") or () for line in _claim_problems(claim)
    ]
    if problems:
        raise ConfigError(problems)
    return scaled


def _run_problems(study: Mapping[str, Any]) -> list[str]:
    problems = []
    runs, seeds = study.get("runs") or [], study.get("seeds")
    if not runs and not study.get("records_of"):
        problems.append("study.runs: is empty; name at least one run, or studies in records_of")
    if not isinstance(seeds, Sequence) or isinstance(seeds, str) or not seeds:
        problems.append(f"study.seeds={seeds}: must be a list of at least one seed")
    for number, block in enumerate(runs):
        where = f"study.runs[{number}]"
        problems += [f"{where}.{key}: unknown{_hint(key, BLOCK)}" for key in block if key not in BLOCK]
        for axis, values in (block.get("axes") or {}).items():
            if not isinstance(values, Sequence) or isinstance(values, str) or not values:
                problems.append(f"{where}.axes.{axis}={values}: must be a list of at least one value")
    return problems


def _claim_problems(claim: Mapping[str, Any]) -> list[str]:
    try:
        claims.check(claim)
    except claims.ClaimError as error:
        return [str(error)]
    return []


def _hint(key: str, known: Sequence[str]) -> str:
    near = get_close_matches(key, known, n=1)
    return f"; did you mean {near[0]}?" if near else f"; there are {', '.join(known)}"


def points(study: Mapping[str, Any], changes: Changes | None = None) -> list[Point]:
    """Every run of a study at its scale, seed by seed, so that an interrupted study has whole comparisons.

    Raises ConfigError for changes of an axis that the study does not have.
    """
    changes = changes or Changes()
    blocks = study["runs"] or []
    axes = {"seed", *(key for block in blocks for key in block.get("axes") or {})}
    unknown = [key for key in changes.axes if key not in axes]
    if unknown:
        raise ConfigError(
            [f"{key}: is no axis of {study['name']}, which has {', '.join(sorted(axes))}" for key in unknown]
        )
    seeds = changes.axes.get("seed", list(study["seeds"]))
    return [_point(study, block, values, changes.common) for seed in seeds for block in blocks
            for values in _combinations(block, changes.axes, seed)]  # fmt: skip


def _combinations(block: Mapping[str, Any], changed: Mapping[str, list[Any]], seed: Any) -> list[dict[str, Any]]:
    axes = {key: changed.get(key, list(values)) for key, values in (block.get("axes") or {}).items()}
    return [{**dict(zip(axes, values, strict=True)), "seed": seed} for values in itertools.product(*axes.values())]


def _point(study: Mapping[str, Any], block: Mapping[str, Any], values: dict[str, Any], common: Sequence[str]) -> Point:
    arm = block.get("arm")
    words = [str(arm)] if arm else []
    words += [f"{column(key)}={value}" for key, value in values.items()]
    label = ",".join(words)
    settings = {**study["fixed"], **(block.get("fixed") or {}), **values}
    overrides = (
        f"study={study['name']}", f"study.scale={study['scale']}", f"study.label={text(label)}",
        *(f"{key}={text(value)}" for key, value in settings.items()), *common,
    )  # fmt: skip
    named = {"arm": arm} if arm else {}
    return Point(label, named | {column(key): value for key, value in values.items()}, overrides)


def column(key: str) -> str:
    """The name of a configuration key in tables: its last word."""
    return key.rsplit(".", 1)[-1]


def text(value: Any) -> str:
    """A value in the syntax of Hydra's overrides."""
    if isinstance(value, Mapping):
        return "{" + ",".join(f"{key}:{text(child)}" for key, child in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ",".join(text(child) for child in value) + "]"
    if isinstance(value, str):
        plain = value.isidentifier() and value.lower() not in ("null", "true", "false", "nan", "inf")
        return value if plain else "'" + value.replace("'", r"\'") + "'"
    return json.dumps(value)
