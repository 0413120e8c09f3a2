"""Which rows of a study a filter means, and what was measured there.

A row is one run: columns that hold one value each. A filter gives a column the value, or a list of the values,
that its rows must have; numbers are equal within a relative 1e-6, since λ/N and the like
are computed.
"""

import math
from collections.abc import Mapping, Sequence
from numbers import Real
from typing import Any, TypeGuard, TypeVar

Row = Mapping[str, Any]
Rows = Sequence[Row]
Filter = Mapping[str, Any]
R = TypeVar("R", bound=Row)

TOLERANCE = 1e-6


class UnmeasurableError(ValueError):
    """The rows cannot give what was asked of them; the message says why."""


class DivergedError(UnmeasurableError):
    """Runs that were asked for a number diverged."""


def is_number(value: object) -> TypeGuard[float]:
    """Tell numbers, NaN and infinities among them, from bools and anything else."""
    return isinstance(value, Real) and not isinstance(value, bool)


def same(left: object, right: object) -> bool:
    """Whether two cells hold the same value: integers exactly, other numbers nearly; True and 1 differ."""
    if isinstance(left, float) or isinstance(right, float):
        if not (is_number(left) and is_number(right)):
            return False
        return math.isclose(left, right, rel_tol=TOLERANCE)
    return is_number(left) == is_number(right) and bool(left == right)


def choices(wanted: Any) -> list[Any]:
    """The values that a filter's entry allows."""
    return list(wanted) if isinstance(wanted, Sequence) and not isinstance(wanted, str) else [wanted]


def matches(row: Row, where: Filter) -> bool:
    """Whether a row has, in every column of the filter, one of the values there."""
    return all(any(same(row.get(column), value) for value in choices(wanted)) for column, wanted in where.items())


def select(rows: Sequence[R], where: Filter | None) -> list[R]:
    """The rows that a filter means; all of them without one."""
    return [row for row in rows if matches(row, where or {})]


def words(where: Filter | None) -> str:
    """A filter in words: "arm constant, batch_size 128 or 512"."""
    named = [f"{column} {' or '.join(map(_word, choices(wanted)))}" for column, wanted in (where or {}).items()]
    return ", ".join(named) or "any point"


def _word(value: Any) -> str:
    return f"{value:.6g}" if is_number(value) else str(value)


def levels(rows: Rows, column: str) -> list[Any]:
    """The different values of a column, numbers first and ascending; rows without a value are left out."""
    values = [row[column] for row in rows if has(row, column)]
    ascending = sorted(values, key=lambda value: (0, value, "") if is_number(value) else (1, 0, str(value)))
    return [value for place, value in enumerate(ascending) if place == 0 or not same(ascending[place - 1], value)]


def has(row: Row, column: str) -> bool:
    """Whether a row has a value in a column; None and NaN are none."""
    value = row.get(column)
    return value is not None and not (is_number(value) and math.isnan(value))


def finite(row: Row, column: str) -> float | None:
    """The finite number that a row has in a column, or None."""
    value = row.get(column)
    return float(value) if is_number(value) and math.isfinite(value) else None


def diverged(row: Row, column: str) -> bool:
    """Whether a run has no finite number in a column because it diverged: its status says so, or it is infinite."""
    value = row.get(column)
    return finite(row, column) is None and (row.get("status") == "diverged" or (is_number(value) and math.isinf(value)))


def measured(rows: Rows, column: str, where: Filter | None, substitute: float | None = None) -> list[float]:
    """The numbers of a column at the rows that a filter means, `substitute` where a run diverged.

    Raises DivergedError where a run diverged and nothing stands for it, UnmeasurableError where a row or a number is
    missing.
    """
    found = select(rows, where)
    lost = [row for row in found if diverged(row, column)]
    if not found:
        raise UnmeasurableError(f"no run at {words(where)}")
    if lost and substitute is None:
        raise DivergedError(f"{'every run' if len(lost) == len(found) else 'a run'} at {words(where)} diverged")
    numbers = [substitute if diverged(row, column) else finite(row, column) for row in found]
    if None in numbers:
        raise UnmeasurableError(f"{column} was not measured in every run at {words(where)}")
    return [number for number in numbers if number is not None]


def mean(rows: Rows, column: str, where: Filter | None, substitute: float | None = None) -> float:
    """The mean of `measured`; raises as that does."""
    numbers = measured(rows, column, where, substitute)
    return math.fsum(numbers) / len(numbers)
