import json
from pathlib import Path

import pytest
import torch

from onecycle.benchmark import benchmark, contestants
from onecycle.benchmark.contestants import Paired, Race

RACE = Race("resnet9", width=4, batch_size=32, groups=2, group=4, turn=2, warm=1)
CPU = torch.device("cpu")


def test_a_ratio_is_taken_group_by_group() -> None:
    # The machine slows down to a third; the contestant is 25 % slower than the bare loop, and once stands still.
    row = benchmark._paired_row(Paired(contestant=[0.125, 0.250, 5.0], bare=[0.1, 0.2, 0.3]), batch_size=10)
    assert row["ratio"] == pytest.approx(0.8)
    assert row["median"] == pytest.approx(40)
    assert row["values"] == pytest.approx([80, 40, 2])


@pytest.mark.parametrize("barebones", [False, True])
def test_the_bare_loop_takes_its_turn_after_each_of_the_trainers(barebones: bool) -> None:
    paired = contestants.race_trainer(RACE, CPU, barebones=barebones)
    assert (len(paired.contestant), len(paired.bare)) == (2, 2)
    assert all(seconds > 0 for seconds in (*paired.contestant, *paired.bare))


def test_bare_loops_race_in_every_precision_and_layout() -> None:
    rows = contestants.race_bare_loops(RACE, CPU)
    fast = contestants.is_bf16_fast(CPU)
    expected = ["bare loop, bf16, NCHW", "bare loop, fp32, channels_last"] if fast else []
    assert list(rows) == [*expected, "bare loop, fp32, NCHW"]
    assert all(len(paired.contestant) == 2 for paired in rows.values())


def test_flops_are_counted_forward_and_backward() -> None:
    # Width 64: 379 million multiplications and additions forward; backward twice that but for the first layer's input.
    macs = 3 * 64 * 9 * 32**2 + 5 * 64 * 128 * 9 * 32**2 + 512 * 10
    assert contestants.flops_per_image("resnet9", 64) == pytest.approx(6 * macs - 2 * 3 * 64 * 9 * 32**2)


def test_the_table_of_components_covers_a_step() -> None:
    parts = benchmark.measure_profile("resnet9", 4, quick=True, device=CPU)
    assert parts["convolution"] > 0
    assert parts["data"] > 0


def test_the_report_is_written_as_json(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "sys.argv", ["benchmark", "--quick", "--only", "profile", "--widths", "4", "--output", str(tmp_path)]
    )
    benchmark.main()
    (path,) = tmp_path.glob("*.json")
    report = json.loads(path.read_text())
    assert report["quick"] is True
    assert report["profile, width 4"]["convolution"] > 0
    assert report["seconds"] > 0
