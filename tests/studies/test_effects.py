import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pandas as pd
import pytest

from onecycle.studies.effects import EFFECTS, SMALLEST
from onecycle.studies.responses import Runs, curve
from onecycle.studies.rows import DivergedError, UnmeasurableError
from onecycle.studies.verdicts import judge

Table = list[dict[str, Any]]
LRS = (0.05, 0.2, 0.8, 3.2, 12.8)
NAN = math.nan


def run_of(**columns: Any) -> dict[str, Any]:
    """A row of seed 0; one with a number that is NaN diverged."""
    lost = any(isinstance(value, float) and math.isnan(value) for value in columns.values())
    return {"seed": 0, **columns, "status": "diverged" if lost else "finished"}


def arms(**accuracies: float) -> Table:
    return [run_of(arm=arm, acc=value, val=-value) for arm, value in accuracies.items()]


def losses(table: Mapping[Any, Sequence[float]], x: Sequence[float] = LRS) -> Table:
    """Curves of the loss over the learning rate, one for each value of a column."""
    return [run_of(n=n, lr=lr, loss=loss) for n, values in table.items() for lr, loss in zip(x, values, strict=True)]


def grid(height: Callable[[int, int], float]) -> Table:
    """Accuracy over 5 × 5 cells in steps of a factor of 4."""
    return [run_of(lr=0.1 * 4.0**i, n=4.0**j, acc=height(i - 2, j - 2)) for i in range(5) for j in range(5)]


def measured(effect: str, rows: Table, **parameters: Any) -> float:
    """The effect: the largest, or the smallest, of its components."""
    components = EFFECTS[effect](Runs(pd.DataFrame(rows)), **parameters)
    return float(components.min() if effect in SMALLEST else components.max())


