import math
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml

from onecycle.config.compose import CONF
from onecycle.errors import ConfigError
from onecycle.studies import rows as table
from onecycle.studies.figures import draw
from onecycle.studies.plan import Plan, Point, read_plan, write_plan
from studying import record_of

POINTS = [
    Point(f"lr={lr},seed={seed}", {"peak_lr": lr, "seed": seed}, (f"lr={lr}", f"seed={seed}"))
    for lr in (0.1, 0.4)
    for seed in (0, 1)
]


@pytest.fixture
def study(tmp_path: Path) -> Path:
    folder = tmp_path / "one"
    write_plan(folder, Plan({"name": "one"}, POINTS, "onecycle-train study=one"))
    record_of(folder / "a", POINTS[0].overrides, 0.5, measures={"final_loss": 0.25, "recency": [1.0, 2.0]})
    record_of(folder / "b", POINTS[1].overrides, 0.7)
    record_of(folder / "c", POINTS[2].overrides, 0.1, status="diverged")
    record_of(folder / "d", POINTS[3].overrides, None, status="running")
    record_of(folder / "e", ("lr=9", "seed=0"), 0.9)
    return folder


def test_a_plan_comes_back_as_it_was_written(study: Path) -> None:
    plan = read_plan(study)
    assert (plan.points, plan.study, plan.command) == (POINTS, {"name": "one"}, "onecycle-train study=one")
    with pytest.raises(ConfigError, match="make study NAME=three"):
        read_plan(study.parent / "three")


def test_only_finished_and_diverged_runs_of_the_plan_are_rows_in_its_order(study: Path) -> None:
    frame = table.read(study)
    assert frame["label"].tolist() == ["lr=0.1,seed=0", "lr=0.1,seed=1", "lr=0.4,seed=0"]
    assert frame["status"].tolist() == ["finished", "finished", "diverged"]
    assert frame["has_diverged"].tolist() == [0, 0, 1]
    first = frame.iloc[0]
    assert first["test_accuracy"] == 50.0
    assert (first["test_loss"], first["final_loss"], first["recency"]) == (1.5, 0.25, [1.0, 2.0])
    assert (first["lr_per_example"], first["subset_size"], first["seed"]) == (0.1 / 50, 1000, 0)
    assert first["one_minus_momentum"] == pytest.approx(0.1)
    assert "effective_decay" not in frame
    assert frame["train_loss"].iloc[0] == math.inf  # null: it was not finite
    assert frame[["test_accuracy", "test_loss"]].iloc[2].isna().all()


def test_of_two_records_with_the_same_overrides_the_newer_one_counts(study: Path) -> None:
    record_of(study / "z", POINTS[1].overrides, 0.9, started="2026-01-02T00:00:00")
    record_of(study / "aa", POINTS[1].overrides, 0.8, started="2026-01-03T00:00:00")
    assert table.read(study)["test_accuracy"].iloc[1] == 80.0


def test_a_half_written_record_counts_as_none(study: Path) -> None:
    (study / "a" / "result.json").write_text('{"schema": 1, "sta')
    assert table.read(study)["label"].tolist() == ["lr=0.1,seed=1", "lr=0.4,seed=0"]
    assert "recency" not in table.plain_columns(table.read(study))


def test_a_study_of_records_has_the_rows_of_the_studies_that_it_names(study: Path) -> None:
    other = study.parent / "two"
    write_plan(other, Plan({"name": "two", "records_of": ["one"]}, [], "…"))
    assert table.read(other)["study"].tolist() == ["one"] * 3


ROWS = pd.DataFrame([
    {"arm": "b", "lr": 0.1 / 128, "n": 128, "cutout": True, "stages": [1, 2]},
    {"arm": "b", "lr": 0.2 / 256, "n": 256, "cutout": False, "stages": [1]},
    {"arm": "a", "lr": 0.4, "n": 128, "cutout": None, "stages": [1, 2]},
    {"arm": "c", "lr": 0.4},
])  # fmt: skip


