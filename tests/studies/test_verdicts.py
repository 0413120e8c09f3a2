import json
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from onecycle.errors import ConfigError
from onecycle.studies.study import CLAIMS
from onecycle.studies.verdicts import LEVELS, estimate, forecast, holm, judge, point_means

Table = list[dict[str, Any]]
CLAIM: dict[str, Any] = {
    "id": "cycle_beats_constant", "text": "One cycle beats the best constant rate by at least 1 point.",
    "source": "Smith and Topin 2018", "effect": "difference", "metric": "test_accuracy", "of": {"arm": "one-cycle"},
    "against": [{"arm": "constant 0.4"}, {"arm": "constant 0.05"}], "at_least": 1.0, "unit": "points",
    "margin_from": "half of the 2.1 points observed", "if_not": "too few epochs",
}  # fmt: skip
ARMS = ("one-cycle", "constant 0.4", "constant 0.05")


def runs(*seeds: tuple[float, float, float]) -> pd.DataFrame:
    """The accuracies of the three arms, seed by seed; NaN for a run that diverged."""
    return pd.DataFrame([
        {
            "arm": arm, "seed": seed, "peak_lr": 0.4, "test_accuracy": value,
            "status": "diverged" if math.isnan(value) else "finished",
        }
        for seed, values in enumerate(seeds) for arm, value in zip(ARMS, values, strict=True)
    ])  # fmt: skip


CLEAR = runs((90, 88, 87), (90.1, 88.3, 87.1), (89.9, 88, 86.9))  # differences 2, 1.8, 1.9


def change(**changes: Any) -> dict[str, Any]:
    return CLAIM | changes


def without(*keys: str) -> dict[str, Any]:
    return {key: value for key, value in CLAIM.items() if key not in keys}


def test_a_claim_holds_where_the_whole_interval_satisfies_it() -> None:
    verdict = judge(CLEAR, CLAIM)
    # Welch's: of variances 0.01 and 0.03 over three runs each, t for 3.2 degrees of freedom is 2.29. (Formerly a pooled
    # variance: 0.2.) The other rival is too far behind to count.
    width = 2.29 * math.sqrt((0.01 + 0.03) / 3)
    known = json.loads(json.dumps(verdict))
    assert known.pop("p") == pytest.approx(0.0019, rel=0.3)
    assert (known.pop("low"), known.pop("high")) == (
        pytest.approx(1.9 - width, abs=0.02), pytest.approx(1.9 + width, abs=0.05),
    )  # fmt: skip
    assert known == {
        "id": "cycle_beats_constant", "text": CLAIM["text"], "source": "Smith and Topin 2018", "verdict": "holds",
        "effect": pytest.approx(1.9), "uncertainty": pytest.approx(width, rel=0.1), "at_least": 1.0, "at_most": None,
        "unit": "points", "seeds": 3, "reason": "1.90 (1.63 to 2.17) points, at least 1 was claimed",
        "margin_from": "half of the 2.1 points observed", "if_not": "",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("bounds", "verdict", "claimed"),
    [
        ({"at_least": 2.5}, "does not hold", "at least 2.5"), ({"at_least": 2}, "undecided", "at least 2"),
        ({"at_most": 2.5}, "holds", "at most 2.5"), ({"at_most": 1.5}, "does not hold", "at most 1.5"),
        ({"at_least": 1, "at_most": 3}, "holds", "1 to 3"),
        ({"at_least": 1.85, "at_most": 1.95}, "undecided", "1.85 to 1.95"),
    ],
)  # fmt: skip
def test_both_bounds_are_held_against_the_interval(bounds: dict[str, float], verdict: str, claimed: str) -> None:
    result = judge(CLEAR, without("at_least") | bounds)
    assert (result["verdict"], result["reason"]) == (verdict, f"1.90 (1.63 to 2.17) points, {claimed} was claimed")
    assert (result["at_least"], result["at_most"]) == (bounds.get("at_least"), bounds.get("at_most"))
    assert result["if_not"] == ("too few epochs" if verdict == "does not hold" else "")
    assert (result["p"] <= 0.05) == (verdict != "undecided")


def test_a_verdict_is_json_with_null_for_what_is_unknown() -> None:
    entry = judge(CLEAR[:3], without("source"))
    known = {"verdict": "undecided", "effect": 2.0, "uncertainty": None, "at_most": None, "seeds": 1, "source": ""}
    assert json.loads(json.dumps(entry, allow_nan=False)).items() >= known.items()
    assert entry["reason"] == "too few seeds: one run a point and no known spread"


