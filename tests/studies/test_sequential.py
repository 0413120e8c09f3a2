import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hydra.core.utils import JobReturn, JobStatus
from test_report import STUDY

from onecycle.errors import ConfigError
from onecycle.studies import plan, report
from onecycle.studies.plan import Changes, Plan
from onecycle.studies.sequential import SEQUENTIAL, SeedAdder, planned_looks, read_scheme, spending
from onecycle.studies.study import at_scale
from studying import record_of

# Accuracies in percent at rates 0.1 and 0.4 by seed: the second is 5 points better, and both vary.
NOISE = (0.0, 1.5, -1.5, 0.7, -0.7, 0.3, -0.3, 1.1, -1.1, 0.0)


def test_the_levels_add_up_to_the_error_of_one_look_and_leave_most_of_it_to_the_last() -> None:
    assert spending([2, 4, 6, 8]) == pytest.approx([8.9e-5, 5.49e-3, 0.0180, 0.0264], rel=0.01)
    for looks in ([2], [3, 5], [2, 6, 11, 16, 20]):
        assert sum(spending(looks)) == pytest.approx(0.05)


def test_looks_follow_from_the_budget_and_the_time_of_the_first_seeds() -> None:
    assert planned_looks(2, 120.0, 1200.0) == [2, 6, 11, 16, 20]
    assert planned_looks(2, 120.0, 300.0) == [2, 3, 4, 5]  # seeds of a minute: two, and three more
    assert planned_looks(3, 120.0, 100.0) == [3]


class Study:
    """A study of half a minute a run, whose process may be killed when `left` runs are made."""

    def __init__(self, folder: Path, bound: float, budget: float = 5.0) -> None:
        claim = {**STUDY["claims"][0], "at_least": bound}
        self.study = at_scale({**STUDY, "claims": [claim], "budget_minutes": budget})
        self.folder, self.made, self.left = folder, 0, 1000

    def launch(self, points: Sequence[plan.Point]) -> list[JobReturn]:
        for point in points:
            lr, seed = point.values["peak_lr"], point.values["seed"]
            place = self.folder / point.label
            if not place.exists():
                if not self.left:
                    raise KeyboardInterrupt
                self.made, self.left = self.made + 1, self.left - 1
                accuracy = 0.5 + (0.05 + NOISE[seed] / 100) * (lr == 0.4) + 0.001 * seed
                rates = {"peak_lr": lr, "batch_size": 50, "momentum": 0.9, "weight_decay": 5e-4}
                data = {"name": "cifar10", "train_size": 1000, "classes": list("abcdefghij")}
                record_of(place, point.overrides, accuracy, hyperparameters=rates, data=data)
        return [JobReturn(status=JobStatus.COMPLETED) for _ in points]

    def run(self) -> dict[str, Any]:
        """Run the command; returns the scheme."""
        noted = Plan(self.study, plan.points(self.study), "command")
        plan.write_plan(self.folder, noted)
        self.launch(noted.points)
        SeedAdder(noted, Changes(), self.folder, self.launch).run()
        return read_scheme(self.folder)


def test_seeds_are_added_until_the_claim_is_decided(tmp_path: Path) -> None:
    one = Study(tmp_path / "one", bound=2.0)
    scheme = one.run()
    # A seed takes a minute (two runs of 30 s): five in five minutes.
    assert (scheme["looks"], scheme["seeds"]) == ([2, 3, 4, 5], [0, 1, 2, 3, 4])
    assert one.made == 2 * scheme["looks"][scheme["done"] - 1]
    assert scheme["done"] > 1
    report.build(tmp_path / "one")
    (verdict,) = json.loads((tmp_path / "one/report/verdicts.json").read_text())
    assert verdict["seeds"] == scheme["looks"][scheme["done"] - 1]
    assert "look " in (tmp_path / "one/report/index.html").read_text()


def test_no_seed_is_added_where_the_first_ones_decide_or_no_decision_is_in_reach(tmp_path: Path) -> None:
    assert Study(tmp_path / "far", bound=5.75, budget=3.0).run()["done"] == 1  # the effect lies on the bound
    near = Study(tmp_path / "short", bound=2.0, budget=1.0)
    near.run()
    assert near.made == 4


def test_killed_and_repeated_it_goes_on_with_the_same_plan_and_another_budget_is_refused(tmp_path: Path) -> None:
    whole = Study(tmp_path / "whole", bound=2.0)
    expected = whole.run()
    cut = Study(tmp_path / "cut", bound=2.0)
    for left in (3, 2, 1):
        cut.left = left
        with pytest.raises(KeyboardInterrupt):
            cut.run()
    cut.left = 1000
    assert cut.run() == expected
    assert cut.made == whole.made
    assert cut.run() == expected
    assert cut.made == whole.made
    with pytest.raises(ConfigError, match="budget_minutes=9"):
        Study(tmp_path / "cut", bound=2.0, budget=9.0).run()
    (tmp_path / "cut" / SEQUENTIAL).write_text("{}")
    with pytest.raises(ConfigError, match=SEQUENTIAL):
        cut.run()


def test_searches_have_no_seeds_to_add() -> None:
    with pytest.raises(ConfigError, match="budget_minutes=5"):
        at_scale({**STUDY, "runs": [], "records_of": ["other"], "budget_minutes": 5.0})
