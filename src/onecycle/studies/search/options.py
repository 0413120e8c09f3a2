"""What a search varies and how it is done: the blocks of a study's `searches`, and the options of search sweepers.

Nothing here imports torch, pandas or Optuna.
"""

import math
from collections.abc import Mapping
from difflib import get_close_matches
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

from pydantic import Field, TypeAdapter, ValidationError, model_validator

from onecycle.config.types import Count, NonNegativeNumber, Number, Options, PositiveNumber, Seed, Text

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails

REFINEMENTS = 8  # at most: the 256th root of a factor is finer than any noise


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


class Interval(Options):
    """A hyperparameter to draw between `low` and `high`, evenly or, with `log`, evenly in its logarithm.

    complement: 1 − value is what is drawn, as for a momentum; low and high are then those of 1 − value.
    """

    low: Number
    high: Number
    log: bool = True
    complement: bool = False

    @model_validator(mode="after")
    def _check_ends(self) -> Self:
        if not self.low < self.high:
            raise ValueError(f"low={self.low} must be below high={self.high}")
        if self.log and self.low <= 0:
            raise ValueError(f"low={self.low} must be above 0 for a logarithm; or set log: false")
        return self

    def at(self, share: float) -> float:
        """The value at a share of the way from `low` to `high`, in [0, 1]."""
        if self.log:
            drawn = math.exp(math.log(self.low) + share * (math.log(self.high) - math.log(self.low)))
        else:
            drawn = self.low + share * (self.high - self.low)
        return float(f"{1 - drawn if self.complement else drawn:.6g}")


class OptunaAxis(Options):
    """A key that Optuna draws: one of `choices`, or a number (integer: a whole one) between `low` and `high`.

    log: evenly in its logarithm. step: only low, low + step, low + 2 step and so on. complement: 1 − value is drawn.
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
        numbers = [number for number in (self.low, self.high, self.step) if number is not None]
        if self.choices is not None:
            if numbers or self.log or self.integer:
                raise ValueError("choices have no low, high, log, step or integer")
            return self
        if self.low is None or self.high is None:
            raise ValueError("must have low and high, or choices")
        if self.low > self.high:
            raise ValueError(f"low={self.low} must be at most high={self.high}")
        if self.integer and not all(isinstance(number, int) for number in numbers):
            raise ValueError("low, high and step of an integer must be whole numbers")
        if self.log and (self.low <= 0 or self.step not in (None, 1)):
            raise ValueError(f"low={self.low} must be above 0, and there is no step, for a logarithm")
        return self


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


class RandomSearch(_Search):
    """Independent draws; equal seeds draw the same points."""

    method: Literal["random"]
    space: Annotated[dict[str, Interval], Field(min_length=1)]
    seed: Seed = 0


class OptunaSearch(_Search):
    """Optuna's samplers and pruners; their options have Optuna's names.

    storage: a database's URL, or "journal:PATH", a file that processes append to; null for one in the study's folder.
    """

    method: Literal["optuna"]
    space: Annotated[dict[str, OptunaAxis], Field(min_length=1)]
    sampler: Literal["tpe", "random", "gp", "cmaes", "qmc", "nsgaii"] = "tpe"
    sampler_options: dict[str, Any] = Field(default_factory=dict)
    pruner: Literal["none", "median", "percentile", "hyperband", "halving"] = "none"
    pruner_options: dict[str, Any] = Field(default_factory=dict)
    storage: Text | None = None
    seed: Seed = 0


# A block of a study's `searches`: its method says which options it has.
SearchOptions = Annotated[CoordinateSearch | RandomSearch | OptunaSearch, Field(discriminator="method")]
SEARCH_OPTIONS: TypeAdapter[CoordinateSearch | RandomSearch | OptunaSearch] = TypeAdapter(SearchOptions)
METHODS: dict[str, type[Options]] = {"coordinate": CoordinateSearch, "random": RandomSearch, "optuna": OptunaSearch}


def search_errors(block: Mapping[str, Any]) -> list[str]:
    """Every error in a block of `searches`, a line each: key=value and what is allowed."""
    try:
        SEARCH_OPTIONS.validate_python(block)
    except ValidationError as error:
        return [_error_line(block, found) for found in error.errors()]
    return []


def _error_line(block: Mapping[str, Any], found: "ErrorDetails") -> str:
    key = ".".join(str(part) for part in found["loc"][1:])  # the first part is the method
    if not key:
        method = block.get("method")
        return f"method={method}: must be one of {', '.join(METHODS)}"
    if found["type"] == "extra_forbidden":
        known = [*METHODS[block["method"]].model_fields]
        near = get_close_matches(key, known, n=1)
        return f"{key}: unknown" + (f"; did you mean {near[0]}?" if near else f"; there are {', '.join(known)}")
    value = "" if isinstance(found["input"], Mapping) else f"={found['input']}"
    return f"{key}{value}: {found['msg'].removeprefix('Value error, ')}"
