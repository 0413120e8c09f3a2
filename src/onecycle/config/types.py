"""Base class and value types of everything that a configuration describes. Nothing here imports torch."""

import contextlib
import math
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field

LARGEST_COUNT = 10**9
LARGEST_SEED = 2**63 - 1
NOT_IN_NAMES = "/\\$`;|&<>*?!\"'"  # they end a path or mean something to a shell, where people type folders' names


class Options(BaseModel):
    """The keys of one group of a configuration: unknown keys are refused, nothing is converted, NaN is no number.

    Values are validated and kept as they were written: 1 stays an int where a float is allowed. A field with a default
    is an option that a configuration may leave out. The default is then what runs mean that were made before the
    option existed, and a value equal to it is no part of a run's identity; see `onecycle.runs.identity`.
    """

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)


def _number(value: Any) -> Any:
    """Refuse what pydantic's floats would convert: bools, texts, and whole numbers that no float can hold."""
    with contextlib.suppress(OverflowError):
        if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(float(value)):
            return value
    raise ValueError("must be a finite number")


def allowed(text: str) -> Any:
    """What a type allows, in words, where its JSON schema cannot say it: `must be …` in errors and documentation."""
    return Field(json_schema_extra={"allowed": text})


# `Number` keeps an int as an int; bounds are given with `Field(gt=…, le=…)` around it.
Number = Annotated[int | float, BeforeValidator(_number)]
Count = Annotated[int, Field(ge=1, le=LARGEST_COUNT)]
CountOrZero = Annotated[int, Field(ge=0, le=LARGEST_COUNT)]
Seed = Annotated[int, Field(ge=0, le=LARGEST_SEED)]
Fraction = Annotated[Number, Field(ge=0, le=1)]
BelowOne = Annotated[Number, Field(ge=0, lt=1)]
PositiveNumber = Annotated[Number, Field(gt=0)]
NonNegativeNumber = Annotated[Number, Field(ge=0)]


def _printable(value: str) -> str:
    if not value.strip() or not value.isprintable():
        raise ValueError("must be a text that is not blank and can be printed")
    return value


def _path(value: str) -> str:
    if len(value.encode()) >= 4096 or any(len(part.encode()) >= 256 for part in value.split("/")):
        raise ValueError("must be a path; this one is longer than file systems allow")
    return value


def _name(value: str) -> str:
    if set(value) & set(NOT_IN_NAMES) or value in (".", "..") or len(value) > 100 or len(value.encode()) > 200:
        raise ValueError(f"must be a name for a folder, up to 100 characters, none of {' '.join(NOT_IN_NAMES)}")
    return value


Text = Annotated[str, AfterValidator(_printable), allowed("a text")]
FolderPath = Annotated[str, AfterValidator(_printable), AfterValidator(_path), allowed("the path of a folder")]
FolderName = Annotated[str, AfterValidator(_printable), AfterValidator(_name), allowed("a name for a folder")]