@pytest.mark.parametrize(
    ("left", "right", "equal"),
    [
        (0.1 + 0.2, 0.3, True), (1.0, 1 + 0.9e-6, True), (1.0, 1 + 2e-6, False), (128, 128.0, True),
        (5_000_000, 5_000_001, False), (True, 1, False), (True, 1.0, False), (True, True, True), ("0.4", 0.4, False),
        (None, None, True), (None, 0.0, False), (math.nan, None, True), (math.nan, 1.0, False),
        (math.inf, math.inf, True), ([1, 2], [1, 2], True),
    ],
)  # fmt: skip
def test_cells_are_the_same_within_a_millionth(left: object, right: object, equal: bool) -> None:
    assert table.same(left, right) is equal
    assert table.same(right, left) is equal


@pytest.mark.parametrize(
    ("where", "places"),
    [
        (None, [0, 1, 2, 3]), ({}, [0, 1, 2, 3]), ({"arm": "b"}, [0, 1]), ({"arm": ["a", "c"]}, [2, 3]),
        ({"lr": 0.00078125}, [0, 1]), ({"arm": "b", "n": [128, 512]}, [0]), ({"cutout": True}, [0]),
        ({"cutout": 1}, []), ({"cutout": None}, [2, 3]), ({"n": None}, [3]), ({"none": None}, [0, 1, 2, 3]),
        ({"none": 1}, []), ({"lr": 0.4000001}, [2, 3]), ({"lr": 0.401}, []),
    ],
)  # fmt: skip
def test_a_filter_means_the_rows_with_its_values(where: dict[str, object] | None, places: list[int]) -> None:
    assert table.select(ROWS, where).index.tolist() == places


def test_levels_are_numbers_ascending_and_words_by_appearance() -> None:
    assert table.levels(ROWS, "lr") == [0.00078125, 0.4]  # what differs by rounding is one
    assert table.levels(ROWS, "n") == [128, 256]
    assert table.levels(ROWS, "arm") == ["b", "a", "c"]
    assert table.levels(ROWS, "cutout") == [True, False]
    assert table.levels(ROWS, "stages") == [[1, 2], [1]]
    assert table.levels(ROWS, "none") == []


def test_values_and_filters_are_written_as_a_person_would() -> None:
    assert list(map(table.value_text, table.levels(ROWS, "n"))) == ["128", "256"]  # a missing one made them floats
    assert [table.value_text(value) for value in (1e6, 0.1 + 0.2, True, "one")] == ["1000000", "0.3", "True", "one"]
    where = {"arm": "constant 3", "lr": [0.00078125, 1.0]}
    assert table.filter_text(where) == "arm constant 3, lr 0.00078125 or 1"
    assert table.filter_text({}) == table.filter_text(None) == "any point"