def test_an_assumed_spread_decides_for_one_seed_and_always_the_same_way() -> None:
    verdict = judge(CLEAR[:3], change(assumed_sd=0.15))
    assert (verdict["verdict"], verdict["effect"], verdict["seeds"]) == ("holds", 2.0, 1)
    assert verdict["uncertainty"] == pytest.approx(1.645 * 0.15 * math.sqrt(2), rel=0.1)
    assert judge(CLEAR[:3], change(assumed_sd=0.15)) == verdict
    assert judge(CLEAR[:3], change(assumed_sd=1.5))["verdict"] == "undecided"
    exact = judge(CLEAR[:3], change(assumed_sd=0))
    assert (exact["verdict"], exact["uncertainty"]) == ("holds", 0.0)
    assert exact["reason"] == "2 points, at least 1 was claimed"


def test_an_effect_on_the_bound_holds_whatever_the_rounding() -> None:
    rows = runs((90.3, 90.0, 87), (90.3, 90.0, 87))  # 90.3 - 90.0 is a little below 0.3, 0.1 + 0.2 a little above
    assert judge(rows, change(at_least=0.3))["verdict"] == "holds"
    assert judge(rows, change(at_least=0.1 + 0.2))["verdict"] == "holds"
    assert judge(rows, change(at_least=0.3001))["verdict"] == "does not hold"


def test_divergence_of_what_is_claimed_leaves_it_undecided() -> None:
    rows = runs((math.nan, 88, 87), (math.nan, 86, 88), (90, 88, 87))
    verdict = judge(rows, CLAIM)
    assert (verdict["verdict"], verdict["seeds"]) == ("undecided", 3)
    assert verdict["effect"] is None
    assert verdict["reason"] == "cannot be measured: a run at arm one-cycle diverged"


@pytest.mark.parametrize(
    ("difference", "spread", "reason"),
    [
        (0.0, 0.0, "0 points"), (120.0, 40.0, "120 (-133 to 373) points"),
        (1234.5, 0.0, "1234 points"), (0.30004, 0.0, "0.3 points"),
    ],
)  # fmt: skip
def test_numbers_are_shown_as_far_as_they_are_known(difference: float, spread: float, reason: str) -> None:
    """Of two runs with and two without a spread, whose difference has Student's t for one degree of freedom, 6.31."""
    rows = runs((difference - spread, 0, -1e4), (difference + spread, 0, -1e4))
    verdict = judge(rows, change(at_least=-9999))
    assert (verdict["effect"], verdict["uncertainty"]) == (
        pytest.approx(difference), pytest.approx(6.314 * spread, rel=0.1),
    )  # fmt: skip
    if not spread:
        assert verdict["reason"] == f"{reason}, at least -9999 was claimed"


@pytest.mark.parametrize(
    ("lost", "low", "high", "verdict"),
    [
        # Clopper and Pearson's limits: two of two runs tell that it is at least 22 % of them, not that it is all.
        ((1, 1), 0.2236, 1.0, "undecided"), ((0, 0), 0.0, 0.7764, "undecided"), ((1,) * 5, 0.5493, 1.0, "holds"),
        ((0,) * 5, 0.0, 0.4507, "does not hold"), ((0, 1, 1, 1, 1), 0.3426, 0.9898, "undecided"),
    ],
)  # fmt: skip
def test_a_share_of_the_runs_has_binomial_limits(lost: Sequence[int], low: float, high: float, verdict: str) -> None:
    rows = pd.DataFrame({"arm": "a", "seed": range(len(lost)), "has_diverged": lost})
    claim = {"id": "fails", "text": "It diverges.", "effect": "value", "metric": "has_diverged", "of": {"arm": "a"},
             "at_least": 0.5, "unit": "of the runs"}  # fmt: skip
    found = json.loads(json.dumps(judge(rows, claim)))
    assert (found["low"], found["high"], found["verdict"]) == (
        pytest.approx(low, abs=1e-4), pytest.approx(high, abs=1e-4), verdict,
    )  # fmt: skip
    if len(lost) == 2 and lost[0]:
        assert found["reason"] == "100 % (22 % to 100 %) of the runs, at least 50 % was claimed"
    assert judge(rows, claim | {"at_least": 1.0})["verdict"] != "holds"


