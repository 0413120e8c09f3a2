import json
import math
from typing import Any

import numpy as np
import pandas as pd
import pytest

from onecycle.errors import ConfigError
from onecycle.studies.effects import value
from onecycle.studies.responses import Runs
from onecycle.studies.rows import UnmeasurableError
from onecycle.studies.verdicts import complete_seeds, estimate, judge, pooled_sd, resampled_half_width

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
    width = 1.943 * math.sqrt((0.01 + 0.03 + 0.01) / 3) * math.sqrt(2 / 3)  # t for six degrees of freedom
    assert json.loads(json.dumps(verdict)) == {
        "id": "cycle_beats_constant", "text": CLAIM["text"], "source": "Smith and Topin 2018", "verdict": "holds",
        "effect": pytest.approx(1.9), "uncertainty": pytest.approx(width, rel=0.1), "at_least": 1.0, "at_most": None,
        "unit": "points", "seeds": 3, "reason": "1.9 ± 0.2 points, at least 1.0 was claimed",
        "margin_from": "half of the 2.1 points observed", "if_not": "",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("bounds", "verdict", "reason"),
    [
        ({"at_least": 2.5}, "does not hold", "1.9 ± 0.2 points, at least 2.5 was claimed"),
        ({"at_least": 2}, "undecided", "the interval 1.69 to 2.11 points contains the bound 2"),
        ({"at_most": 2.5}, "holds", "1.9 ± 0.2 points, at most 2.5 was claimed"),
        ({"at_most": 1.5}, "does not hold", "1.9 ± 0.2 points, at most 1.5 was claimed"),
        ({"at_least": 1, "at_most": 3}, "holds", "1.9 ± 0.2 points, 1 to 3 was claimed"),
        ({"at_least": 1.85, "at_most": 1.95}, "undecided",
         "the interval 1.69 to 2.11 points contains the bounds 1.85 and 1.95"),
    ],
)  # fmt: skip
def test_both_bounds_are_held_against_the_interval(bounds: dict[str, float], verdict: str, reason: str) -> None:
    result = judge(CLEAR, without("at_least") | bounds)
    assert (result["verdict"], result["reason"]) == (verdict, reason)
    assert (result["at_least"], result["at_most"]) == (bounds.get("at_least"), bounds.get("at_most"))
    assert result["if_not"] == ("too few epochs" if verdict == "does not hold" else "")


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
    assert exact["reason"] == "2 points, at least 1.0 was claimed"


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
    assert verdict["reason"] == "cannot be measured: every run at arm one-cycle diverged (2 of 3 seeds)"


@pytest.mark.parametrize(
    ("difference", "spread", "reason"),
    [
        (0.0, 0.0, "0 points"), (120.0, 40.0, "120 ± 75 points"), (0.012, 0.001, "0.0120 ± 0.0019 points"),
        (3.0, 0.2, "3.0 ± 0.4 points"), (-0.01, 0.9, "0.0 ± 1.7 points"),
        (1234.5, 0.0, "1234 points"), (0.30004, 0.0, "0.3 points"),
    ],
)  # fmt: skip
def test_numbers_are_shown_as_far_as_they_are_known(difference: float, spread: float, reason: str) -> None:
    rows = runs((difference - spread, 0, -1e4), (difference + spread, 0, -1e4))
    assert judge(rows, change(at_least=-9999))["reason"] == f"{reason}, at least -9999 was claimed"


@pytest.mark.parametrize(
    ("lost", "reason"),
    [((1, 1), "all of the runs, all of them were claimed"), ((0, 0), "none of the runs, all of them were claimed")],
)
def test_a_share_of_the_runs_is_said_in_words(lost: tuple[int, int], reason: str) -> None:
    rows = pd.DataFrame({"arm": "a", "seed": [0, 1], "has_diverged": lost})
    claim = {"id": "fails", "text": "It diverges.", "effect": "value", "metric": "has_diverged", "of": {"arm": "a"},
             "at_least": 1.0, "unit": "of the runs"}  # fmt: skip
    verdict = judge(rows, claim)
    assert verdict["reason"] == reason
    assert verdict["verdict"] == ("holds" if lost[0] else "does not hold")


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


def test_a_quantity_on_a_grid_may_agree_over_seeds_without_a_spread() -> None:
    rows = pd.DataFrame(blown_up(0, {3125: 3, 50000: 2}) + blown_up(1, {3125: 3, 50000: 2}))
    verdict = judge(rows, BLOW_UP)
    assert (verdict["verdict"], verdict["effect"], verdict["seeds"]) == ("holds", pytest.approx(1.0), 2)
    assert verdict["uncertainty"] == pytest.approx(0.0, abs=1e-12)
    assert verdict["reason"] == "1 grid steps, at most 1 was claimed"


def test_noise_on_the_loss_moves_a_blow_up_by_grid_steps() -> None:
    rows = pd.DataFrame(blown_up(0, {3125: 3, 50000: 3}))
    assert judge(rows, BLOW_UP | {"assumed_sd": 0.01})["uncertainty"] == pytest.approx(0.0, abs=1e-12)
    assert judge(rows, BLOW_UP | {"assumed_sd": 0.2})["uncertainty"] > 0.5
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
        if (found := float(runs.numbers("acc")[0])) < 0:
            raise UnmeasurableError("negative")
        return found

    assert math.isnan(resampled_half_width([Runs(pd.DataFrame({"acc": [0.1]}))], above_zero, "acc", 1.0, math.inf))
