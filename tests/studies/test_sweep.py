import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from hydra.core.utils import JobReturn, JobStatus

from onecycle import run
from onecycle.faults import StorageError
from onecycle.studies.launching import launch
from onecycle.studies.plan import Point

STUDY = [
    "study=lr_vs_subset_size", "study.scale=tiny", "seed=0", "batch_size=16", "data.subset_size=160,640",
    "schedule.peak_lr=0.05,0.8",
]  # fmt: skip
RUNS = 4


def study(folder: Path, *overrides: str, wait: bool = True) -> Any:
    """The study as a user starts it; with `wait` its finished process, else the running one."""
    command = [sys.executable, "-m", "onecycle.train", "-m", *STUDY, f"output={folder}", *overrides]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "ONECYCLE_CACHE": str(folder.parent / "cache")}
    pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    process = subprocess.Popen(command, env=environment, cwd=folder.parent, **pipes)
    if not wait:
        return process
    output, _ = process.communicate(timeout=240)
    return subprocess.CompletedProcess(command, process.returncode, output)


def results(folder: Path) -> dict[str, dict[str, Any]]:
    return {path.parent.name: json.loads(path.read_text()) for path in sorted(folder.glob("studies/*/*/result.json"))}


def comparable(record: dict[str, Any]) -> dict[str, Any]:
    """What must be equal whenever and however often interrupted; times are not."""
    return {key: record[key] for key in ("status", "identity", "test", "train", "steps", "measures")}


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study that ran through at once."""
    folder = tmp_path_factory.mktemp("study") / "logs"
    done = study(folder)
    assert done.returncode == 0, done.stdout
    return folder


def test_a_study_runs_every_point_and_leaves_its_page(undisturbed: Path) -> None:
    folder = undisturbed / "studies" / "lr_vs_subset_size"
    assert len(results(undisturbed)) == RUNS
    assert all(record["status"] == "finished" for record in results(undisturbed).values())
    names = {path.name for path in (folder / "report").iterdir()}
    assert {"index.html", "figure.png", "figure.svg", "table.csv", "verdicts.json", "tensorboard"} <= names
    page = (folder / "report" / "index.html").read_text()
    assert "http" not in page.replace("http-equiv", "")  # from disk, without the network
    assert "data:image/png;base64," in page
    assert "study=lr_vs_subset_size" in page
    assert "drawn images" in page
    assert "lr_vs_subset_size/report/index.html" in (undisturbed / "studies" / "index.html").read_text()
    verdicts = json.loads((folder / "report" / "verdicts.json").read_text())
    assert {entry["verdict"] for entry in verdicts} <= {"holds", "does not hold", "undecided"}


def test_run_again_it_reads_everything_back(undisturbed: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in undisturbed.glob("studies/*/*/result.json")}
    again = study(undisturbed)
    assert again.returncode == 0, again.stdout
    assert again.stdout.count("read back") == RUNS
    assert {path: path.stat().st_mtime_ns for path in undisturbed.glob("studies/*/*/result.json")} == before


def test_another_seed_runs_only_what_is_new(undisturbed: Path, tmp_path: Path) -> None:
    folder = tmp_path / "logs"
    shutil.copytree(undisturbed, folder)
    more = study(folder, "seed=0,1")
    assert more.returncode == 0, more.stdout
    assert (more.stdout.count("read back"), len(results(folder))) == (RUNS, 2 * RUNS)
    assert f"[{RUNS + 1}/{2 * RUNS}]" in more.stdout


def test_force_moves_the_old_folder_aside(undisturbed: Path, tmp_path: Path) -> None:
    folder = tmp_path / "logs"
    shutil.copytree(undisturbed, folder)
    again = study(folder, "study.force=true", "schedule.peak_lr=0.05", "data.subset_size=160")
    assert again.returncode == 0, again.stdout
    (aside,) = folder.glob("studies/lr_vs_subset_size.before-*")
    assert len(list(aside.glob("*/result.json"))) == RUNS
    assert len(list(folder.glob("studies/lr_vs_subset_size/*/result.json"))) == 1
    assert "before-" not in (folder / "studies" / "index.html").read_text()


def test_killed_at_any_moment_it_goes_on_to_the_same_records(undisturbed: Path, tmp_path: Path) -> None:
    folder = tmp_path / "logs"
    chance = random.Random(0)
    finished: dict[Path, int] = {}
    for _ in range(4):
        process = study(folder, wait=False)
        time.sleep(chance.uniform(4.0, 8.0))
        os.kill(process.pid, signal.SIGKILL)
        process.communicate()
        for path, changed in finished.items():
            assert path.stat().st_mtime_ns == changed, f"{path} was run again"
        finished = {
            path: path.stat().st_mtime_ns
            for path in folder.glob("studies/*/*/result.json")
            if json.loads(path.read_text())["status"] == "finished"
        }
    last = study(folder)
    assert last.returncode == 0, last.stdout
    ours, theirs = results(folder), results(undisturbed)
    assert ours.keys() == theirs.keys()
    assert {name: comparable(ours[name]) for name in ours} == {name: comparable(theirs[name]) for name in theirs}
    for path, changed in finished.items():
        assert path.stat().st_mtime_ns == changed, f"{path} was run again"


def test_a_failing_run_does_not_stop_the_others_and_is_reported(undisturbed: Path, tmp_path: Path) -> None:
    folder = tmp_path / "logs"
    shutil.copytree(undisturbed, folder)
    # A subset larger than the data set is found out only when the data are there.
    broken = study(folder, "data.subset_size=160,100000")
    assert broken.returncode == 2, broken.stdout
    assert "subset_size=100000" in broken.stdout
    assert broken.stdout.count("failed; the study goes on") == 2
    assert broken.stdout.count("read back") == 2
    assert "2 of 4 runs have no result yet" in (folder / "studies/lr_vs_subset_size/report/index.html").read_text()
    assert "Traceback" not in broken.stdout


@pytest.mark.parametrize(
    ("overrides", "line"),
    [
        (("study.scale=huge",), "study.scale=huge: unknown; lr_vs_subset_size has "),
        (("model.width=4,8",), "model.width: is no axis of lr_vs_subset_size, which has batch_size, data.subset_size"),
        (("study.clams=[]",), "study"),
        (("study=lr_vs_subset_sise",), "lr_vs_subset_size"),
        (("study=base",), "study=base: must be one of forgetting, heatmap_batch, "),
    ],
)
def test_a_mistake_is_one_line_and_leaves_nothing(tmp_path: Path, overrides: tuple[str, ...], line: str) -> None:
    refused = study(tmp_path / "logs", *overrides)
    assert refused.returncode == 2, refused.stdout
    assert line in refused.stdout
    assert "Traceback" not in refused.stdout
    assert not (tmp_path / "logs").exists()


@pytest.mark.parametrize(
    ("word", "line"),
    [
        ("seed=[]", "seed=[]: must be at least one value"),
        ("schedule.peak_lr=", "schedule.peak_lr=: must be at least one value"),
        ("schedule.peak_lr=0.05,-1", "schedule.peak_lr=-1: must be a finite number above 0"),
    ],
)
def test_an_axis_that_no_run_can_have_is_refused_before_anything_is_written(
    undisturbed: Path, tmp_path: Path, word: str, line: str
) -> None:
    folder = tmp_path / "logs"
    shutil.copytree(undisturbed, folder)
    before = (folder / "studies/lr_vs_subset_size/study.json").read_bytes()
    refused = study(folder, word)
    assert refused.returncode == 2, refused.stdout
    assert refused.stdout.splitlines()[0] == line
    assert "Traceback" not in refused.stdout
    assert (folder / "studies/lr_vs_subset_size/study.json").read_bytes() == before
    assert len(results(folder)) == RUNS


def test_a_column_that_the_first_record_does_not_have_stops_the_study_there_and_stands_on_its_page(
    tmp_path: Path,
) -> None:
    figures = "[{kind:curves,x:peak_lr,y:test_accuracy,by:subset_size},{kind:curves,x:peak_lr,y:finall_loss}]"
    stopped = study(tmp_path / "logs", f"study.figures={figures}")
    assert stopped.returncode == 2, stopped.stdout
    line = "study.figures[1].y: no column 'finall_loss'; did you mean final_loss?"
    assert line in stopped.stdout.splitlines()
    assert "Traceback" not in stopped.stdout
    assert len(results(tmp_path / "logs")) == 1
    report = tmp_path / "logs/studies/lr_vs_subset_size/report"
    page = (report / "index.html").read_text()
    assert "no row has the column &#x27;finall_loss&#x27;" in page
    assert [path.name for path in report.glob("*.png")] == ["figure.png"]  # what can be drawn is drawn


class FullDisk:
    """A launcher whose second run finds the disk full."""

    def __init__(self) -> None:
        self.started = 0

    def launch(self, job_overrides: list[list[str]], initial_job_idx: int) -> list[JobReturn]:
        self.started += 1
        job = JobReturn(overrides=job_overrides[0])
        job.status = JobStatus.FAILED
        job.return_value = StorageError("The disk is full.") if self.started == 2 else ValueError("another mistake")
        return [job]


def test_a_full_disk_stops_the_study_where_another_mistake_does_not(tmp_path: Path) -> None:
    launcher: Any = FullDisk()
    points = [Point(str(number), {}, ()) for number in range(4)]
    with pytest.raises(StorageError):
        launch(launcher, points, tmp_path, alone=True)
    assert launcher.started == 2


SEARCH = [
    "study=tuning_path", "study.scale=tiny", "seed=0", "schedule.peak_lr=0.016",
]  # fmt: skip
FLAT, RAW = "along λα/(1−ρ), ρ, α", "along λ, ρ, α"
SEARCHED = [
    ("grid", None), *((FLAT, n) for n in range(4)), *((RAW, n) for n in range(3)), ("TPE", 0), ("TPE", 1),
    ("best of grid", None), (f"best of {FLAT}", None), (f"best of {RAW}", None), ("best of TPE", None),
]  # fmt: skip


def searching(folder: Path) -> Any:
    """The running process of a tiny search whose logs are in `folder`."""
    command = [sys.executable, "-m", "onecycle.train", *SEARCH, f"output={folder}"]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "ONECYCLE_CACHE": str(folder.parent / "cache")}
    pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    return subprocess.Popen(command, env=environment, cwd=folder.parent, **pipes)


@pytest.fixture(scope="module")
def searched(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A search that ran through at once, and once again."""
    folder = tmp_path_factory.mktemp("search") / "logs"
    for name in ("first", "again"):
        process = searching(folder)
        output, _ = process.communicate(timeout=240)
        assert process.returncode == 0, output
        (folder.parent / name).write_text(output)
    return folder


