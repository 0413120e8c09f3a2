import math
from pathlib import Path

import pytest

from onecycle.studies import aggregates, curves


def write(folder: Path, lines: list[str]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "metrics.csv").write_text("step,epoch,train/loss,lr,test/accuracy\n" + "\n".join(lines) + "\n")
    return folder


def test_a_history_has_the_rows_that_hold_all_of_its_columns(tmp_path: Path) -> None:
    folder = write(tmp_path, ["1,0.5,2.0,0.1,", "2,1,1.0,0.2,0.5", "3,1.5,,0.3,"])
    assert curves.history(folder, "lr", "train/loss") == [[0.1, 0.2], [2.0, 1.0]]
    assert curves.history(folder, "test/accuracy") == [[0.5]]
    assert curves.history(tmp_path / "none", "lr", "train/loss") == [[], []]


def test_smoothing_starts_unbiased() -> None:
    assert curves.smoothed([4.0] * 5) == pytest.approx([4.0] * 5)
    assert curves.smoothed([0.0, 1.0], weight=0.5) == pytest.approx([0.0, 2 / 3])
    assert all(math.isnan(value) for value in curves.smoothed([math.nan, 1.0, 1.0]))


def test_a_range_test_finds_the_minimum_and_the_last_usable_rate(tmp_path: Path) -> None:
    # A long flat valley at loss 1, then a sudden rise to 100: the smoothed loss exceeds 1.25 at the first high step.
    lrs = [0.01 * 1.1**step for step in range(100)]
    losses = [3.0] * 30 + [1.0] * 50 + [100.0] * 20
    folder = write(tmp_path, [f"{i},0,{loss},{lr}," for i, (lr, loss) in enumerate(zip(lrs, losses, strict=True))])
    found = curves.range_test(folder)
    assert found["usable_lr"] == pytest.approx(lrs[79])
    assert 2 ** found["usable_lr_log2"] == pytest.approx(lrs[79])
    assert found["lr_at_minimum"] == pytest.approx(lrs[79])
    assert found["lowest_loss"] == pytest.approx(1.0, abs=0.02)


def test_a_range_test_that_ends_in_nan_or_never_blows_up(tmp_path: Path) -> None:
    nan = write(tmp_path / "nan", ["1,0,2.0,0.1,", "2,0,1.0,0.2,", "3,0,nan,0.4,"])
    assert curves.range_test(nan)["usable_lr"] == 0.2
    falling = write(tmp_path / "falling", [f"{i},0,{3 - i},{0.1 * 2**i}," for i in range(3)])
    assert curves.range_test(falling)["usable_lr"] == pytest.approx(0.4)
    assert math.isnan(curves.range_test(tmp_path / "empty")["usable_lr"])


def test_seeds_of_a_point_are_averaged_where_all_of_them_have_a_step(tmp_path: Path) -> None:
    first = write(tmp_path / "0", ["1,0,2,0.1,", "2,0,4,0.1,"])
    second = write(tmp_path / "1", ["1,0,4,0.1,"])
    rows = [{"label": "a,seed=0", "folder": str(first)}, {"label": "a,seed=1", "folder": str(second)}]
    groups = aggregates.by_point(rows)
    assert list(groups) == ["a"]
    loss = [aggregates.read_curves(Path(row["folder"]))["train/loss"] for row in groups["a"]]
    assert aggregates.band(loss) == {1: (3.0, pytest.approx(math.sqrt(2)))}
