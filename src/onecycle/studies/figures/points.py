"""From rows to the points of a figure: the seeds of one setting together, diverged runs counted."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

Direction = Literal["loss", "accuracy"]
Rows = Sequence[Mapping[str, Any]]
# Runs of one point may differ in their seed; where they differ in one of these they are no repetitions.
SETTINGS = ("arm", "batch_size", "epochs", "momentum", "peak_lr", "subset_size", "weight_decay")


@dataclass(frozen=True)
class Point:
    """The runs of one setting: the values of those that finished, and how many diverged."""

    x: float
    values: tuple[float, ...]
    diverged: int

    @property
    def mean(self) -> float:
        """Mean over the finished runs; NaN without one."""
        return spread(self.values)[0]

    @property
    def sd(self) -> float:
        """Sample standard deviation over the finished runs; NaN for fewer than two."""
        return spread(self.values)[1]


def spread(values: Sequence[float]) -> tuple[float, float]:
    """Mean and sample standard deviation; NaN where there are too few values."""
    if len(values) < 2:
        return (float(values[0]) if values else math.nan), math.nan
    return float(np.mean(values)), float(np.std(values, ddof=1))


def is_number(value: Any) -> bool:
    """Whether a value counts as a number; True and False do not."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def direction_of(column: str, direction: Direction | None = None) -> Direction:
    """Whether less ("loss") or more ("accuracy") is better: as said, or by the column's name."""
    if direction not in (None, "loss", "accuracy"):
        raise ValueError(f"direction={direction}: must be loss or accuracy")
    lower = ("loss", "error", "seconds", "time")
    return direction or ("loss" if any(word in column for word in lower) else "accuracy")


def require(kind: str, rows: Rows, *columns: str | None) -> None:
    """Raise ValueError where there is no row, or a column in which no row has a number or word."""
    if not rows:
        raise ValueError(f"{kind}: no rows to draw")
    for column in columns:
        if column is None or any(not isinstance(row.get(column), dict | list | None) for row in rows):
            continue
        plain = (name for row in rows for name, value in row.items() if not isinstance(value, dict | list | None))
        known = dict.fromkeys(plain)
        raise ValueError(f"{kind}: no row has the column {column!r}; there are {', '.join(known)}")


def number(row: Mapping[str, Any], column: str) -> float | None:
    """A row's number, rounded to nine digits so that equal settings are equal; None where it has none."""
    value = row.get(column)
    if value is None:
        return None
    if not is_number(value):
        raise ValueError(f"column {column!r} holds {value!r}, which is no number; draw it with `by` or `panels`")
    return float(f"{value:.9g}")


def key(value: Any) -> Any:
    """A value to compare by: floats that differ in rounding are one."""
    return float(f"{value:.9g}") if isinstance(value, float) else value


def values_of(rows: Rows, column: str | None) -> list[Any]:
    """The distinct values of a column: numbers by size, words by first appearance; [None] without a column.

    A row that has none, or NaN, belongs to no value.
    """
    if column is None:
        return [None]
    present = (row[column] for row in rows if row.get(column) is not None and row[column] == row[column])
    values = list(dict.fromkeys(key(value) for value in present))
    return sorted(values) if all(is_number(value) for value in values) else values


def select(rows: Rows, column: str | None, value: Any) -> Rows:
    """The rows that have a value in a column; all rows without a column."""
    return rows if column is None else [row for row in rows if key(row.get(column)) == value]


def diverged(row: Mapping[str, Any], y: str) -> bool:
    """Whether a run diverged: it says so, or its value is there and not finite."""
    value = number(row, y)
    return row.get("status") == "diverged" or (value is not None and not math.isfinite(value))


def point(rows: Rows, x: float, y: str) -> Point:
    """The runs of one setting; rows without a value that did not diverge are left out."""
    finished = [value for row in rows if not diverged(row, y) and (value := number(row, y)) is not None]
    return Point(x, tuple(finished), sum(diverged(row, y) for row in rows))


def points(rows: Rows, x: str, y: str) -> list[Point]:
    """The points of one line, by x. Raises ValueError where runs of one seed are no repetitions of each other."""
    groups: dict[float, list[Mapping[str, Any]]] = {}
    for row in rows:
        place = number(row, x)
        if place is not None and math.isfinite(place):
            groups.setdefault(place, []).append(row)
    for place, members in groups.items():
        same_setting(members, f"{x}={place:g}")
    found = [point(members, place, y) for place, members in sorted(groups.items())]
    return [one for one in found if one.values or one.diverged]


def same_setting(rows: Rows, where: str) -> None:
    """Raise ValueError where two runs of one seed differ in a setting: they would be averaged as if repeated."""
    seen: dict[Any, Mapping[str, Any]] = {}
    for row in rows if len(rows) > 1 else ():
        other = seen.setdefault(row.get("seed"), row)
        different = [name for name in SETTINGS if key(row.get(name)) != key(other.get(name))]
        if different:
            raise ValueError(
                f"{where}: runs of one point and one seed differ in {', '.join(different)}; "
                f"tell them apart with `by` or `panels`, or choose with `where`"
            )


def positive(values: Iterable[float], column: str, remedy: str) -> None:
    """Raise ValueError where a logarithmic axis cannot show a value."""
    lowest = min((value for value in values if math.isfinite(value)), default=1.0)
    if lowest <= 0:
        raise ValueError(f"{column}={lowest:g} has no place on a logarithmic axis; {remedy}")
