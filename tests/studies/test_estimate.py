import math
from typing import Any

import numpy as np
import pytest
from onecycle.studies.selection import Rows, UnmeasurableError

from onecycle.studies.estimate import (
    Noise,
    complete_seeds,
    estimate,
    half_width,
    pooled_sd,
    resampled_half_width,
    t_quantile,
)

Table = list[dict[str, Any]]


def first(rows: Rows) -> float:
    """An effect: the accuracy of the first run."""
    return float(rows[0]["acc"])


def runs(**columns: Any) -> Table:
    """One row for each seed in turn, from one column of values each."""
    return [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]


def test_a_seed_counts_when_it_has_every_point_of_the_filters() -> None:
    rows = runs(seed=[0, 0, 1, 1, 2], arm=["a", "b", "a", "b", "a"])
    assert list(complete_seeds(rows, [{"arm": "a"}, {"arm": "b"}], [])) == [0, 1]
    assert list(complete_seeds(rows, [{"arm": ["a", "b"]}], [])) == [0, 1]
    assert list(complete_seeds(rows, [{"arm": "a"}], [])) == [0, 1, 2]
    assert complete_seeds(rows, [{"arm": "b"}], [])[1] == rows[2:4]


def test_a_seed_counts_when_it_has_every_cell_of_the_grid() -> None:
    rows = runs(seed=[0, 0, 1, 1, 2, 2], lr=[0.1, 0.4, 0.1 + 1e-12, 0.4, 0.4, 1.6])
    assert list(complete_seeds(rows[:4], [{}], ["lr"])) == [0, 1]
    assert list(complete_seeds(rows, [{}], ["lr"])) == []
    assert list(complete_seeds(rows, [{"lr": [0.1, 0.4]}], ["lr"])) == [0, 1]


def test_a_seed_counts_when_it_has_as_many_runs_at_a_point_as_the_others() -> None:
    rows = runs(seed=[0, 0, 1], kind=["tuned"] * 3, acc=[1.0, 2.0, 3.0])
    assert list(complete_seeds(rows, [{"kind": "tuned"}], [])) == [0]


def test_rows_without_a_seed_are_those_of_one() -> None:
    assert complete_seeds([{"arm": "a"}, {"arm": "b"}], [{}], []) == {None: [{"arm": "a"}, {"arm": "b"}]}


@pytest.mark.parametrize(
    ("freedom", "quantile"),
    [(1, 6.3138), (2, 2.92), (4, 2.1318), (10, 1.8125), (30, 1.6973), (31, 1.6955), (100, 1.6602)],
)
def test_quantiles_are_those_of_students_t(freedom: int, quantile: float) -> None:
    assert t_quantile(freedom) == pytest.approx(quantile, abs=2e-3)


def test_half_width_is_t_times_the_standard_error() -> None:
    assert half_width([1.0, 2.0, 3.0]) == pytest.approx(2.92 / math.sqrt(3), rel=1e-12)
    assert half_width([1.0, 3.0]) == pytest.approx(6.314, rel=1e-12)
    assert half_width([2.0, 2.0]) == 0.0


def test_an_effect_is_the_mean_over_seeds() -> None:
    result = estimate([[{"acc": 1.0}], [{"acc": 2.0}], [{"acc": 6.0}]], first, Noise("acc"))
    assert (result.effect, result.seeds, result.obstacle) == (3.0, 3, "")
    assert result.uncertainty == pytest.approx(2.92 * math.sqrt(7) / math.sqrt(3), rel=0.1)


def test_the_interval_of_a_difference_is_that_of_students_test_with_a_pooled_variance() -> None:
    """Two arms of three runs: t for 4 degrees of freedom times s √(2/3); the variances 1 and 4 are pooled to 2.5."""
    rows = runs(seed=[0, 1, 2] * 2, arm=["a"] * 3 + ["b"] * 3, acc=[9.0, 10.0, 11.0, 1.0, 5.0, 3.0])
    arms = [{"arm": "a"}, {"arm": "b"}]
    seeds = list(complete_seeds(rows, arms, []).values())
    noise = Noise("acc", arms)
    assert pooled_sd(seeds, noise) == (pytest.approx(math.sqrt(2.5)), 4)
    result = estimate(seeds, lambda seed: float(seed[0]["acc"] - seed[1]["acc"]), noise)
    assert (result.effect, result.seeds) == (pytest.approx(7.0), 3)
    assert result.uncertainty == pytest.approx(2.132 * math.sqrt(2.5 * 2 / 3), rel=0.1)


