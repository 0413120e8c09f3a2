import csv
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from onecycle.studies.search import coordinate
from onecycle.studies.search.coordinate import SETTLED, SPENT, Values
from onecycle.studies.search.options import Coordinate, CoordinateSearch

Score = Callable[[Values], float]
START: dict[str, Any] = {"start": 1.0}


def solve(
    coordinates: dict[str, dict[str, Any]], score: Score, *, pairs: bool = False, budget: int = 100, **options: Any
) -> tuple[coordinate.SearchPath, list[list[Values]]]:
    """What a search finds, and the batches that it evaluated."""
    asked: list[list[Values]] = []

    def evaluate(points: list[Values]) -> list[float]:
        asked.append(points)
        return [score(point) for point in points]

    given = {"arm": "a", "method": "coordinate", "budget": budget, "coordinates": coordinates, **options}
    path = coordinate.SearchPath()
    coordinate.coordinate_search(CoordinateSearch.model_validate(given), evaluate, path, pairs=pairs)
    return path, asked


def bowl(**optimum: float) -> Score:
    """Best where every coordinate, as a power of 2, has its optimum."""
    return lambda values: -sum((math.log2(values[name]) - best) ** 2 for name, best in optimum.items())


def test_a_bowl_is_climbed_in_as_many_evaluations_as_theory_gives() -> None:
    """Up 3: the start, 3 better, 1 worse. Down 2: 1 up, 2 better, 1 worse. Then x again: 2, of which 1 is new: it has
    tried up from here before y moved, but not from the new y."""
    path, asked = solve({"x": START, "y": START}, bowl(x=3, y=-2))
    assert path.best.values == {"x": 8.0, "y": 0.25}
    assert path.end == SETTLED
    assert len(path.steps) == len(asked) == 1 + (3 + 1) + (1 + 2 + 1) + 2
    assert [step.decision for step in path.steps] == (
        ["start"] + ["better"] * 3 + ["worse"] + ["worse"] + ["better"] * 2 + ["worse"] + ["worse"] * 2
    )


@pytest.mark.parametrize(
    ("coordinates", "score", "refinements", "best"),
    [
        ({"x": START, "y": START}, bowl(x=2.3, y=-1.6), 2, {"x": 4.757, "y": 0.3536}),
        ({"x": {"start": 0.5, "complement": True}}, lambda v: -abs(v["x"] - 0.82), 1, {"x": 0.8232}),  # 1 − 0.25/√2
        ({"x": {"start": 0.5, "complement": True}}, lambda v: -abs(v["x"] - 0.875), 0, {"x": 0.875}),
        ({"x": {**START, "low": 0.5, "high": 4.0}}, bowl(x=5), 0, {"x": 4.0}),
        ({"x": START, "y": START}, lambda values: 1.0, 0, {"x": 1.0, "y": 1.0}),  # a plateau
        ({"x": START}, lambda v: math.nan if v["x"] > 4 else bowl(x=5)(v), 0, {"x": 4.0}),  # divergence is the worst
        ({"x": START}, lambda v: math.nan if v["x"] > 0.3 else bowl(x=-3)(v), 0, {"x": 1.0}),  # so is that around it
    ],
)
def test_the_best_point_is_found(coordinates: Any, score: Score, refinements: int, best: Values) -> None:
    path, _ = solve(coordinates, score, refinements=refinements)
    assert (path.best.values, path.end) == (best, SETTLED)


def test_noise_below_the_least_gain_moves_nothing() -> None:
    noise = np.random.default_rng(0)
    score = bowl(x=2, y=0)
    path, _ = solve({"x": START, "y": START}, lambda v: score(v) + float(noise.uniform(-0.1, 0.1)), min_gain=0.2)
    assert path.best.values == {"x": 4.0, "y": 1.0}
    assert len(path.steps) == 1 + 3 + 2  # x once more is not needed: y has not moved


