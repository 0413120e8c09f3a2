import re
from pathlib import Path
from typing import Any

import pytest
from hydra import initialize_config_dir
from test_report import ACCURACIES, CLAIM, STUDY

from onecycle.config.compose import CONF
from onecycle.runs.environment import processor
from onecycle.studies import plan
from onecycle.studies.plan import Changes
from onecycle.studies.power import StudyPlan
from onecycle.studies.study import at_scale
from studying import ended, record_of, start

DRAWN = Changes(common=("data=synthetic", "data.source.train_size=640", "data.source.test_size=200", "model.width=4",
                        "batch_size=16", "trainer.max_steps=40", "trainer.accelerator=cpu"))  # fmt: skip


def planned(folder: Path, runs: int, **changes: Any) -> list[str]:
    """The lines of a plan when so many runs are finished; each took 10 s beside 5 s for each of 40 steps."""
    study = at_scale({**STUDY, "name": "subset_curve", **changes})
    points = plan.points(study, DRAWN)
    for point in points[:runs]:
        accuracy = ACCURACIES[point.values["peak_lr"], point.values["seed"]]
        rates = {"peak_lr": point.values["peak_lr"], "batch_size": 16, "momentum": 0.9, "weight_decay": 5e-4}
        record_of(
            folder / point.label, point.overrides, accuracy, hyperparameters=rates, steps=40,
            seconds={"fit": 200.0, "total": 210.0}, environment={"threads": 2, "processor": processor()},
        )  # fmt: skip
    with initialize_config_dir(version_base="1.3", config_dir=str(CONF)):
        return list(StudyPlan(study, points, DRAWN, folder).lines())


def number(text: str, line: str) -> float:
    found = re.search(text, line)
    assert found, line
    return float(found[1])


def test_minutes_and_half_widths_follow_from_the_records_where_there_are_some(tmp_path: Path) -> None:
    runs, minutes, claim = planned(tmp_path, 4, seeds=[0, 1, 2])
    assert "6 runs" in runs
    assert "4 of them finished" in runs
    assert number(r"About ([\d.]+) minutes", minutes) == pytest.approx(2 * 210 / 60, abs=0.05)
    assert "4 records" in minutes
    # Sds of 1.41 and 0.71 points, three seeds, Welch's 3 degrees of freedom; 14.5 points over the bound.
    assert number(r"half width ([\d.]+)", claim) == pytest.approx(2.35 * (2.5 / 3) ** 0.5, rel=0.25)
    assert number(r"decided in (\d+)%", claim) > 95
    assert "CANNOT" not in claim


def test_a_claim_that_cannot_be_decided_is_named_with_the_seeds_that_would_do(tmp_path: Path) -> None:
    claims = [{**CLAIM, "at_least": 18.0}, {**CLAIM, "id": "on_the_bound", "at_least": 19.4}]
    *_, near, on = planned(tmp_path, 4, claims=claims)
    seeds = number(r"CANNOT BE DECIDED: (\d+) seeds", near)
    # 1.5 points over the bound: 2.5 standard errors for a decision in 80 % of studies.
    assert seeds in (7, 10)
    assert "CANNOT BE DECIDED: 20 seeds do not suffice" in on


def test_without_records_the_spread_is_assumed_and_the_shape_of_a_curve_unknown(tmp_path: Path) -> None:
    curve = {"id": "best", "text": "", "unit": "", "effect": "optimum_order", "at_most": 0.0, "x": "peak_lr",
             "y": "test_loss", "by": "batch_size"}  # fmt: skip
    share = {**CLAIM, "id": "all", "effect": "value", "metric": "has_diverged", "at_least": 0.5}
    share = {key: value for key, value in share.items() if key != "against"}
    runs, minutes, claim, shape, lost = planned(tmp_path, 0, claims=[CLAIM, curve, share], seeds=[0, 1, 2, 3, 4])
    assert "10 runs" in runs
    assert "timed steps of 1 kinds" in minutes
    assert 0.0 <= number(r"About ([\d.]+) minutes", minutes) < 20
    # Student's for 8 degrees of freedom, of 1 point.
    assert number(r"half width ([\d.]+)", claim) == pytest.approx(1.86 * 0.4**0.5, rel=0.15)
    assert "assumed sd 1" in claim
    assert "unknown before" in shape
    assert "at least 55%" in lost


def test_the_command_trains_no_run_and_leaves_no_folder(tmp_path: Path) -> None:
    words = ("study=subset_curve", "study.scale=tiny", "study.plan=true", "seed=0")
    done = ended(start(tmp_path / "logs", *words))
    assert done.returncode == 0, done.stdout
    assert "4 runs at most" in done.stdout
    assert not (tmp_path / "logs" / "studies").exists()
