import ast
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate

from onecycle.training import schedule
from onecycle.training.schedule import Constant, Knots, OneCycle, RangeTest, Schedule, WarmupConstant, progress

CONF = Path(__file__).parents[1] / "conf"

ONE_CYCLE = OneCycle(0.4, peak_at=0.25, start=0.1, end=0.01, shape="linear", momentum_range=[0.95, 0.85])
KNOTS = Knots(2.0, knots=[[0.2, 0.5], [0.6, 1.0]], momentum_range=None)
WARMUP = WarmupConstant(0.4, warmup=0.2)
RANGE_TEST = RangeTest(10.0, start_lr=0.001, shape="exponential")


def from_yaml(name: str, *overrides: str) -> Schedule:
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return instantiate(compose(f"schedule/{name}", list(overrides)).schedule)


# Every table holds (t, LR, momentum) at a constant momentum of 0.9; a number at a knot is exact.
@pytest.mark.parametrize(("t", "lr", "momentum"), [(0.0, 0.4 * 0.1, 0.95), (0.25, 0.4, 0.85), (1.0, 0.4 * 0.01, 0.95)])
@pytest.mark.parametrize("shape", ["linear", "cosine"])
def test_one_cycle_is_exact_at_its_three_knots(shape: str, t: float, lr: float, momentum: float) -> None:
    assert replace(ONE_CYCLE, shape=shape).at(t, 0.9) == (lr, momentum)


@pytest.mark.parametrize(
    ("shape", "t", "lr", "momentum"),
    [
        ("linear", 0.125, 0.22, 0.9), ("linear", 0.20, 0.328, 0.87),
        ("linear", 0.50, 0.268, 0.85 + 0.1 / 3), ("linear", 0.90, 0.0568, 0.85 + 0.26 / 3),
        ("cosine", 0.125, 0.22, 0.9),
        ("cosine", 0.0625, 0.04 + 0.36 * (1 - math.sqrt(0.5)) / 2, 0.95 - 0.1 * (1 - math.sqrt(0.5)) / 2),
        ("cosine", 0.50, 0.4 - 0.396 * 0.25, 0.875), ("cosine", 0.75, 0.4 - 0.396 * 0.75, 0.925),
    ],
)  # fmt: skip
def test_one_cycle_between_its_knots(shape: str, t: float, lr: float, momentum: float) -> None:
    assert replace(ONE_CYCLE, shape=shape).at(t, 0.9) == pytest.approx((lr, momentum), rel=1e-12)


@pytest.mark.parametrize(
    ("peak_at", "t", "lr", "momentum"),
    [
        (0.0, 0.0, 0.4, 0.85), (0.0, 0.5, 0.202, 0.9), (0.0, 1.0, 0.004, 0.95), (1.0, 0.0, 0.04, 0.95),
        (1.0, 0.5, 0.22, 0.9), (1.0, 1.0, 0.4, 0.85),
    ],
)  # fmt: skip
def test_a_peak_at_either_end_leaves_one_leg(peak_at: float, t: float, lr: float, momentum: float) -> None:
    curve = replace(ONE_CYCLE, peak_at=peak_at)
    assert curve.at(t, 0.9) == pytest.approx((lr, momentum), rel=1e-12)
    assert curve.lr(peak_at) == 0.4


def test_the_published_24_epochs_of_97_steps_have_the_published_learning_rates() -> None:
    curve = from_yaml("one_cycle", f"schedule.peak_at={5 / 24!r}")
    rates = [curve.lr(progress(step, 24 * 97)) for step in range(1, 24 * 97 + 1)]
    expected = {1: 0.4 / 485, 97: 0.08, 194: 0.16, 388: 0.32, 486: 0.4 * 1842 / 1843, 970: 0.4 * 14 / 19}
    assert {step: rates[step - 1] for step in expected} == pytest.approx(expected, rel=1e-12)
    assert (rates[485 - 1], max(rates), rates[2328 - 1]) == (0.4, 0.4, 0.0)
    # A triangle with its corner on a step covers exactly half of its rectangle.
    assert math.fsum(rates) / len(rates) == pytest.approx(0.2, rel=1e-12)


