"""From rows to the points of a figure: the seeds of one setting together, diverged runs counted."""

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import pandas as pd

from onecycle.studies.responses import lower_is_better
from onecycle.studies.rows import is_number, levels, select

Direction = Literal["loss", "accuracy"]
# Runs of one point may differ in their seed; where they differ in one of these they are no repetitions.
SETTINGS = ("arm", "batch_size", "epochs", "momentum", "peak_lr", "subset_size", "weight_decay")


def is_lower_better(column: str, direction: Direction | None) -> bool:
    """Whether less ("loss") or more ("accuracy") is better: as said, or by the column's name."""
    if direction not in (None, "loss", "accuracy"):
        raise ValueError(f"direction={direction}: must be loss or accuracy")
    return direction == "loss" if direction else lower_is_better(column)


def levels_of(rows: pd.DataFrame, column: str | None) -> list[Any]:
    """The different values of a column: numbers by size, words by appearance; [None] without a column."""
    return [None] if column is None else levels(rows, column)


def part_of(rows: pd.DataFrame, column: str | None, level: Any) -> pd.DataFrame:
    """The rows with a value in a column; all rows without a column."""
    return rows if column is None else select(rows, {column: level})


def numbers(rows: pd.DataFrame, column: str) -> pd.Series:
    """A column's numbers, to nine digits so that equal settings are equal. Raises ValueError for a word."""
    for value in rows[column].dropna():
        if not is_number(value):
            raise ValueError(f"column {column!r} holds {value!r}, which is no number; draw it with `by` or `panels`")
    return rows[column].map(lambda value: float(f"{value:.9g}"), na_action="ignore").astype(float)


def finished(rows: pd.DataFrame, column: str) -> pd.Series:
    """A column's numbers; NaN for runs that diverged, as their status or an infinite value says."""
    return numbers(rows, column).replace([np.inf, -np.inf], np.nan).mask(rows["status"] == "diverged")


def refuse_mixed(rows: pd.DataFrame, keys: Sequence[str]) -> None:
    """Raise ValueError where two runs of a point and a seed differ in a setting: they would be averaged as if repeated.

    keys: the columns whose values make a point.
    """
    settings = [name for name in SETTINGS if name in rows and name not in keys]
    point = list(dict.fromkeys([*keys, "seed"]))
    text = rows[point + settings].map(lambda value: f"{value:.9g}" if is_number(value) else str(value))
    counts = text.groupby(point)[settings].nunique()
    different = [name for name in settings if (counts[name] > 1).any()]
    if different:
        raise ValueError(
            f"{', '.join(keys)}: runs of one point and one seed differ in {', '.join(different)}; "
            f"tell them apart with `by` or `panels`, or choose with `where`"
        )


def points_of(rows: pd.DataFrame, key: str, y: str) -> pd.DataFrame:
    """The runs at each value of `key`: `mean`, sample `sd` and `n` of y over those that finished, how many `diverged`.

    Ascending; sd is NaN for fewer than two values. Points without a value or a diverged run are left out. Raises
    ValueError as `refuse_mixed` does.
    """
    refuse_mixed(rows, [key])
    lost = (rows["status"] == "diverged") | np.isinf(numbers(rows, y))
    table = pd.DataFrame({"value": finished(rows, y), "lost": lost}).groupby(_places(rows, key))
    found = table.agg(mean=("value", "mean"), sd=("value", "std"), n=("value", "count"), diverged=("lost", "sum"))
    return found[(found["n"] > 0) | (found["diverged"] > 0)]


def seeds_of(rows: pd.DataFrame, key: str, y: str) -> pd.DataFrame:
    """The single finished runs, columns `place` and `value`, of those points that have several."""
    found = pd.DataFrame({"place": _places(rows, key), "value": finished(rows, y)}).dropna()
    return found[found.duplicated("place", keep=False)]


def _places(rows: pd.DataFrame, key: str) -> pd.Series:
    return numbers(rows, key) if rows[key].dropna().map(is_number).all() else rows[key]
