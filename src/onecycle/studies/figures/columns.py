"""A study's columns in figures: what they and their values are called, and the runs of one point together."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
import pandas as pd

from onecycle.studies.responses import lower_is_better
from onecycle.studies.rows import is_number

Labels = Mapping[str, str]
Direction = Literal["loss", "accuracy"]
# Other columns are called by their name, with spaces. Those with a slash are of metrics.csv: accuracies as fractions.
LABELS = {
    "accuracy": "accuracy (%)", "arm": "", "batch_size": "batch size N", "effective_decay": "λα/(1−ρ)",
    "effective_lr": "λ/(1−ρ)", "final_loss": "training loss (batch statistics)",
    "final_test_loss": "test loss (batch statistics)",
    "final_test_accuracy": "test accuracy (batch statistics, %)", "lr": "learning rate λ",
    "lr_at_minimum": "learning rate of the lowest loss", "lr_per_example": "λ / N", "momentum": "momentum ρ",
    "one_minus_momentum": "1 − ρ (ρ: momentum)", "peak_lr": "peak learning rate λ", "seconds_fit": "training time (s)",
    "seconds_total": "total time (s)", "subset_size": "training images", "test_accuracy": "test accuracy (%)",
    "train/accuracy": "training accuracy", "train/loss": "training loss", "train_accuracy": "training accuracy (%)",
    "train_loss": "training loss", "usable_lr": "largest usable learning rate",
    "val/accuracy": "validation accuracy", "val/loss": "validation loss", "val_accuracy": "validation accuracy (%)",
    "val_loss": "validation loss", "weight_decay": "weight decay α",
}  # fmt: skip
SYMBOLS = {"batch_size": "N", "momentum": "ρ", "one_minus_momentum": "(1−ρ)", "peak_lr": "λ", "weight_decay": "α"}
PANELS = {"epochs": "{} epochs", "one_minus_momentum": "1 − ρ = {}", "subset_size": "{} training images"}
# Runs of one point may differ in their seed; where they differ in one of these they are no repetitions.
SETTINGS = ("arm", "batch_size", "epochs", "momentum", "peak_lr", "subset_size", "weight_decay")


def label_of(column: str, labels: Labels | None = None) -> str:
    """The text of a column on an axis or above a legend: from `labels`, from LABELS, or the name itself."""
    return (labels or {}).get(column, LABELS.get(column, column.replace("_", " ").replace("/", " ")))


def symbol(column: str) -> str:
    """The letter of a quantity in the papers' formulas, or its text on an axis."""
    return SYMBOLS.get(column, label_of(column))


def level_text(value: Any, labels: Labels | None = None) -> str:
    """One value of a column in a legend; `labels` may hold another text for it."""
    return (labels or {}).get(str(value), number_text(value) if is_number(value) else str(value))


def panel_texts(column: str, values: Sequence[Any], labels: Labels | None = None) -> list[str]:
    """Each value of a column above its panel, as "N = 128"."""
    other = f"{SYMBOLS.get(column, label_of(column, labels))} = {{}}" if all(map(is_number, values)) else "{}"
    return [PANELS.get(column, other).format(level_text(value, labels)) for value in values]


def number_text(value: float) -> str:
    """A number as people write it: 50,000, 0.05, 0.000781, 5·10⁻⁵."""
    size = abs(value)
    if 0 < size < 1e-4:
        mantissa, exponent = f"{size:.2e}".split("e")
        power = "10⁻" + str(-int(exponent)).translate(str.maketrans("0123456789", "⁰¹²³⁴⁵⁶⁷⁸⁹"))
        text = power if float(mantissa) == 1 else f"{float(mantissa):g}·{power}"
    elif size >= 1000 or abs(size - round(size)) < 1e-9 * size:
        text = f"{size:,.0f}"
    else:
        text = f"{size:.{4 if size >= 0.1 else 3}g}"
    return f"−{text}" if value < 0 else text


def is_lower_better(column: str, direction: Direction | None = None) -> bool:
    """Whether less ("loss") or more ("accuracy") is better: as said, or by the column's name."""
    if direction not in (None, "loss", "accuracy"):
        raise ValueError(f"direction={direction}: must be loss or accuracy")
    return direction == "loss" if direction else lower_is_better(column)


def numbers(rows: pd.DataFrame, column: str) -> pd.Series:
    """A column's numbers, to nine digits so that equal settings are equal. Raises ValueError for a word."""
    for value in rows[column].dropna():
        if not is_number(value):
            raise ValueError(f"column {column!r} holds {value!r}, which is no number; draw it with `by` or `panels`")
    return rows[column].map(lambda value: float(f"{value:.9g}"), na_action="ignore").astype(float)


def finite_numbers(rows: pd.DataFrame, column: str) -> pd.Series:
    """A column's numbers; NaN for runs that diverged, as their status or an infinite value says."""
    return numbers(rows, column).replace([np.inf, -np.inf], np.nan).mask(rows["status"] == "diverged")


def refuse_mixed(rows: pd.DataFrame, keys: Sequence[str]) -> None:
    """Raise ValueError where two runs of a point and a seed differ in a setting: they would be averaged as if repeated.

    keys: the columns whose values make a point.
    """
    settings = [name for name in SETTINGS if name in rows and name not in keys]
    point = list(dict.fromkeys([*keys, "seed"]))
    text = rows[point + settings].map(lambda value: f"{value:.9g}" if is_number(value) else str(value))
    counts = text.groupby(point)[settings].nunique().max()
    if different := [name for name in settings if counts[name] > 1]:
        raise ValueError(
            f"{', '.join(keys)}: runs of one point and one seed differ in {', '.join(different)}; "
            f"tell them apart with `by` or `panels`, or choose with `where`"
        )


def mean_and_sd(mean: float, sd: float) -> str:
    """Return "87.54 ± 0.30"; without a spread the mean alone, and a dash where there is none."""
    if not math.isfinite(mean):
        return "–"
    digits = 0 if abs(mean) >= 1000 else 2 if abs(mean) >= 10 else 3
    return f"{mean:.{digits}f}" + (f" ± {sd:.{digits}f}" if math.isfinite(sd) else "")


def points_of(rows: pd.DataFrame, key: str, y: str) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The runs at each value of `key`, and the single finished runs of those points that have several.

    Of each point, ascending: `mean`, sample `sd` (NaN for one run) and `n` of y over the runs that finished, how many
    `diverged`, and its `rows`. Of each single run: `place` and `value`. Raises ValueError as `refuse_mixed` does.
    """
    refuse_mixed(rows, [key])
    place = numbers(rows, key) if rows[key].dropna().map(is_number).all() else rows[key]
    runs = pd.DataFrame({"place": place, "value": finite_numbers(rows, y)})
    runs["row"] = rows.index
    runs["lost"] = (rows["status"] == "diverged") | np.isinf(numbers(rows, y))
    points = runs.groupby("place").agg(mean=("value", "mean"), sd=("value", "std"), n=("value", "count"),
                                       diverged=("lost", "sum"), rows=("row", list))  # fmt: skip
    seeds = runs.dropna()
    return points[points["n"] + points["diverged"] > 0], seeds[seeds.duplicated("place", keep=False)]
