import math
from typing import Any, get_type_hints

import pytest

from onecycle.studies.claim_form import FITS, axes, filters, metric
from onecycle.studies.claims import ClaimError, check, judge
from onecycle.studies.effects import EFFECTS

CLAIM: dict[str, Any] = {
    "id": "cycle_beats_constant", "text": "One cycle beats the best constant rate.", "effect": "difference",
    "metric": "test_accuracy", "of": {"arm": "one-cycle"}, "at_least": 1.0, "unit": "points",
    "against": [{"arm": "constant 0.4"}, {"arm": "constant 0.05"}],
}  # fmt: skip
BLOW_UP: dict[str, Any] = {
    "id": "same_blow_up", "text": "The blow-up does not depend on the size.", "effect": "blow_up_spread",
    "x": "peak_lr", "y": "final_loss", "by": "subset_size", "at_most": 1, "unit": "grid steps",
}  # fmt: skip
ROWS = [
    {"arm": "one-cycle", "seed": 0, "peak_lr": 0.4, "test_accuracy": 90.0, "status": "finished"},
    {"arm": "constant 0.4", "seed": 0, "peak_lr": 0.4, "test_accuracy": math.nan, "status": "diverged"},
    {"arm": "constant 0.05", "seed": 0, "peak_lr": 0.4, "test_accuracy": 87.0, "status": "finished"},
]


def change(**changes: Any) -> dict[str, Any]:
    return CLAIM | changes


def without(*keys: str) -> dict[str, Any]:
    return {key: value for key, value in CLAIM.items() if key not in keys}


DIFFERENCE_TAKES = "it takes metric, of, against, better, diverged"


@pytest.mark.parametrize(
    ("claim", "message"),
    [
        (without("id"), f"a claim is a mapping with an id; got {without('id')!r}"),
        (["one"], "a claim is a mapping with an id; got ['one']"),
        (without("text"), "claim cycle_beats_constant: no text; every claim has id, text, unit"),
        (without("unit"), "claim cycle_beats_constant: no unit; every claim has id, text, unit"),
        (change(source=2018), "claim cycle_beats_constant: source must be a text, not 2018"),
        (change(unit=None), "claim cycle_beats_constant: unit must be a text, not None"),
        (without("at_least"), "claim cycle_beats_constant: no bound; give at_least, at_most or both"),
        (change(at_least=None), "claim cycle_beats_constant: no bound; give at_least, at_most or both"),
        (change(at_least="1"), "claim cycle_beats_constant: at_least must be a number, not '1'"),
        (change(at_most=math.nan), "claim cycle_beats_constant: at_most must be a number, not nan"),
        (change(at_most=0.5), "claim cycle_beats_constant: at_least 1.0 is above at_most 0.5"),
        (change(assumed_sd=0), "claim cycle_beats_constant: assumed_sd must be a number above 0, not 0"),
        (change(exact="yes"), "claim cycle_beats_constant: exact must be true or false, not 'yes'"),
        (change(effect="differnce"),
         f"claim cycle_beats_constant: no effect 'differnce'; there are {', '.join(EFFECTS)}"),
        (without("effect"), f"claim cycle_beats_constant: no effect None; there are {', '.join(EFFECTS)}"),
        (without("of", "metric"),
         f"claim cycle_beats_constant: effect difference needs metric, of; {DIFFERENCE_TAKES}"),
        (change(metrc="test_loss", by="n"),
         f"claim cycle_beats_constant: effect difference takes no metrc, by; {DIFFERENCE_TAKES}"),
        (change(metric=3), "claim cycle_beats_constant: metric must be the name of a column, not 3"),
        (change(of="one-cycle"),
         "claim cycle_beats_constant: of must be a filter, {column: value}, not 'one-cycle'"),
        (change(of={"arm": []}), "claim cycle_beats_constant: of must be a filter, {column: value}, not {'arm': []}"),
        (change(against=[]),
         "claim cycle_beats_constant: against must be a filter, {column: value}, or a list, not []"),
        (change(better="more"), "claim cycle_beats_constant: better must be higher or lower, not 'more'"),
        (change(diverged="10"), "claim cycle_beats_constant: diverged must be a number, not '10'"),
        (BLOW_UP | {"where": [{}]}, "claim same_blow_up: where must be a filter, {column: value}, not [{}]"),
        (BLOW_UP | {"factor": True}, "claim same_blow_up: factor must be a number, not True"),
        ({"id": "ridge", "text": "", "unit": "", "at_least": 1, "effect": "ridge_contrast", "x": "a", "y": "b",
          "z": "c", "transform": "sum"}, "claim ridge: transform must be ratio or product, not 'sum'"),
        ({"id": "gaps", "text": "", "unit": "", "at_least": 1, "effect": "gap_ratio", "metric": "a", "wide": [{}, {}],
          "narrow": [{}]}, "claim gaps: narrow must be a list of two filters, {column: value}, not [{}]"),
        ({"id": "up", "text": "", "unit": "", "at_least": 0, "effect": "order", "metric": "a", "groups": [{}]},
         "claim up: groups must be a list of at least two filters, {column: value}, not [{}]"),
    ],
)  # fmt: skip
def test_a_wrong_claim_is_refused_without_rows(claim: Any, message: str) -> None:
    with pytest.raises(ClaimError) as caught:
        check(claim)
    assert str(caught.value) == message
    with pytest.raises(ClaimError):
        judge(ROWS, claim)


