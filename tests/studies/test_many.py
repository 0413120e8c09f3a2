"""Fabricates the records of a large sweep and measures what its table, its page and the index of studies take.

`python tests/studies/test_many.py FOLDER RUNS` prints one JSON line: seconds of each, and the peak of memory in MB. The
runs lie on a grid of 20 learning rates and 10 batch sizes, with as many seeds as there are runs for.
"""

import json
import math
import random
import re
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from onecycle.studies import plan, report
from onecycle.studies import rows as table

sys.path.insert(0, str(Path(__file__).parents[1]))  # as a program of its own
from studying import record_of

LRS = [round(0.01 * 1.4**k, 6) for k in range(20)]
BATCHES = [16 * (k + 1) for k in range(10)]
STUDY: dict[str, Any] = {
    "name": "many", "title": "Many runs", "question": "How long?", "source": "nobody", "scale": "cpu", "fixed": {},
    "scales": {"cpu": None}, "runs": [{"axes": {"batch_size": BATCHES, "schedule.peak_lr": LRS}}],
    "figures": [
        {"kind": "heat_map_pair", "x": "peak_lr", "y": "batch_size", "z": "test_accuracy", "transform": "ratio"},
        {"kind": "curves", "x": "peak_lr", "y": "test_accuracy", "by": "batch_size"},
    ],
    "claims": [
        {"id": "ridge", "text": "λ ∝ N", "effect": "ridge_power", "x": "peak_lr", "y": "batch_size",
         "z": "test_accuracy", "at_least": 0.6, "at_most": 1.4, "unit": "power"},
    ],
}  # fmt: skip


@pytest.mark.slow
def test_ten_thousand_runs_have_their_page_in_a_gigabyte(tmp_path: Path) -> None:
    command = [sys.executable, __file__, str(tmp_path), "10000"]  # a process of its own: its memory is measured
    done = subprocess.run(command, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stderr
    measured = json.loads(done.stdout.splitlines()[-1])
    assert measured["peak_mb"] < 1000
    assert "10000" in (tmp_path / "many" / "report" / "index.html").read_text()
    (verdict,) = json.loads((tmp_path / "many" / "report" / "verdicts.json").read_text())
    assert (verdict["verdict"], verdict["seeds"]) == ("holds", 50)
    assert verdict["effect"] == pytest.approx(1.0, abs=0.05)


def fabricate(folder: Path, runs: int) -> None:
    """Write the plan and the records of `runs` runs, in the form in which training leaves them."""
    spec = STUDY | {"seeds": list(range(runs // (len(LRS) * len(BATCHES))))}
    points = plan.points(spec)
    assert len(points) == runs
    plan.write_plan(folder, plan.Plan(spec, points, "onecycle-train study=many"))
    noise = random.Random(0)
    for point in points:
        lr, batch, seed = (point.values[name] for name in ("peak_lr", "batch_size", "seed"))
        place = folder / f"{point.label.replace(' ', '_')}-{seed:08x}"
        accuracy = 0.9 - 0.02 * math.log2(lr / (0.002 * batch)) ** 2 / 4 + noise.gauss(0, 0.003)
        rates = {"peak_lr": lr, "batch_size": batch, "momentum": 0.9, "weight_decay": 5e-4}
        record_of(place, point.overrides, accuracy, hyperparameters=rates)
        curve = "".join(f"{10 * k},{0.1 * k},{2 / (k + 1)},{lr},{500 + k},\n" for k in range(1, 40))
        header = "step,epoch,train/loss,lr,images_per_second,test/accuracy\n"
        (place / "metrics.csv").write_text(header + curve + f"400,4,0.01,0,500,{accuracy}\n")


def seconds(work: Callable[[], Any]) -> float:
    began = time.perf_counter()
    work()
    return round(time.perf_counter() - began, 2)


if __name__ == "__main__":
    folder, runs = Path(sys.argv[1]) / "many", int(sys.argv[2])
    if not folder.exists():
        fabricate(folder, runs)
    measured = {
        "runs": runs, "table": seconds(lambda: table.read(folder)), "report": seconds(lambda: report.build(folder)),
        "index": seconds(lambda: report.build_index(folder.parent)),
    }  # fmt: skip
    # Not getrusage, whose peak counts the process from which this one was forked.
    peak = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    print(json.dumps(measured | {"peak_mb": int(peak[1]) // 1024 if peak else None}))