def test_a_study_is_planned_and_checked_without_torch_and_pandas() -> None:
    code = (
        "import sys, onecycle.studies.study, onecycle.studies.rows\n"
        "print({'torch', 'lightning', 'pandas', 'scipy', 'matplotlib'} & set(sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "set()\n"


def write_curve(folder: Path, lines: list[str]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "metrics.csv").write_text("step,epoch,train/loss,lr,test/accuracy\n" + "\n".join(lines) + "\n")
    return folder


def test_a_history_has_the_rows_that_hold_all_of_its_columns(tmp_path: Path) -> None:
    folder = write_curve(tmp_path, ["1,0.5,2.0,0.1,", "2,1,1.0,0.2,0.5", "3,1.5,,0.3,"])
    assert table.history(folder, "lr", "train/loss") == [[0.1, 0.2], [2.0, 1.0]]
    assert table.history(folder, "test/accuracy") == [[0.5]]
    assert table.history(tmp_path / "none", "lr", "train/loss") == [[], []]


def rising(folder: Path, losses: Sequence[float]) -> tuple[Path, list[float]]:
    """A range test of 200 steps from 0.001 to 30, as the study has it; returns its folder and rates."""
    lrs = [0.001 * 30_000 ** ((step + 1) / 200) for step in range(200)]
    return write_curve(
        folder, [f"{i},0,{loss},{lr}," for i, (lr, loss) in enumerate(zip(lrs, losses, strict=True))]
    ), lrs


def valley(lr: float, lowest: float) -> float:
    """A loss that is 1.4 at the rate `lowest` and rises evenly to both sides of it over log λ."""
    return 1.4 + 0.15 * math.log(lr / lowest) ** 2


@pytest.mark.parametrize("lowest", [0.3, 2.05])
def test_the_rate_of_the_lowest_loss_of_a_range_test_is_found_without_a_lag(tmp_path: Path, lowest: float) -> None:
    lrs = [0.001 * 30_000 ** ((step + 1) / 200) for step in range(200)]
    folder, _ = rising(tmp_path, [valley(lr, lowest) for lr in lrs])
    found = table.range_test(folder)["lr_at_minimum"]
    assert found == pytest.approx(lowest, rel=0.027)  # half a step: the rate grows by a factor of 1.053 in each
    noise = np.random.default_rng(0).normal(0.0, 0.02, 200)
    noisy, _ = rising(tmp_path / "noisy", [valley(lr, lowest) + shift for lr, shift in zip(lrs, noise, strict=True)])
    assert table.range_test(noisy)["lr_at_minimum"] == pytest.approx(lowest, rel=0.3)


def test_the_figure_of_a_range_test_has_its_minimum_where_the_number_says(tmp_path: Path) -> None:
    noise = np.random.default_rng(1).normal(0.0, 0.1, 200)
    folder, lrs = rising(tmp_path, [valley(0.001 * 30_000 ** ((i + 1) / 200), 2.05) + e for i, e in enumerate(noise)])
    (settings,) = yaml.safe_load((CONF / "study/lr_range_test.yaml").read_text())["study"]["figures"]
    assert settings["smooth"] == table.SMOOTHING
    rows = pd.DataFrame([{"arm": "a", "folder": str(folder), "status": "finished"}])
    drawn_figures, _ = draw({"figures": [settings]}, rows)
    figure = drawn_figures["figure"]
    (line,) = (line for line in figure.axes[0].lines if line.get_label() == "_mean")
    drawn = np.asarray(line.get_ydata(), float)
    assert lrs[int(np.argmin(drawn))] == pytest.approx(table.range_test(folder)["lr_at_minimum"])
    assert drawn.min() == pytest.approx(table.range_test(folder)["lowest_loss"])


def test_a_range_test_finds_the_minimum_and_the_last_usable_rate(tmp_path: Path) -> None:
    # A long valley, lowest at step 60, then a sudden rise to 100 in step 80: the average rises five steps earlier.
    folder, lrs = rising(
        tmp_path, [3.0] * 30 + [1.0 + 1e-4 * (step - 60) ** 2 for step in range(30, 80)] + [100.0] * 120
    )
    found = table.range_test(folder)
    assert found["usable_lr"] == pytest.approx(lrs[79])
    assert 2 ** found["usable_lr_log2"] == pytest.approx(lrs[79])
    assert found["lr_at_minimum"] == pytest.approx(lrs[60])
    assert found["lowest_loss"] == pytest.approx(1.0, abs=0.02)


def test_the_usable_rates_end_where_a_network_falls_back_to_guessing(tmp_path: Path) -> None:
    # Lowest at 1.92, then log 10 = 2.303 for good: 1.199 times as high, which is no blow-up by itself.
    folder, lrs = rising(tmp_path, [2.31] * 60 + [1.92] * 60 + [math.log(10)] * 80)
    assert table.range_test(folder)["usable_lr"] == pytest.approx(lrs[-1])
    assert table.range_test(folder, chance=10.0)["usable_lr"] == pytest.approx(lrs[119])
    assert table.range_test(folder, chance=1.0)["usable_lr"] == pytest.approx(lrs[-1])


def test_one_high_loss_alone_does_not_end_the_usable_rates(tmp_path: Path) -> None:
    losses = [1.0] * 200
    losses[100] = 1.9
    folder, lrs = rising(tmp_path, losses)
    assert table.range_test(folder)["usable_lr"] == pytest.approx(lrs[-1])


def test_a_range_test_that_ends_in_nan_or_never_blows_up(tmp_path: Path) -> None:
    nan = write_curve(tmp_path / "nan", ["1,0,2.0,0.1,", "2,0,1.0,0.2,", "3,0,nan,0.4,"])
    assert table.range_test(nan)["usable_lr"] == 0.2
    falling = write_curve(tmp_path / "falling", [f"{i},0,{3 - i},{0.1 * 2**i}," for i in range(3)])
    assert table.range_test(falling)["usable_lr"] == pytest.approx(0.4)
    assert math.isnan(table.range_test(tmp_path / "empty")["usable_lr"])
