import csv
import json
import os
from pathlib import Path
from typing import Any

import pytest

from onecycle.runs.lock import LEASE, exclusive
from onecycle.runs.table import all_runs, main, no_formula
from studying import record_of


@pytest.fixture
def logs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two finished runs, one that failed, one that is trained, one that was killed, and one whose record is damaged."""
    monkeypatch.chdir(tmp_path)
    write("sweeps/s/a", status="finished", accuracy=0.9, width=16, seed=0, peak_lr=0.4)
    write("sweeps/s/b", status="finished", accuracy=0.8, width=32, seed=0, peak_lr=0.2)
    write("runs/c", status="failed", accuracy=None, width=16, seed=1, peak_lr=0.1, error="ValueError: no")
    write("runs/d", status="running", accuracy=None, width=16, seed=2, peak_lr=0.1)
    write("runs/e", status="running", accuracy=None, width=16, seed=2, peak_lr=0.1)
    (Path("logs/runs/d") / LEASE).touch()
    Path("logs/runs/damaged").mkdir()
    Path("logs/runs/damaged/result.json").write_text('{"schema": 1,')
    return tmp_path / "logs"


def write(
    name: str, *, status: str, accuracy: float | None, width: int, seed: int, peak_lr: float, error: str = ""
) -> None:
    folder, ended = Path("logs") / name, accuracy is not None
    point = {"peak_lr": peak_lr, "momentum": 0.9, "weight_decay": 5e-4, "batch_size": 512} if ended else None
    unknown: dict[str, Any] = {} if ended else {"test": None, "data": None}
    record_of(
        folder, [f"seed={seed}"], accuracy, status=status, started=f"2026-01-0{len(name)}T00:00:00+00:00",
        hyperparameters=point, seconds={"total": 12.5}, error=error, **unknown,
    )  # fmt: skip
    config = f"seed: {seed}\nbatch_size: 512\nmodel: {{width: {width}}}\nschedule: {{peak_lr: {peak_lr}}}\n"
    (folder / "config.yaml").write_text(config + "hyperparameters: {momentum: 0.9, weight_decay: 0.0005}\n")


def shown(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, *words: str) -> str:
    monkeypatch.setattr("sys.argv", ["onecycle-runs", *words])
    main()
    return capsys.readouterr().out


def test_every_run_is_a_row_whatever_its_state(logs: Path) -> None:
    found = {row["run"]: (row["status"], row["accuracy"], row["peak_lr"]) for row in all_runs(logs)}
    assert found == {
        "sweeps/s/a": ("finished", 0.9, 0.4), "sweeps/s/b": ("finished", 0.8, 0.2), "runs/c": ("failed", None, 0.1),
        "runs/d": ("running", None, 0.1), "runs/e": ("interrupted", None, 0.1), "runs/damaged": ("damaged", None, None),
    }  # fmt: skip
    os.utime(logs / "runs/d" / LEASE, (0, 0))
    assert {row["status"] for row in all_runs(logs / "runs")} == {"failed", "interrupted", "damaged"}


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("sort=accuracy status=finished", ["b", "a"]), ("sort=-accuracy status=finished", ["a", "b"]),
        ("where=width=16,seed=0", ["a"]), ("where=model.width=32", ["b"]), ("where=peak_lr=.4", ["a"]),
        ("status=damaged", ["damaged"]), ("status=diverged", []),
    ],
)  # fmt: skip
def test_rows_are_filtered_and_sorted(
    words: str, expected: list[str], logs: Path, capsys: Any, monkeypatch: Any
) -> None:
    rows = json.loads(shown(capsys, monkeypatch, "format=json", *words.split()))
    assert [row["run"].rpartition("/")[2] for row in rows] == expected


def test_the_table_csv_and_comparison_hold_the_numbers(logs: Path, capsys: Any, monkeypatch: Any) -> None:
    table = shown(capsys, monkeypatch)
    (line,) = (line for line in table.splitlines() if "sweeps/s/a" in line)
    assert [cell.strip() for cell in line.split("│")[1:-2]] == [
        "sweeps/s/a", "finished", "cifar10", "0.4", "0.9", "0.0005", "512", "90.00%", "12.5",
    ]  # fmt: skip
    assert "runs/c: ValueError: no" in table
    rows = list(csv.DictReader(shown(capsys, monkeypatch, "format=csv", "status=finished").splitlines()))
    assert {row["run"]: float(row["accuracy"]) for row in rows} == {"sweeps/s/a": 0.9, "sweeps/s/b": 0.8}
    compared = shown(capsys, monkeypatch, "compare=s/a,logs/sweeps/s/b")
    cells = [[cell.strip() for cell in line.split("│")[1:-1]] for line in compared.splitlines() if "│" in line]
    assert cells[:2] == [["model.width", "16", "32"], ["schedule.peak_lr", "0.4", "0.2"]]
    assert ["accuracy", "90.00%", "80.00%"] in cells


@pytest.mark.parametrize(("cell", "written"), [("=1+1", "'=1+1"), ("@x", "'@x"), ("-x", "'-x"), ("a=1", "a=1")])
def test_no_cell_of_a_table_is_a_formula(cell: str, written: str, logs: Path, capsys: Any, monkeypatch: Any) -> None:
    path = logs / "sweeps/s/a/result.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"name": cell}))
    rows = csv.DictReader(shown(capsys, monkeypatch, "format=csv").splitlines())
    assert written in {row["name"] for row in rows}
    assert no_formula(-1.5) == -1.5


def test_cleaning_asks_and_leaves_what_is_trained(logs: Path, capsys: Any, monkeypatch: Any) -> None:
    answers = iter(["n", "y", "yes"])
    monkeypatch.setattr("builtins.input", lambda question: next(answers))
    shown(capsys, monkeypatch, "clean=failed")
    assert (logs / "runs/c").exists()
    shown(capsys, monkeypatch, "clean=failed")
    assert not (logs / "runs/c").exists()
    with exclusive(logs / "runs/e"):
        (logs / "runs/e" / LEASE).rename(logs / "lease")  # it looks interrupted, but its process holds the lock
        assert "it stays" in shown(capsys, monkeypatch, "clean=interrupted")
        (logs / "lease").rename(logs / "runs/e" / LEASE)
    assert sorted(path.name for path in (logs / "runs").iterdir()) == ["d", "damaged", "e"]


@pytest.mark.parametrize(
    "word", ["staus=x", "sort=acuracy", "clean=finished", "format=xml", "compare=a", "compare=s,x"]
)
def test_words_that_make_no_sense_end_with_2(word: str, logs: Path, capsys: Any, monkeypatch: Any) -> None:
    with pytest.raises(SystemExit) as stopped:
        shown(capsys, monkeypatch, word)
    assert stopped.value.code == 2
    assert capsys.readouterr().err.startswith(word.partition("=")[0])
