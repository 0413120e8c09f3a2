import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf
from pydantic import ValidationError

from onecycle.training.schedule import SCHEDULES, Knots, OneCycle, RangeTest, Schedule, WarmupConstant

CONF = Path(__file__).parents[2] / "conf"

ONE_CYCLE = OneCycle(peak_lr=0.4, peak_at=0.25, start=0.1, end=0.01, shape="linear", momentum_range=[0.95, 0.85])
KNOTS = Knots(peak_lr=2.0, knots=[[0.2, 0.5], [0.6, 1.0]], momentum_range=None)
WARMUP = WarmupConstant(peak_lr=0.4, warmup=0.2)
RANGE_TEST = RangeTest(peak_lr=10.0, start_lr=0.001, shape="exponential")


def from_yaml(name: str, *overrides: str) -> Schedule:
    with initialize_config_dir(str(CONF), version_base="1.3"):
        settings: Any = OmegaConf.to_container(compose(f"schedule/{name}", list(overrides)).schedule)
    return SCHEDULES[settings.pop("_target_")](**settings)


def changed(curve: Schedule, **changes: Any) -> Schedule:
    return type(curve)(**(curve.model_dump() | changes))


def at(curve: Schedule, t: float) -> tuple[float, float]:
    """Learning rate and momentum, where the constant momentum is 0.9."""
    return curve.lr(t), curve.momentum(t, 0.9)


# Every table holds (t, LR, momentum) at a constant momentum of 0.9.
@pytest.mark.parametrize(
    ("name", "table"),
    [
        ("one_cycle", [(0.0, 0.0, 0.9), (0.1, 0.2, 0.9), (0.2, 0.4, 0.9), (0.6, 0.2, 0.9), (1.0, 0.0, 0.9)]),
        ("one_cycle_cosine", [(0.0, 0.0, 0.9), (0.05, 0.2 - 0.2 * math.sqrt(0.5), 0.9), (0.2, 0.4, 0.9)]),
        ("one_cycle_early", [(0.0, 0.08, 0.9), (0.025, 0.24, 0.9), (0.05, 0.4, 0.9), (0.525, 0.2, 0.9)]),
        ("one_cycle_momentum", [(0.0, 0.0, 0.95), (0.1, 0.2, 0.9), (0.2, 0.4, 0.85), (1.0, 0.0, 0.95)]),
        ("knots", [(0.0, 0.0, 0.9), (0.1, 0.5, 0.9), (0.2, 1.0, 0.9), (11 / 13, 0.1, 0.9), (1.0, 0.1, 0.9)]),
        ("step", [(0.0, 0.1, 0.9), (0.49, 0.1, 0.9), (0.5, 0.01, 0.9), (0.75, 0.001, 0.9)]),
        ("constant", [(0.0, 0.1, 0.9), (1 / 3, 0.1, 0.9), (1.0, 0.1, 0.9)]),
        ("warmup_constant", [(0.0, 0.0, 0.9), (0.05, 0.05, 0.9), (0.1, 0.1, 0.9), (1.0, 0.1, 0.9)]),
        ("range_test", [(0.0, 0.001, 0.9), (0.5, math.sqrt(0.03), 0.9), (1.0, 30.0, 0.9)]),
    ],
)
def test_every_yaml_gives_the_curve_it_describes(name: str, table: list[tuple[float, float, float]]) -> None:
    curve = from_yaml(name)
    assert [(t, *at(curve, t)) for t, _, _ in table] == [pytest.approx(row, rel=1e-12) for row in table]


FALLING = {"momentum_range": [0.9, 0.3]}


