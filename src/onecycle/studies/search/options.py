"""What a search varies and how it is done: the blocks of a study's `searches`, and what a sweeper's command line says.

Nothing here imports torch, pandas or Optuna.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal, Self

import yaml
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import IntervalSweep, RangeSweep
from omegaconf import DictConfig, OmegaConf
from pydantic import Field, model_validator

from onecycle.callbacks.options import Pruner
from onecycle.config.types import Count, NonNegativeNumber, Number, Options, PositiveNumber, Seed, Text
from onecycle.config.validate import did_you_mean
from onecycle.errors import ConfigError
from onecycle.studies.plan import refuse_values

REFINEMENTS = 8  # at most: the 256th root of a factor is finer than any noise
PARAMETRISED = {"hyperparameters.effective_decay": "effective", "hyperparameters.per_example_lr": "per_example"}


class Coordinate(Options):
    """A hyperparameter to search along.

    start: its first value. factor: a step multiplies or divides by it. complement: the factor acts on 1 − value, as for
    a momentum, whose effect goes with 1/(1−ρ). low, high: the values allowed, ends included.
    """

    start: Number
    factor: Annotated[Number, Field(gt=1)] = 2.0
    complement: bool = False
    low: Number = 0.0
    high: Number | None = None

    @model_validator(mode="after")
    def _check_start(self) -> Self:
        if self.start <= 0 and not self.complement:
            raise ValueError(f"start={self.start} must be above 0, because steps multiply it")
        if self.at(0) is None:
            raise ValueError(f"start={self.start} must be between low and high, and in [0, 1) for a complement")
        return self

    def at(self, exponent: float) -> float | None:
        """The value `exponent` steps from the start; None outside of what is allowed.

        Upwards is towards the larger value: for a complement, towards the smaller 1 − value. After a fraction of a step
        a value has four digits.
        """
        scaled = (1 - self.start) * self.factor**-exponent if self.complement else self.start * self.factor**exponent
        # What the search writes into commands and tables should read like what a person would type.
        scaled = float(f"{scaled:.{12 if float(exponent).is_integer() else 4}g}")
        value = float(f"{1 - scaled if self.complement else scaled:.12g}")
        high, end = math.inf if self.high is None else self.high, 1 if self.complement else math.inf
        return value if self.low <= value <= high and 0 <= value < end else None


class OptunaAxis(Options):
    """A key to draw: one of `choices`, or a number (integer: a whole one) between `low` and `high`.

    log: evenly in its logarithm. step: only low, low + step, low + 2 step and so on. complement: 1 − value is drawn, as
    for a momentum; low and high are then those of 1 − value.
    """

    choices: Annotated[list[Any], Field(min_length=1)] | None = None
    low: Number | None = None
    high: Number | None = None
    log: bool = False
    step: PositiveNumber | None = None
    integer: bool = False
    complement: bool = False

    @model_validator(mode="after")
    def _check_ends(self) -> Self:
        if self.choices is not None:
            if self.model_fields_set != {"choices"}:
                raise ValueError("choices stand alone, without low, high, log, step, integer and complement")
        elif self.low is None or self.high is None:
            raise ValueError("must have low and high, or choices")
        elif self.low > self.high:
            raise ValueError(f"low={self.low} must be at most high={self.high}")
        elif self.integer and not all(isinstance(number, int) for number in (self.low, self.high, self.step or 1)):
            raise ValueError("low, high and step of an integer must be whole numbers")
        elif self.log and (self.low <= 0 or self.step not in (None, 1)):
            raise ValueError(f"low={self.low} must be above 0, and there is no step, for a logarithm")
        return self

    def value(self, drawn: Any) -> Any:
        """The key's value for what was drawn, with as many digits as a person would type."""
        drawn = 1 - drawn if self.complement else drawn
        return float(f"{drawn:.6g}") if isinstance(drawn, float) else drawn


class _Search(Options):
    """arm: the search's name. budget: points at most. fixed: overrides of each of its runs."""

    arm: Text
    budget: Count
    fixed: dict[str, Any] | None = None