def blown_up(seed: int, blow_ups: dict[int, int]) -> Table:
    rates = (0.05, 0.2, 0.8, 3.2, 12.8)
    return [
        {"seed": seed, "subset_size": size, "peak_lr": rate, "final_loss": 1.0 if place < blow_up else 2.0 + place}
        for size, blow_up in blow_ups.items() for place, rate in enumerate(rates)
    ]  # fmt: skip


BLOW_UP: dict[str, Any] = {
    "id": "same_blow_up", "text": "The blow-up does not depend on the size.", "effect": "blow_up_spread",
    "x": "peak_lr", "y": "final_loss", "by": "subset_size", "level": 1.25, "at_most": 1, "unit": "grid steps",
}  # fmt: skip


def test_a_blow_up_is_known_to_half_a_step_however_well_the_seeds_agree() -> None:
    def verdict(*places: int, **changes: Any) -> dict[str, Any]:
        table = dict(zip((3125, 50000), places, strict=True))
        return judge(pd.DataFrame(blown_up(0, table) + blown_up(1, table)), BLOW_UP | changes)

    # The difference of two places, each of which is anywhere in its step: 90 % of it is within 0.684.
    same, apart = verdict(3, 3), verdict(3, 2)
    assert (same["verdict"], same["low"], same["high"]) == ("holds", 0.0, pytest.approx(0.684, abs=0.05))
    assert (apart["verdict"], apart["effect"], apart["seeds"]) == (
        "undecided",
        pytest.approx(1.0),
        2,
    )  # formerly: holds
    assert (apart["low"], apart["high"]) == (pytest.approx(0.224, abs=0.05), pytest.approx(1.684, abs=0.05))
    assert verdict(4, 2)["verdict"] == "does not hold"


def test_noise_on_the_loss_moves_a_blow_up_by_grid_steps() -> None:
    rows = pd.DataFrame(blown_up(0, {3125: 3, 50000: 3}))
    assert judge(rows, BLOW_UP | {"assumed_sd": 0.01})["high"] < 0.75
    assert judge(rows, BLOW_UP | {"assumed_sd": 0.2})["high"] > 0.9
    verdict = judge(pd.DataFrame(blown_up(0, {3125: 3, 50000: 5})), BLOW_UP)
    assert (verdict["verdict"], verdict["seeds"]) == ("undecided", 1)
    assert verdict["reason"] == "cannot be measured: no blow-up at subset_size 50000 up to peak_lr 12.8"


LOST = runs((90.0, math.nan, 87.0))


@pytest.mark.parametrize(
    ("claim", "said"),
    [
        (change(metric="test_acuracy"), "'test_acuracy'; did you mean test_accuracy"),
        (change(of={"arn": "a"}), "'arn'"),
        (change(metrc="a"), "metrc"), (change(effect="magic"), "effect=magic"), (without("at_least"), "at_least"),
    ],
)  # fmt: skip
def test_a_claim_with_an_error_or_about_a_column_that_no_run_has_is_refused(claim: dict[str, Any], said: str) -> None:
    for whole in (True, False):
        with pytest.raises(ConfigError, match=f"^claim cycle_beats_constant.*{said}"):
            judge(LOST, claim, whole=whole)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"of": {"arm": "one-cyle"}}, "no run has arm one-cyle; arm is one-cycle or constant 0.4 or constant 0.05"),
        ({"against": {"arm": ["constant 0.4", "constant 4"]}}, "no run has arm constant 4; arm is"),
        ({"of": {"peak_lr": 0.41}}, "no run has peak_lr 0.41; peak_lr is 0.4"),
        ({"of": {"arm": "one-cycle", "status": "diverged"}}, "no run has arm one-cycle, status diverged together"),
    ],
)  # fmt: skip
def test_a_claim_about_runs_that_are_not_there_is_refused_or_in_a_part_of_a_study_undecided(
    changes: dict[str, Any], said: str
) -> None:
    with pytest.raises(ConfigError, match=said):
        judge(LOST, change(**changes))
    verdict = judge(LOST, change(**changes), whole=False)
    assert (verdict["verdict"], verdict["seeds"]) == ("undecided", 0)
    assert said in verdict["reason"]


def test_a_long_list_of_values_is_cut() -> None:
    frame = pd.DataFrame({"seed": 0, "n": [2**power for power in range(20)], "acc": 1.0})
    claim = without("metric", "of", "against") | {"effect": "value", "metric": "acc", "of": {"n": 3}}
    with pytest.raises(ConfigError, match=r"; n is 1 or 2 or 4 .* or 2048 or …$"):
        judge(frame, claim)