@pytest.mark.parametrize(
    ("curve", "changes", "t", "lr", "momentum"),
    [
        (ONE_CYCLE, {}, 0.0, 0.04, 0.95), (ONE_CYCLE, {}, 0.25, 0.4, 0.85), (ONE_CYCLE, {}, 1.0, 0.004, 0.95),
        (ONE_CYCLE, {}, 0.125, 0.22, 0.9), (ONE_CYCLE, {}, 0.20, 0.328, 0.87),
        (ONE_CYCLE, {}, 0.90, 0.0568, 0.85 + 0.26 / 3), (ONE_CYCLE, {"shape": "cosine"}, 0.125, 0.22, 0.9),
        (ONE_CYCLE, {"shape": "cosine"}, 0.0625,
         0.04 + 0.36 * (1 - math.sqrt(0.5)) / 2, 0.95 - 0.1 * (1 - math.sqrt(0.5)) / 2),
        (ONE_CYCLE, {"shape": "cosine"}, 0.50, 0.4 - 0.396 * 0.25, 0.875),
        # A peak at either end leaves one leg, and the peak itself.
        (ONE_CYCLE, {"peak_at": 0.0}, 0.0, 0.4, 0.85), (ONE_CYCLE, {"peak_at": 0}, 0.5, 0.202, 0.9),
        (ONE_CYCLE, {"peak_at": 0}, 1.0, 0.004, 0.95), (ONE_CYCLE, {"peak_at": 1.0}, 0.0, 0.04, 0.95),
        (ONE_CYCLE, {"peak_at": 1}, 0.5, 0.22, 0.9), (ONE_CYCLE, {"peak_at": 1}, 1.0, 0.4, 0.85),
        # Straight lines between knots, constant outside.
        (KNOTS, {}, 0.0, 1.0, 0.9), (KNOTS, {}, 0.2, 1.0, 0.9), (KNOTS, {}, 0.3, 1.25, 0.9), (KNOTS, {}, 0.4, 1.5, 0.9),
        (KNOTS, FALLING, 0.6, 2.0, 0.3), (KNOTS, {}, 0.8, 2.0, 0.9), (KNOTS, {}, 1.0, 2.0, 0.9),
        (WARMUP, {}, 0.0, 0.0, 0.9), (WARMUP, {}, 0.05, 0.1, 0.9), (WARMUP, {}, 0.2, 0.4, 0.9),
        (WARMUP, {}, 1.0, 0.4, 0.9), (WARMUP, {"warmup": 0.0}, 0.0, 0.4, 0.9), (WARMUP, {"warmup": 0.0}, 0.5, 0.4, 0.9),
        (WARMUP, {"warmup": 1.0}, 0.5, 0.2, 0.9), (WARMUP, {"warmup": 1.0}, 1.0, 0.4, 0.9),
    ],
)  # fmt: skip
def test_a_curve_between_its_knots_and_at_its_ends(
    curve: Schedule, changes: dict[str, Any], t: float, lr: float, momentum: float
) -> None:
    assert at(changed(curve, **changes), t) == pytest.approx((lr, momentum), rel=1e-12)


def test_the_published_24_epochs_of_97_steps_have_the_published_learning_rates() -> None:
    curve = from_yaml("one_cycle", f"schedule.peak_at={5 / 24!r}")
    rates = [curve.lr(step / (24 * 97)) for step in range(1, 24 * 97 + 1)]
    expected = {1: 0.4 / 485, 97: 0.08, 194: 0.16, 388: 0.32, 486: 0.4 * 1842 / 1843, 970: 0.4 * 14 / 19}
    assert {step: rates[step - 1] for step in expected} == pytest.approx(expected, rel=1e-12)
    assert (rates[485 - 1], max(rates), rates[2328 - 1]) == (0.4, 0.4, 0.0)
    # A triangle with its corner on a step covers exactly half of its rectangle.
    assert math.fsum(rates) / len(rates) == pytest.approx(0.2, rel=1e-12)


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


def test_the_range_test_rises_in_equal_ratios_or_straight_with_exact_ends() -> None:
    straight = changed(RANGE_TEST, shape="linear")
    for curve in (RANGE_TEST, straight):
        assert (curve.lr(0.0), curve.lr(1.0)) == (0.001, 10.0)
    rates = [RANGE_TEST.lr(step / 300) for step in range(1, 301)]
    assert rates == pytest.approx([0.001 * 10_000 ** (step / 300) for step in range(1, 301)], rel=1e-12)
    assert straight.lr(0.25) == pytest.approx(2.50075, rel=1e-12)
    assert changed(straight, start_lr=0).lr(0.25) == 2.5


@pytest.mark.parametrize(
    ("curve", "name", "values"),
    [
        (ONE_CYCLE, "peak_lr", [0, -0.1, math.nan, math.inf, True, "high", None, 10**400]),
        (ONE_CYCLE, "peak_at", [1.5, -0.1, math.nan]),
        (ONE_CYCLE, "start", [2.0, None]),
        (ONE_CYCLE, "end", [-1.0, False]),
        (ONE_CYCLE, "shape", ["square", "exponential", ["linear"], None]),
        (ONE_CYCLE, "momentum_range", [[0.85, 0.95], [1.0, 0.9], [0.9, -0.1], [0.9], 0.9, "95"]),
        (ONE_CYCLE, "hold", [0.1]),
        (KNOTS, "knots", [[], "0,1", [0.0, 1.0], [[0.0, 1.0], [1.0]], [[0, 1], [5, 0]], [[0, 2]]]),
        (KNOTS, "knots", [[[1, 1], [0, 0]], [[0, 0], [0.6, 1], [0.5, 1]]]),  # not in order
        (KNOTS, "knots", [[[0, 0.5]]]),  # the largest fraction is not 1
        (KNOTS, "momentum_range", [[0.8, 0.9]]),
        (WARMUP, "warmup", [1.1, -0.1, math.nan]),
        (RANGE_TEST, "start_lr", [0, -1, math.nan, None, 10.0, 11.0]),
        (RANGE_TEST, "shape", ["cosine"]),
    ],
)
def test_a_wrong_value_is_refused_by_its_key(curve: Schedule, name: str, values: list[Any]) -> None:
    for value in values:
        with pytest.raises(ValidationError) as refusal:
            changed(curve, **{name: value})
        assert all(name in (error["loc"] or error["msg"]) for error in refusal.value.errors())


def test_curves_and_options_import_no_torch() -> None:
    program = "import sys, onecycle.training.schedule, onecycle.training.options; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", program], check=True)