COLUMNS = "there are arm, seed, peak_lr, test_accuracy, status"


@pytest.mark.parametrize(
    ("claim", "message"),
    [
        (change(metric="test_acuracy"), f"claim cycle_beats_constant: no column 'test_acuracy'; {COLUMNS}"),
        (change(of={"arn": "one-cycle"}), f"claim cycle_beats_constant: no column 'arn'; {COLUMNS}"),
        (BLOW_UP, f"claim same_blow_up: no column 'final_loss'; {COLUMNS}"),
        (change(of={"arm": "one-cyle"}),
         "claim cycle_beats_constant: no run has arm one-cyle; arm is constant 0.05 or constant 0.4 or one-cycle"),
        (change(against={"arm": ["constant 0.4", "constant 4"]}),
         "claim cycle_beats_constant: no run has arm constant 4; arm is constant 0.05 or constant 0.4 or one-cycle"),
        (change(of={"peak_lr": 0.41}), "claim cycle_beats_constant: no run has peak_lr 0.41; peak_lr is 0.4"),
        (change(of={"arm": "one-cycle", "status": "diverged"}),
         "claim cycle_beats_constant: no run has arm one-cycle, status diverged together; "
         "arm is constant 0.05 or constant 0.4 or one-cycle; status is diverged or finished"),
    ],
)  # fmt: skip
def test_a_claim_about_what_no_run_has_is_refused(claim: dict[str, Any], message: str) -> None:
    check(claim)
    with pytest.raises(ClaimError) as caught:
        judge(ROWS, claim)
    assert str(caught.value) == message


def test_a_long_list_of_values_is_cut() -> None:
    rows = [{"seed": 0, "n": 2**power, "acc": 1.0} for power in range(20)]
    with pytest.raises(ClaimError, match=r"; n is 1 or 2 or 4 .* or 2048 or …$"):
        judge(rows, without("metric", "of", "against") | {"effect": "value", "metric": "acc", "of": {"n": 3}})


def test_a_claim_without_runs_is_refused() -> None:
    with pytest.raises(ClaimError, match=r"^claim cycle_beats_constant: there are no runs to judge it by$"):
        judge([], CLAIM)


def test_a_good_claim_passes_the_check() -> None:
    for claim in (CLAIM, BLOW_UP, change(exact=True), change(assumed_sd=0.15, at_most=2)):
        check(claim)


def test_the_type_of_every_parameter_of_an_effect_can_be_checked() -> None:
    for function in EFFECTS.values():
        hints = get_type_hints(function)
        assert next(iter(hints)) == "rows"
        assert hints["return"] is float
        assert {hint for name, hint in hints.items() if name not in ("rows", "return")} <= set(FITS)


def test_the_column_that_was_measured_is_told_from_the_axes() -> None:
    ridge = {"effect": "ridge_power", "x": "peak_lr", "y": "weight_decay", "z": "test_accuracy"}
    assert (metric(ridge), axes(ridge)) == ("test_accuracy", ["peak_lr", "weight_decay"])
    assert (metric(BLOW_UP), axes(BLOW_UP)) == ("final_loss", ["peak_lr", "subset_size"])
    assert (metric(CLAIM), axes(CLAIM)) == ("test_accuracy", [])


def test_filters_are_those_of_all_parameters() -> None:
    assert filters(CLAIM) == [{"arm": "one-cycle"}, {"arm": "constant 0.4"}, {"arm": "constant 0.05"}]
    assert filters(BLOW_UP) == [{}]
    assert filters(BLOW_UP | {"where": {"batch_size": 128}}) == [{"batch_size": 128}]
