import math
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
import pytest

from onecycle.studies import effects
from onecycle.studies.responses import Runs, curve
from onecycle.studies.rows import DivergedError, UnmeasurableError

Table = list[dict[str, Any]]
LRS = (0.05, 0.2, 0.8, 3.2, 12.8)
NAN = math.nan


def arms(**accuracies: float) -> Runs:
    """One run an arm; NaN for one that diverged."""
    return Runs(pd.DataFrame([
        {"arm": arm, "acc": value, "status": "diverged" if math.isnan(value) else "finished"}
        for arm, value in accuracies.items()
    ]))  # fmt: skip


def rows_of(table: Mapping[Any, Sequence[float]], x: Sequence[float] = LRS) -> Table:
    """Curves of the loss over the learning rate, one for each value of a column; NaN for a run that diverged."""
    return [
        {"n": level, "lr": rate, "loss": loss, "status": "diverged" if math.isnan(loss) else "finished"}
        for level, values in table.items()
        for rate, loss in zip(x, values, strict=True)
    ]


def losses(table: Mapping[Any, Sequence[float]], x: Sequence[float] = LRS) -> Runs:
    return Runs(pd.DataFrame(rows_of(table, x)))


ARMS = arms(cycle=90.0, fast=86.0, slow=88.0, lost=NAN)
CYCLE, FAST, SLOW, LOST = ({"arm": arm} for arm in ("cycle", "fast", "slow", "lost"))


def test_value_is_the_mean_of_a_filter() -> None:
    assert effects.value(ARMS, "acc", of={"arm": ["fast", "slow"]}) == 87.0
    assert effects.value(ARMS, "acc", of={"arm": ["cycle", "lost"]}, diverged=10.0) == 50.0


@pytest.mark.parametrize(
    ("of", "against", "options", "difference"),
    [
        (CYCLE, FAST, {}, 4.0), (CYCLE, [FAST, SLOW], {}, 2.0), (FAST, [CYCLE, SLOW], {}, -4.0),
        (FAST, [SLOW, CYCLE], {"better": "lower"}, 2.0), (CYCLE, [SLOW, FAST], {"better": "lower"}, -4.0),
        # A diverged rival is the worst one, unless a metric stands for it.
        (CYCLE, [LOST, SLOW], {}, 2.0), (CYCLE, [LOST, FAST], {"better": "lower"}, -4.0),
        (CYCLE, LOST, {"diverged": 10.0}, 80.0), (LOST, FAST, {"diverged": 10.0}, -76.0),
    ],
)  # fmt: skip
def test_difference_is_to_the_best_of_its_rivals(of: Any, against: Any, options: Any, difference: float) -> None:
    assert effects.difference(ARMS, "acc", of, against, **options) == difference


def test_a_difference_of_diverged_runs_has_a_reason() -> None:
    with pytest.raises(DivergedError, match="arm lost"):
        effects.difference(ARMS, "acc", of=LOST, against=CYCLE)
    with pytest.raises(DivergedError, match="arm lost and at arm lost"):
        effects.difference(ARMS, "acc", of=CYCLE, against=[LOST, LOST])


def test_gap_ratio_and_spread_compare_two_means_and_all_runs() -> None:
    assert effects.gap(ARMS, "acc", of=FAST, against=CYCLE) == 4.0
    assert effects.ratio(ARMS, "acc", of=CYCLE, against=FAST) == 90 / 86
    assert effects.spread(ARMS, "acc", of={"arm": ["cycle", "fast", "slow"]}) == 4.0
    assert effects.spread(ARMS, "acc", of={}, diverged=10.0) == 80.0


def test_a_ratio_to_nothing_has_a_reason() -> None:
    with pytest.raises(UnmeasurableError, match=r"^acc at arm zero is 0$"):
        effects.ratio(arms(cycle=1.0, zero=0.0), "acc", of={"arm": "cycle"}, against={"arm": "zero"})


def test_gap_ratio_divides_the_wide_gap_by_the_narrow_one() -> None:
    rows = arms(a=0.5, b=0.6, c=1.0, d=0.6)
    a, b, c, d = ({"arm": arm} for arm in "abcd")
    assert effects.gap_ratio(rows, "acc", wide=[a, b], narrow=[c, d]) == pytest.approx(0.25)
    with pytest.raises(UnmeasurableError, match=r"^the gap in acc between arm b and arm d is 0$"):
        effects.gap_ratio(rows, "acc", wide=[a, b], narrow=[b, d])


