import json
import random
import shutil
import subprocess
from pathlib import Path

import pytest

from studying import comparable, ended, finished, killed, results, start, unchanged

STUDY = [
    "study=lr_vs_subset_size", "study.scale=tiny", "seed=0", "batch_size=16", "data.subset_size=160,640",
    "schedule.peak_lr=0.05,0.8", "trainer.max_steps=40",
]  # fmt: skip
RUNS = 4


def study(folder: Path, *overrides: str) -> subprocess.CompletedProcess[str]:
    """The finished process of the study as a user starts it."""
    return ended(start(folder, "-m", *STUDY, *overrides))


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
    assert {(entry["verdict"], entry["reason"]) for entry in verdicts} == {("not judged", "drawn images")}


def test_another_seed_runs_only_what_is_new_and_reads_the_rest_back(undisturbed: Path, tmp_path: Path) -> None:
    folder = tmp_path / "logs"
    shutil.copytree(undisturbed, folder)
    before = finished(folder)
    more = study(folder, "seed=0,1")
    assert more.returncode == 0, more.stdout
    assert (more.stdout.count("read back"), len(results(folder))) == (RUNS, 2 * RUNS)
    assert f"[{RUNS + 1}/{2 * RUNS}]" in more.stdout
    assert unchanged(before, finished(folder))


def test_force_moves_the_old_folder_aside(undisturbed: Path, tmp_path: Path) -> None:
    folder = tmp_path / "logs"
    shutil.copytree(undisturbed, folder)
    again = study(folder, "study.force=true", "schedule.peak_lr=0.05", "data.subset_size=160")
    assert again.returncode == 0, again.stdout
    (aside,) = folder.glob("studies/lr_vs_subset_size.before-*")
    assert len(list(aside.glob("*/result.json"))) == RUNS
    assert len(list(folder.glob("studies/lr_vs_subset_size/*/result.json"))) == 1
    assert "before-" not in (folder / "studies" / "index.html").read_text()


@pytest.mark.slow
def test_killed_at_any_moment_it_goes_on_to_the_same_records(undisturbed: Path, tmp_path: Path) -> None:
    folder, chance = tmp_path / "logs", random.Random(0)
    before: dict[Path, tuple[bytes, int]] = {}
    amid = 0
    for count in sorted(chance.sample(range(RUNS), 2)):
        done = killed(start(folder, "-m", *STUDY), folder, count, chance.uniform(0, 0.8))
        assert unchanged(before, done)
        before = done
        amid += 0 < len(done) < RUNS
    assert amid
    last = study(folder)
    assert last.returncode == 0, last.stdout
    assert unchanged(before, finished(folder))
    ours, theirs = results(folder), results(undisturbed)
    assert ours.keys() == theirs.keys()
    assert {name: comparable(ours[name]) for name in ours} == {name: comparable(theirs[name]) for name in theirs}


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


def test_a_column_that_the_first_record_does_not_have_stops_the_study_there_and_stands_on_its_page(
    tmp_path: Path,
) -> None:
    figures = "[{kind:curves,x:peak_lr,y:test_accuracy,by:subset_size},{kind:curves,x:peak_lr,y:finall_loss}]"
    stopped = study(tmp_path / "logs", f"study.figures={figures}")
    assert stopped.returncode == 2, stopped.stdout
    (line,) = (line for line in stopped.stdout.splitlines() if line.startswith("study.figures[1].y: "))
    assert "did you mean final_loss?" in line
    assert "Traceback" not in stopped.stdout
    assert len(results(tmp_path / "logs")) == 1
    report = tmp_path / "logs/studies/lr_vs_subset_size/report"
    page = (report / "index.html").read_text()
    assert "finall_loss" in page
    assert [path.name for path in report.glob("*.png")] == ["figure.png"]  # what can be drawn is drawn
