import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

import onecycle
from onecycle.benchmark import __main__ as benchmark
from onecycle.benchmark import contestants
from onecycle.benchmark.contestants import Race

RACE = Race(width=4, batch_size=32, groups=2, group=4, turn=2, warm=1)
CPU = torch.device("cpu")


def test_a_ratio_is_taken_group_by_group() -> None:
    # The machine slows down to a third; the contestant is 25 % slower than the bare loop, and once stands still.
    row = benchmark.paired_row([(0.125, 0.1), (0.250, 0.2), (5.0, 0.3)], batch_size=10)
    assert row["ratio"] == pytest.approx(0.8)
    assert row["median"] == pytest.approx(40)
    assert row["values"] == pytest.approx([80, 40, 2])


def test_the_bare_loop_takes_its_turn_after_each_of_the_trainers() -> None:
    pairs = contestants.race_trainer(RACE, CPU)
    assert len(pairs) == 2
    assert all(own > 0 and bare > 0 for own, bare in pairs)


def test_bare_loops_race_in_every_precision_and_layout() -> None:
    rows = contestants.race_bare_loops(RACE, CPU)
    fast = contestants.is_bf16_fast(CPU)
    expected = ["bare loop, bf16, NCHW", "bare loop, fp32, channels_last"] if fast else []
    assert list(rows) == [*expected, "bare loop, fp32, NCHW"]
    assert all(len(pairs) == 2 for pairs in rows.values())


@pytest.mark.slow
def test_the_plain_script_prints_its_seconds_a_step() -> None:
    command = [sys.executable, "-m", "onecycle.benchmark.contestants", "4", "32", "2", "1"]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    assert float(done.stdout.splitlines()[-1]) > 0


def test_a_process_prints_its_images_a_second(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(contestants, "advance", lambda loop, steps: next(loop) or 0.25)
    contestants.print_rate(seconds=1, width=4, batch_size=8)
    assert float(capsys.readouterr().out) == 8 / 0.25


def test_each_way_of_waiting_is_measured_alone_and_beside_others(monkeypatch: pytest.MonkeyPatch) -> None:
    busy, seen = list[Any](), list[tuple[int, set[str]]]()

    class Process:
        def __init__(self, command: list[str]) -> None:
            busy.append(self)

        def kill(self) -> None:
            busy.remove(self)

        def wait(self) -> None:
            assert self not in busy

    def run(command: list[str], env: dict[str, str], **options: Any) -> Any:
        seen.append((len(busy), onecycle.WAITING & set(env)))
        return SimpleNamespace(stdout=f"a warning\n{len(seen)}.0\n")

    monkeypatch.setenv("OMP_WAIT_POLICY", "passive")  # as this process may have chosen for itself
    monkeypatch.setattr(benchmark, "subprocess", SimpleNamespace(Popen=Process, run=run))
    rates = benchmark.measure_load(quick=True)
    own = [set(variables) for variables in benchmark.WAYS.values()]
    assert seen == [(0, names) for names in own] + [(3, names) for names in own]
    assert not busy
    assert own[-1] == set()
    assert rates["chosen at the start"] == {"alone": [4.0], "beside": [8.0]}


def test_flops_are_counted_forward_and_backward() -> None:
    # Width 64: 379 million multiplications and additions forward; backward twice that but for the first layer's input.
    macs = 3 * 64 * 9 * 32**2 + 5 * 64 * 128 * 9 * 32**2 + 512 * 10
    assert benchmark.flops_per_image(64) == pytest.approx(6 * macs - 2 * 3 * 64 * 9 * 32**2)


def test_the_report_is_written_as_json(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["benchmark", "--quick", "--only", "profile", "--widths", "4"])
    benchmark.main()
    (path,) = tmp_path.glob("logs/benchmarks/*.json")
    report = json.loads(path.read_text())
    assert report["quick"] is True
    assert report["seconds"] > 0
    assert all(report["profile, width 4"][part] > 0 for part in ("convolution", "data"))