OF_ALL: dict[str, Any] = {"metric": "acc", "of": {}}
A, B = {"arm": "a"}, {"arm": "b"}


def test_a_point_is_what_one_run_of_each_seed_has_in_common() -> None:
    def counts(frame: dict[str, Any], axes: Sequence[str] = ()) -> list[int]:
        filters = [A, B] if "b" in frame["arm"] else [A]
        return point_means(pd.DataFrame({"acc": 1.0, **frame}), ["acc"], filters, axes, math.inf)["count"].tolist()

    assert counts({"seed": [0, 0, 1, 1, 2], "arm": ["a", "b", "a", "b", "a"]}) == [3, 2]
    assert counts({"seed": [0, 0, 1, 1], "arm": ["a"] * 4}) == [2, 2]  # two runs of each seed are two points
    assert counts({"arm": ["a", "a"]}) == [1, 1]  # rows without a seed are of one
    labels = ["a,n=1,seed=0", "a,n=2,seed=0", "a,n=2,seed=1"]  # the label tells what is missing
    assert counts({"seed": [0, 0, 1], "arm": ["a"] * 3, "label": labels}) == [1, 2]
    assert counts({"seed": [0, 0, 1, 1], "arm": ["a"] * 4, "lr": [0.1, 0.4, 0.1 + 1e-12, 0.4]}, ["lr"]) == [2, 2]


def test_the_interval_of_a_difference_is_welchs() -> None:
    """Variances 1 and 4 of three runs: t for (5/3)²/(17/18) = 2.94 degrees of freedom. Formerly pooled, for 4."""
    frame = pd.DataFrame({"seed": [0, 1, 2] * 2, "arm": ["a"] * 3 + ["b"] * 3, "acc": [9.0, 10.0, 11.0, 1.0, 5.0, 3.0]})
    result = estimate(frame, "difference", {"metric": "acc", "of": A, "against": B})
    assert (result.effect, result.seeds, result.obstacle) == (pytest.approx(7.0), 3, "")
    low, high = result.interval
    assert (high - low) / 2 == pytest.approx(stats.t.ppf(0.95, 2.94) * math.sqrt(5 / 3), rel=0.05)
    assert result.lows[np.searchsorted(LEVELS, 0.01)] == pytest.approx(
        7 - stats.t.ppf(0.99, 2.94) * math.sqrt(5 / 3), abs=0.5
    )


def test_the_effect_is_that_of_the_mean_over_seeds_and_keeps_its_sign() -> None:
    """Differences of +1 and −1 are a gap of 0, not of 1; and an order that reverses is not within the bound."""
    frame = pd.DataFrame({"seed": [0, 1] * 2, "arm": list("aabb"), "acc": [1.0, -1.0, 0.0, 0.0]})
    gap = {"metric": "acc", "of": A, "against": B}
    assert estimate(frame, "gap", gap).effect == 0.0
    assert estimate(frame, "gap", gap).interval == (0.0, pytest.approx(6.314, rel=0.1))
    means = dict(zip("abcd", (0.0, 5.0, 9.0, 0.0), strict=True))
    rows = pd.DataFrame([{"seed": s, "arm": arm, "acc": means[arm] + 0.001 * s} for s in (0, 1, 2) for arm in means])
    claim = {"id": "closes", "text": "The gap closes.", "unit": "", "effect": "gap_ratio", "metric": "acc",
             "wide": [A, B], "narrow": [{"arm": "c"}, {"arm": "d"}], "at_most": 0.333}  # fmt: skip
    assert (judge(rows, claim)["effect"], judge(rows, claim)["verdict"]) == (pytest.approx(5 / 9), "does not hold")


def test_a_point_with_one_run_has_the_spread_of_the_others_and_divergence_is_not_passed_over() -> None:
    frame = pd.DataFrame({"seed": [0, 1, 2, 0], "arm": list("aaab"), "acc": [9.0, 10.0, 11.0, 0.0]})
    low, high = estimate(frame, "difference", {"metric": "acc", "of": A, "against": B}).interval
    assert (high - low) / 2 > 2.9 * math.sqrt(1 + 1 / 3)
    frame = pd.DataFrame({"seed": [0, 1, 2], "acc": [1, 2, math.nan], "status": ["finished", "finished", "diverged"]})
    result = estimate(frame, "value", OF_ALL)
    assert (math.isnan(result.effect), result.seeds) == (True, 3)
    assert "diverged" in result.obstacle
    assert estimate(frame.iloc[:0], "value", OF_ALL).seeds == 0