@pytest.mark.parametrize(
    ("t", "lr"), [(0.0, 1.0), (0.2, 1.0), (0.3, 1.25), (0.4, 1.5), (0.6, 2.0), (0.8, 2.0), (1.0, 2.0)]
)
def test_knots_join_by_straight_lines_and_stay_constant_outside(t: float, lr: float) -> None:
    assert KNOTS.at(t, 0.9) == pytest.approx((lr, 0.9), rel=1e-12)
    assert replace(KNOTS, momentum_range=[0.9, 0.3]).momentum(0.6, 0.9) == 0.3


@pytest.mark.parametrize(
    ("t", "lr", "momentum"),
    [
        (0.0, 0.1, 0.85), (0.5 - 1e-9, 0.1, 0.85), (0.5, 0.1 * 0.1, 0.94),
        (0.6, 0.1 * 0.1, 0.94), (0.75, 0.1 * 0.01, 0.949), (1.0, 0.1 * 0.01, 0.949),
    ],
)  # fmt: skip
def test_two_knots_at_one_progress_are_a_step(t: float, lr: float, momentum: float) -> None:
    curve = from_yaml("step", "schedule.momentum_range=[0.95,0.85]")
    assert curve.lr(t) == lr
    assert curve.momentum(t, 0.9) == pytest.approx(momentum, rel=1e-12)


def test_constant_is_constant_to_the_last_bit() -> None:
    assert {Constant(0.3).at(t, 0.9) for t in (0.0, 1 / 3, 0.7, 1.0)} == {(0.3, 0.9)}


@pytest.mark.parametrize(
    ("warmup", "t", "lr"),
    [
        (0.2, 0.0, 0.0), (0.2, 0.05, 0.1), (0.2, 0.2, 0.4), (0.2, 0.7, 0.4), (0.2, 1.0, 0.4),
        (0.0, 0.0, 0.4), (0.0, 0.5, 0.4), (1.0, 0.5, 0.2), (1.0, 1.0, 0.4),
    ],
)  # fmt: skip
def test_warmup_rises_from_zero_and_then_holds(warmup: float, t: float, lr: float) -> None:
    curve = replace(WARMUP, warmup=warmup)
    assert curve.at(t, 0.9) == (pytest.approx(lr, rel=1e-12), 0.9)
    assert curve.lr(warmup) == 0.4


@pytest.mark.parametrize(
    ("shape", "t", "lr"),
    [
        ("exponential", 0.25, 0.01), ("exponential", 0.5, 0.1), ("exponential", 0.75, 1.0),
        ("linear", 0.25, 2.50075), ("linear", 0.5, 5.0005),
    ],
)  # fmt: skip
def test_range_test_between_its_ends(shape: str, t: float, lr: float) -> None:
    curve = replace(RANGE_TEST, shape=shape)
    assert curve.at(t, 0.9) == (pytest.approx(lr, rel=1e-12), 0.9)
    assert (curve.lr(0.0), curve.lr(1.0)) == (0.001, 10.0)
    assert replace(RANGE_TEST, start_lr=0, shape="linear").lr(0.25) == 2.5


def test_exponential_range_test_multiplies_by_one_ratio_at_every_step() -> None:
    curve = from_yaml("range_test")
    rates = [curve.lr(progress(step, 300)) for step in range(1, 301)]
    assert rates == pytest.approx([0.001 * 30_000 ** (step / 300) for step in range(1, 301)], rel=1e-12)
    assert rates[-1] == 30.0


