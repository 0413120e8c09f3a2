"""What a study's configuration may say, and the study at its scale. Without torch: a bad study is refused at once."""

import contextlib
import math
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal, Self, cast

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from pydantic import ConfigDict, Field, create_model, model_validator

from onecycle.config.types import Count, NonNegativeNumber, Number, Options, Seed, Text
from onecycle.config.validate import errors_of
from onecycle.errors import ConfigError, problems_of
from onecycle.studies.effects import EFFECTS, Column, Where, parameters_of
from onecycle.studies.plan import column
from onecycle.studies.search.options import METHODS

Overrides = dict[str, Any]
Seeds = Annotated[list[Seed], Field(min_length=1)]
Starts = Annotated[list[dict[str, Any]], Field(min_length=1)]
Blocks = list[dict[str, Any]]  # each is checked by itself; see `BLOCKS`


class RunOptions(Options):
    """A block of `runs`, called `arm`: a run for each combination of values of its axes, by key, and each seed."""

    arm: Text | None = None
    fixed: Overrides | None = None
    axes: dict[str, Annotated[list[Any], Field(min_length=1)]] | None = None


FigureKind = Literal[
    "curves", "histories", "lists", "progress", "arms", "scatter", "stacked", "layers", "heat_map_pair", "path",
    "surfaces", "optuna",
]  # fmt: skip


class FigureOptions(Options):
    """A figure: its kind, the rows that it shows, and the parameters of its kind."""

    model_config = ConfigDict(extra="allow")

    kind: FigureKind
    name: Text | None = None
    where: Where | None = None


class PublishedRowOptions(Options):
    """A published number, or several, and the rows that measure the same here."""

    text: Text
    value: Number | Annotated[list[Number], Field(min_length=1)]
    metric: Column | None = None
    of: Where | None = None


class PublishedOptions(Options):
    """What others have published of the metric."""

    metric: Column
    source: Text
    rows: Blocks


class ScaleOptions(Options):
    """What a study is at a scale: `fixed` is joined with that of the study, everything else replaces it."""

    seeds: Seeds | None = None
    fixed: Overrides | None = None
    runs: Blocks | None = None
    searches: Blocks | None = None
    starts: Starts | None = None
    confirm: list[Seed] | None = None
    notes: str | None = None


class StudyOptions(Options):
    """The keys of a study.

    records_of: studies whose runs are read here. derive: numbers read from each run's curves. fixed: overrides of every
    run. plan: print what the study will cost and decide instead of running it. budget_minutes: add seeds within so much
    time of runs while a claim is undecided. at_once: so many runs at a time, on a CPU by default one a core. confirm:
    seeds with which the best point of each arm runs again. starts: for each seed the point, by key, from which every
    search is made once with this seed alone; the best of each is then confirmed with one seed. label: set for each run
    by the study.
    """

    name: Text
    title: Text
    question: str | None = None
    source: str | None = None
    scale: Text
    force: bool = False
    plan: bool = False
    budget_minutes: Annotated[float, Field(gt=0)] | None = None
    at_once: Count | None = None
    label: str | None = None
    records_of: list[Text] | None = None
    derive: Literal["range_test"] | None = None
    seeds: Seeds
    fixed: Overrides | None = None
    runs: Blocks | None = None
    searches: Blocks | None = None
    starts: Starts | None = None
    confirm: list[Seed] | None = None
    scales: dict[str, dict[str, Any] | None]
    figures: Blocks | None = None
    published: PublishedOptions | None = None
    claims: Blocks | None = None
    notes: str | None = None


class ClaimOptions(Options):
    """A claim about an effect, whose parameters stand beside these keys; see `effects`.

    at_least, at_most: bounds of the effect. assumed_sd: the standard deviation of the metric from run to run where
    there is one seed alone; 0 for an exact effect. margin_from: where the bound comes from. if_not: the likely reason
    where the claim does not hold.
    """

    id: Text
    text: str
    unit: str
    source: str | None = None
    margin_from: str | None = None
    if_not: str | None = None
    effect: Text
    at_least: Number | None = None
    at_most: Number | None = None
    assumed_sd: NonNegativeNumber | None = None

    @model_validator(mode="after")
    def _check_bounds(self) -> Self:
        if self.at_least is None and self.at_most is None:
            raise ValueError("at_least, at_most: at least one must be a number")
        if self.bounds[0] > self.bounds[1]:
            raise ValueError(f"at_least={self.at_least}: must be at most at_most={self.at_most}")
        return self

    @property
    def bounds(self) -> tuple[float, float]:
        """The least and the largest effect of which the claim is true."""
        least = -math.inf if self.at_least is None else self.at_least
        return least, math.inf if self.at_most is None else self.at_most

    @property
    def parameters(self) -> dict[str, Any]:
        """What the claim hands to its effect."""
        return {name: getattr(self, name) for name in parameters_of(self.effect)}


# The keys of a claim about each effect: those of every claim and the effect's parameters.
CLAIMS: dict[str | None, type[ClaimOptions]] = {
    effect: create_model(f"{effect}_claim", __base__=ClaimOptions, **cast("dict[str, Any]", parameters_of(effect)))
    for effect in EFFECTS
}
# What the blocks of a list are: by the value of one of their keys, where there is a choice.
BLOCKS: dict[str, tuple[str, Mapping[str | None, type[Options]]]] = {
    "runs": ("", {None: RunOptions}), "figures": ("", {None: FigureOptions}),
    "published.rows": ("", {None: PublishedRowOptions}), "searches": ("method", METHODS), "claims": ("effect", CLAIMS),
}  # fmt: skip


