"""What the columns of a study and their values are called in figures and tables."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from onecycle.studies.rows import is_number

Labels = Mapping[str, str]
T = TypeVar("T")

# Other columns are called by their name, with spaces. Those with a slash are of metrics.csv: accuracies as fractions.
LABELS = {
    "accuracy": "accuracy (%)", "arm": "", "batch_size": "batch size N", "effective_decay": "λα/(1−ρ)",
    "effective_lr": "λ/(1−ρ)", "final_loss": "training loss (batch statistics)",
    "final_test_loss": "test loss (batch statistics)", "lr": "learning rate λ",
    "lr_at_minimum": "learning rate of the lowest loss", "lr_per_example": "λ / N", "momentum": "momentum ρ",
    "one_minus_momentum": "1 − ρ (ρ: momentum)", "peak_lr": "peak learning rate λ", "seconds_fit": "training time (s)",
    "seconds_total": "total time (s)", "subset_size": "training images", "test_accuracy": "test accuracy (%)",
    "train/accuracy": "training accuracy", "train/loss": "training loss", "train_accuracy": "training accuracy (%)",
    "train_loss": "training loss", "usable_lr": "largest usable learning rate",
    "val/accuracy": "validation accuracy", "val/loss": "validation loss", "val_accuracy": "validation accuracy (%)",
    "val_loss": "validation loss", "weight_decay": "weight decay α",
}  # fmt: skip
SYMBOLS = {"batch_size": "N", "momentum": "ρ", "one_minus_momentum": "(1−ρ)", "peak_lr": "λ", "weight_decay": "α"}
PANELS = {
    "batch_size": "N = {}", "epochs": "{} epochs", "momentum": "ρ = {}", "one_minus_momentum": "1 − ρ = {}",
    "peak_lr": "λ = {}", "subset_size": "{} training images", "weight_decay": "α = {}",
}  # fmt: skip


def label_of(column: str, labels: Labels | None = None) -> str:
    """The text of a column on an axis or above a legend: from `labels`, from LABELS, or the name itself."""
    return (labels or {}).get(column, LABELS.get(column, column.replace("_", " ").replace("/", " ")))


def symbol(column: str) -> str:
    """The letter of a quantity in the papers' formulas, or its name."""
    return SYMBOLS.get(column, column.replace("_", " "))


def level_text(value: Any, labels: Labels | None = None) -> str:
    """One value of a column in a legend; `labels` may hold another text for it."""
    return (labels or {}).get(str(value), plain(value) if is_number(value) else str(value))


def legend_texts(styles: Mapping[Any, T], labels: Labels | None = None) -> dict[str, T]:
    """The styles of lines by the texts of their values."""
    return {level_text(value, labels): style for value, style in styles.items()}


def panel_texts(column: str | None, values: Sequence[Any], labels: Labels | None = None) -> list[str]:
    """Each value of a column above its panel, as "N = 128"; nothing without a column."""
    if column is None:
        return [""]
    other = f"{label_of(column, labels)} = {{}}" if all(map(is_number, values)) else "{}"
    return [PANELS.get(column, other).format(level_text(value, labels)) for value in values]


def plain(value: float) -> str:
    """A number as people write it: 50,000, 0.05, 0.000781, 5·10⁻⁵."""
    if value == 0 or not math.isfinite(value):
        return f"{value:g}"
    size = abs(value)
    if size < 1e-4:
        mantissa, exponent = f"{size:.2e}".split("e")
        power = "10⁻" + str(-int(exponent)).translate(str.maketrans("0123456789", "⁰¹²³⁴⁵⁶⁷⁸⁹"))
        text = power if float(mantissa) == 1 else f"{float(mantissa):g}·{power}"
    elif size >= 1000 or abs(size - round(size)) < 1e-9 * size:
        text = f"{size:,.0f}"
    else:
        text = f"{size:.{4 if size >= 0.1 else 3}g}"
    return text if value > 0 else f"−{text}"
