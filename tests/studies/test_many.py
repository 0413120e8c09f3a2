import json
import subprocess
import sys
from pathlib import Path

import pytest

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
