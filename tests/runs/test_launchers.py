"""Many runs at once: on this machine, by Ray, by SLURM. Where Ray or submitit is missing, its tests are skipped."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from onecycle import cli
from onecycle.config.compose import check_words
from studying import finished, unchanged

TINY = [
    "experiment=debug", "data.source.train_size=320", "trainer.detect_anomaly=false", "callbacks.figures=null",
    "callbacks.progress=null", "data.cache=cache",
]  # fmt: skip
STUDY = ["study=heatmap_batch", "study.scale=tiny", "data.cache=cache"]
GOLDEN = Path(__file__).parent / "golden" / "slurm.sbatch"


def environment(**more: str) -> dict[str, str]:
    return {**os.environ, "RAY_USAGE_STATS_ENABLED": "0", **more}


def run(folder: Path, *arguments: str, **more: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "onecycle", "train", "-m", *arguments]
    return subprocess.run(command, cwd=folder, env=environment(**more), capture_output=True, text=True, timeout=280)


def records(folder: Path) -> dict[str, dict[str, Any]]:
    return {path.parent.name: json.loads(path.read_text()) for path in folder.glob("*/result.json")}


def program(folder: Path, name: str, text: str) -> None:
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(text)
    (folder / name).chmod(0o755)


@pytest.mark.parametrize(
    ("launcher", "package", "extra"), [("ray_local", "ray", "ray"), ("slurm", "submitit", "slurm")]
)
def test_a_launcher_whose_package_is_missing_says_what_to_install(
    launcher: str, package: str, extra: str, tmp_path: Path
) -> None:
    (tmp_path / f"{package}.py").write_text("raise ImportError('not here')\n")
    done = run(tmp_path, f"hydra/launcher={launcher}", PYTHONPATH=os.pathsep.join([str(tmp_path), *sys.path[1:]]))
    assert done.returncode == 2
    line = f"hydra/launcher: {package} is not installed; python -m pip install 'onecycle[{extra}]'"
    assert (done.stdout + done.stderr).splitlines()[0] == line


def test_without_the_commands_of_slurm_it_says_so_before_anything_is_written(tmp_path: Path) -> None:
    pytest.importorskip("submitit")
    (tmp_path / "bin").mkdir()
    done = run(tmp_path, "hydra/launcher=slurm", *TINY, "seed=0,1", PATH=str(tmp_path / "bin"))
    assert done.returncode == 2
    line = "hydra/launcher=slurm: this machine has no sbatch and no srun; start it where SLURM is, or take"
    assert (done.stdout + done.stderr).splitlines()[0].startswith(line)
    assert "Traceback" not in done.stdout + done.stderr
    assert not (tmp_path / "logs").exists()


@pytest.mark.slow
def test_without_a_ray_cluster_it_says_where_it_looked_for_one(tmp_path: Path) -> None:
    pytest.importorskip("ray")
    done = run(tmp_path, "hydra/launcher=ray_cluster", *TINY, "seed=0,1", RAY_ADDRESS="auto")
    assert done.returncode == 1
    line = "hydra.launcher.ray.init.address=auto: no Ray cluster can be reached there; start one with"
    assert [said.startswith(line) for said in (done.stdout + done.stderr).splitlines()].count(True) == 1
    assert "Traceback" not in done.stdout + done.stderr


def test_the_batch_script_for_slurm_is_the_golden_one(tmp_path: Path) -> None:
    pytest.importorskip("submitit")
    commands = tmp_path / "bin"
    program(commands, "sbatch", f'#!/bin/sh\ncp "$1" {tmp_path}/script\necho "no cluster here" >&2\nexit 1\n')
    program(commands, "srun", "#!/bin/sh\nexit 1\n")
    launcher = [
        "hydra/launcher=slurm", "hydra.launcher.partition=gpu", "hydra.launcher.timeout_min=90",
        "hydra.launcher.gpus_per_node=2", "hydra.launcher.setup=[module load cuda]",
    ]  # fmt: skip
    done = run(tmp_path, *launcher, *TINY, "seed=0,1,2", PATH=f"{commands}{os.pathsep}{os.environ['PATH']}")
    assert done.returncode == 1
    assert "hydra/launcher=slurm: sbatch refuses the runs: " in done.stdout + done.stderr
    assert "no cluster here" in done.stdout + done.stderr
    assert "Traceback" not in done.stdout + done.stderr
    script = (tmp_path / "script").read_text().replace(str(tmp_path), "FOLDER").replace(sys.executable, "PYTHON")
    assert script == GOLDEN.read_text()


@pytest.mark.slow
def test_a_local_pool_divides_the_threads_and_changes_no_result(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pool = ["hydra/launcher=local_pool", "hydra.launcher.n_jobs=2", "output=pool"]
    assert run(tmp_path, *TINY, "seed=0,1", OMP_NUM_THREADS="1").returncode == 0
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    assert run(tmp_path, *TINY, "seed=0,1", *pool).returncode == 0
    together, alone = (records(tmp_path / name / "sweeps" / "debug") for name in ("pool", "logs"))
    cores = len(os.sched_getaffinity(0))
    assert [row["environment"]["threads"] for row in together.values()] == [max(1, cores // 2)] * 2
    assert {name: row["test"] for name, row in together.items()} == {name: row["test"] for name, row in alone.items()}


@pytest.mark.slow
@pytest.mark.parametrize("launcher", ["slurm_local", "ray_local"])
def test_a_study_runs_on_every_launcher_into_the_same_records(launcher: str, tmp_path: Path) -> None:
    pytest.importorskip("submitit" if launcher == "slurm_local" else "ray")
    done = run(tmp_path, *STUDY, f"hydra/launcher={launcher}", "seed=0")
    assert done.returncode == 0, done.stdout + done.stderr
    folder = tmp_path / "logs" / "studies" / "heatmap_batch"
    plan = json.loads((folder / "study.json").read_text())
    found = records(folder)
    assert len(found) == len(plan["runs"]) > 4
    assert {row["status"] for row in found.values()} <= {"finished", "diverged"}
    assert (folder / "report" / "index.html").exists()
    # The launcher of this process finds every one of them.
    written = finished(tmp_path / "logs")
    again = run(tmp_path, *STUDY, "seed=0")
    assert again.returncode == 0, again.stdout + again.stderr
    assert finished(tmp_path / "logs") == written


def tasks_of_submitit(folder: Path) -> list[psutil.Process]:
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            line = process.cmdline()
            if "submitit.core._submit" in line and any(str(folder) in part for part in line):
                found.append(process)
    return found


@pytest.mark.slow
@pytest.mark.parametrize("sent", [signal.SIGUSR2, signal.SIGTERM])
def test_a_preempted_task_saves_is_queued_again_and_ends_like_one_that_was_not(
    sent: signal.Signals, tmp_path: Path
) -> None:
    pytest.importorskip("submitit")
    once = [*TINY, "seed=0", "trainer.max_epochs=40", "evaluation.every_n_epochs=0"]
    once += ["callbacks.checkpoint.every_n_steps=20"]  # on a fast machine the run is over before one is worth its time
    assert run(tmp_path, *once, "output=whole").returncode == 0
    command = [sys.executable, "-m", "onecycle", "train", "-m", *once, "hydra/launcher=slurm_local"]
    process = subprocess.Popen(command, cwd=tmp_path, env=environment(), stdout=subprocess.DEVNULL)
    sweep = tmp_path / "logs" / "sweeps" / "debug"
    end = time.monotonic() + 100
    while not list(sweep.glob("*/checkpoints/last.ckpt")):
        assert time.monotonic() < end
        time.sleep(0.05)
    (task,) = tasks_of_submitit(tmp_path)
    task.send_signal(sent)
    assert process.wait(timeout=120) == 0
    said = "".join(path.read_text() for path in sweep.glob(".submitit/*/*_log.*"))
    assert "Requeued job" in said
    assert "Interrupted " in said
    (log,) = sweep.glob("*/train.log")
    assert "continuing after step" in log.read_text()
    (resumed,), (whole,) = records(sweep).values(), records(tmp_path / "whole" / "sweeps" / "debug").values()
    assert (resumed["test"], resumed["train"], resumed["steps"]) == (whole["test"], whole["train"], whole["steps"])


@contextlib.contextmanager
def two_nodes() -> Iterator[Any]:
    """A Ray cluster of two nodes with one CPU each on this machine; the head has none and runs nothing."""
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    try:
        yield cluster
    finally:
        cluster.shutdown()


@pytest.mark.slow
def test_a_study_on_a_ray_cluster_ends_complete_although_a_node_is_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("ray")
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    folder = tmp_path / "logs" / "studies" / "heatmap_batch"
    with two_nodes() as cluster:
        nodes = [cluster.add_node(num_cpus=1) for _ in range(2)]
        cluster.wait_for_nodes()
        launcher = [
            "hydra/launcher=ray_cluster", f"hydra.launcher.ray.init.address={cluster.address}",
            "hydra.launcher.ray.remote.num_cpus=1", "hydra.launcher.ray.remote.num_gpus=0",
        ]  # fmt: skip
        command = [sys.executable, "-m", "onecycle", "train", "-m", *STUDY, *launcher, "seed=0"]
        with (tmp_path / "said").open("w") as said:
            process = subprocess.Popen(command, cwd=tmp_path, env=environment(), stdout=said, stderr=said)
            end = time.monotonic() + 120
            while sum(row["status"] != "running" for row in records(folder).values()) < 2:
                assert process.poll() is None, (tmp_path / "said").read_text()
                assert time.monotonic() < end, (tmp_path / "said").read_text()
                time.sleep(0.2)
            before = finished(tmp_path / "logs")
            cluster.remove_node(nodes[0], allow_graceful=False)
            assert process.wait(timeout=240) == 0, (tmp_path / "said").read_text()
    plan = json.loads((folder / "study.json").read_text())
    assert len(records(folder)) == len(plan["runs"])
    assert {row["status"] for row in records(folder).values()} <= {"finished", "diverged"}
    assert unchanged(before, finished(tmp_path / "logs"))


@pytest.mark.parametrize("launcher", ["basic", "joblib", "local_pool"])
def test_launchers_of_hydra_and_of_this_project_are_known(launcher: str) -> None:
    words = ["-m", f"hydra/launcher={launcher}", "hydra/sweeper=coordinate", "seed=0,1"]
    check_words(words, "train", cli.training_word_errors)