def planned(folder: Path) -> list[dict[str, Any]]:
    plan = json.loads((folder / "studies" / "tuning_path" / "study.json").read_text())
    runs: list[dict[str, Any]] = plan["runs"]
    return runs


def test_a_search_selects_on_held_out_images_and_reads_back_what_it_did(searched: Path) -> None:
    runs = planned(searched)
    assert [(run["values"]["arm"], run["values"].get("number")) for run in runs] == SEARCHED
    assert runs[2]["values"]["effective_decay"] == 4e-05  # the first step doubles λα/(1−ρ)
    assert (searched.parent / "again").read_text().count("read back") == len(SEARCHED) == len(results(searched))
    for record in results(searched).values():
        assert record["data"]["val_size"] == 100
        assert 0 <= record["val"]["accuracy"] <= 1
    doubled = [
        record["val"]["accuracy"]
        for record in results(searched).values()
        if {"hyperparameters.effective_decay=4e-05", "hyperparameters.momentum=0.5", "seed=0"}
        <= set(record["overrides"])
    ]
    spoken = (searched.parent / "first").read_text().splitlines()
    (line,) = (line for line in spoken if line.startswith(f"{FLAT}, point 2 of at most 4"))
    assert line.endswith(f"{100 * doubled[0]:.2f} %")


