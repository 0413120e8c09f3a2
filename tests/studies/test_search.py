import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest

from onecycle.errors import ConfigError
from onecycle.studies.search.coordinate import SETTLED, SPENT, Path, Search, Values, follow, random_search, search
from onecycle.studies.search.space import Coordinate, Interval, coordinates, intervals

Score = Callable[[Values], float]
X, Y = Coordinate("x", 1.0), Coordinate("y", 1.0)


def solve(walk: Search, score: Score) -> tuple[Path, list[list[Values]]]:
    """What a search finds, and the batches that it asked for."""
    asked: list[list[Values]] = []

    def answer(points: list[Values]) -> list[float]:
        asked.append(points)
        return [score(point) for point in points]

    return follow(walk, answer), asked


def bowl(**optimum: float) -> Score:
    """Best where every coordinate, as a power of 2, has its optimum."""
    return lambda values: -sum((math.log2(values[name]) - best) ** 2 for name, best in optimum.items())


def test_a_bowl_is_climbed_in_as_many_evaluations_as_theory_gives() -> None:
    """Up 3: the start, 3 better, 1 worse. Down 2: 1 up, 2 better, 1 worse. Then x again: 2, of which 1 is new: it has
    tried up from here before y moved, but not from the new y."""
    path, asked = solve(search([X, Y], budget=100), bowl(x=3, y=-2))
    assert path.best.values == {"x": 8.0, "y": 0.25}
    assert path.end == SETTLED
    assert len(path.steps) == len(asked) == 1 + (3 + 1) + (1 + 2 + 1) + 2
    assert [step.decision for step in path.steps] == (
        ["start"] + ["better"] * 3 + ["worse"] + ["worse"] + ["better"] * 2 + ["worse"] + ["worse"] * 2
    )


def test_no_point_is_asked_for_twice() -> None:
    _, asked = solve(search([X, Y, Coordinate("z", 1.0)], budget=200), bowl(x=5, y=-4, z=2))
    points = [tuple(point.items()) for batch in asked for point in batch]
    assert len(points) == len(set(points))


def test_along_a_ridge_the_transformed_coordinates_need_fewer_steps_than_the_raw_ones() -> None:
    """The loss depends on x·y steeply, on x/y hardly: in (x·y, y) it is a bowl, in (x, y) a ridge at 45°."""

    def height(product: float, ratio: float) -> float:
        return -((product - 6) ** 2) - 0.05 * (ratio - 6) ** 2

    def raw(values: Values) -> float:
        x, y = math.log2(values["x"]), math.log2(values["y"])
        return height(x + y, x - y)

    def transformed(values: Values) -> float:
        product, y = math.log2(values["product"]), math.log2(values["y"])
        return height(product, product - 2 * y)

    turned, _ = solve(search([Coordinate("product", 1.0), Y], budget=100), transformed)
    straight, _ = solve(search([X, Y], budget=100), raw)
    assert turned.best.values == {"product": 64.0, "y": 1.0}
    assert len(turned.steps) == 1 + 7 + 2
    assert straight.best.score <= turned.best.score
    # On the ridge one step along an axis leaves it: the raw search is caught where it first meets the ridge.
    assert math.log2(straight.best.values["x"]) + math.log2(straight.best.values["y"]) == 6


def test_a_step_that_shrinks_comes_as_near_as_its_last_size() -> None:
    """Up 2 of 3; then the square root once up; then the fourth root down, behind one up."""
    path, _ = solve(search([X], budget=100, refinements=2), bowl(x=2.3))
    assert [math.log2(step.values["x"]) for step in path.steps] == pytest.approx(
        [0, 1, 2, 3, 2.5, 2.75, 2.25], abs=1e-3
    )
    assert path.best.values == {"x": 4.757}  # 2^2.25, as a person would type it
    assert path.end == SETTLED
    path, _ = solve(
        search([Coordinate("x", 0.5, complement=True)], budget=9, refinements=1), lambda v: -abs(v["x"] - 0.82)
    )
    assert path.best.values == {"x": 0.8232}  # 1 − 0.25/√2
    path, _ = solve(search([X, Y], budget=100, refinements=2), bowl(x=2.3, y=-1.6))
    assert path.best.values == {"x": 4.757, "y": 0.3536}


