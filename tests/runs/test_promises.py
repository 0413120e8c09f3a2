"""What a user is promised of runs that are changed, diverge, or are started twice; by true processes."""

import csv
import json
import math
import platform
import signal
from pathlib import Path

import pytest

from test_commands import TINY, records, run, start_long_run

INTERVAL = 10  # steps: callbacks.divergence.every_n_steps and trainer.log_every_n_steps by default


def test_the_second_process_in_a_runs_folder_says_who_holds_it_and_stops_and_the_first_goes_on(tmp_path: Path) -> None:
    first, folder = start_long_run(tmp_path)
    second = run(f"resume={folder}", cwd=tmp_path)
    assert (second.returncode, second.stdout.count("Traceback") + second.stderr.count("Traceback")) == (2, 0)
    assert f"{folder}: process {first.pid} on {platform.node()}" in second.stderr
    assert first.poll() is None
    assert json.loads((folder / "result.json").read_text())["status"] == "running"
    first.send_signal(signal.SIGINT)
    first.communicate(timeout=60)
    assert first.returncode == 130


def test_a_resumed_run_with_another_configuration_is_refused_with_a_line_for_each_key(tmp_path: Path) -> None:
    process, folder = start_long_run(tmp_path)
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=60)
    before = {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}
    words = ["seed=3", "schedule.peak_lr=0.2", "model.width=8", "data.subset_size=64"]
    done = run(f"resume={folder}", *words, "trainer.threads=1", cwd=tmp_path)
    assert done.returncode == 2
    assert [line.partition(":")[0] for line in done.stderr.splitlines()] == words
    assert {path.name: path.stat().st_mtime_ns for path in folder.iterdir()} == before


@pytest.mark.parametrize("recipe", [["schedule.peak_lr=1e30"], ["callbacks.divergence.max_loss=0.5"]], ids=range(2))
def test_a_run_that_diverges_stops_within_one_interval_keeps_its_curve_and_ends_with_0(
    recipe: list[str], tmp_path: Path
) -> None:
    done = run(*TINY, "batch_size=16", "trainer.max_epochs=5", "schedule=constant", *recipe, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    assert "diverged" in done.stdout
    (result,) = records(tmp_path / "logs" / "runs").values()
    assert (result["status"], result["steps"]) == ("diverged", INTERVAL)
    (folder,) = (tmp_path / "logs" / "runs").iterdir()
    with (folder / "metrics.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row.get("train/loss")]
    assert [int(row["step"]) for row in rows] == list(range(1, INTERVAL + 1))  # debug logs every step
    losses = [float(row["train/loss"]) for row in rows]
    assert math.isfinite(losses[0])
    assert not math.isfinite(losses[-1]) or sum(losses) / len(losses) > 0.5