class CoordinateSearch(_Search):
    """One hyperparameter after the other is multiplied by its factor until that makes it worse.

    min_gain: by how much a step must be better, such as the noise of a score. refinements: how often, where no
    coordinate moves, the factors become their square roots and it goes on.
    """

    method: Literal["coordinate"]
    coordinates: Annotated[dict[str, Coordinate], Field(min_length=1)]
    min_gain: NonNegativeNumber = 0.0
    refinements: Annotated[int, Field(ge=0, le=REFINEMENTS)] = 0

    def begun_at(self, start: Mapping[str, Any]) -> Self:
        """The same search from other first values, by key."""
        return self.model_validate(self.model_dump() | {"coordinates": {
            key: one.model_dump() | {"start": start.get(key, one.start)} for key, one in self.coordinates.items()
        }})  # fmt: skip


class OptunaSearch(_Search):
    """Optuna's samplers and pruners; their options have Optuna's names.

    storage: a database's URL, or "journal:PATH", a file that processes append to; null for one in the study's folder.
    """

    method: Literal["optuna"]
    space: Annotated[dict[str, OptunaAxis], Field(min_length=1)]
    sampler: Literal["tpe", "random", "gp", "cmaes", "qmc", "nsgaii"] = "tpe"
    sampler_options: dict[str, Any] = Field(default_factory=dict)
    pruner: Pruner = "none"
    pruner_options: dict[str, Any] = Field(default_factory=dict)
    storage: Text | None = None
    seed: Seed = 0


# A block of a study's `searches` has the options of its method.
METHODS: dict[str | None, type[CoordinateSearch | OptunaSearch]] = {
    "coordinate": CoordinateSearch, "optuna": OptunaSearch,
}  # fmt: skip


def coordinates_of(given: Sequence[Any], config: DictConfig) -> dict[str, dict[str, Any]]:
    """The coordinates by key; a coordinate without a start begins at the configuration's own value.

    A mapping on the command line would be merged with the default one: hence a list. Raises ConfigError, one line each,
    for an entry without a key, and a key that the configuration has not.
    """
    problems, found = [], {}
    for entry in given:
        key = entry.get("key") if isinstance(entry, dict) else None
        if not isinstance(key, str):
            problems.append(f"{entry} has no key, the name of a configuration value")
            continue
        parent, _, last = key.rpartition(".")
        node: Any = OmegaConf.select(config, parent) if parent else config
        if OmegaConf.is_dict(node) and last in node:
            own = {name: value for name, value in entry.items() if name != "key" and value is not None}
            found[key] = {"start": OmegaConf.select(config, key), **own}
        else:
            group = PARAMETRISED.get(key)
            hint = f"; set hyperparameters={group}" if group else did_you_mean(last, map(str, node or ()))
            problems.append(f"there is no key {key}{hint}")
    if problems:
        raise ConfigError([f"hydra.sweeper.coordinates: {line}" for line in problems])
    refuse_values({key: [entry["start"]] for key, entry in found.items()}, config)
    return found


def space_of(arguments: Sequence[str], config: DictConfig) -> tuple[dict[str, dict[str, Any]], list[str]]:
    """The axes that a command line gives as intervals, ranges and choices, and its other overrides.

    Ranges end below their stop, as Python's do. Raises ConfigError for a range that has no whole numbers, and an axis
    of whose ends or choices the configuration refuses one.
    """
    space: dict[str, dict[str, Any]] = {}
    rest = []
    for override in OverridesParser.create().parse_overrides(list(arguments)):
        key, value = override.get_key_element(), override.value()
        if isinstance(value, IntervalSweep):
            space[key] = {"low": float(value.start), "high": float(value.end), "log": "log" in value.tags}  # type: ignore[arg-type]
        elif isinstance(value, RangeSweep):
            numbers = list(value.range())
            if not numbers or not all(isinstance(number, int) for number in numbers):
                raise ConfigError([f"{override.input_line}: must have whole numbers; an interval has others"])
            step = abs(int(value.step))
            space[key] = {"low": min(numbers), "high": max(numbers), "integer": True, "log": "log" in value.tags}
            space[key] |= {"step": step} if step != 1 else {}
        elif override.is_sweep_override():
            space[key] = {"choices": [yaml.safe_load(choice) for choice in override.sweep_string_iterator()]}
        else:
            rest.append(override.input_line or "")
    refuse_values({key: axis.get("choices") or [axis["low"], axis["high"]] for key, axis in space.items()}, config)
    return space, rest