def test_only_runs_that_the_claim_is_about_are_pooled_and_each_point_has_its_own_mean() -> None:
    rows = runs(
        seed=[0, 1] * 4,
        arm=["a"] * 6 + ["other"] * 2,
        lr=[0.1, 0.1, 0.4, 0.4, 1.6, 1.6, 0.1, 0.1],
        acc=[1.0, 3.0, 50.0, 54.0, 90.0, math.nan, 0.0, 99.0],
    )
    seeds = list(complete_seeds(rows, [{"arm": "a"}], ["lr"]).values())
    sd, freedom = pooled_sd(seeds, Noise("acc", [{"arm": "a"}], ["lr"]))
    assert (sd, freedom) == (pytest.approx(math.sqrt((2 + 8) / 2)), 2)  # 1.6 has one number: no freedom


def test_seeds_without_two_numbers_at_a_point_go_by_their_effects() -> None:
    seeds = [[{"acc": math.nan, "seed": seed}] for seed in (0, 1)]
    effects = iter([1.0, 3.0])
    result = estimate(seeds, lambda _: next(effects), Noise("acc"))
    assert (result.effect, result.uncertainty) == (2.0, pytest.approx(6.314))


def test_the_spread_over_seeds_comes_before_an_assumed_one() -> None:
    seeds = [[{"acc": 1.0}], [{"acc": 1.0}]]
    assert estimate(seeds, first, Noise("acc", assumed_sd=5.0)).uncertainty == 0.0


def test_one_seed_takes_the_assumed_spread() -> None:
    result = estimate([[{"acc": 1.0}]], first, Noise("acc", assumed_sd=0.5))
    assert (result.effect, result.seeds, result.obstacle) == (1.0, 1, "")
    assert result.uncertainty == pytest.approx(1.645 * 0.5, rel=0.1)


def test_one_seed_without_a_spread_is_uncertain_unless_exact() -> None:
    vague = estimate([[{"acc": 1.0}]], first, Noise("acc"))
    assert math.isnan(vague.uncertainty)
    assert vague.obstacle == "too few seeds: one run a point and no known spread"
    exact = estimate([[{"acc": 1.0}]], first, Noise("acc", exact=True))
    assert (exact.uncertainty, exact.obstacle) == (0.0, "")


def test_no_complete_seed_is_said() -> None:
    result = estimate([], first, Noise("acc"))
    assert (result.seeds, result.obstacle) == (0, "too few seeds: none has every run that the claim is about")


def test_a_seed_that_cannot_be_measured_is_not_passed_over() -> None:
    def effect(rows: Rows) -> float:
        if rows[0]["acc"] > 2:
            raise UnmeasurableError("every run diverged")
        return first(rows)

    result = estimate([[{"acc": 1.0}], [{"acc": 2.0}], [{"acc": 3.0}]], effect, Noise("acc"))
    assert math.isnan(result.effect)
    assert (result.seeds, result.obstacle) == (3, "cannot be measured: every run diverged (1 of 3 seeds)")


def test_an_effect_that_is_no_finite_number_cannot_be_measured() -> None:
    for value in (math.nan, math.inf):
        result = estimate([[{"acc": value}]], first, Noise("acc", exact=True))
        assert math.isnan(result.effect)
        assert result.obstacle == f"cannot be measured: the effect is {value}"


def test_resampling_is_the_same_at_every_call_and_leaves_the_rows_alone() -> None:
    rows = [{"acc": 90.0, "lr": 1.0}, {"acc": 80.0, "lr": 1.0}, {"acc": math.nan, "lr": 1.0}]

    def effect(noisy: Rows) -> float:
        assert math.isnan(noisy[2]["acc"])
        assert [row["lr"] for row in noisy] == [1.0] * 3
        return float(noisy[0]["acc"] - noisy[1]["acc"])

    width = resampled_half_width([rows], effect, "acc", 0.3)
    assert width == resampled_half_width([rows], effect, "acc", 0.3)
    assert width == pytest.approx(1.645 * 0.3 * math.sqrt(2), rel=0.1)
    assert resampled_half_width([rows], effect, "acc", 0.6) == pytest.approx(2 * width, rel=1e-9)
    assert rows[0]["acc"] == 90.0


def test_resampling_uses_four_hundred_draws_of_a_fixed_generator() -> None:
    noise = np.random.default_rng(0).normal(0.0, 2.0, (400, 1))
    expected = 1.645 * float(np.std(noise[:, 0], ddof=1))
    assert resampled_half_width([[{"acc": 5.0}]], first, "acc", 2.0) == pytest.approx(expected, rel=1e-9)


def test_an_effect_that_noise_takes_away_is_uncertain() -> None:
    def above_zero(rows: Rows) -> float:
        if rows[0]["acc"] < 0:
            raise UnmeasurableError("negative")
        return first(rows)

    result = estimate([[{"acc": 0.1}]], above_zero, Noise("acc", assumed_sd=1.0))
    assert (result.effect, result.obstacle) == (
        0.1,
        "too few seeds: with the assumed spread the effect often cannot be measured",
    )
    assert math.isnan(result.uncertainty)