def test_the_best_of_every_arm_is_trained_again_with_other_seeds(searched: Path) -> None:
    records = {frozenset(run.settings(record["overrides"])): record for record in results(searched).values()}
    runs = planned(searched)
    for arm in ("TPE", RAW, FLAT):
        scores = [
            (records[frozenset(run.settings(entry["overrides"]))]["val"]["accuracy"], entry["values"])
            for entry in runs
            if entry["values"]["arm"] == arm
        ]
        best = max(scores, key=lambda score: score[0])[1]
        (again,) = (entry for entry in runs if entry["values"]["arm"] == f"best of {arm}")
        assert again["values"]["peak_lr" if "peak_lr" in best else "effective_decay"] == best.get(
            "peak_lr", best.get("effective_decay")
        )
        assert again["values"]["seed"] == 2
        assert "seed=2" in again["overrides"]


def test_a_search_killed_at_any_moment_takes_the_same_way(searched: Path, tmp_path: Path) -> None:
    folder = tmp_path / "logs"
    chance = random.Random(1)
    for _ in range(3):
        process = searching(folder)
        time.sleep(chance.uniform(5.0, 9.0))
        os.kill(process.pid, signal.SIGKILL)
        process.communicate()
    process = searching(folder)
    output, _ = process.communicate(timeout=240)
    assert process.returncode == 0, output
    drawn = ("TPE", "best of TPE")  # a sampler that goes on draws anew
    ours, theirs = (
        [(run["values"], run["label"]) for run in planned(logs) if run["values"]["arm"] not in drawn]
        for logs in (folder, searched)
    )
    assert ours == theirs
    assert [(run["values"]["arm"], run["values"].get("number")) for run in planned(folder)] == SEARCHED
    mine, undisturbed = results(folder), results(searched)
    assert len(mine) == len(SEARCHED)  # no run that is not in the plan
    same = [name for name in undisturbed if "TPE" not in name]
    assert len(same) == len(SEARCHED) - 3
    assert {name: comparable(mine[name]) for name in same} == {name: comparable(undisturbed[name]) for name in same}