def block_errors(kind: str, block: Mapping[str, Any], where: str) -> list[str]:
    """A line for each error of a block of a kind in `BLOCKS` that stands at the key `where`."""
    key, classes = BLOCKS[kind]
    if block.get(key) not in classes:
        return [f"{where}.{key}={block.get(key)}: must be one of {', '.join(map(str, classes))}"]
    return errors_of(classes[block.get(key)], block, where)


def study_errors(config: DictConfig) -> list[str]:
    """A line for each error of the study in a composed configuration."""
    with contextlib.suppress(OmegaConfBaseException):  # which is for the whole configuration to report
        study = cast("dict[str, Any]", OmegaConf.to_container(config.study, resolve=True))
        return problems_of(lambda: at_scale(study))
    return []


def at_scale(study: Mapping[str, Any]) -> dict[str, Any]:
    """The study with the values of its scale in place: `fixed` joined, the others replaced.

    Raises ConfigError with every error of the study, one line each.
    """
    lines = _group_errors(StudyOptions, study, "study")
    scales: Any = study.get("scales")
    for name, group in scales.items() if isinstance(scales, Mapping) else ():
        if isinstance(group, Mapping):
            lines += _group_errors(ScaleOptions, group, f"study.scales.{name}")
    if not lines and study["scale"] not in scales:
        lines = [f"study.scale={study['scale']}: must be one of {', '.join(scales)}"]
    if lines:
        raise ConfigError(lines)
    own = scales[study["scale"]] or {}
    scaled = {**study, **own, "fixed": {**(study.get("fixed") or {}), **(own.get("fixed") or {})}}
    if not any(scaled.get(key) for key in ("runs", "searches", "records_of")):
        lines.append("study.runs: must have at least one run, or there must be searches or records_of")
    if scaled.get("budget_minutes") and (scaled.get("searches") or scaled.get("confirm") or not scaled.get("runs")):
        lines.append(f"study.budget_minutes={scaled['budget_minutes']}: seeds are added to runs, not to searches")
    if set(scaled.get("confirm") or ()) & set(scaled["seeds"]):
        lines.append(f"study.confirm={scaled['confirm']}: must be seeds that are not in study.seeds")
    if scaled.get("confirm") and not all(block.get("arm") for block in scaled.get("runs") or ()):
        lines.append("study.confirm: the best point of each arm is confirmed; give every block of study.runs an arm")
    if starts := scaled.get("starts"):
        if not len(starts) == len(scaled["seeds"]) == len(scaled.get("confirm") or scaled["seeds"]):
            lines.append(f"study.starts: has {len(starts)}; must have one for each of study.seeds and study.confirm")
        wanted = {key for block in scaled.get("searches") or () for key in block.get("coordinates") or block["space"]}
        for number, start in enumerate(starts):
            lines += [f"study.starts[{number}]: has no {key}" for key in sorted(wanted - start.keys())]
    if lines:
        raise ConfigError(lines)
    return scaled


def _group_errors(options: type[Options], group: Mapping[str, Any], where: str) -> list[str]:
    lines = errors_of(options, group, where)
    for kind in BLOCKS:
        blocks: Any = group
        for key in kind.split("."):
            blocks = blocks.get(key) if isinstance(blocks, Mapping) else None
        for number, block in enumerate(blocks if isinstance(blocks, list) else ()):
            if isinstance(block, Mapping):  # else it is an error of the list's own type
                lines += block_errors(kind, block, f"{where}.{kind}[{number}]")
    return lines


def of_search(name: str, seeds: Sequence[int], block: Mapping[str, Any]) -> dict[str, Any]:
    """A study that is one search. Its scale is None: no run names it. Raises ConfigError with every error in it."""
    drawn = list(block.get("coordinates") or block.get("space") or {})
    progress = {"kind": "progress", "y": "test_accuracy", "select_by": "val_accuracy"}
    path = {"kind": "path", "name": "path", "x": "peak_lr", "y": "weight_decay", "z": "val_accuracy"}
    rates = {"schedule.peak_lr", "hyperparameters.effective_decay"} & set(drawn)
    figures = [progress, *[path] * bool(rates and "hyperparameters.weight_decay" in drawn)]
    if block.get("method") == "optuna":
        own = {"kind": "optuna", "arm": block["arm"], "kept_in": block.get("storage")}
        figures += [{**own, "show": show, "name": f"optuna_{show}"} for show in ("history", "importance", "slice")]
    study = {
        "name": name, "title": f"Search: {name}",
        "question": f"Which values of {', '.join(map(column, drawn))} are best?",
        "scale": "search", "scales": {"search": None}, "force": False, "seeds": seeds, "searches": [block],
        "figures": figures,
    }  # fmt: skip
    try:
        return {**at_scale(study), "scale": None}
    except ConfigError as error:  # named as on the command line
        given = [line.replace("study.searches[0].", "hydra.sweeper.") for line in error.problems]
        raise ConfigError([line.replace("study.seeds", "hydra.sweeper.seeds") for line in given]) from None
