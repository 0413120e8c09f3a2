import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml

from onecycle.config.compose import CONF
from onecycle.studies import rows as curves
from onecycle.studies.figures import draw as figures


def write(folder: Path, lines: list[str]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "metrics.csv").write_text("step,epoch,train/loss,lr,test/accuracy\n" + "\n".join(lines) + "\n")
    return folder


def test_a_history_has_the_rows_that_hold_all_of_its_columns(tmp_path: Path) -> None:
    folder = write(tmp_path, ["1,0.5,2.0,0.1,", "2,1,1.0,0.2,0.5", "3,1.5,,0.3,"])
    assert curves.history(folder, "lr", "train/loss") == [[0.1, 0.2], [2.0, 1.0]]
    assert curves.history(folder, "test/accuracy") == [[0.5]]
    assert curves.history(tmp_path / "none", "lr", "train/loss") == [[], []]


def rising(folder: Path, losses: Sequence[float]) -> tuple[Path, list[float]]:
    """A range test of 200 steps from 0.001 to 30, as the study has it; returns its folder and rates."""
    lrs = [0.001 * 30_000 ** ((step + 1) / 200) for step in range(200)]
    return write(folder, [f"{i},0,{loss},{lr}," for i, (lr, loss) in enumerate(zip(lrs, losses, strict=True))]), lrs


def valley(lr: float, lowest: float) -> float:
    """A loss that is 1.4 at the rate `lowest` and rises evenly to both sides of it over log λ."""
    return 1.4 + 0.15 * math.log(lr / lowest) ** 2


@pytest.mark.parametrize("lowest", [0.3, 2.05])
def test_the_rate_of_the_lowest_loss_of_a_range_test_is_found_without_a_lag(tmp_path: Path, lowest: float) -> None:
    lrs = [0.001 * 30_000 ** ((step + 1) / 200) for step in range(200)]
    folder, _ = rising(tmp_path, [valley(lr, lowest) for lr in lrs])
    found = curves.range_test(folder)["lr_at_minimum"]
    assert found == pytest.approx(lowest, rel=0.027)  # half a step: the rate grows by a factor of 1.053 in each
    noise = np.random.default_rng(0).normal(0.0, 0.02, 200)
    noisy, _ = rising(tmp_path / "noisy", [valley(lr, lowest) + shift for lr, shift in zip(lrs, noise, strict=True)])
    assert curves.range_test(noisy)["lr_at_minimum"] == pytest.approx(lowest, rel=0.3)


def test_the_figure_of_a_range_test_has_its_minimum_where_the_number_says(tmp_path: Path) -> None:
    noise = np.random.default_rng(1).normal(0.0, 0.1, 200)
    folder, lrs = rising(tmp_path, [valley(0.001 * 30_000 ** ((i + 1) / 200), 2.05) + e for i, e in enumerate(noise)])
    (settings,) = yaml.safe_load((CONF / "study/lr_range_test.yaml").read_text())["study"]["figures"]
    rows = pd.DataFrame([{"arm": "a", "folder": str(folder), "status": "finished"}])
    drawn_figures, _ = figures.draw({"figures": [settings]}, rows)
    figure = drawn_figures["figure"]
    (line,) = (line for line in figure.axes[0].lines if line.get_label() == "_mean")
    drawn = np.asarray(line.get_ydata(), float)
    assert lrs[int(np.argmin(drawn))] == pytest.approx(curves.range_test(folder)["lr_at_minimum"])
    assert drawn.min() == pytest.approx(curves.range_test(folder)["lowest_loss"])


def test_a_range_test_finds_the_minimum_and_the_last_usable_rate(tmp_path: Path) -> None:
    # A long valley, lowest at step 60, then a sudden rise to 100 in step 80: the average rises five steps earlier.
    lrs = [0.01 * 1.1**step for step in range(100)]
    losses = [3.0] * 30 + [1.0 + 1e-4 * (step - 60) ** 2 for step in range(30, 80)] + [100.0] * 20
    folder = write(tmp_path, [f"{i},0,{loss},{lr}," for i, (lr, loss) in enumerate(zip(lrs, losses, strict=True))])
    found = curves.range_test(folder)
    assert found["usable_lr"] == pytest.approx(lrs[79])
    assert 2 ** found["usable_lr_log2"] == pytest.approx(lrs[79])
    assert found["lr_at_minimum"] == pytest.approx(lrs[60])
    assert found["lowest_loss"] == pytest.approx(1.0, abs=0.02)


def test_one_high_loss_alone_does_not_end_the_usable_rates(tmp_path: Path) -> None:
    losses = [1.0] * 200
    losses[100] = 1.9
    folder, lrs = rising(tmp_path, losses)
    assert curves.range_test(folder)["usable_lr"] == pytest.approx(lrs[-1])


def test_a_range_test_that_ends_in_nan_or_never_blows_up(tmp_path: Path) -> None:
    nan = write(tmp_path / "nan", ["1,0,2.0,0.1,", "2,0,1.0,0.2,", "3,0,nan,0.4,"])
    assert curves.range_test(nan)["usable_lr"] == 0.2
    falling = write(tmp_path / "falling", [f"{i},0,{3 - i},{0.1 * 2**i}," for i in range(3)])
    assert curves.range_test(falling)["usable_lr"] == pytest.approx(0.4)
    assert math.isnan(curves.range_test(tmp_path / "empty")["usable_lr"])