def test_a_search_without_held_out_images_is_refused(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "onecycle.train", *SEARCH, "data.val_size=0", f"output={tmp_path / 'logs'}"]
    refused = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert refused.returncode == 2
    assert refused.stderr.splitlines()[0].startswith("data.val_size=0: a search selects on held-out images")


@pytest.mark.slow
def test_a_coordinate_search_from_the_shell_leaves_its_best_as_an_experiment(tmp_path: Path) -> None:
    searching = [
        "-m", "hydra/sweeper=coordinate", "hyperparameters=effective", "hydra.sweeper.budget=3", "experiment=debug",
        "data.val_size=50", "model.norm=group", "model.norm_groups=2", "schedule=one_cycle_cosine",
        f"output={tmp_path / 'logs'}",
    ]  # fmt: skip
    environment = os.environ | {"OMP_NUM_THREADS": "1", "ONECYCLE_CACHE": str(tmp_path / "cache")}
    program = [sys.executable, "-m", "onecycle.train"]
    done = subprocess.run(
        [*program, *searching], env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=240
    )
    assert done.returncode == 0, done.stdout + done.stderr
    folder = tmp_path / "logs" / "sweeps" / "debug"
    plan = json.loads((folder / "study.json").read_text())
    # The first coordinate starts where the configuration stands, and is doubled.
    assert [run["values"]["effective_decay"] for run in plan["runs"]][:2] == [0.002, 0.004]
    assert (folder / "report" / "index.html").exists()
    (best,) = folder.glob("best_*.yaml")
    records = [json.loads(path.read_text()) for path in folder.glob("*/result.json")]
    top = max(record["val"]["accuracy"] for record in records)
    chosen = next(r for r in sorted(records, key=lambda r: r["started"]) if r["val"]["accuracy"] == top)
    assert f"{100 * top:.2f} % on held-out images" in best.read_text().splitlines()[1]
    (tmp_path / "own" / "experiment").mkdir(parents=True)
    shutil.copy(best, tmp_path / "own" / "experiment" / "best.yaml")
    again = ["experiment=best", f"hydra.searchpath=[file://{tmp_path / 'own'}]", f"output={tmp_path / 'again'}"]
    rerun = subprocess.run(
        [*program, *again], env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=240
    )
    assert rerun.returncode == 0, rerun.stdout + rerun.stderr
    (record,) = (json.loads(path.read_text()) for path in tmp_path.glob("again/runs/*/result.json"))
    assert record["identity"] == chosen["identity"]
    assert record["test"] == chosen["test"]


@pytest.mark.parametrize(
    ("coordinates", "line"),
    [
        ("[{start:0.1}]", "hydra.sweeper.coordinates: {'start': 0.1} has no key, the name of a configuration value"),
        ("[7]", "hydra.sweeper.coordinates: 7 has no key, the name of a configuration value"),
        (
            "[{key:schedule.peak_rl}]",
            "hydra.sweeper.coordinates: there is no key schedule.peak_rl in schedule; did you mean peak_lr?",
        ),
        (
            "[{key:schedule.peak_rl,start:0.1}]",
            "hydra.sweeper.coordinates: there is no key schedule.peak_rl in schedule; did you mean peak_lr?",
        ),
        (
            "[{key:hyperparameters.effective_decay}]",
            "hydra.sweeper.coordinates: there is no key hyperparameters.effective_decay in hyperparameters; "
            "set hyperparameters=effective",
        ),
        (
            "[{key:hyperparameters.momentum,start:1.5}]",
            "hydra.sweeper.coordinates: hyperparameters.momentum=1.5: must be a number in [0, 1)",
        ),
        ("[{key:schedule.peak_lr,factor:-2}]", "hydra.sweeper.coordinates.schedule.peak_lr.factor=-2: must be above 1"),
        ("[]", "coordinates: is empty; name at least one key, such as hyperparameters.effective_decay"),
    ],
)
def test_bad_coordinates_are_one_line_each(tmp_path: Path, coordinates: str, line: str) -> None:
    command = [sys.executable, "-m", "onecycle.train", "-m", "hydra/sweeper=coordinate", "data.val_size=50",
               f"hydra.sweeper.coordinates={coordinates}", f"output={tmp_path / 'logs'}"]  # fmt: skip
    refused = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert refused.returncode == 2
    assert refused.stderr.splitlines()[0].endswith(line)
    assert not (tmp_path / "logs").exists()
