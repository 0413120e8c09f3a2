"""How runs in several processes end: killed, interrupted, failed, and what is left of them."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from helpers import only_folder, record_of, same, weights

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

TINY = [
    "experiment=debug", "data.source.train_size=320", "trainer.detect_anomaly=false", "callbacks.figures=null",
    "callbacks.progress=null", "trainer=ddp", "trainer.accelerator=cpu", "trainer.devices=2", "trainer.threads=1",
    "trainer.precision=32-true", "evaluation.every_n_epochs=0",
]  # fmt: skip
PROGRAM = [sys.executable, "-m", "onecycle", "train"]
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "-m", "onecycle"]
TORCHRUN += ["train"]


@contextlib.contextmanager
def started(folder: Path, *arguments: str, program: list[str] = PROGRAM) -> Iterator[subprocess.Popen[str]]:
    command = [*program, *arguments, *TINY]
    pipe = subprocess.PIPE
    process = subprocess.Popen(command, cwd=folder, stdout=pipe, stderr=pipe, text=True, start_new_session=True)
    try:
        yield process
    finally:
        process.kill()


def done(folder: Path, *arguments: str, program: list[str] = PROGRAM) -> tuple[int, str]:
    """Exit code and output of a command."""
    with started(folder, *arguments, program=program) as process:
        output, errors = process.communicate(timeout=200)
        return process.returncode, output + errors


def ranks_in(folder: Path) -> list[psutil.Process]:
    """Living processes that train below a folder, in the order in which they were started."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            own = process.cwd() == str(folder) and process.status() != psutil.STATUS_ZOMBIE
            # A spawned rank sets its variables itself, which the system does not show; its command line tells it.
            if own and ("RANK" in process.environ() or any("spawn_main" in part for part in process.cmdline())):
                found.append(process)
    return sorted(found, key=lambda process: process.create_time())


def wait_for(condition: Callable[[], bool], seconds: float = 240) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.05)


def checkpoint_in(folder: Path) -> bool:
    return any(folder.glob("logs/sweeps/*/*/checkpoints/last.ckpt"))


def the_run(folder: Path) -> Path:
    return only_folder(only_folder(folder / "logs" / "sweeps"))


def test_a_killed_rank_ends_the_run_and_the_same_command_goes_on(tmp_path: Path) -> None:
    run = ["-m", "seed=0", "trainer.max_epochs=8", "callbacks.checkpoint.every_n_steps=10"]
    with started(tmp_path, *run) as process:
        wait_for(lambda: checkpoint_in(tmp_path))
        ranks = ranks_in(tmp_path)
        assert len(ranks) == 2
        ranks[1].kill()
        output, errors = process.communicate(timeout=200)
    assert process.returncode == 1
    assert "terminated with signal SIGKILL" in output + errors or "Connection closed" in output + errors
    assert ranks_in(tmp_path) == []
    assert record_of(the_run(tmp_path))["status"] in ("failed", "running")
    code, said = done(tmp_path, *run)
    assert code == 0, said
    assert "continuing after step" in (the_run(tmp_path) / "train.log").read_text()
    assert record_of(the_run(tmp_path))["status"] == "finished"


def test_ctrl_c_in_a_sweep_ends_every_process_and_the_same_command_goes_on(tmp_path: Path) -> None:
    run = ["-m", "seed=0", "trainer.max_epochs=60", "callbacks.checkpoint.every_n_steps=10"]
    with started(tmp_path, *run) as process:
        wait_for(lambda: checkpoint_in(tmp_path))
        os.killpg(process.pid, signal.SIGINT)  # what a terminal does
        output, errors = process.communicate(timeout=200)
    assert process.returncode == 130, output + errors
    assert "Interrupted " in output + errors
    assert "Traceback" not in output + errors
    assert ranks_in(tmp_path) == []
    assert record_of(the_run(tmp_path))["status"] == "running"
    # Killed outright, the program can do nothing for its processes: they end by themselves.
    with started(tmp_path, *run) as process:
        wait_for(lambda: len(ranks_in(tmp_path)) == 2)
        process.kill()
        process.wait()
        wait_for(lambda: ranks_in(tmp_path) == [], seconds=100)
    (tmp_path / "whole").mkdir()
    assert done(tmp_path / "whole", *run)[0] == 0
    code, said = done(tmp_path, *run)
    assert code == 0, said
    assert "continuing after step" in (the_run(tmp_path) / "train.log").read_text()
    assert record_of(the_run(tmp_path))["status"] == "finished"
    for part in ("test", "train", "steps", "identity"):
        assert record_of(the_run(tmp_path))[part] == record_of(the_run(tmp_path / "whole"))[part]
    assert same(weights(the_run(tmp_path / "whole")), weights(the_run(tmp_path)))


def test_a_sweep_goes_on_after_a_run_that_cannot_be_made_and_each_run_has_its_own_processes(tmp_path: Path) -> None:
    code, said = done(tmp_path, "-m", "batch_size=63,64", "seed=0,1")
    assert code == 2
    assert said.count("batch_size=63: does not divide among 2 devices") >= 2
    assert "Traceback" not in said
    records = [json.loads(path.read_text()) for path in tmp_path.glob("logs/sweeps/*/*/result.json")]
    finished = [entry for entry in records if entry["status"] == "finished"]
    assert len(finished) == 2
    assert ranks_in(tmp_path) == []
    assert done(tmp_path, "-m", "batch_size=64", "seed=0,1")[1].count("read back") == 2


@pytest.mark.parametrize("ema", ["ema=null", "ema={decay_per_step:0.9,every_n_steps:2}"])
def test_killed_after_its_last_step_a_run_has_the_same_results(ema: str, tmp_path: Path) -> None:
    # The ranks' norms have seen other images: their statistics differ after the last step.
    run = ["-m", "seed=0", "data.val_size=64", ema]
    assert done(tmp_path, *run)[0] == 0
    path = the_run(tmp_path) / "result.json"
    whole = json.loads(path.read_text())
    kept = {key: whole[key] for key in ("schema", "identity", "name", "overrides", "seconds", "started")}
    path.write_text(json.dumps({**kept, "status": "running"}))
    assert done(tmp_path, *run)[0] == 0
    resumed = record_of(the_run(tmp_path))
    for part in ("val", "test", "train", "steps"):
        assert resumed[part] == whole[part], part


def test_torchrun_starts_the_processes_of_a_run_and_of_a_sweep(tmp_path: Path) -> None:
    code, said = done(tmp_path, "name=alone", program=TORCHRUN)
    assert code == 0, said
    (alone,) = tmp_path.glob("logs/runs/*/result.json")
    assert said.count("alone: finished") == 1
    code, said = done(tmp_path, "-m", "seed=0,1", program=TORCHRUN)
    assert code == 0, said
    sweep = {path.parent.name: json.loads(path.read_text()) for path in tmp_path.glob("logs/sweeps/*/*/result.json")}
    assert [entry["status"] for entry in sweep.values()] == ["finished", "finished"]
    # And the same run by the program itself.
    (own,) = (entry for name, entry in sweep.items() if "seed=0" in name)
    assert json.loads(alone.read_text())["test"] == own["test"]
    assert done(tmp_path, "-m", "seed=0")[1].count("read back") == 1