A, B, C, D, LOST = ({"arm": arm} for arm in ("a", "b", "c", "d", "lost"))
FOUR = arms(a=60.0, b=80.0, c=85.0, d=75.0, lost=NAN)
RATES = (0.0125, *LRS)
# Blow-ups after 0.2, 0.8 and 3.2, optima at 0.05, 0.2 and 0.8.
STAGGERED = losses({128: [1.1, 1, 1.1, 2, 3, 4], 256: [2, 1.1, 1, 1.1, 3, 4], 512: [3, 2, 1.1, 1, 1.1, NAN]}, x=RATES)
# Three steps below the first rate that blows up, and one.
ROOM = losses({1: [1.05, 1, 1.05, 1.1, 9, 10], 2: [3, 2, 1.1, 1, 9, 10]}, x=RATES)
RIDGE = grid(lambda i, j: 70 - 4 * (i - j) ** 2 - 0.01 * (i + j) ** 2)
ROOMS = 2.0 - 0.4876543  # in steps; the lowest losses lie off the grid's points, by parabolas
CURVE = {"x": "lr", "y": "loss"}
PLANE = {"x": "lr", "y": "n", "z": "acc"}
# effect, its parameters, the rows, the effect that they have, and a spread from run to run that hides it. Places on
# a grid are known to half a step, so that their margins are wider.
CASES: list[tuple[str, dict[str, Any], Table, float, float]] = [
    ("value", {"metric": "acc", "of": A}, FOUR, 60.0, 5.0),
    ("difference", {"metric": "acc", "of": B, "against": [A, D]}, FOUR, 5.0, 5.0),
    ("gap", {"metric": "acc", "of": A, "against": B}, FOUR, 20.0, 5.0),
    ("ratio", {"metric": "acc", "of": A, "against": B}, FOUR, 0.75, 5.0),
    ("spread", {"metric": "acc", "of": {"arm": ["a", "b", "c"]}}, FOUR, 25.0, 5.0),
    ("gap_ratio", {"metric": "acc", "wide": [A, B], "narrow": [C, D]}, FOUR, 2.0, 2.0),
    ("order", {"metric": "acc", "groups": [A, B, C]}, FOUR, 5.0, 5.0),
    ("blow_up_spread", {**CURVE, "by": "n", "level": 1.5}, STAGGERED, 2.0, 0.5),
    ("blow_up_slope", {**CURVE, "by": "n", "level": 1.5}, STAGGERED, 2.0, 0.5),
    ("optimum_order", {**CURVE, "by": "n"}, STAGGERED, 1.0, 0.5),
    ("optimum_distance", {**CURVE, "where": {"n": 1}, "than": {"n": 2}, "level": 1.5}, ROOM, ROOMS, 0.5),
    ("optimum_to_blow_up", {**CURVE, "of": {"n": 1}, "against": {"n": 2}, "level": 1.5}, ROOM, 4**-ROOMS, 0.5),
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
    # `optimum_to_blow_up` of 1/8 is known to a factor of 4.
    frame, margin = pd.DataFrame(rows), 0.1 * abs(known) if "y" not in parameters else 0.35 if known < 1 else 1.2
    for changes, verdict in (
        ({"at_least": known - margin, "at_most": known + margin}, "holds"),
        ({"at_least": known + margin}, "does not hold"),
        ({"at_least": known, "assumed_sd": noise}, "undecided"),
    ):  # fmt: skip
        decided = judge(frame, claim | changes)
        assert decided["verdict"] == verdict, changes
        if effect == "ridge_contrast" and verdict == "undecided":
            known = 0.0  # what the noise adds is taken off, here all
        assert decided["effect"] == pytest.approx(known, rel=0.02)
    low, high = (decided[end] if decided[end] is not None else math.inf for end in ("low", "high"))
    assert abs(low) == math.inf or low < known < high or known == low == 0


@pytest.mark.parametrize(
    ("effect", "parameters", "value"),
    [
        ("value", {"of": {"arm": ["a", "b"]}}, 70.0),
        ("difference", {"of": A, "against": B}, -20.0),
        ("difference", {"of": A, "against": [D, B], "better": "lower"}, 15.0),
        # A diverged rival is the worst one.
        ("difference", {"of": B, "against": [LOST, A]}, 20.0),
        ("difference", {"of": B, "against": [LOST, A], "better": "lower"}, -20.0),
        ("gap", {"of": B, "against": A}, 20.0),
        ("order", {"groups": [B, A, C]}, -20.0),
    ],
)
def test_means_are_compared_by_filters(effect: str, parameters: dict[str, Any], value: float) -> None:
    assert measured(effect, FOUR, metric="acc", **parameters) == value


@pytest.mark.parametrize(
    ("effect", "parameters", "said"),
    [
        ("difference", {"of": LOST, "against": A}, "arm lost"),
        ("difference", {"of": A, "against": [LOST, LOST]}, "arm lost and at arm lost"),
        ("ratio", {"of": A, "against": {"arm": "zero"}}, "acc at arm zero is 0"),
        ("gap_ratio", {"wide": [A, B], "narrow": [B, B]}, "the gap in acc between arm b and arm b is 0"),
        ("selected_difference", {"of": A, "against": B, "selected_by": "never"}, "no run at arm a has never"),
    ],
)
def test_what_cannot_be_compared_has_a_reason(effect: str, parameters: dict[str, Any], said: str) -> None:
    kind = DivergedError if effect == "difference" else UnmeasurableError
    with pytest.raises(kind, match=said):
        measured(effect, FOUR + arms(zero=0.0), metric="acc", **parameters)


@pytest.mark.parametrize(
    ("values", "optimum", "level", "blow_up"),
    [
        ([1.0, 0.5, 0.6, 0.7, 0.9], 0.2, 0.63, 3.2), ([1.0, 0.5, 0.7, 0.7, 0.6], 0.2, 0.63, 0.8),
        ([1.0, 0.5, 0.7, 0.6, 0.9], 0.2, 0.63, 12.8),  # 0.7 is above, but no longer rising; the last need not rise
        ([2.0, 1.0, 0.5, NAN, NAN], 0.8, 0.63, 3.2),
        ([NAN, 0.4, 0.5, NAN, 2.0], 0.2, 0.63, 12.8),  # back from the dead: the infinite loss does not rise any more
        ([0.4, 0.4, 0.6, 0.8, 1.0], 0.05, 0.5, 0.8),  # of equal minima the lower rate
        ([1.0, 0.0, 0.4, 2.1, 2.3], 0.2, 1.95, 3.2),
    ],
)  # fmt: skip
def test_a_curve_blows_up_where_the_loss_is_high_and_still_rising(
    values: list[float], optimum: float, level: float, blow_up: float
) -> None:
    line = curve(Runs(pd.DataFrame(losses({128: values}))), "lr", "loss", {"n": 128})
    place, side = line.best()
    assert abs(place - math.log(optimum)) <= math.log(2)  # half a step, by the parabola
    assert side == (-1 if optimum == LRS[0] else 0)
    assert math.exp(line.blow_up(level)) == pytest.approx(blow_up / 2)  # the middle of the step that leads to it


def test_a_curve_has_the_mean_of_each_rate_in_ascending_order() -> None:
    rows = losses({1: [4.0, 3.0]}, x=[0.2, 0.1]) + losses({1: [2.0, NAN]}, x=[0.2 + 1e-9, 0.3])
    rows.append({"n": 1, "loss": 7.0})  # at no rate
    line = curve(Runs(pd.DataFrame(rows)), "lr", "loss", {"n": 1})
    assert line.x.tolist() == [0.1, 0.2, 0.3]
    assert line.y.tolist() == [3.0, 3.0, math.inf]


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        (losses({128: [1.0, 2.0]}, x=[0.0, 0.1]), "lr 0"), (losses({128: [1.0]}, x=[0.1]), "lr at n 128"),
        (losses({128: [1.0, 2.0, 1.0, 1.0, 1.0]}), "n"),
        ([{"n": n, "lr": lr, "loss": None} for n in (1, 2) for lr in LRS], "loss"),
        (losses({"few": [1, 2, 3, 4, 5], "many": [1, 2, 3, 4, 5]}), "n few"),
        (losses({128: [NAN] * 5, 512: [1.0, 0.5, 1.0, 2.0, 3.0]}), "diverged"),
    ],
)  # fmt: skip
def test_a_grid_that_has_no_curves_of_numbers_cannot_be_measured(rows: Table, said: str) -> None:
    for effect, more in (("blow_up_slope", {"level": 0.7}), ("optimum_order", {})):
        with pytest.raises(UnmeasurableError, match=said):
            measured(effect, rows, **CURVE, by="n", **more)


