import subprocess
import sys
from pathlib import Path
from typing import get_args

import matplotlib
import pandas as pd
import pytest
from picture import figure_of, run, tick_texts

from onecycle.studies.figures import KINDS, draw
from onecycle.studies.figures.columns import number_text
from onecycle.studies.figures.drawing import INK, contrast, round_numbers, save
from onecycle.studies.study import FigureKind

CURVE = {"kind": "curves", "x": "peak_lr", "y": "test_loss"}
ROWS = [run(peak_lr=lr, subset_size=size, test_loss=lr) for lr in (0.1, 0.2) for size in (5000, 50000)]


@pytest.mark.parametrize(
    ("value", "text"),
    [(50000, "50,000"), (0.05, "0.05"), (1.0, "1"), (0.00078125, "0.000781"), (5e-5, "5·10⁻⁵"), (1e-12, "10⁻¹²"),
     (0.9995, "0.9995"), (-0.5, "−0.5"), (0, "0"), (1234.5, "1,234"), (12.8, "12.8")],
)  # fmt: skip
def test_numbers_are_written_as_people_write_them(value: float, text: str) -> None:
    assert number_text(value) == text


def test_ticks_are_round_and_have_room() -> None:
    assert round_numbers(0.12, 0.45) == [0.15, 0.2, 0.25, 0.3, 0.35, 0.4]
    assert round_numbers(0.1, 10) == [0.1, 0.3, 1, 3, 10]
    assert len(round_numbers(0.11, 0.19)) >= 3
    rows = [run(peak_lr=0.1 * 1.2**step, test_loss=1.0) for step in range(12)]
    assert 4 <= len(tick_texts(figure_of(rows, **CURVE).axes[0])) <= 8


def test_text_on_a_colour_has_the_higher_contrast() -> None:
    assert [contrast(colour) for colour in ("#440154", "#0072B2", "#FDE725", "#FFFFFF")] == ["white", "white", INK, INK]


def test_figures_are_named_and_those_without_runs_are_left_out(caplog: pytest.LogCaptureFixture) -> None:
    assert set(get_args(FigureKind)) == set(KINDS)
    figures = [
        {**CURVE, "by": "subset_size"}, {**CURVE, "where": {"subset_size": 5000}}, {**CURVE, "where": {"peak_lr": 0.8}},
        {**CURVE, "name": "own", "where": {"subset_size": [50000]}}, {"kind": "pie"},
    ]  # fmt: skip
    drawn, (problem,) = draw({"figures": figures}, pd.DataFrame(ROWS))
    assert list(drawn) == ["figure", "figure_2", "own"]
    assert "figure_3" in caplog.text
    assert "figures[4].kind=pie" in problem
    assert draw({}, pd.DataFrame(ROWS)) == ({}, [])


def test_the_same_data_are_saved_as_the_same_bytes(tmp_path: Path) -> None:
    before = dict(matplotlib.rcParams)
    for name in ("a", "b"):
        save(figure_of(ROWS, **CURVE, by="subset_size"), tmp_path / name, "figure")
    for suffix in ("png", "svg"):
        assert (tmp_path / f"a/figure.{suffix}").read_bytes() == (tmp_path / f"b/figure.{suffix}").read_bytes()
    text = (tmp_path / "a/figure.svg").read_text()
    assert ">training images</text>" in text
    assert "<dc:date>" not in text
    assert dict(matplotlib.rcParams) == before


def test_figures_need_neither_torch_nor_pyplot() -> None:
    absent = ("torch", "lightning", "matplotlib.pyplot", "optuna")
    code = f"import sys, onecycle.studies.figures; print([name for name in {absent} if name in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "[]"
