import math
import statistics
from typing import Any

import numpy as np
import pytest

from onecycle.studies import effects
from onecycle.studies.selection import UnmeasurableError
from onecycle.studies.shapes import Curve, Surface, grid_step

Table = list[dict[str, Any]]
NAN = math.nan


def plane(slope: float, across: float = -4.0, along: float = -0.1, peak: float = 70.0) -> Table:
    """A 5×5 grid with factor 4 whose accuracy is a parabola in log x and log y, flat along a ridge of given slope."""
    u, v = (part.ravel() for part in np.meshgrid(np.arange(5.0), np.arange(5.0)))
    ridge = np.array([1.0, slope]) / math.hypot(1.0, slope)
    s, t = (u - 2) * ridge[0] + (v - 2) * ridge[1], -(u - 2) * ridge[1] + (v - 2) * ridge[0]
    heights = peak + along * s**2 + across * t**2
    return [
        {"lr": 0.1 * 4.0**i, "decay": 5e-4 * 4.0**j, "acc": float(z), "status": "finished"}
        for i, j, z in zip(u, v, heights, strict=True)
    ]


@pytest.mark.parametrize("slope", [1.0, -1.0, 2.0, -2.0])
def test_ridge_power_is_that_of_the_best_of_each_row(slope: float) -> None:
    assert effects.ridge_power(plane(slope, along=0.0), "lr", "decay", "acc") == pytest.approx(1 / slope, abs=1e-9)


def test_the_power_of_an_upright_ridge_is_zero() -> None:
    assert effects.ridge_power(plane(1e12, along=0.0), "lr", "decay", "acc") == pytest.approx(0.0, abs=1e-9)


def test_a_grid_without_a_ridge_has_a_reason() -> None:
    with pytest.raises(UnmeasurableError, match=r"^fewer than two rows of the grid have their best inside it$"):
        effects.ridge_power(plane(0.2, along=0.0), "lr", "decay", "acc")


def test_ridge_contrast_is_small_along_the_ridge_and_large_across() -> None:
    cells = [[80.0, 60.0, 40.0], [60.0, 80.0, 60.0], [40.0, 60.0, 80.0]]
    rows = [
        {"lr": 4.0**i, "n": 4.0**j, "acc": z, "status": "finished"}
        for i, row in enumerate(cells) for j, z in enumerate(row)
    ]  # fmt: skip
    # Along (1, 1) every diagonal is level. Across: 60 60, 40 80 40, 60 60.
    across = np.std([40.0, 80.0, 40.0], ddof=1) / 3
    assert effects.ridge_contrast(rows, "lr", "n", "acc", "ratio") == 0.0
    with pytest.raises(UnmeasurableError, match=r"^the sd of acc across the ridge is 0$"):
        effects.ridge_contrast(rows, "lr", "n", "acc", "product")
    rows[0] |= {"acc": NAN, "status": "diverged"}  # the end of the main diagonal falls to the floor
    along = np.std([10.0, 80.0, 80.0], ddof=1) / 3
    assert effects.ridge_contrast(rows, "lr", "n", "acc", "ratio") == pytest.approx(along / across)
    assert effects.ridge_contrast(rows, "lr", "n", "acc", "product") == pytest.approx(across / along)
    assert effects.ridge_contrast(rows, "lr", "n", "acc", "ratio", floor=80.0) == 0.0


def test_a_cell_without_a_run_is_left_out_of_its_diagonals() -> None:
    rows = [row for row in plane(1.0) if not (row["lr"] == pytest.approx(0.1) and row["decay"] == pytest.approx(5e-4))]
    full, less = (effects.ridge_contrast(table, "lr", "decay", "acc", "ratio") for table in (plane(1.0), rows))
    assert len(rows) == 24
    assert 0 < less < full < 0.2


def test_two_planes_in_one_table_are_told_apart_by_where() -> None:
    rows = [row | {"plane": number} for number, slope in ((1, 1.0), (2, -1.0)) for row in plane(slope, along=0.0)]
    assert effects.ridge_power(rows, "lr", "decay", "acc", where={"plane": 2}) == pytest.approx(-1.0)
    assert effects.ridge_contrast(rows, "lr", "decay", "acc", "product", where={"plane": 2}) < 0.2


def test_diagonals_of_two_cells_and_more_count_alike() -> None:
    axis = np.array([1.0, 2.0, 4.0])
    surface = Surface(axis, axis, np.array([[1.0, 2.0, 4.0], [8.0, 16.0, 32.0], [64.0, 128.0, 256.0]]))
    rising = [statistics.stdev(cells) for cells in ([8, 128], [1, 16, 256], [2, 32])]
    falling = [statistics.stdev(cells) for cells in ([2, 8], [4, 16, 64], [32, 128])]
    assert surface.diagonal_sd(rising=True) == pytest.approx(statistics.fmean(rising))
    assert surface.diagonal_sd(rising=False) == pytest.approx(statistics.fmean(falling))


def test_a_grid_without_diagonals_has_a_reason() -> None:
    surface = Surface(np.array([1.0, 2.0]), np.array([1.0, 2.0]), np.array([[1.0, NAN], [2.0, NAN]]))
    with pytest.raises(UnmeasurableError, match=r"^no diagonal of the grid has two cells$"):
        surface.diagonal_sd(rising=True)


def test_a_grid_step_is_the_median_spacing() -> None:
    uneven = Curve("n 1", "lr", np.array([1.0, 2.0, 4.0, 16.0]), np.ones(4))
    assert grid_step([uneven]) == pytest.approx(math.log(2))
    assert grid_step([uneven, Curve("n 2", "lr", np.array([1.0, 4.0, 16.0, 64.0]), np.ones(4))]) == pytest.approx(
        math.log(4)
    )