@pytest.mark.parametrize(
    ("groups", "step"), [(["fast", "slow", "cycle"], 2.0), (["slow", "fast", "cycle"], -2.0), (["lost", "cycle"], 80.0)]
)
def test_order_is_the_smallest_step_upward(groups: list[str], step: float) -> None:
    assert effects.order(ARMS, "acc", [{"arm": group} for group in groups], diverged=10.0) == step


@pytest.mark.parametrize(
    ("values", "optimum", "blow_up"),
    [
        ([1.0, 0.5, 0.6, 0.7, 0.9], 0.2, 3.2),  # 0.6 is below 1.25 times the minimum
        ([1.0, 0.5, 0.7, 0.6, 0.9], 0.2, 12.8),  # 0.7 is above, but no longer rising; the last point need not rise
        ([1.0, 0.5, 0.7, 0.7, 0.6], 0.2, 0.8),  # level counts as rising
        ([2.0, 1.0, 0.5, NAN, NAN], 0.8, 3.2),
        ([NAN, 0.4, 0.5, NAN, 2.0], 0.2, 12.8),  # back from the dead: the infinite loss does not rise any more
        ([0.4, 0.4, 0.6, 0.8, 1.0], 0.05, 0.8),  # of equal minima the lower rate
    ],
)
def test_a_curve_blows_up_where_the_loss_is_high_and_still_rising(
    values: list[float], optimum: float, blow_up: float
) -> None:
    line = curve(losses({128: values}), "lr", "loss", {"n": 128})
    assert (line.optimum, line.blow_up(1.25)) == (optimum, blow_up)


@pytest.mark.parametrize(
    ("values", "blow_up"),
    [([0.1, 0.11, 0.34, 1.3, NAN], 12.8), ([1.0, 0.0, 0.4, 2.1, 2.3], 3.2), ([1.0, 0.5, 2.1, 1.9, 2.0], 12.8)],
)
def test_a_level_says_where_a_loss_is_high_whatever_its_minimum(values: list[float], blow_up: float) -> None:
    assert curve(losses({128: values}), "lr", "loss", {"n": 128}).blow_up(level=1.95) == blow_up


def test_a_curve_has_the_mean_of_each_rate_in_ascending_order() -> None:
    rows = rows_of({1: [4.0, 3.0]}, x=[0.2, 0.1]) + rows_of({1: [2.0, NAN]}, x=[0.2 + 1e-9, 0.3])
    rows.append({"n": 1, "loss": 7.0})  # at no rate
    line = curve(Runs(pd.DataFrame(rows)), "lr", "loss", {"n": 1})
    assert line.x.tolist() == [0.1, 0.2, 0.3]
    assert line.y.tolist() == [3.0, 3.0, math.inf]


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ([1.0, 0.5, 0.4, 0.3, 0.2], "lr 12.8"), ([1.0, 0.5, 0.55, 0.6, 0.6], "lr 12.8"), ([NAN] * 5, "diverged"),
        ([1.0, 0.0, 0.4, 0.3, 0.2], "not above 0"),
    ],
)  # fmt: skip
def test_a_curve_without_a_blow_up_cannot_be_measured(values: list[float], said: str) -> None:
    rows = losses({128: values, 512: [1.0, 0.5, 1.0, 2.0, 3.0]})
    for effect in (effects.blow_up_spread, effects.blow_up_slope):
        with pytest.raises(UnmeasurableError, match=said):
            effect(rows, "lr", "loss", by="n")


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        (rows_of({128: [1.0, 2.0]}, x=[0.0, 0.1]), "lr 0"), (rows_of({128: [1.0]}, x=[0.1]), "lr at n 128"),
        (rows_of({128: [1.0, 2.0, 1.0, 1.0, 1.0]}), "n"),
        ([{"n": n, "lr": lr, "loss": None} for n in (1, 2) for lr in LRS], "loss"),
        (rows_of({"few": [1, 2, 3, 4, 5], "many": [1, 2, 3, 4, 5]}), "n few"),
    ],
)  # fmt: skip
def test_a_grid_that_has_no_curves_of_numbers_cannot_be_measured(rows: Table, said: str) -> None:
    for effect in (effects.blow_up_slope, effects.optimum_order):
        with pytest.raises(UnmeasurableError, match=said):
            effect(Runs(pd.DataFrame(rows)), "lr", "loss", by="n")