@pytest.mark.parametrize("budget", range(1, 12, 5))
def test_the_budget_is_never_exceeded_and_the_best_so_far_is_kept(budget: int) -> None:
    path, _ = solve({"x": START, "y": START}, bowl(x=3, y=-2), budget=budget)
    assert (len(path.steps), path.end) == (budget, SPENT if budget < 11 else SETTLED)
    assert path.best.score == max(step.score for step in path.steps)


@pytest.mark.parametrize("optimum", [3, -3, 0])
def test_pairs_ask_for_both_neighbours_and_go_the_better_way(optimum: int) -> None:
    path, asked = solve({"x": START}, bowl(x=optimum), pairs=True)
    assert path.best.values == {"x": 2.0**optimum}
    assert asked[1] == [{"x": 2.0}, {"x": 0.5}]
    assert len(path.steps) == 3 + abs(optimum)


def test_of_two_neighbours_that_are_both_better_the_search_goes_to_one() -> None:
    scores = {1.0: 0.5, 2.0: 0.6, 0.5: 0.7, 0.25: 0.6}
    path, _ = solve({"x": START}, lambda point: scores[point["x"]], pairs=True)
    assert [(step.values["x"], step.decision, step.reason.split()[-2]) for step in path.steps[1:]] == [
        (2.0, "worse", "50.00"), (0.5, "better", "50.00"), (0.25, "worse", "70.00"),
    ]  # fmt: skip


def test_steps_keep_readable_numbers() -> None:
    assert [Coordinate(start=0.001).at(step) for step in (8, -3)] == [0.256, 0.000125]
    momentum = Coordinate(start=0.5, complement=True)
    assert [momentum.at(step) for step in (-2, -1, 0, 1, 2)] == [None, 0.0, 0.5, 0.75, 0.875]


def lines(folder: Path) -> list[dict[str, str]]:
    with (folder / "path.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_each_decision_is_written_before_the_next_point_is_evaluated(tmp_path: Path) -> None:
    kept = coordinate.Decisions(tmp_path)
    scores = {1.0: 0.5, 2.0: 0.6, 4.0: 0.605}
    written: list[int] = []

    def evaluate(points: list[Values]) -> list[float]:
        written.append(len(lines(tmp_path)) if (tmp_path / "path.csv").exists() else 0)
        return [scores[point["schedule.peak_lr"]] for point in points]

    options = CoordinateSearch(
        arm="a", method="coordinate", budget=9, min_gain=0.01, coordinates={"schedule.peak_lr": Coordinate(start=1.0)}
    )
    path = coordinate.SearchPath(on_step=lambda step: kept.add("a", step, 3))
    coordinate.coordinate_search(options, evaluate, path)
    assert written == [0, 1, 2]
    names = ("arm", "number", "point", "mean_score", "seeds", "decision", "reason")
    assert [tuple(line[name] for name in names) for line in lines(tmp_path)] == [
        ("a", "0", "schedule.peak_lr=1", "0.5", "3", "start", "the first point"),
        ("a", "1", "schedule.peak_lr=2", "0.6", "3", "better", "60.00 % against 50.00 %"),
        ("a", "2", "schedule.peak_lr=4", "0.605", "3", "worse",
         "60.50 % against 60.00 %, which is less than 1.00 % better"),
    ]  # fmt: skip
    assert coordinate.read_decisions(tmp_path)["a", None, 1] == {"coordinate": "peak_lr", "decision": "better"}


def test_a_diverged_draw_is_worse_than_any_other() -> None:
    path = coordinate.SearchPath()
    for score in (-math.inf, 0.3, -math.inf):
        path.add_draw({"x": 1.0}, score)
    assert [(step.decision, step.reason.split(",")[0]) for step in path.steps] == [
        ("start", "the first point"), ("better", "30.00 %"), ("worse", "it diverged"),
    ]  # fmt: skip


@pytest.mark.parametrize("text", [None, "", "arm,number\na,x\n", "arm,start,number\na,x,1\n", "nothing"])
def test_without_a_path_nothing_is_known(text: str | None, tmp_path: Path) -> None:
    if text is not None:
        (tmp_path / "path.csv").write_text(text)
    assert coordinate.read_decisions(tmp_path) == {}