def test_a_plateau_is_left_at_once() -> None:
    path, _ = solve(search([X, Y], budget=100), lambda values: 1.0)
    assert path.best.values == {"x": 1.0, "y": 1.0}
    assert len(path.steps) == 5


def test_noise_below_the_least_gain_moves_nothing() -> None:
    noise = np.random.default_rng(0)

    def score(values: Values) -> float:
        return bowl(x=2, y=0)(values) + float(noise.uniform(-0.1, 0.1))

    path, _ = solve(search([X, Y], budget=100, min_gain=0.2), score)
    assert path.best.values == {"x": 4.0, "y": 1.0}
    assert len(path.steps) == 1 + 3 + 2  # x once more is not needed: y has not moved


def test_divergence_is_worse_than_anything() -> None:
    path, _ = solve(search([X], budget=100), lambda v: math.nan if v["x"] > 4 else bowl(x=5)(v))
    assert path.best.values == {"x": 4.0}
    assert path.steps[-2].score == -math.inf or path.steps[-1].score == -math.inf


def test_a_start_that_diverges_is_left() -> None:
    path, _ = solve(search([X], budget=100), lambda v: math.nan if v["x"] > 0.3 else bowl(x=-3)(v))
    assert path.steps[0].score == -math.inf
    assert path.best.values == {"x": 1.0}  # both neighbours diverge as well: there is nothing to go by


def test_the_budget_is_never_exceeded_and_the_best_so_far_is_kept() -> None:
    for budget in range(1, 12):
        path, _ = solve(search([X, Y], budget=budget), bowl(x=3, y=-2))
        assert len(path.steps) == min(budget, 11)
        assert path.end == (SPENT if budget < 11 else SETTLED)
        assert path.best.score == max(step.score for step in path.steps)


@pytest.mark.parametrize("optimum", [3, -3, 0])
def test_pairs_ask_for_both_neighbours_and_go_the_better_way(optimum: int) -> None:
    path, asked = solve(search([X], budget=100, pairs=True), bowl(x=optimum))
    assert path.best.values == {"x": 2.0**optimum}
    assert asked[1] == [{"x": 2.0}, {"x": 0.5}]
    assert len(path.steps) == 3 + abs(optimum)


def test_a_complement_halves_the_distance_from_one() -> None:
    momentum = Coordinate("momentum", 0.5, complement=True)
    assert [momentum.at(step) for step in (-1, 0, 1, 2)] == [0.0, 0.5, 0.75, 0.875]
    assert momentum.at(-2) is None  # below 0
    path, _ = solve(search([momentum], budget=20), lambda v: -abs(v["momentum"] - 0.875))
    assert path.best.values == {"momentum": 0.875}


def test_values_outside_of_what_is_allowed_are_not_tried() -> None:
    path, _ = solve(search([Coordinate("x", 1.0, low=0.5, high=4.0)], budget=20), bowl(x=5))
    assert path.best.values == {"x": 4.0}
    assert all(0.5 <= step.values["x"] <= 4.0 for step in path.steps)


def test_long_paths_keep_readable_numbers() -> None:
    assert [Coordinate("x", 0.001).at(step) for step in (8, -3)] == [0.256, 0.000125]
    assert Coordinate("x", 0.1, factor=10.0).at(3) == 100.0


