"""Base class and number types of everything that a configuration describes. Nothing here imports torch."""

import math
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field

LARGEST_COUNT = 10**9
LARGEST_SEED = 2**63 - 1


class Options(BaseModel):
    """The keys of one group of a configuration: unknown keys are refused, nothing is converted, NaN is no number.

    Values are validated and kept as they were written: 1 stays an int where a float is allowed.
    """

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)


def _number(value: Any) -> Any:
    """Refuse what pydantic's floats would convert: bools, texts, and whole numbers that no float can hold."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(_as_float(value)):
        raise ValueError("must be a finite number")
    return value


def _as_float(value: float) -> float:
    try:
        return float(value)
    except OverflowError:
        return math.inf


# `Number` keeps an int as an int; bounds are given with `Field(gt=…, le=…)` around it.
Number = Annotated[int | float, BeforeValidator(_number)]
Count = Annotated[int, Field(ge=1, le=LARGEST_COUNT)]
CountOrZero = Annotated[int, Field(ge=0, le=LARGEST_COUNT)]
Seed = Annotated[int, Field(ge=0, le=LARGEST_SEED)]
Fraction = Annotated[Number, Field(ge=0, le=1)]
PositiveNumber = Annotated[Number, Field(gt=0)]
NonNegativeNumber = Annotated[Number, Field(ge=0)]


def _printable(value: str) -> str:
    if not value.strip() or not value.isprintable():
        raise ValueError("must be a text that can be printed and is not blank")
    return value


Text = Annotated[str, AfterValidator(_printable)]
