import csv
import math
from pathlib import Path

import pytest

from onecycle.studies.search import decisions
from onecycle.studies.search.coordinate import Step, Values, follow, random_search, search
from onecycle.studies.search.space import Coordinate, Interval

X = Coordinate("schedule.peak_lr", 1.0)


def lines(folder: Path) -> list[dict[str, str]]:
    with (folder / "path.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_a_coordinate_search_writes_each_decision_before_it_asks_for_the_next_point(tmp_path: Path) -> None:
    kept = decisions.Decisions(tmp_path)
    scores = {1.0: 0.5, 2.0: 0.6, 4.0: 0.605, 0.5: math.nan}
    written: list[int] = []

    def score(points: list[Values]) -> list[float]:
        written.append(len(lines(tmp_path)) if (tmp_path / "path.csv").exists() else 0)
        return [scores[point["schedule.peak_lr"]] for point in points]

    follow(search([X], budget=9, min_gain=0.01, told=lambda step: kept.add("a", step, 3)), score)
    assert written == [0, 1, 2]
    shown = [(line["number"], line["point"], line["mean_score"], line["decision"]) for line in lines(tmp_path)]
    assert shown == [
        ("0", "schedule.peak_lr=1", "0.5", "start"), ("1", "schedule.peak_lr=2", "0.6", "better"),
        ("2", "schedule.peak_lr=4", "0.605", "worse"),
    ]  # fmt: skip
    assert [line["reason"] for line in lines(tmp_path)] == [
        "the first point", "60.00 % against 50.00 %", "60.50 % against 60.00 %, which is less than 1.00 % better",
    ]  # fmt: skip
    assert {(line["arm"], line["seeds"]) for line in lines(tmp_path)} == {("a", "3")}
    assert decisions.read(tmp_path)["a", 1] == {"coordinate": "peak_lr", "decision": "better"}


def test_of_two_neighbours_tried_at_once_only_the_better_one_is_gone_to() -> None:
    steps: list[Step] = []
    scores = {1.0: 0.5, 2.0: 0.6, 0.5: 0.7, 0.25: 0.6}
    walk = search([X], budget=9, pairs=True, told=steps.append)
    follow(walk, lambda points: [scores[point["schedule.peak_lr"]] for point in points])
    assert [(step.values["schedule.peak_lr"], step.decision, step.beside) for step in steps[1:]] == [
        (2.0, "worse", 0.5), (0.5, "better", 0.5), (0.25, "worse", 0.7),
    ]  # fmt: skip


def test_a_random_search_tells_each_draw_and_a_diverged_one_as_such() -> None:
    steps: list[Step] = []
    answers = iter([math.nan, 0.3, math.nan])
    walk = random_search([Interval("x", 1, 2)], budget=3, seed=0, told=steps.append)
    follow(walk, lambda points: [next(answers)])
    assert [step.decision for step in steps] == ["start", "better", "worse"]
    assert [decisions.reason(step) for step in steps] == [
        "the first point", "30.00 %, every point before it diverged", "it diverged",
    ]  # fmt: skip


@pytest.mark.parametrize("text", ["", "arm,number\na,x\n", "nothing"])
def test_without_a_path_nothing_is_known(text: str, tmp_path: Path) -> None:
    assert decisions.read(tmp_path) == {}
    (tmp_path / "path.csv").write_text(text)
    assert decisions.read(tmp_path) == {}
