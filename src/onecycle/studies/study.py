"""From a study's configuration to the study at its scale. Without torch: a bad study is refused at once."""

from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from onecycle.errors import ConfigError
from onecycle.studies import claims
from onecycle.studies.plan import column
from onecycle.studies.search.options import search_errors

KEYS = (
    "name", "title", "question", "source", "scale", "force", "label", "records_of", "derive", "seeds", "fixed", "runs",
    "searches", "confirm", "scales", "figures", "published", "claims", "notes",
)  # fmt: skip
SCALED = ("seeds", "fixed", "runs", "searches", "confirm", "minutes", "notes")
BLOCK = ("arm", "fixed", "axes")


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


def study_errors(config: DictConfig) -> list[str]:
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
        problems += [f"study.searches[{number}].{line}" for line in search_errors(block)]
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


def _claim_problems(claim: Mapping[str, Any]) -> list[str]:
    try:
        claims.check(claim)
    except claims.ClaimError as error:
        return [str(error)]
    return []


def _hint(key: str, known: Sequence[str]) -> str:
    near = get_close_matches(key, known, n=1)
    return f"; did you mean {near[0]}?" if near else f"; there are {', '.join(known)}"
