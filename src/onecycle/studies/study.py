"""From a study's configuration to the runs that it consists of. Without torch: a bad study is refused at once."""

import itertools
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from onecycle.config.hyperparameters import is_finite_number
from onecycle.errors import ConfigError
from onecycle.studies import claims
from onecycle.studies.search import coordinate as search
from onecycle.studies.search import space as search_space

KEYS = (
    "name", "title", "question", "source", "scale", "force", "label", "records_of", "derive", "seeds", "fixed", "runs",
    "searches", "confirm", "scales", "figures", "published", "claims", "notes",
)  # fmt: skip
SCALED = ("seeds", "fixed", "runs", "searches", "confirm", "minutes", "notes")
BLOCK = ("arm", "fixed", "axes")
SEARCH = (
    "arm", "fixed", "method", "budget", "coordinates", "space", "min_gain", "refinements", "seed", "sampler",
    "sampler_options", "pruner", "pruner_options", "storage",
)  # fmt: skip
REFINEMENTS = 8  # at most: the 256th root of a factor is finer than any noise


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


def problems(config: DictConfig) -> list[str]:
    """Every problem of the study in a composed configuration, a line each."""
    try:
        at_scale(OmegaConf.to_container(config.study, resolve=True))  # type: ignore[arg-type]
    except ConfigError as error:
        return error.problems
    except OmegaConfBaseException:
        return []  # a value that cannot be resolved is for the whole configuration to report
    return []


def _run_problems(study: Mapping[str, Any]) -> list[str]:
    problems = []
    runs, seeds = study.get("runs") or [], study.get("seeds")
    searches = study.get("searches") or []
    if not runs and not searches and not study.get("records_of"):
        problems.append("study.runs: is empty; name at least one run, or a search, or studies in records_of")
    again = study.get("confirm") or []
    if not isinstance(seeds, Sequence) or isinstance(seeds, str) or not seeds:
        problems.append(f"study.seeds={seeds}: must be a list of at least one seed")
    elif not isinstance(again, Sequence) or isinstance(again, str) or set(again) & set(seeds):
        problems.append(f"study.confirm={again}: must be a list of seeds that are not in study.seeds")
    for number, block in enumerate(runs):
        where = f"study.runs[{number}]"
        problems += [f"{where}.{key}: unknown{_hint(key, BLOCK)}" for key in block if key not in BLOCK]
        for axis, values in (block.get("axes") or {}).items():
            if not isinstance(values, Sequence) or isinstance(values, str) or not values:
                problems.append(f"{where}.axes.{axis}={values}: must be a list of at least one value")
    for number, block in enumerate(searches):
        problems += [f"study.searches[{number}].{line}" for line in _search_problems(block)]
    return problems


def _search_problems(block: Mapping[str, Any]) -> list[str]:
    problems = [f"{key}: unknown{_hint(key, SEARCH)}" for key in block if key not in SEARCH]
    budget = block.get("budget")
    if not block.get("arm"):
        problems.append("arm: is missing; each search has a name")
    if block.get("method") not in METHODS:
        problems.append(f"method={block.get('method')}: unknown; there are {', '.join(METHODS)}")
    if not isinstance(budget, int) or isinstance(budget, bool) or budget < 1:
        problems.append(f"budget={budget}: must be a whole number of points, at least 1")
    if not problems:
        try:
            walk(block)
        except ConfigError as error:
            problems += error.problems
    return problems