@pytest.mark.parametrize(
    ("name", "table"),
    [
        ("one_cycle", [(0.0, 0.0, 0.9), (0.1, 0.2, 0.9), (0.2, 0.4, 0.9), (0.6, 0.2, 0.9), (1.0, 0.0, 0.9)]),
        ("one_cycle_cosine", [(0.0, 0.0, 0.9), (0.05, 0.2 - 0.2 * math.sqrt(0.5), 0.9), (0.2, 0.4, 0.9)]),
        (
            "one_cycle_early",
            [(0.0, 0.08, 0.9), (0.025, 0.24, 0.9), (0.05, 0.4, 0.9), (0.525, 0.2, 0.9), (1.0, 0.0, 0.9)],
        ),
        ("one_cycle_momentum", [(0.0, 0.0, 0.95), (0.1, 0.2, 0.9), (0.2, 0.4, 0.85), (1.0, 0.0, 0.95)]),
        ("knots", [(0.0, 0.0, 0.9), (0.1, 0.5, 0.9), (0.2, 1.0, 0.9), (11 / 13, 0.1, 0.9), (1.0, 0.1, 0.9)]),
        ("step", [(0.0, 0.1, 0.9), (0.49, 0.1, 0.9), (0.5, 0.01, 0.9), (0.75, 0.001, 0.9)]),
        ("constant", [(0.0, 0.1, 0.9), (1.0, 0.1, 0.9)]),
        ("warmup_constant", [(0.0, 0.0, 0.9), (0.05, 0.05, 0.9), (0.1, 0.1, 0.9), (1.0, 0.1, 0.9)]),
        ("range_test", [(0.0, 0.001, 0.9), (0.5, math.sqrt(0.03), 0.9), (1.0, 30.0, 0.9)]),
    ],
)
def test_every_yaml_gives_the_curve_it_describes(name: str, table: list[tuple[float, float, float]]) -> None:
    curve = from_yaml(name)
    assert [(t, *curve.at(t, 0.9)) for t, _, _ in table] == [pytest.approx(row, rel=1e-12) for row in table]


def test_every_yaml_has_a_table_and_opens_with_the_command_that_picks_it() -> None:
    (table,) = test_every_yaml_gives_the_curve_it_describes.pytestmark  # type: ignore[attr-defined]
    openings = {path.stem: path.read_text().splitlines()[0] for path in (CONF / "schedule").glob("*.yaml")}
    assert set(openings) == {name for name, _ in table.args[1]}
    assert all(line.endswith(f": onecycle-train schedule={name}") for name, line in openings.items())


def test_curves_from_lists_are_immutable_and_equal() -> None:
    knots = [[0.0, 1.0], [1.0, 0.0]]
    curve = Knots(peak_lr=1.0, knots=knots, momentum_range=[0.95, 0.85])
    knots[1][1] = 0.5
    assert curve.lr(1.0) == 0.0
    assert hash(curve) == hash(Knots(1.0, ((0.0, 1.0), (1.0, 0.0)), (0.95, 0.85)))
    assert from_yaml("one_cycle_momentum") == from_yaml("one_cycle", "schedule.momentum_range=[0.95,0.85]")


def test_progress_is_positive_at_the_first_step_and_one_at_the_last() -> None:
    assert [progress(step, 4) for step in (1, 2, 3, 4)] == [0.25, 0.5, 0.75, 1.0]
    assert all(progress(total, total) == 1.0 for total in range(1, 3000))


@pytest.mark.parametrize(("step", "total"), [(0, 10), (11, 10), (-1, 10), (1, 0)])
def test_progress_refuses_a_step_outside_the_run(step: int, total: int) -> None:
    with pytest.raises(ValueError, match=rf"^step={step}: must be from 1, .* total_steps={total}, the last$"):
        progress(step, total)


@pytest.mark.parametrize("t", [-0.25, 1.25, math.nan, math.inf])
@pytest.mark.parametrize(
    "curve", [ONE_CYCLE, KNOTS, Constant(1.0), WARMUP, RANGE_TEST], ids=lambda curve: type(curve).__name__
)
def test_every_curve_refuses_a_progress_outside_the_run(curve: Schedule, t: float) -> None:
    for function in (curve.lr, lambda t: curve.momentum(t, 0.9), lambda t: curve.at(t, 0.9)):
        with pytest.raises(ValueError, match=rf"^t={t!r}: must be a progress in \[0, 1\]"):
            function(t)