def test_coordinates_come_from_a_configuration_in_its_order() -> None:
    settings: Mapping[str, Any] = {
        "a": {"start": 0.5},
        "b": {"start": 0.9, "factor": 3, "complement": True, "high": 0.99},
        "c": {"start": 2},
    }
    assert coordinates(settings) == [
        Coordinate("a", 0.5), Coordinate("b", 0.9, factor=3, complement=True, high=0.99), Coordinate("c", 2),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("settings", "line"),
    [
        ({"a": {"start": 1.0, "factor": 0}}, "a.factor=0: must be above 1"),
        ({"a": {"start": 1.0, "factor": -2.0}}, "a.factor=-2.0: must be above 1"),
        ({"a": {"start": 1.0, "factor": "two"}}, "a.factor='two': must be a number"),
        ({"a": {"start": 0}}, "a.start=0: must be above 0, because steps multiply it"),
        ({"a": {"start": -1.0}}, "a.start=-1.0: must be above 0, because steps multiply it"),
        ({"a": {"start": 2, "complement": True}}, "a.start=2: must be a value that is allowed"),
        ({"a": {"start": 2, "high": 1}}, "a.start=2: must be a value that is allowed"),
        ({"a": {"start": 1.0, "complement": 1.5}}, "a.complement=1.5: must be true or false"),
        ({"a": {"start": 1.0, "step": 2}}, "a.step: is unknown; there are start, factor, complement, low, high"),
        ({"b": {}}, "b.start=None: must be a number; the configuration has no such key"),
        ({"a": {"start": 1.0, "high": math.nan}}, "a.high=nan: must be a number"),
        ({}, "coordinates: is empty; name at least one key, such as hyperparameters.effective_decay"),
    ],
)
def test_a_mistake_in_a_coordinate_is_one_line(settings: dict[str, Any], line: str) -> None:
    with pytest.raises(ConfigError) as caught:
        coordinates(settings)
    assert str(caught.value) == line


def test_random_draws_are_even_in_the_logarithm_and_the_same_for_the_same_seed() -> None:
    space = [
        Interval("lr", 0.01, 100.0),
        Interval("momentum", 0.02, 1.0, complement=True),
        Interval("x", 2, 4, log=False),
    ]
    path, asked = solve(random_search(space, budget=400, seed=0), lambda values: -values["lr"])
    again, _ = solve(random_search(space, budget=400, seed=0), lambda values: 0.0)
    other, _ = solve(random_search(space, budget=400, seed=1), lambda values: 0.0)
    assert [step.values for step in path.steps] == [step.values for step in again.steps]
    assert path.steps[0].values != other.steps[0].values
    assert (len(path.steps), len(asked), path.end) == (400, 400, SPENT)
    rates = np.array([step.values["lr"] for step in path.steps])
    assert rates.min() >= 0.01
    assert rates.max() <= 100.0
    assert np.mean(rates < 1.0) == pytest.approx(0.5, abs=0.08)  # half of the draws lie in half of the decades
    assert all(0 <= step.values["momentum"] <= 0.98 for step in path.steps)
    assert np.mean([step.values["x"] for step in path.steps]) == pytest.approx(3.0, abs=0.1)
    assert path.best.values["lr"] == rates.min()


@pytest.mark.parametrize(
    ("settings", "line"),
    [
        ({"a": {"low": 1}}, "a.high=None: must be a number"),
        ({"a": {"low": 2, "high": 1}}, "a.low=2: must be below high, 1"),
        ({"a": {"low": 0, "high": 1}}, "a.low=0: must be above 0 for a logarithm; or set log: false"),
        ({"a": {"low": 1, "high": 2, "log": "yes"}}, "a.log='yes': must be true or false"),
        ({"a": {"low": 1, "high": 2, "step": 1}}, "a.step: is unknown; there are low, high, log, complement"),
        ({}, "space: is empty; name at least one key, such as schedule.peak_lr"),
    ],
)
def test_a_mistake_in_an_interval_is_one_line(settings: dict[str, Any], line: str) -> None:
    with pytest.raises(ConfigError) as caught:
        intervals(settings)
    assert str(caught.value) == line
