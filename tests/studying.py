"""Studies as a user starts them, how to kill one while it makes its runs, and records that no training left."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

Finished = dict[Path, tuple[bytes, int]]


def start(folder: Path, *arguments: str) -> subprocess.Popen[str]:
    """The running process of a command whose logs are in `folder`."""
    command = [sys.executable, "-m", "onecycle", "train", *arguments, f"output={folder}"]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "ONECYCLE_CACHE": str(folder.parent / "cache")}
    pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    return subprocess.Popen(command, env=environment, cwd=folder.parent, **pipes)


def ended(process: subprocess.Popen[str]) -> subprocess.CompletedProcess[str]:
    """The same process when it has come to its end."""
    output, _ = process.communicate(timeout=240)
    return subprocess.CompletedProcess(process.args, process.returncode, output)


def results(folder: Path) -> dict[str, dict[str, Any]]:
    """Every record of the study, or the sweep, in `folder`, by its run's folder."""
    return {path.parent.name: json.loads(path.read_text()) for path in sorted(folder.glob("s*/*/*/result.json"))}


def comparable(record: dict[str, Any]) -> dict[str, Any]:
    """What must be equal whenever and however often interrupted; times are not."""
    return {key: record[key] for key in ("status", "identity", "test", "train", "steps", "measures")}


def finished(folder: Path) -> Finished:
    """Bytes of every finished record and when it was written, in nanoseconds."""
    found = {path: path.read_bytes() for path in folder.glob("s*/*/*/result.json")}
    done = {path: text for path, text in found.items() if json.loads(text)["status"] in ("finished", "diverged")}
    return {path: (text, path.stat().st_mtime_ns) for path, text in done.items()}


def killed(process: subprocess.Popen[str], folder: Path, count: int, fraction: float) -> Finished:
    """Kill a study when `count` runs are finished and the next one, or what follows, has gone on for a while.

    fraction: that while, as a share of what the runs so far took. It ends with the next run, for later ones take less:
    the first has the libraries to warm up, and by its time a whole study would be over. Returns what was finished.
    Raises AssertionError where the process ended before, or was not killed.
    """
    end = time.monotonic() + 120
    while len(finished(folder)) < count or not results(folder):
        assert process.poll() is None, ended(process).stdout
        assert time.monotonic() < end, f"{count} runs were not finished in two minutes"
        time.sleep(0.01)
    took = [record["seconds"]["total"] for record in results(folder).values() if record["status"] == "finished"]
    until = time.monotonic() + fraction * (sum(took) / len(took) if took else 0.5)
    while time.monotonic() < until and len(finished(folder)) <= count:
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    return finished(folder)


def unchanged(before: Finished, now: Finished) -> bool:
    """Whether every run that was finished has the very record that it had."""
    return before.items() <= now.items()


def record_of(folder: Path, overrides: Sequence[str], accuracy: float | None = 0.5, **entries: Any) -> None:
    """Write the record of a run as training does; `entries` join those of a finished one."""
    record = {
        "schema": 1, "status": "finished", "identity": "x", "name": "one", "overrides": list(overrides),
        "test": {"accuracy": accuracy, "loss": 1.5}, "train": {"accuracy": 0.5, "loss": None}, "val": None,
        "hyperparameters": {
            "peak_lr": 0.1, "batch_size": 50, "momentum": 0.9, "weight_decay": 5e-4, "effective_decay": None,
        },
        "data": {"name": "cifar10", "train_size": 1000}, "seconds": {"fit": 2.0, "total": 30.0}, "epochs": 1.0,
        "steps": 20, "parameters": 7, "images_per_second": 500.0, "device": "cpu", "precision": "32-true",
        "environment": {"threads": 2, "processor": "Zen"},
    }  # fmt: skip
    folder.mkdir(parents=True, exist_ok=True)
    (folder / ".part").write_text(json.dumps(record | entries))
    (folder / ".part").replace(folder / "result.json")
