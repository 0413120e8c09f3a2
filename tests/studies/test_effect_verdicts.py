"""Every effect decides a claim in each of the three ways: tables whose effect is known, bounds on either side of it."""

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
import pytest

from onecycle.studies.effects import EFFECTS
from onecycle.studies.verdicts import judge

Table = list[dict[str, Any]]
LRS = (0.05, 0.2, 0.8, 3.2, 12.8)


def arms(**metrics: float) -> Table:
    return [{"seed": 0, "arm": arm, "acc": value, "val": value, "status": "finished"} for arm, value in metrics.items()]


def losses(table: Mapping[int, Sequence[float]]) -> Table:
    return [
        {"seed": 0, "n": n, "lr": lr, "loss": loss, "status": "finished"}
        for n, values in table.items() for lr, loss in zip(LRS, values, strict=True)
    ]  # fmt: skip


def grid(height: Any) -> Table:
    """Accuracy over 5 × 5 cells in steps of a factor of 4."""
    return [
        {"seed": 0, "lr": 0.1 * 4.0**i, "n": 4.0**j, "acc": height(i - 2, j - 2), "status": "finished"}
        for i in range(5) for j in range(5)
    ]  # fmt: skip


A, B, C, D = ({"arm": arm} for arm in "abcd")
FOUR = arms(a=60.0, b=80.0, c=85.0, d=75.0)
# Blow-ups at 0.8, 3.2 and 12.8, optima at 0.05, 0.2 and 0.8.
STAGGERED = losses({128: [1, 1.1, 2, 3, 4], 256: [2, 1, 1.1, 3, 4], 512: [3, 2, 1, 1.1, 4]})
ROOM = losses({1: [1, 1.05, 1.1, 9, 10], 2: [3, 2, 1, 9, 10]})  # three steps below the blow-up, and one
RIDGE = grid(lambda i, j: 70 - 4 * (i - j) ** 2 - 0.01 * (i + j) ** 2)
CURVE = {"x": "lr", "y": "loss"}
PLANE = {"x": "lr", "y": "n", "z": "acc"}
# effect, its parameters, the rows, the effect that they have, and a spread from run to run that hides it
CASES: list[tuple[str, dict[str, Any], Table, float, float]] = [
    ("value", {"metric": "acc", "of": A}, FOUR, 60.0, 5.0),
    ("difference", {"metric": "acc", "of": B, "against": [A, D]}, FOUR, 5.0, 5.0),
    ("gap", {"metric": "acc", "of": A, "against": B}, FOUR, 20.0, 5.0),
    ("ratio", {"metric": "acc", "of": A, "against": B}, FOUR, 0.75, 5.0),
    ("spread", {"metric": "acc", "of": {"arm": ["a", "b", "c"]}}, FOUR, 25.0, 5.0),
    ("gap_ratio", {"metric": "acc", "wide": [A, B], "narrow": [C, D]}, FOUR, 2.0, 2.0),
    ("order", {"metric": "acc", "groups": [A, B, C]}, FOUR, 5.0, 5.0),
    ("blow_up_spread", {**CURVE, "by": "n"}, STAGGERED, 2.0, 0.5),
    ("blow_up_slope", {**CURVE, "by": "n"}, STAGGERED, 2.0, 0.5),
    ("optimum_order", {**CURVE, "by": "n"}, STAGGERED, 1.0, 0.5),
    ("optimum_distance", {**CURVE, "where": {"n": 1}, "than": {"n": 2}}, ROOM, 2.0, 0.5),
    ("optimum_to_blow_up", {**CURVE, "of": {"n": 1}, "against": {"n": 2}}, ROOM, 1 / 16, 0.5),
    ("ridge_power", PLANE, RIDGE, 1.0, 2.0),
    ("ridge_contrast", {**PLANE, "transform": "ratio"}, RIDGE, 0.01 / 4, 2.0),
    ("selected_difference", {"metric": "acc", "of": A, "against": D, "selected_by": "val"}, FOUR, -15.0, 5.0),
]


def test_there_is_a_case_for_every_effect() -> None:
    assert [case[0] for case in CASES] == list(EFFECTS)


@pytest.mark.parametrize(("effect", "parameters", "rows", "known", "noise"), CASES, ids=[case[0] for case in CASES])
def test_an_effect_holds_fails_or_leaves_a_claim_undecided(
    effect: str, parameters: dict[str, Any], rows: Table, known: float, noise: float
) -> None:
    claim = {"id": effect, "text": "…", "unit": "", "effect": effect, "assumed_sd": 1e-6, **parameters}
    frame, margin = pd.DataFrame(rows), 0.1 * abs(known)
    for bounds, verdict in (
        ({"at_least": known - margin, "at_most": known + margin}, "holds"),
        ({"at_least": known + margin}, "does not hold"),
    ):  # fmt: skip
        decided = judge(frame, claim | bounds)
        assert decided.effect == pytest.approx(known, rel=0.02)
        assert decided.verdict == verdict, bounds
    hidden = judge(frame, claim | {"at_least": known, "assumed_sd": noise})
    assert hidden.effect == pytest.approx(known, rel=0.02)
    assert hidden.uncertainty > 0
    assert hidden.verdict == "undecided"