def test_a_curve_without_a_blow_up_cannot_be_measured() -> None:
    for effect in ("blow_up_spread", "blow_up_slope"):
        with pytest.raises(UnmeasurableError, match=r"lr 12\.8"):
            measured(effect, STAGGERED, **CURVE, by="n", level=4.5)


def test_blow_ups_are_counted_in_grid_steps_and_fitted_by_a_power_law() -> None:
    by_n: dict[str, Any] = {**CURVE, "by": "n"}
    assert measured("blow_up_spread", STAGGERED, **by_n, level=1.5, where={"n": [128, 256]}) == pytest.approx(1.0)
    assert measured("blow_up_spread", STAGGERED, **by_n, level=2.5) == pytest.approx(1.0)
    same = losses({128: [1, 2, 3, 4, 5], 512: [1, 2, 3, NAN, NAN]})
    assert measured("blow_up_spread", same, **by_n, level=1.5) == 0.0
    falling = losses({64: [2, 1, 1.1, 1.2, 9], 256: [2, 1, 1.2, 9, NAN], 1024: [2, 1, 8, 9, NAN]})
    assert measured("blow_up_slope", falling, **by_n, level=1.5) == pytest.approx(-1.0)


@pytest.mark.parametrize(
    ("optima", "steps"), [((3, 2, 1), -1.0), ((3, 3, 1), 0.0), ((3, 1, 3), 2.0), ((1, 2, 4), 2.0), ((4, 2, 1), -1.0)]
)
def test_optimum_order_is_the_largest_move_upward(optima: tuple[int, ...], steps: float) -> None:
    table = {n: [1.0 + abs(place - best) for place in range(6)] for n, best in zip((2, 10, 30), optima, strict=True)}
    assert measured("optimum_order", losses(table, RATES), **CURVE, by="n") == pytest.approx(steps)
    with pytest.raises(UnmeasurableError, match="n 30"):  # whose best may lie beyond the grid
        measured("optimum_order", losses(table | {30: [1, 2, 3, 4, 5, 6]}, RATES), **CURVE, by="n")


def test_a_selected_run_is_chosen_by_one_column_and_compared_by_another() -> None:
    rows = [
        {"arm": arm, "val": val, "loss": -val, "test": test}
        for arm, val, test in (
            ("search", 70.0, 69.0), ("search", 73.0, 70.5), ("search", 72.0, 74.0), ("search", NAN, 99.0),
            ("grid", 74.0, 71.0), ("grid", 60.0, 80.0),
        )
    ]  # fmt: skip
    for column in ("val", "loss"):
        chosen = {"of": {"arm": "search"}, "against": {"arm": "grid"}, "selected_by": column}
        assert measured("selected_difference", rows, metric="test", **chosen) == pytest.approx(-0.5)
