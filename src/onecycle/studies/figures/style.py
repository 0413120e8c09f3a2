"""The words and colours of every figure, and the saver."""

import math
from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.colors import to_hex, to_rgb
from matplotlib.figure import Figure

from onecycle.studies.figures.points import is_number

Labels = Mapping[str, str]

INK, MUTED, GRID, VOID = "#1f1f1f", "#6b6b6b", "#e6e6e6", "#efefef"
# Points at a figure 7 inches wide: shown 700 pixels wide, 10 points are 14 pixels.
TITLE, TEXT, SMALL = 12.0, 10.5, 9.5
# Okabe and Ito 2008, "Color Universal Design"; yellow last, since it is faint on white.
OKABE_ITO = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#F0E442")
MARKERS = ("o", "s", "^", "D", "v", "P", "p")
DPI = 160

LABELS = {
    "accuracy": "accuracy (%)",
    "arm": "",
    "batch_size": "batch size N",
    "effective_lr": "λ/(1−ρ)",
    "epoch": "epoch",
    "epochs": "epochs",
    "final_loss": "training loss (batch statistics)",
    "final_test_loss": "test loss (batch statistics)",
    "gradient_norm": "gradient norm",
    "images_per_second": "images per second",
    "loss": "loss",
    "lr": "learning rate λ",
    "lr_at_minimum": "learning rate of the lowest loss",
    "lr_per_example": "λ / N",
    "momentum": "momentum ρ",
    "one_minus_momentum": "1 − ρ (ρ: momentum)",
    "parameters": "parameters",
    "peak_lr": "peak learning rate λ",
    "effective_decay": "λα/(1−ρ)",
    "seconds_fit": "training time (s)",
    "seconds_total": "total time (s)",
    "seed": "seed",
    "step": "step",
    "steps": "steps",
    "subset_size": "training images",
    "test_accuracy": "test accuracy (%)",
    "test_loss": "test loss",
    "train_accuracy": "training accuracy (%)",
    "train_loss": "training loss",
    "usable_lr": "largest usable learning rate",
    "val_accuracy": "validation accuracy (%)",
    "val_loss": "validation loss",
    "weight_decay": "weight decay α",
    # columns of metrics.csv: accuracies as fractions
    "test/accuracy": "test accuracy",
    "test/loss": "test loss",
    "train/accuracy": "training accuracy",
    "train/loss": "training loss",
    "val/accuracy": "validation accuracy",
    "val/loss": "validation loss",
}
SYMBOLS = {
    "batch_size": "N",
    "momentum": "ρ",
    "one_minus_momentum": "(1−ρ)",
    "peak_lr": "λ",
    "weight_decay": "α",
}
PANELS = {
    "arm": "{}",
    "batch_size": "N = {}",
    "epochs": "{} epochs",
    "momentum": "ρ = {}",
    "one_minus_momentum": "1 − ρ = {}",
    "peak_lr": "λ = {}",
    "subset_size": "{} training images",
    "weight_decay": "α = {}",
}


def label_of(column: str, labels: Labels | None = None) -> str:
    """The text of a column on an axis or above a legend: from `labels`, from LABELS, or the name itself."""
    return (labels or {}).get(column, LABELS.get(column, column.replace("_", " ").replace("/", " ")))


def value_text(column: str, value: Any, labels: Labels | None = None) -> str:
    """One value of a column in a legend. labels: may hold "column=value", or a word's own text."""
    text = plain(value) if is_number(value) else str(value)
    texts = labels or {}
    return texts.get(f"{column}={value}", texts.get(f"{column}={text}", texts.get(str(value), text)))


def panel_text(column: str, value: Any, labels: Labels | None = None) -> str:
    """One value of a column above a panel, as "N = 128". labels: may hold the template at "column="."""
    text = value_text(column, value, labels)
    own = f"{column}={value}"
    if labels and own in labels:
        return text
    default = PANELS.get(column, f"{label_of(column)} = {{}}" if is_number(value) else "{}")
    return (labels or {}).get(f"{column}=", default).format(text)


def symbol(column: str) -> str:
    """The letter of a quantity in the papers' formulas, or its name."""
    return SYMBOLS.get(column, column.replace("_", " "))


def plain(value: float) -> str:
    """A number as people write it: 50,000, 0.05, 0.000781, 5·10⁻⁵."""
    if value == 0 or not math.isfinite(value):
        return f"{value:g}"
    size = abs(value)
    if size < 1e-4:
        mantissa, exponent = f"{size:.2e}".split("e")
        factor = f"{float(mantissa):g}"
        power = "10⁻" + str(-int(exponent)).translate(str.maketrans("0123456789", "⁰¹²³⁴⁵⁶⁷⁸⁹"))
        text = power if factor == "1" else f"{factor}·{power}"
    elif abs(size - round(size)) < 1e-9 * size:
        text = f"{round(size):,}"
    else:
        text = f"{size:,.0f}" if size >= 1000 else f"{size:.{4 if size >= 0.1 else 3}g}"
    return text if value > 0 else f"−{text}"


def colours(values: Sequence[Hashable]) -> list[str]:
    """A colour for each value: numbers from light to dark in the order given, words from Okabe and Ito's palette."""
    if values and all(is_number(value) for value in values):
        return sequential(len(values))
    return [OKABE_ITO[index % len(OKABE_ITO)] for index in range(len(values))]


def sequential(count: int) -> list[str]:
    """Colours for an ordered quantity, viridis from green to violet: the larger, the darker."""
    scale = matplotlib.colormaps["viridis"]
    if count == 1:
        return [to_hex(scale(0.3))]
    return [to_hex(scale(0.76 - 0.74 * index / (count - 1))) for index in range(count)]


def contrast(colour: Any) -> str:
    """The colour of a text that is readable on another: black or white, by the relative luminance of WCAG 2."""
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in to_rgb(colour)]
    luminance = 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
    return INK if luminance > 0.25 else "white"


def save(figure: Figure, folder: Path, name: str) -> None:
    """Write name.png and name.svg; the same data give the same bytes."""
    folder.mkdir(parents=True, exist_ok=True)
    with matplotlib.rc_context({"svg.hashsalt": "onecycle", "svg.fonttype": "none"}):
        figure.savefig(folder / f"{name}.png", dpi=DPI, facecolor="white")
        figure.savefig(folder / f"{name}.svg", facecolor="white", metadata={"Date": None})
