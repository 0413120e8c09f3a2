"""The commands as a shell sees them: exit codes, output, time to an answer."""

import json
import os
import platform
import re
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from helpers import composed_of
from onecycle.config.compose import as_hydra_takes_it
from onecycle.errors import ConfigError
from onecycle.runs.saved import with_run_folders

SCRIPTS = Path(sys.executable).parent
TINY = [
    "experiment=debug", "data.source.train_size=320", "trainer.detect_anomaly=false", "callbacks.figures=null",
    "trainer.threads=1",
]  # fmt: skip


def command(*arguments: str, name: str = "onecycle-train") -> list[str]:
    return [str(SCRIPTS / name), *arguments]


def run(*arguments: str, cwd: Path, name: str = "onecycle-train") -> subprocess.CompletedProcess[str]:
    environment = {key: value for key, value in os.environ.items() if not key.startswith("ONECYCLE_")}
    return subprocess.run(
        command(*arguments, name=name), cwd=cwd, env=environment, capture_output=True, text=True, timeout=300
    )


def records(folder: Path) -> dict[str, dict]:
    return {path.parent.name: json.loads(path.read_text()) for path in folder.glob("*/result.json")}


@pytest.mark.parametrize(("arguments", "code"), [(["--help"], 0), (["seed=-1", "sed=1"], 2)])
def test_help_and_a_rejected_configuration_never_import_torch(arguments: list[str], code: int, tmp_path: Path) -> None:
    # Importing torch alone takes seconds; a module that must not be imported keeps the answer fast on every machine.
    forbidden = ["torch", "numpy", "lightning", "torchvision", "matplotlib"]
    program = (
        f"import sys\nfor name in {forbidden}: sys.modules[name] = None\n"
        f"sys.argv = ['onecycle-train', *{arguments}]\nfrom onecycle.cli import train_command\ntrain_command()"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    assert ("Groups to choose from" in done.stdout) == (code == 0)
    assert not list(tmp_path.iterdir())


def test_a_run_off_a_terminal_is_quiet_and_ends_with_a_table(tmp_path: Path) -> None:
    done = run(*TINY, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert re.search(r"^Folder: logs/runs/.*_debug$", done.stdout, re.MULTILINE)
    (result,) = records(tmp_path / "logs" / "runs").values()
    assert f"{result['test']['accuracy']:.2%}" in done.stdout
    assert f"{result['test']['accuracy_tta']:.2%}" in done.stdout
    assert "tensorboard --logdir logs/runs" in done.stdout
    assert "\r" not in done.stdout
    assert "images/s" in done.stdout
    assert done.stdout.count("\n") < 25


def test_a_sweep_names_its_rows_goes_on_after_one_that_fails_and_is_not_run_twice(tmp_path: Path) -> None:
    pytest.importorskip("onecycle.studies.progress", reason="a project without studies has Hydra's lines alone")
    first = run("-m", *TINY, "batch_size=400,64", cwd=tmp_path)
    assert first.returncode == 2
    assert "batch_size=400:" in first.stdout
    assert "Traceback" not in first.stderr
    assert first.stdout.count("failed") == 1
    assert "1 of 2 runs" in first.stdout  # the table comes also where a run fails
    before = records(tmp_path / "logs" / "sweeps" / "debug")
    assert [(name[: name.rindex("-")], row["status"]) for name, row in before.items()] == [
        ("train_size=320,batch_size=64", "finished")
    ]
    again = run("-m", *TINY, "batch_size=64,160", cwd=tmp_path)
    assert again.returncode == 0, again.stderr
    assert again.stdout.count("read back") == 1
    lines = again.stdout.splitlines()
    assert [line.split()[0] for line in lines if line.startswith("[")] == ["[1/2]", "[2/2]"]
    finished = records(tmp_path / "logs" / "sweeps" / "debug")
    accuracies = sorted((row["test"]["accuracy"] for row in finished.values()), reverse=True)
    shown = [line.split("│")[1].strip() for line in lines if "finished" in line]
    assert [finished[name]["test"]["accuracy"] for name in shown] == accuracies
    assert any("onecycle-evaluate" in line and shown[0] in line for line in lines)
    after = records(tmp_path / "logs" / "sweeps" / "debug")
    assert len({row["identity"] for row in after.values()}) == 2
    assert before.items() <= after.items()


@pytest.mark.slow
def test_the_workers_of_a_parallel_study_that_is_killed_stop_as_on_ctrl_c(tmp_path: Path) -> None:
    study = ["study=scale_symmetry", "study.scale=tiny", "study.at_once=2", "trainer.max_steps=100000"]
    process = subprocess.Popen(
        command(*study), cwd=tmp_path, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    folder = tmp_path / "logs" / "studies" / "scale_symmetry"

    def are_two(said: str) -> bool:
        end = time.monotonic() + 60
        while (count := sum(said in path.read_text() for path in folder.glob("*/train.log"))) < 2:
            if time.monotonic() > end:
                return False
            time.sleep(0.1)
        return count == 2

    assert are_two("100000 steps"), process.communicate(timeout=60)  # both train
    os.kill(process.pid, signal.SIGKILL)
    process.wait(timeout=60)
    assert are_two("Interrupted after step")
    assert len(records(folder)) == 2  # of the runs to come none was begun
    for path in folder.glob("*/.lock"):
        os.kill(int(path.read_text().split()[1]), signal.SIGKILL)  # idle, they would end after some minutes


@pytest.mark.slow
def test_a_worker_of_a_parallel_study_that_is_killed_is_one_line_and_costs_no_finished_run(tmp_path: Path) -> None:
    study = ["study=scale_symmetry", "study.scale=tiny", "hydra/launcher=joblib", "hydra.launcher.n_jobs=2"]
    process = subprocess.Popen(
        command(*study), cwd=tmp_path, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    folder = tmp_path / "logs" / "studies" / "scale_symmetry"
    finished: dict[str, dict] = {}
    while not finished:
        assert process.poll() is None, process.communicate(timeout=60)
        time.sleep(0.05)
        finished = {name: row for name, row in records(folder).items() if row["status"] == "finished"}
    holder = (folder / next(iter(finished)) / ".lock").read_text()
    os.kill(int(holder.split()[1]), signal.SIGKILL)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 1
    assert "Traceback" not in errors
    assert "A worker process died" in errors
    done = run(*study, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    after = records(folder)
    assert all(row["status"] == "finished" for row in after.values())
    assert all(after[name] == row for name, row in finished.items())
    assert (folder / "report" / "verdicts.json").exists()


@pytest.mark.parametrize("words", [["-m", "seed=0,1"], ["study=one_cycle", "study.scale=tiny"], ["seed=0"]])
@pytest.mark.parametrize("place", ["/proc/x", "file"])
def test_a_place_where_no_folder_can_be_made_is_one_line_and_code_2(
    words: list[str], place: str, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("a file")
    done = run(*words, *TINY[:2], f"output={place}", cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert place in done.stderr


def test_what_the_terminal_cannot_take_changes_no_result(tmp_path: Path) -> None:
    words, runs = " ".join(command(*TINY, "callbacks.progress=null")), f"{sys.executable} -m onecycle runs"
    for number, output in enumerate([">&-", ">&- 2>&-", "> /dev/full", "| head -1", "> text"], 1):
        environment = os.environ | {"PYTHONIOENCODING": "ascii"}
        for program in (runs, words):
            shell = ["bash", "-c", f"{program} {output}; exit ${{PIPESTATUS[0]}}"]
            done = subprocess.run(shell, cwd=tmp_path, env=environment, timeout=120, stderr=subprocess.PIPE)
            assert (done.returncode, done.stderr) == (0, b""), output
        assert [row["status"] for row in records(tmp_path / "logs" / "runs").values()] == ["finished"] * number
    assert "test accuracy" in (tmp_path / "text").read_text(encoding="ascii")


def test_paths_are_taken_as_they_are_written_and_printed(tmp_path: Path) -> None:
    done = run(*TINY, "output=a b,c=[1] it's", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    ((name, row),) = records(tmp_path / "a b,c=[1] it's" / "runs").items()
    again = run(f"run=a b,c=[1] it's/runs/{name}", "figures=false", cwd=tmp_path, name="onecycle-evaluate")
    assert again.returncode == 0, again.stderr
    assert "Reproduced" in again.stdout
    (board,) = re.findall(r"│ (\S*tensorboard --logdir .*?) +│", done.stdout)
    assert shlex.split(board)[2] == "a b,c=[1] it's/runs"
    assert row["status"] == "finished"


@pytest.mark.parametrize(
    "path", ["a", "a b", "a,b", "it's", r"back\\slash\\", r"\\'", "[1]", "{a:b}", "1e3", "true", '"']
)
def test_a_path_of_the_command_line_comes_through_hydra_s_grammar(path: str) -> None:
    (word,) = [as_hydra_takes_it(f"output={path}")]
    assert composed_of(word).output == path
    assert as_hydra_takes_it("output=choice(a,b)") == "output=choice(a,b)"
    assert as_hydra_takes_it(f"name={path}") == f"name={path}"


def test_a_run_is_named_by_its_checkpoint_or_as_the_last_one(tmp_path: Path) -> None:
    folders = [tmp_path / "logs" / "runs" / name for name in ("2026-01-01_000000_a", "2026-02-01_000000_b")]
    for folder in folders:
        (folder / "checkpoints").mkdir(parents=True)
        (folder / "config.yaml").write_text("")
        (folder / "checkpoints" / "previous.ckpt").write_text("")
    logs, path = f"output={tmp_path / 'logs'}", folders[0] / "checkpoints" / "previous.ckpt"
    assert with_run_folders(["resume=last", logs]) == [f"resume={folders[1]}", logs]
    assert with_run_folders([f"run={path}"]) == ["checkpoint=previous.ckpt", f"run={folders[0]}"]
    assert with_run_folders([f"run={path}", "checkpoint=x"]) == [f"run={folders[0]}", "checkpoint=x"]
    assert with_run_folders([f"resume={path}", "name=last"]) == [f"resume={folders[0]}", "name=last"]
    with pytest.raises(ConfigError, match=r"^resume=last: "):
        with_run_folders(["resume=last", f"output={tmp_path}"])


def test_a_run_needs_neither_loggers_nor_callbacks(tmp_path: Path) -> None:
    done = run(*TINY[:2], "logger=null", "callbacks=null", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    (folder,) = (tmp_path / "logs" / "runs").iterdir()
    assert not {"metrics.csv", "checkpoints", "figures"} & {path.name for path in folder.iterdir()}
    assert not list(folder.glob("events*"))


def start_long_run(tmp_path: Path) -> tuple[subprocess.Popen[str], Path]:
    """A run with a checkpoint after every step, once it has taken a few steps."""
    process = subprocess.Popen(
        command(*TINY, "trainer.max_epochs=4000", "callbacks.checkpoint.every_n_minutes=1e-9",
                "evaluation.every_n_epochs=0"),
        cwd=tmp_path, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    deadline = time.monotonic() + 120
    while not (found := list(tmp_path.glob("logs/runs/*/checkpoints/last.ckpt"))):
        assert process.poll() is None, process.communicate(timeout=60)
        assert time.monotonic() < deadline
        time.sleep(0.05)
    return process, found[0].parents[1]


def test_a_second_process_is_told_who_trains_and_ctrl_c_ends_with_130_and_says_how_to_go_on(tmp_path: Path) -> None:
    process, folder = start_long_run(tmp_path)
    second = run(f"resume={folder}", cwd=tmp_path)
    assert (second.returncode, "Traceback" in second.stdout + second.stderr) == (2, False)
    assert f"{folder}: process {process.pid} on {platform.node()}" in second.stderr
    process.send_signal(signal.SIGINT)
    output, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Traceback" not in errors
    assert f"onecycle-train resume={folder.relative_to(tmp_path)}" in output
    assert json.loads((folder / "result.json").read_text())["status"] == "running"


@pytest.mark.slow
def test_a_compiled_network_gives_the_same_checkpoint_keys_and_can_be_evaluated(tmp_path: Path) -> None:
    done = run(*TINY, "trainer.compile=true", "trainer.max_epochs=0.4", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    (folder,) = (tmp_path / "logs" / "runs").iterdir()
    evaluated = run(f"run={folder}", name="onecycle-evaluate", cwd=tmp_path)
    assert evaluated.returncode == 0, evaluated.stderr
