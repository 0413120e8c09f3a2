import csv
import json
import math
from pathlib import Path
from typing import Any

import pytest

from onecycle.errors import ConfigError
from onecycle.studies import rows as table
from onecycle.studies.rows import Plan
from onecycle.studies.study import Point

POINTS = [
    Point(f"lr={lr},seed={seed}", {"peak_lr": lr, "seed": seed}, (f"lr={lr}", f"seed={seed}"))
    for lr in (0.1, 0.4)
    for seed in (0, 1)
]


def record(
    overrides: tuple[str, ...], accuracy: float | None, status: str = "finished", **entries: Any
) -> dict[str, Any]:
    return {
        "schema": 1, "status": status, "identity": "x", "name": "one", "overrides": list(overrides),
        "test": {"accuracy": accuracy, "loss": 1.5}, "train": {"accuracy": 0.5, "loss": None}, "val": None,
        "hyperparameters": {
            "peak_lr": 0.1, "batch_size": 50, "momentum": 0.9, "weight_decay": 5e-4, "effective_decay": None,
        },
        "data": {"name": "cifar10", "train_size": 1000}, "seconds": {"fit": 2.0, "total": 3.0}, "epochs": 1.0,
        "steps": 20, "parameters": 7, "images_per_second": 500.0, "device": "cpu", "precision": "32-true",
        "environment": {"threads": 2, "processor": "Zen"}, **entries,
    }  # fmt: skip


def write(folder: Path, name: str, entries: dict[str, Any]) -> None:
    (folder / name).mkdir(parents=True)
    (folder / name / "result.json").write_text(json.dumps(entries))


@pytest.fixture
def study(tmp_path: Path) -> Path:
    folder = tmp_path / "one"
    table.write_plan(folder, Plan({"name": "one"}, POINTS, "onecycle-train study=one"))
    write(folder, "a", record(POINTS[0].overrides, 0.5, measures={"final_loss": 0.25, "recency": [1.0, 2.0]}))
    write(folder, "b", record(POINTS[1].overrides, 0.7))
    write(folder, "c", record(POINTS[2].overrides, 0.1, "diverged"))
    write(folder, "d", record(POINTS[3].overrides, None, "running"))
    write(folder, "e", record(("lr=9", "seed=0"), 0.9))
    return folder


def test_a_plan_comes_back_as_it_was_written(study: Path) -> None:
    plan = table.read_plan(study)
    assert (plan.points, plan.study, plan.command) == (POINTS, {"name": "one"}, "onecycle-train study=one")


def test_only_finished_and_diverged_runs_of_the_plan_are_rows_in_its_order(study: Path) -> None:
    rows = table.rows(study)
    assert [row["label"] for row in rows] == ["lr=0.1,seed=0", "lr=0.1,seed=1", "lr=0.4,seed=0"]
    assert [row["status"] for row in rows] == ["finished", "finished", "diverged"]
    assert [row["has_diverged"] for row in rows] == [0, 0, 1]
    first = rows[0]
    assert first["test_accuracy"] == 50.0
    assert (first["test_loss"], first["final_loss"], first["recency"]) == (1.5, 0.25, [1.0, 2.0])
    assert (first["lr_per_example"], first["subset_size"], first["seed"]) == (0.1 / 50, 1000, 0)
    assert first["one_minus_momentum"] == pytest.approx(0.1)
    assert math.isnan(rows[2]["test_accuracy"])
    assert math.isnan(rows[2]["test_loss"])


def test_of_two_records_with_the_same_overrides_the_newer_one_counts(study: Path) -> None:
    write(study, "z", record(POINTS[1].overrides, 0.9, started="2026-01-02T00:00:00"))
    write(study, "aa", record(POINTS[1].overrides, 0.8, started="2026-01-03T00:00:00"))
    assert table.rows(study)[1]["test_accuracy"] == 80.0


def test_a_half_written_record_counts_as_none(study: Path) -> None:
    (study / "a" / "result.json").write_text('{"schema": 1, "sta')
    assert [row["label"] for row in table.rows(study)] == ["lr=0.1,seed=1", "lr=0.4,seed=0"]


def test_a_study_of_records_has_the_rows_of_the_studies_that_it_names(study: Path) -> None:
    other = study.parent / "two"
    table.write_plan(other, Plan({"name": "two", "records_of": ["one"]}, [], "…"))
    rows = table.rows(other)
    assert [row["study"] for row in rows] == ["one"] * 3


def test_a_folder_without_a_study_says_how_to_run_it(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="holds no study yet; run it: make study NAME=three"):
        table.read_plan(tmp_path / "three")


def test_the_csv_holds_the_plain_columns(study: Path, tmp_path: Path) -> None:
    table.write_csv(tmp_path / "table.csv", table.rows(study))
    with (tmp_path / "table.csv").open() as file:
        lines = list(csv.DictReader(file))
    assert [line["test_accuracy"] for line in lines] == ["50", "70", "nan"]
    assert "recency" not in lines[0]


def test_a_summary_has_mean_and_sample_deviation_over_finished_runs(study: Path) -> None:
    first, second = (
        table.summary(table.rows(study), ["label"], [])[:2],
        table.summary(table.rows(study), ["batch_size"], ["test_accuracy"]),
    )
    assert [line["n"] for line in first] == [1, 1]
    assert (second[0]["n"], second[0]["diverged"], second[0]["test_accuracy"]) == (3, 1, 60.0)
    assert second[0]["test_accuracy_sd"] == pytest.approx(math.sqrt(200))
