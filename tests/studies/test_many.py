import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from onecycle.studies.estimate import resampled_half_width

MANY = Path(__file__).with_name("many.py")


@pytest.mark.slow
def test_ten_thousand_runs_have_their_page_in_half_a_minute_and_a_gigabyte(tmp_path: Path) -> None:
    command = [sys.executable, str(MANY), str(tmp_path), "10000"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stderr
    measured = json.loads(done.stdout.splitlines()[-1])
    assert measured["report"] + measured["index"] < 30
    assert measured["peak_mb"] < 1000
    page = (tmp_path / "many" / "report" / "index.html").read_text()
    assert "10,000" in page or "10000" in page
    (verdict,) = json.loads((tmp_path / "many" / "report" / "verdicts.json").read_text())
    assert verdict["verdict"] == "holds"
    assert verdict["effect"] == pytest.approx(1.0, abs=0.05)
    assert verdict["seeds"] == 50


@pytest.mark.parametrize("seeds", [2, 60])
def test_the_interval_over_many_seeds_is_that_of_theory_although_fewer_copies_are_made(seeds: int) -> None:
    # The effect is the mean of ten values of sd 2: over n seeds its sd is 2 / sqrt(10 n), and 1.645 of them are 90 %.
    rows = [[{"z": 1.0} for _ in range(10)] for _ in range(seeds)]
    width = resampled_half_width(rows, lambda members: float(np.mean([row["z"] for row in members])), "z", 2.0)
    assert width == pytest.approx(1.645 * 2 / np.sqrt(10 * seeds), rel=0.1 if seeds == 2 else 0.06)