def test_rates_vary_by_factors() -> None:
    """Of 0.1, 0.4 and 1.6 the mean is 0.4 and half the interval a factor of 4 to the power of 2.92 / √3."""
    frame = pd.DataFrame({"seed": [0, 1, 2], "lr_at_minimum": [0.1, 0.4, 1.6]})
    result = estimate(frame, "value", {"metric": "lr_at_minimum", "of": {}})
    assert result.effect == pytest.approx(0.4)
    assert np.log(np.array(result.interval) / 0.4) / math.log(4) == pytest.approx(
        [-2.92 / math.sqrt(3), 2.92 / math.sqrt(3)], rel=0.05
    )


def test_the_spread_over_seeds_comes_before_an_assumed_one_which_is_for_one_seed() -> None:
    frame = pd.DataFrame({"seed": [0, 1], "acc": [1.0, 1.0]})
    assert estimate(frame, "value", OF_ALL, assumed_sd=5.0).interval == (1.0, 1.0)
    result = estimate(frame.iloc[:1], "value", OF_ALL, assumed_sd=0.5)
    assert (result.effect, result.seeds, result.obstacle) == (1.0, 1, "")
    assert result.interval == (pytest.approx(1 - 1.645 * 0.5, abs=0.03), pytest.approx(1 + 1.645 * 0.5, abs=0.03))
    assert estimate(frame.iloc[:1], "value", OF_ALL, assumed_sd=0.0).interval == (1.0, 1.0)
    vague = estimate(frame.iloc[:1], "value", OF_ALL)
    assert vague.interval == (-math.inf, math.inf)
    assert "too few seeds" in vague.obstacle


def test_an_effect_that_noise_takes_away_has_no_limits() -> None:
    lrs = (0.1, 0.2, 0.4, 0.8)
    frame = pd.DataFrame({"lr": lrs * 2, "n": [1] * 4 + [2] * 4, "loss": [2.0, 1.0, 1.1, 2.0] * 2})
    curves = {"x": "lr", "y": "loss", "by": "n"}
    assert estimate(frame, "optimum_order", curves, assumed_sd=1.0).interval == (-math.inf, math.inf)


def test_the_half_width_of_a_plan_and_whether_it_decides_are_known_before_its_runs() -> None:
    expected = pd.DataFrame({"arm": ["a", "b"], "acc": [2.0, 0.0]})
    keys = {"id": "a", "text": "", "unit": "", "effect": "difference", "metric": "acc", "of": A, "against": B}
    claim = CLAIMS["difference"].model_validate(keys | {"at_least": 1.0})
    # Student's for 18 degrees of freedom, and the known spread of one run.
    half, chance = forecast(expected, 0.5, 10, claim)
    assert half == pytest.approx(1.734 * 0.5 * math.sqrt(0.2), rel=0.1)
    assert chance > 0.95  # 1 over the bound: 4.5 standard errors
    half, chance = forecast(expected, 2.0, 1, claim)
    assert half == pytest.approx(1.645 * 2.0 * math.sqrt(2), rel=0.1)
    assert chance < 0.35  # a third of a standard error
    assert forecast(expected, 0.5, 10, claim, 0.005)[0] == pytest.approx(2.878 * 0.5 * math.sqrt(0.2), rel=0.1)


def test_a_look_of_several_decides_at_its_own_level_and_its_p_is_for_all() -> None:
    frame = runs((1.0, 0.0, 0.0), (1.2, 0.0, 0.0), (0.9, 0.0, 0.0))
    once, look = judge(frame, CLAIM), judge(frame, CLAIM, alpha=0.01)
    assert look["low"] < once["low"]
    assert look["p"] == pytest.approx(min(1.0, 5 * once["p"]))


def test_holms_correction_is_over_the_family() -> None:
    assert holm([0.01, 0.04, 0.02]) == [True, True, True]
    assert holm([0.01, 0.04, 0.03]) == [True, False, False]  # 0.03 · 2 is too much, and what follows falls with it
    assert holm([0.01, 0.04, 0.02, 1.0, 1.0, 1.0]) == [False] * 6
    assert holm([]) == []
