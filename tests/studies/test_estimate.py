import math
from typing import Any

import numpy as np
import pandas as pd
import pytest

from onecycle.studies.effects import value
from onecycle.studies.responses import Runs
from onecycle.studies.rows import UnmeasurableError
from onecycle.studies.verdicts import complete_seeds, estimate, pooled_sd, resampled_half_width

OF_ALL: dict[str, Any] = {"metric": "acc", "of": {}}
A, B = {"arm": "a"}, {"arm": "b"}


def first(runs: Runs) -> float:
    """An effect: the accuracy of the first run."""
    return float(runs.numbers("acc")[0])


def seeds_of(frame: pd.DataFrame, *question: Any) -> list[int]:
    return [int(runs.frame["seed"].iloc[0]) for runs in complete_seeds(frame, *question)]


def test_a_seed_counts_when_it_has_every_point_of_the_filters_as_often_as_the_others() -> None:
    frame = pd.DataFrame({"seed": [0, 0, 1, 1, 2], "arm": ["a", "b", "a", "b", "a"]})
    assert seeds_of(frame, [A, B], []) == [0, 1]
    assert seeds_of(frame, [{"arm": ["a", "b"]}], []) == [0, 1]
    assert seeds_of(frame, [A], []) == [0, 1, 2]
    assert seeds_of(pd.DataFrame({"seed": [0, 0, 1], "arm": ["a"] * 3}), [A], []) == [0]
    assert len(complete_seeds(pd.DataFrame({"arm": ["a", "b"]}), [{}], [])[0]) == 2  # rows without a seed are of one


def test_a_seed_counts_when_it_has_every_cell_of_the_grid() -> None:
    frame = pd.DataFrame({"seed": [0, 0, 1, 1, 2, 2], "lr": [0.1, 0.4, 0.1 + 1e-12, 0.4, 0.4, 1.6]})
    assert seeds_of(frame.iloc[:4], [{}], ["lr"]) == [0, 1]
    assert seeds_of(frame, [{}], ["lr"]) == []
    assert seeds_of(frame, [{"lr": [0.1, 0.4]}], ["lr"]) == [0, 1]


def test_the_interval_of_a_difference_is_that_of_students_test_with_a_pooled_variance() -> None:
    """Two arms of three runs: t for 4 degrees of freedom times s √(2/3); the variances 1 and 4 are pooled to 2.5."""
    frame = pd.DataFrame({"seed": [0, 1, 2] * 2, "arm": ["a"] * 3 + ["b"] * 3, "acc": [9.0, 10.0, 11.0, 1.0, 5.0, 3.0]})
    assert pooled_sd(complete_seeds(frame, [A, B], []), "acc", [A, B], []) == (pytest.approx(math.sqrt(2.5)), 4)
    result = estimate(frame, "difference", {"metric": "acc", "of": A, "against": B})
    assert (result.effect, result.seeds, result.obstacle) == (pytest.approx(7.0), 3, "")
    assert result.uncertainty == pytest.approx(2.132 * math.sqrt(2.5 * 2 / 3), rel=0.1)


def test_only_runs_that_the_effect_is_about_are_pooled_and_each_point_has_its_own_mean() -> None:
    frame = pd.DataFrame({
        "seed": [0, 1] * 4, "arm": ["a"] * 6 + ["other"] * 2, "lr": [0.1, 0.1, 0.4, 0.4, 1.6, 1.6, 0.1, 0.1],
        "acc": [1.0, 3.0, 50.0, 54.0, 90.0, math.nan, 0.0, 99.0],
    })  # fmt: skip
    sd, freedom = pooled_sd(complete_seeds(frame, [A], ["lr"]), "acc", [A], ["lr"])
    assert (sd, freedom) == (pytest.approx(math.sqrt((2 + 8) / 2)), 2)  # 1.6 has one number: no freedom


def test_the_spread_over_seeds_comes_before_an_assumed_one_which_is_for_one_seed() -> None:
    frame = pd.DataFrame({"seed": [0, 1], "acc": [1.0, 1.0]})
    assert estimate(frame, "value", OF_ALL, assumed_sd=5.0).uncertainty == 0.0
    result = estimate(frame.iloc[:1], "value", OF_ALL, assumed_sd=0.5)
    assert (result.effect, result.seeds, result.obstacle) == (1.0, 1, "")
    assert result.uncertainty == pytest.approx(1.645 * 0.5, rel=0.1)
    assert estimate(frame.iloc[:1], "value", OF_ALL, assumed_sd=0.0).uncertainty == 0.0
    vague = estimate(frame.iloc[:1], "value", OF_ALL)
    assert math.isnan(vague.uncertainty)
    assert "too few seeds" in vague.obstacle


def test_a_seed_that_cannot_be_measured_is_not_passed_over() -> None:
    frame = pd.DataFrame({"seed": [0, 1, 2], "acc": [1, 2, math.nan], "status": ["finished", "finished", "diverged"]})
    result = estimate(frame, "value", OF_ALL)
    assert (math.isnan(result.effect), result.seeds) == (True, 3)
    assert "(1 of 3 seeds)" in result.obstacle
    assert estimate(frame.iloc[:0], "value", OF_ALL).seeds == 0


def test_resampling_is_four_hundred_draws_of_a_fixed_generator_and_leaves_the_rows_alone() -> None:
    runs = Runs(pd.DataFrame({"acc": [5.0, math.nan], "lr": [1.0, 1.0]}))
    noise = np.random.default_rng(0).normal(0.0, 2.0, (400, 2))[:, 0]
    width = resampled_half_width([runs], first, "acc", 2.0, math.inf)
    assert width == pytest.approx(1.64485 * float(np.std(noise, ddof=1)), rel=1e-5)
    assert resampled_half_width([runs], first, "acc", 4.0, math.inf) == pytest.approx(2 * width)
    assert runs.numbers("acc")[0] == 5.0


@pytest.mark.parametrize("seeds", [2, 60])
@pytest.mark.parametrize(("freedom", "known"), [(4, 2.1318), (math.inf, 1.6449)])
def test_the_interval_is_that_of_theory_although_fewer_copies_are_made_of_many_seeds(
    seeds: int, freedom: float, known: float
) -> None:
    # The effect is the mean of ten values of sd 2: over n seeds its sd is 2 / sqrt(10 n).
    runs = [Runs(pd.DataFrame({"z": [1.0] * 10})) for _ in range(seeds)]
    width = resampled_half_width(runs, lambda one: value(one, "z", {}), "z", 2.0, freedom)
    assert width == pytest.approx(known * 2 / np.sqrt(10 * seeds), rel=0.1 if seeds == 2 else 0.06)


def test_an_effect_that_noise_takes_away_is_uncertain() -> None:
    def above_zero(runs: Runs) -> float:
        if first(runs) < 0:
            raise UnmeasurableError("negative")
        return first(runs)

    assert math.isnan(resampled_half_width([Runs(pd.DataFrame({"acc": [0.1]}))], above_zero, "acc", 1.0, math.inf))
