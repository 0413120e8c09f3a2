import subprocess
import sys
from pathlib import Path

import matplotlib
import pytest
from matplotlib.colors import to_rgb

from onecycle.studies.figures.curves import curves, save
from onecycle.studies.figures.style import INK, OKABE_ITO, colours, contrast, plain


def test_words_have_the_palettes_colours_and_numbers_go_from_light_to_dark() -> None:
    assert colours(["a", "b", "c"]) == list(OKABE_ITO[:3])
    ordered = colours([3125, 12500, 50000, 100000])
    light = [sum(to_rgb(colour)) for colour in ordered]
    assert len(set(ordered)) == 4
    assert light == sorted(light, reverse=True)


@pytest.mark.parametrize(
    ("value", "text"),
    [(50000, "50,000"), (0.05, "0.05"), (1.0, "1"), (0.00078125, "0.000781"), (5e-5, "5·10⁻⁵"), (1e-12, "10⁻¹²"),
     (0.9995, "0.9995"), (-0.5, "−0.5"), (0, "0"), (1234.5, "1,234"), (12.8, "12.8")],
)  # fmt: skip
def test_numbers_are_written_as_people_write_them(value: float, text: str) -> None:
    assert plain(value) == text


def test_text_on_a_colour_has_the_higher_contrast() -> None:
    assert [contrast(colour) for colour in ("#440154", "#0072B2", "#FDE725", "#FFFFFF")] == ["white", "white", INK, INK]


def test_the_same_data_are_saved_as_the_same_bytes(tmp_path: Path) -> None:
    before = dict(matplotlib.rcParams)
    rows = [{"peak_lr": lr, "subset_size": size, "test_loss": lr} for lr in (0.1, 0.2) for size in (5000, 50000)]
    for name in ("a", "b"):
        save(curves(rows, x="peak_lr", y="test_loss", by="subset_size"), tmp_path / name, "figure")
    assert sorted(path.name for path in (tmp_path / "a").iterdir()) == ["figure.png", "figure.svg"]
    for suffix in ("png", "svg"):
        assert (tmp_path / f"a/figure.{suffix}").read_bytes() == (tmp_path / f"b/figure.{suffix}").read_bytes()
    text = (tmp_path / "a/figure.svg").read_text()
    assert ">training images</text>" in text
    assert "<dc:date>" not in text
    assert dict(matplotlib.rcParams) == before


@pytest.mark.parametrize(
    ("module", "absent"),
    [
        ("plots", "torch lightning hydra pandas matplotlib.pyplot"),
        ("ridges", "torch lightning hydra pandas matplotlib"),
    ],
)
def test_figures_need_no_more_than_they_draw_with(module: str, absent: str) -> None:
    code = f"import sys, onecycle.studies.{module}; print([name for name in {absent.split()} if name in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "[]"
