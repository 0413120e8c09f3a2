import math

import numpy as np
import pandas as pd
import pytest

from onecycle.studies import effects
from onecycle.studies.responses import Runs, ridge, ridge_exponent
from onecycle.studies.rows import DivergedError, UnmeasurableError

NAN = math.nan


def plane(slope: float, across: float = -4.0, along: float = -0.1) -> pd.DataFrame:
    """A 5×5 grid with factor 4 whose accuracy is a parabola in log x and log y, flat along a ridge of given slope."""
    u, v = (part.ravel() for part in np.meshgrid(np.arange(5.0), np.arange(5.0)))
    ridge = np.array([1.0, slope]) / math.hypot(1.0, slope)
    s, t = (u - 2) * ridge[0] + (v - 2) * ridge[1], -(u - 2) * ridge[1] + (v - 2) * ridge[0]
    heights = 70.0 + along * s**2 + across * t**2
    return pd.DataFrame({"lr": 0.1 * 4.0**u, "decay": 5e-4 * 4.0**v, "acc": heights, "status": "finished"})


@pytest.mark.parametrize("slope", [1.0, -1.0, 2.0, -2.0, 1e12])
def test_ridge_power_is_that_of_the_best_of_each_row(slope: float) -> None:
    frame = plane(slope, along=0.0)
    assert effects.ridge_power(Runs(frame), "lr", "decay", "acc") == pytest.approx(1 / slope, abs=1e-9)
    frame["test_loss"] = -frame["acc"]
    assert effects.ridge_power(Runs(frame), "lr", "decay", "test_loss") == pytest.approx(1 / slope, abs=1e-9)
    frame["decreasing"] = -frame["acc"]  # by its name the highest is the best, which lies in the corners
    with pytest.raises(UnmeasurableError):
        effects.ridge_power(Runs(frame), "lr", "decay", "decreasing")
    with pytest.raises(UnmeasurableError):
        effects.ridge_power(Runs(plane(0.2, along=0.0)), "lr", "decay", "acc")


def test_ridge_contrast_is_small_along_the_ridge_and_large_across() -> None:
    cells = [[80.0, 60.0, 40.0], [60.0, 80.0, 60.0], [40.0, 60.0, 80.0]]
    frame = pd.DataFrame([
        {"lr": 4.0**i, "n": 4.0**j, "acc": z, "status": "finished"}
        for i, row in enumerate(cells) for j, z in enumerate(row)
    ])  # fmt: skip
    # Along (1, 1) every diagonal is level. Across: 60 60, 40 80 40, 60 60.
    across = np.std([40.0, 80.0, 40.0], ddof=1) / math.sqrt(3)  # the root of the mean variance, formerly the mean sd
    assert effects.ridge_contrast(Runs(frame), "lr", "n", "acc", "ratio") == 0.0
    with pytest.raises(UnmeasurableError):
        effects.ridge_contrast(Runs(frame), "lr", "n", "acc", "product")
    frame.loc[0, ["acc", "status"]] = [NAN, "diverged"]  # the end of the main diagonal falls to the floor
    along = np.std([10.0, 80.0, 80.0], ddof=1) / math.sqrt(3)
    assert effects.ridge_contrast(Runs(frame), "lr", "n", "acc", "ratio") == pytest.approx(along / across)
    assert effects.ridge_contrast(Runs(frame), "lr", "n", "acc", "product") == pytest.approx(across / along)
    assert effects.ridge_contrast(Runs(frame), "lr", "n", "acc", "ratio", floor=80.0) == 0.0


def test_a_cell_without_a_run_is_left_out_of_its_diagonals() -> None:
    full, less = (
        effects.ridge_contrast(Runs(frame), "lr", "decay", "acc", "ratio")
        for frame in (plane(1.0), plane(1.0).iloc[1:])
    )
    assert 0 < less < full < 0.2


def test_two_planes_in_one_table_are_told_apart_by_where() -> None:
    frames = [plane(slope, along=0.0).assign(plane=number) for number, slope in ((1, 1.0), (2, -1.0))]
    runs = Runs(pd.concat(frames))
    assert effects.ridge_power(runs, "lr", "decay", "acc", where={"plane": 2}) == pytest.approx(-1.0)
    assert effects.ridge_contrast(runs, "lr", "decay", "acc", "product", where={"plane": 2}) < 0.2


def test_a_ridge_has_its_rows_best_places_and_at_which_end_they_are() -> None:
    z: list[list[float]] = [[1, 3, 1], [1, 3, NAN], [3, 1, 1], [2, 2, 2], [1, 3, 2], [NAN, NAN, NAN]]
    frame = pd.DataFrame([
        {"lr": lr, "n": 2.0**row, "acc": value, "status": "diverged" if math.isnan(value) else "finished"}
        for row, line in enumerate(z) for lr, value in zip((1.0, 2.0, 4.0), line, strict=True)
    ])  # fmt: skip
    for metric in ("acc", "test_loss"):
        heights, places, sides = ridge(Runs(frame.assign(test_loss=-frame["acc"])), "lr", "n", metric)
        assert heights == pytest.approx(np.log(2.0) * np.arange(6))
        # A parabola through 1, 3, 2 peaks at 1/6; beside a diverged cell the cell counts; a flat row has no best.
        assert places == pytest.approx(np.log(2.0) * np.array([1, 1, 0, NAN, 1 + 1 / 6, NAN]), nan_ok=True)
        assert sides.tolist()[:5] == [0, 0, -1, 0, 0]


def test_rows_whose_best_is_at_the_edge_bound_the_fit() -> None:
    heights = np.arange(4.0)
    free = ridge_exponent(heights, np.array([0.0, 1.0, 2.0, 2.0]), np.array([0, 0, 0, 1]))
    assert free == pytest.approx(1.0)  # the line passes through three points and beyond the edge at the fourth row
    bound = ridge_exponent(heights, np.array([0.0, 1.0, 2.0, 5.0]), np.array([0, 0, 0, 1]))
    assert 1.0 < bound < 5 / 3  # it would end before the edge
    assert math.isnan(ridge_exponent(heights, np.array([0.0, 0.0, 2.0, 2.0]), np.array([-1, -1, 0, 1])))


def test_a_diverged_run_has_no_number_but_its_finite_ones() -> None:
    runs = Runs(pd.DataFrame({
        "arm": ["a", "a", "b", "c"], "acc": [80.0, 90.0, NAN, NAN], "rate": [1.0, 1.0, 3.0, 1.0],
        "loss": [1.0, 1.0, 1.0, math.inf], "status": ["finished", "finished", "diverged", "finished"],
    }))  # fmt: skip
    assert runs.mean("acc", {"arm": "a"}) == 85.0
    assert runs.measured("rate", {"arm": "b"}).tolist() == [3.0]
    for arm in ("b", ["a", "b"]):
        with pytest.raises(DivergedError, match="arm"):
            runs.mean("acc", {"arm": arm})
    for arm in ("c", "d"):
        with pytest.raises(UnmeasurableError, match=f"arm {arm}"):
            runs.mean("acc", {"arm": arm})