# Blow-ups at 0.8, 3.2 and 12.8; optima at 0.05, 0.2 and 0.8.
STAGGERED = losses({128: [1, 1.1, 2, 3, 4], 256: [2, 1, 1.2, 3, 4], 512: [3, 2, 1, 1.2, NAN]})


def test_blow_up_spread_counts_grid_steps() -> None:
    assert effects.blow_up_spread(STAGGERED, "lr", "loss", by="n") == pytest.approx(2.0)
    assert effects.blow_up_spread(STAGGERED, "lr", "loss", by="n", where={"n": [128, 256]}) == pytest.approx(1.0)
    assert effects.blow_up_spread(STAGGERED, "lr", "loss", by="n", factor=1.05) == pytest.approx(2.0)
    assert effects.blow_up_spread(STAGGERED, "lr", "loss", by="n", level=2.5) == pytest.approx(1.0)
    same = losses({128: [1, 2, 3, 4, 5], 512: [1, 2, 3, NAN, NAN]})
    assert effects.blow_up_spread(same, "lr", "loss", by="n") == 0.0


def test_blow_up_slope_is_the_exponent_of_the_power_law() -> None:
    assert effects.blow_up_slope(STAGGERED, "lr", "loss", by="n") == pytest.approx(2.0)  # factor 4 per factor 2
    falling = losses({64: [2, 1, 1.1, 1.2, 9], 256: [2, 1, 1.2, 9, NAN], 1024: [2, 1, 8, 9, NAN]})
    assert effects.blow_up_slope(falling, "lr", "loss", by="n") == pytest.approx(-1.0)


@pytest.mark.parametrize(
    ("optima", "steps"), [((3, 2, 0), -1.0), ((3, 3, 0), 0.0), ((3, 0, 2), 2.0), ((0, 1, 4), 3.0), ((4, 2, 0), -2.0)]
)
def test_optimum_order_is_the_largest_move_upward(optima: tuple[int, ...], steps: float) -> None:
    table = {n: [1.0 + abs(place - best) for place in range(5)] for n, best in zip((2, 10, 30), optima, strict=True)}
    assert effects.optimum_order(losses(table), "lr", "loss", by="n") == pytest.approx(steps)


def test_optimum_distance_and_share_compare_the_room_below_the_blow_up() -> None:
    rows = losses({1: [1, 1.1, 1.2, 9, 9], 2: [3, 2, 1, 9, 9]})  # three steps, and one
    assert effects.optimum_distance(rows, "lr", "loss", where={"n": 1}, than={"n": 2}) == pytest.approx(2.0)
    assert effects.optimum_distance(rows, "lr", "loss", where={"n": 2}, than={"n": 1}) == pytest.approx(-2.0)
    assert effects.optimum_to_blow_up(rows, "lr", "loss", of={"n": 1}, against={"n": 2}) == pytest.approx(1 / 16)
    assert effects.optimum_to_blow_up(rows, "lr", "loss", of={"n": 2}, against={"n": 1}) == pytest.approx(16.0)
    earlier: dict[str, Any] = {"where": {"n": 1}, "than": {"n": 2}, "level": 1.05}
    assert effects.optimum_distance(rows, "lr", "loss", **earlier) == pytest.approx(0.0)  # 1.1 is above, at 0.2
    shares = effects.optimum_to_blow_up(rows, "lr", "loss", of={"n": 1}, against={"n": 2}, level=1.05)
    assert shares == pytest.approx(1.0)


def test_a_selected_run_is_chosen_by_one_column_and_compared_by_another() -> None:
    columns = ["arm", "val", "test"]
    rows = Runs(pd.DataFrame([
        ("search", 70.0, 69.0), ("search", 73.0, 70.5), ("search", 72.0, 74.0), ("search", NAN, 99.0),
        ("grid", 74.0, 71.0), ("grid", 60.0, 80.0),
    ], columns=columns))  # fmt: skip
    of, against = {"arm": "search"}, {"arm": "grid"}
    assert effects.selected_difference(rows, "test", of, against, selected_by="val") == pytest.approx(-0.5)
    assert effects.selected_difference(rows, "test", of, against, "val", better="lower") == pytest.approx(69.0 - 80.0)
    with pytest.raises(UnmeasurableError, match=r"^no run at arm search has loss$"):
        effects.selected_difference(rows, "test", of, against, selected_by="loss")
