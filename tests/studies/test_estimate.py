import math
from typing import Any

import numpy as np
import pytest

from onecycle.studies.estimate import complete_seeds, estimate, half_width, resampled_half_width, t_quantile
from onecycle.studies.selection import Rows, UnmeasurableError

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
    result = estimate([[{"acc": 1.0}], [{"acc": 2.0}], [{"acc": 6.0}]], first, "acc", None, False)
    assert (result.effect, result.seeds, result.obstacle) == (3.0, 3, "")
    assert result.uncertainty == pytest.approx(2.92 * math.sqrt(7) / math.sqrt(3))


def test_the_spread_over_seeds_comes_before_an_assumed_one() -> None:
    seeds = [[{"acc": 1.0}], [{"acc": 1.0}]]
    assert estimate(seeds, first, "acc", 5.0, False).uncertainty == 0.0


def test_one_seed_takes_the_assumed_spread() -> None:
    result = estimate([[{"acc": 1.0}]], first, "acc", 0.5, False)
    assert (result.effect, result.seeds, result.obstacle) == (1.0, 1, "")
    assert result.uncertainty == pytest.approx(1.645 * 0.5, rel=0.1)


def test_one_seed_without_a_spread_is_uncertain_unless_exact() -> None:
    vague = estimate([[{"acc": 1.0}]], first, "acc", None, False)
    assert math.isnan(vague.uncertainty)
    assert vague.obstacle == "too few seeds: one run a point and no known spread"
    exact = estimate([[{"acc": 1.0}]], first, "acc", None, True)
    assert (exact.uncertainty, exact.obstacle) == (0.0, "")


def test_no_complete_seed_is_said() -> None:
    result = estimate([], first, "acc", None, False)
    assert (result.seeds, result.obstacle) == (0, "too few seeds: none has every run that the claim is about")


def test_a_seed_that_cannot_be_measured_is_not_passed_over() -> None:
    def effect(rows: Rows) -> float:
        if rows[0]["acc"] > 2:
            raise UnmeasurableError("every run diverged")
        return first(rows)

    result = estimate([[{"acc": 1.0}], [{"acc": 2.0}], [{"acc": 3.0}]], effect, "acc", None, False)
    assert math.isnan(result.effect)
    assert (result.seeds, result.obstacle) == (3, "cannot be measured: every run diverged (1 of 3 seeds)")


def test_an_effect_that_is_no_finite_number_cannot_be_measured() -> None:
    for value in (math.nan, math.inf):
        result = estimate([[{"acc": value}]], first, "acc", None, True)
        assert math.isnan(result.effect)
        assert result.obstacle == f"cannot be measured: the effect is {value}"


def test_resampling_is_the_same_at_every_call_and_leaves_the_rows_alone() -> None:
    rows = [{"acc": 90.0, "lr": 1.0}, {"acc": 80.0, "lr": 1.0}, {"acc": math.nan, "lr": 1.0}]

    def effect(noisy: Rows) -> float:
        assert math.isnan(noisy[2]["acc"])
        assert [row["lr"] for row in noisy] == [1.0] * 3
        return float(noisy[0]["acc"] - noisy[1]["acc"])

    width = resampled_half_width(rows, effect, "acc", 0.3)
    assert width == resampled_half_width(rows, effect, "acc", 0.3)
    assert width == pytest.approx(1.645 * 0.3 * math.sqrt(2), rel=0.1)
    assert resampled_half_width(rows, effect, "acc", 0.6) == pytest.approx(2 * width, rel=1e-9)
    assert rows[0]["acc"] == 90.0


def test_resampling_uses_four_hundred_draws_of_a_fixed_generator() -> None:
    noise = np.random.default_rng(0).normal(0.0, 2.0, (400, 1))
    expected = 1.645 * float(np.std(noise[:, 0], ddof=1))
    assert resampled_half_width([{"acc": 5.0}], first, "acc", 2.0) == pytest.approx(expected, rel=1e-9)


def test_an_effect_that_noise_takes_away_is_uncertain() -> None:
    def above_zero(rows: Rows) -> float:
        if rows[0]["acc"] < 0:
            raise UnmeasurableError("negative")
        return first(rows)

    result = estimate([[{"acc": 0.1}]], above_zero, "acc", 1.0, False)
    assert (result.effect, result.obstacle) == (
        0.1,
        "too few seeds: with the assumed spread the effect often cannot be measured",
    )
    assert math.isnan(result.uncertainty)