UNIT = "a number in [0, 1]"
MOMENTUM = "null or [high, low] with 1 > high >= low >= 0"
PAIRS = "a list of at least one [progress, fraction of peak_lr], both in [0, 1]"
START = "a finite number above 0 (or 0 with shape=linear)"


@pytest.mark.parametrize(
    ("curve", "name", "values", "allowed"),
    [
        (ONE_CYCLE, "peak_lr", [0, -0.1, math.nan, math.inf, True, "high", None], "a finite number above 0"),
        (ONE_CYCLE, "peak_at", [1.5, -0.1, math.nan], UNIT),
        (ONE_CYCLE, "start", [2.0, None], UNIT),
        (ONE_CYCLE, "end", [-1.0, False], UNIT),
        (ONE_CYCLE, "shape", ["square", "exponential", ["linear"], None], "linear or cosine"),
        (ONE_CYCLE, "momentum_range", [[0.85, 0.95], [1.0, 0.9], [0.9, -0.1], [0.9], 0.9, "95"], MOMENTUM),
        (KNOTS, "knots", [[], "0,1", [0.0, 1.0], [[0.0, 1.0], [1.0]], [[0, 1], [5, 0]], [[0, 2]]], PAIRS),
        (KNOTS, "knots", [[[1, 1], [0, 0]], [[0, 0], [0.6, 1], [0.5, 1]]], "in the order of progress"),
        (KNOTS, "knots", [[[0, 0.5]]], "scaled to a largest fraction of 1; peak_lr sets the height"),
        (KNOTS, "momentum_range", [[0.8, 0.9]], MOMENTUM),
        (WARMUP, "warmup", [1.1, -0.1, math.nan], UNIT),
        (RANGE_TEST, "start_lr", [0, -1, math.nan, None], START),
        (replace(RANGE_TEST, shape="linear"), "start_lr", [-1], START),
        (RANGE_TEST, "start_lr", [10.0, 11.0], "below peak_lr=10.0"),
        (RANGE_TEST, "shape", ["cosine"], "exponential or linear"),
    ],
)
def test_a_refusal_names_the_key_the_value_and_what_is_allowed(
    curve: Schedule, name: str, values: list[Any], allowed: str
) -> None:
    for value in values:
        with pytest.raises(ValueError, match=r".") as refusal:
            replace(curve, **{name: value})
        assert str(refusal.value) == f"{name}={value!r}: must be {allowed}"


def test_all_problems_of_a_curve_come_at_once() -> None:
    with pytest.raises(ValueError, match=r".") as refusal:
        OneCycle(peak_lr=-1.0, peak_at=2.0, start=0.0, end=0.0, shape="linear", momentum_range=[0.5, 0.9])
    assert str(refusal.value).splitlines() == [
        "peak_lr=-1.0: must be a finite number above 0",
        "peak_at=2.0: must be a number in [0, 1]",
        "momentum_range=[0.5, 0.9]: must be null or [high, low] with 1 > high >= low >= 0",
    ]


def test_each_parameter_group_gets_its_multiple_of_the_learning_rate() -> None:
    groups = [{"lr": 9.0, "momentum": 0.0, "lr_multiplier": multiplier} for multiplier in (1.0, 64.0)]
    schedule.set_learning_rate(groups, lr=0.25, momentum=0.85)
    assert [(group["lr"], group["momentum"]) for group in groups] == [(0.25, 0.85), (16.0, 0.85)]


def test_an_optimizer_without_momentum_is_refused() -> None:
    with pytest.raises(ValueError, match=r"^optimizer: .* hold no 'momentum'; use torch.optim.SGD$"):
        schedule.set_learning_rate([{"lr": 0.1, "lr_multiplier": 1.0}], lr=0.1, momentum=0.9)


@pytest.mark.parametrize("module", ["schedule"])
def test_the_curves_import_only_the_standard_library(module: str) -> None:
    tree = ast.parse(Path(schedule.__file__).with_name(f"{module}.py").read_text())
    names = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    names |= {str(node.module) for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    allowed = {"abc", "bisect", "collections.abc", "dataclasses", "math", "sys", "typing"}
    assert names <= allowed | {"onecycle.config.hyperparameters"}
