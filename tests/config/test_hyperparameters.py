from typing import Any

import pytest

from helpers import composed_of
from onecycle.config.hyperparameters import (
    Hyperparameters,
    peak_lr_from_effective_decay,
    peak_lr_from_per_example,
    steps_for_examples,
)


# The published tuning run, with λα/(1−ρ) as printed there.
@pytest.mark.parametrize(
    ("peak_lr", "momentum", "weight_decay", "effective_decay"),
    [
        (0.001, 0.5, 0.01, 0.00002), (0.256, 0.5, 0.01, 0.00512), (0.128, 0.75, 0.01, 0.00512),
        (1.024, 0.75, 0.00125, 0.00512), (0.512, 0.75, 0.00125, 0.00256), (0.256, 0.875, 0.00125, 0.00256),
    ],
)  # fmt: skip
def test_the_published_tuning_table_has_its_products(
    peak_lr: float, momentum: float, weight_decay: float, effective_decay: float
) -> None:
    point = Hyperparameters(peak_lr, momentum, weight_decay, 512).coordinates()
    assert point["effective_decay"] == pytest.approx(effective_decay, rel=1e-12)
    assert peak_lr_from_effective_decay(effective_decay, momentum, weight_decay) == pytest.approx(peak_lr, rel=1e-12)


def test_the_baseline_has_its_published_coordinates() -> None:
    given: Any = {"peak_lr": 0.4, "momentum": 0.9, "weight_decay": 5e-4, "batch_size": 512}
    derived = {"effective_lr": 4.0, "effective_decay": 0.002, "per_example_lr": 0.00078125, "relaxation_steps": 125.0}
    assert Hyperparameters(**given).coordinates() == pytest.approx(given | derived, rel=1e-12)


@pytest.mark.parametrize("weight_decay", [0.0, 1e-320])
def test_weights_that_never_relax_have_no_relaxation_time(weight_decay: float) -> None:
    assert Hyperparameters(0.4, 0.9, weight_decay, 512).coordinates()["relaxation_steps"] is None


@pytest.mark.parametrize("momentum", [0.0, 0.9, 0.99])
@pytest.mark.parametrize("batch_size", [1, 96, 512])
def test_both_parametrisations_have_an_inverse(momentum: float, batch_size: int) -> None:
    point = Hyperparameters(0.4, momentum, 5e-4, batch_size).coordinates()
    assert peak_lr_from_effective_decay(point["effective_decay"], momentum, 5e-4) == pytest.approx(0.4, rel=1e-12)
    assert peak_lr_from_per_example(point["per_example_lr"], batch_size) == pytest.approx(0.4, rel=1e-12)


@pytest.mark.parametrize(("examples", "batch_size", "steps"), [(100, 10, 10), (101, 10, 11), (5, 512, 1)])
def test_steps_show_at_least_so_many_examples(examples: int, batch_size: int, steps: int) -> None:
    assert steps_for_examples(examples, batch_size) == steps


@pytest.mark.parametrize(
    ("function", "values"),
    [
        (peak_lr_from_effective_decay, (0.002, 0.9, 0)), (peak_lr_from_effective_decay, ("x", 0.9, 1e-3)),
        (peak_lr_from_per_example, (float("nan"), 512)), (steps_for_examples, (100, 0)),
        (steps_for_examples, (1, True)),
    ],
)  # fmt: skip
def test_what_is_no_number_or_would_divide_by_zero_is_refused(function: Any, values: tuple[Any, ...]) -> None:
    with pytest.raises(ValueError, match="must be"):
        function(*values)


@pytest.mark.parametrize(
    ("overrides", "peak_lr"),
    [
        ([], 0.4), (["schedule.peak_lr=0.2"], 0.2), (["hyperparameters=effective"], 0.4),
        (["hyperparameters=effective", "hyperparameters.momentum=0.8"], 0.8),
        (["hyperparameters=per_example", "batch_size=256"], 0.2),
        (["hyperparameters=per_example", "hyperparameters.per_example_lr=0.001", "batch_size=100"], 0.1),
    ],
)  # fmt: skip
def test_the_composed_peak_lr_follows_the_parametrisation(overrides: list[str], peak_lr: float) -> None:
    assert composed_of("~experiment", *overrides).schedule.peak_lr == pytest.approx(peak_lr, rel=1e-12)