def of_search(name: str, seeds: Sequence[int], block: Mapping[str, Any]) -> dict[str, Any]:
    """A study that is one search, without a file in conf/study; raises ConfigError with every mistake in it.

    Its scale is None: no run of it names a study.
    """
    method = block.get("method")
    drawn = list(block.get("coordinates") or block.get("space") or {})
    plane = {"schedule.peak_lr", "hyperparameters.effective_decay"} & set(
        drawn
    ) and "hyperparameters.weight_decay" in drawn
    path = {"kind": "path", "name": "path", "x": "peak_lr", "y": "weight_decay", "z": "val_accuracy"}
    plots = [{"kind": "optuna", "show": show, "name": f"optuna_{show}"} for show in ("history", "importance", "slice")]
    own = (
        [{**plot, "arm": block["arm"], "kept_in": block.get("storage")} for plot in plots] if method == "optuna" else []
    )
    progress = {"kind": "progress", "y": "test_accuracy", "select_by": "val_accuracy"}
    study = {
        "name": name, "title": f"Search: {name}",
        "question": f"Which values of {', '.join(map(column, drawn))} are best?",
        "scale": "search", "scales": {"search": None}, "force": False, "seeds": list(seeds), "searches": [block],
        "figures": [progress, *[path] * bool(plane), *own],
    }  # fmt: skip
    try:
        return {**at_scale(study), "scale": None}
    except ConfigError as error:  # named as on the command line
        given = [line.replace("study.searches[0].", "hydra.sweeper.") for line in error.problems]
        raise ConfigError([line.replace("study.seeds", "hydra.sweeper.seeds") for line in given]) from None


def walk(
    block: Mapping[str, Any], width: int = 1, folder: Path | None = None, told: search.Told = search.untold
) -> search.Search:
    """The search that a block of `searches` describes; raises ConfigError with every mistake.

    width: points to ask for at once. folder: where the runs and what the search itself remembers are kept; None where
    it is only checked. told: called with each step when it is decided.
    """
    return METHODS[block["method"]](block, width, folder, told)


def _coordinate(block: Mapping[str, Any], width: int, folder: Path | None, told: search.Told) -> search.Search:
    gain, refinements = block.get("min_gain", 0.0), block.get("refinements", 0)
    problems = []
    if not is_finite_number(gain) or gain < 0:
        problems.append(f"min_gain={gain}: must be a number of at least 0")
    if not isinstance(refinements, int) or isinstance(refinements, bool) or not 0 <= refinements <= REFINEMENTS:
        problems.append(f"refinements={refinements}: must be a whole number from 0 to {REFINEMENTS}")
    if problems:
        raise ConfigError(problems)
    axes = search_space.coordinates(block.get("coordinates") or {})
    pairs, budget = width > 1, block["budget"]
    return search.search(axes, budget=budget, pairs=pairs, min_gain=gain, refinements=refinements, told=told)


def _random(block: Mapping[str, Any], width: int, folder: Path | None, told: search.Told) -> search.Search:
    space = search_space.intervals(block.get("space") or {})
    return search.random_search(space, budget=block["budget"], seed=block.get("seed") or 0, told=told)


def _optuna(block: Mapping[str, Any], width: int, folder: Path | None, told: search.Told) -> search.Search:
    from onecycle.studies.search import trials  # Optuna is optional, and slow to import

    return trials.search(block, width, folder, told)


METHODS: dict[str, Callable[[Mapping[str, Any], int, Path | None, search.Told], search.Search]] = {
    "coordinate": _coordinate, "random": _random, "optuna": _optuna,
}  # fmt: skip


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
    return Point(label, values, (*kept, f"study.label={text(label)}", f"seed={seed}"))


def _combinations(block: Mapping[str, Any], changed: Mapping[str, list[Any]], seed: Any) -> list[dict[str, Any]]:
    axes = {key: changed.get(key, list(values)) for key, values in (block.get("axes") or {}).items()}
    return [{**dict(zip(axes, values, strict=True)), "seed": seed} for values in itertools.product(*axes.values())]


def _point(study: Mapping[str, Any], block: Mapping[str, Any], values: dict[str, Any], common: Sequence[str]) -> Point:
    arm = block.get("arm")
    words = [str(arm)] if arm else []
    words += [f"{column(key)}={value}" for key, value in values.items() if not key.startswith("+")]
    label = ",".join(words)
    settings = {**study["fixed"], **(block.get("fixed") or {}), **values}
    named_by = (f"study={study['name']}", f"study.scale={study['scale']}", f"study.label={text(label)}")
    own = tuple(f"{key}={text(value)}" for key, value in settings.items())
    overrides = (*(named_by if study["scale"] else ()), *own, *common)
    named = {"arm": arm} if arm else {}
    columns = {column(key): value for key, value in values.items() if not key.startswith("+")}
    return Point(label, named | columns, overrides)


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
