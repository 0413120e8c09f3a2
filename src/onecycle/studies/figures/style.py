"""Colours beyond the style sheet, and how figures are written."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib
import matplotlib.style
import numpy as np
from matplotlib.colors import to_hex, to_rgb
from matplotlib.figure import Figure

from onecycle.studies.rows import is_number

SHEET = Path(__file__).with_name("onecycle.mplstyle")
INK, MUTED, VOID = "0.12", "0.42", "0.94"
MARKERS = ("o", "s", "^", "D", "v", "P", "p")


def line_styles(values: Sequence[Any], **more: Any) -> dict[Any, dict[str, Any]]:
    """A colour and a marker for each value: numbers from light to dark in the order given, words from the palette."""
    count = len(values)
    if all(is_number(value) for value in values):
        shades = np.linspace(0.76, 0.02, count) if count > 1 else [0.3]  # from green: yellow is faint on white
        looks = [(to_hex(matplotlib.colormaps["viridis"](shade)), "o") for shade in shades]
    else:
        looks = [(f"C{place}", MARKERS[place % len(MARKERS)]) for place in range(count)]
    return {
        value: {"color": colour, "marker": marker, **more}
        for value, (colour, marker) in zip(values, looks, strict=False)
    }


def contrast(colour: Any) -> str:
    """The colour of a text that is readable on another: dark or white, by the relative luminance of WCAG 2."""
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in to_rgb(colour)]
    return INK if 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2] > 0.25 else "white"


def save(figure: Figure, folder: Path, name: str) -> None:
    """Write name.png and name.svg; the same data give the same bytes."""
    folder.mkdir(parents=True, exist_ok=True)
    with matplotlib.style.context(SHEET):
        figure.savefig(folder / f"{name}.png")
        figure.savefig(folder / f"{name}.svg", metadata={"Date": None})
