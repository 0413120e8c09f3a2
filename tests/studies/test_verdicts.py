import json
import math
from typing import Any

import pandas as pd
import pytest

from onecycle.errors import ConfigError
from onecycle.studies.verdicts import judge

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
        ({"at_least": 3, "at_most": 4}, "does not hold", "1.9 ± 0.2 points, 3 to 4 was claimed"),
        ({"at_least": 1.85, "at_most": 1.95}, "undecided",
         "the interval 1.69 to 2.11 points contains the bounds 1.85 and 1.95"),
        ({"at_least": 1, "at_most": 2}, "undecided",
         "the interval 1.69 to 2.11 points contains the bound 2"),
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
    assert judge(CLEAR[:3], change(assumed_sd=0.15, at_least=3))["verdict"] == "does not hold"


def test_an_exact_effect_needs_one_seed() -> None:
    verdict = judge(CLEAR[:3], change(assumed_sd=0))
    assert (verdict["verdict"], verdict["uncertainty"]) == ("holds", 0.0)
    assert verdict["reason"] == "2 points, at least 1.0 was claimed"


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


def test_a_curve_that_never_blows_up_leaves_a_claim_undecided() -> None:
    verdict = judge(pd.DataFrame(blown_up(0, {3125: 3, 50000: 5})), BLOW_UP)
    assert (verdict["verdict"], verdict["seeds"]) == ("undecided", 1)
    assert verdict["reason"] == "cannot be measured: no blow-up at subset_size 50000 up to peak_lr 12.8"


def test_noise_on_the_loss_moves_a_blow_up_by_grid_steps() -> None:
    rows = pd.DataFrame(blown_up(0, {3125: 3, 50000: 3}))
    assert judge(rows, BLOW_UP | {"assumed_sd": 0.01})["uncertainty"] == pytest.approx(0.0, abs=1e-12)
    assert judge(rows, BLOW_UP | {"assumed_sd": 0.2})["uncertainty"] > 0.5


FIGURED = pd.DataFrame([
    {"arm": "one-cycle", "seed": 0, "peak_lr": 0.4, "test_accuracy": 90.0, "status": "finished"},
    {"arm": "constant 0.4", "seed": 0, "peak_lr": 0.4, "test_accuracy": math.nan, "status": "diverged"},
    {"arm": "constant 0.05", "seed": 0, "peak_lr": 0.4, "test_accuracy": 87.0, "status": "finished"},
])  # fmt: skip


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
            judge(FIGURED, claim, whole=whole)


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
        judge(FIGURED, change(**changes))
    verdict = judge(FIGURED, change(**changes), whole=False)
    assert (verdict["verdict"], verdict["seeds"]) == ("undecided", 0)
    assert said in verdict["reason"]


def test_a_long_list_of_values_is_cut() -> None:
    frame = pd.DataFrame({"seed": 0, "n": [2**power for power in range(20)], "acc": 1.0})
    claim = without("metric", "of", "against") | {"effect": "value", "metric": "acc", "of": {"n": 3}}
    with pytest.raises(ConfigError, match=r"; n is 1 or 2 or 4 .* or 2048 or …$"):
        judge(frame, claim)
