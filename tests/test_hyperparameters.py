import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig, OmegaConf

from onecycle.config.hyperparameters import (
    Hyperparameters,
    check,
    is_finite_number,
    peak_lr_from_effective_decay,
    peak_lr_from_per_example,
)

CONF = Path(__file__).parents[1] / "conf"


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
    assert Hyperparameters(peak_lr, momentum, weight_decay, 512).effective_decay == pytest.approx(
        effective_decay, rel=1e-12
    )
    assert peak_lr_from_effective_decay(effective_decay, momentum, weight_decay) == pytest.approx(peak_lr, rel=1e-12)


def test_the_baseline_has_its_published_coordinates() -> None:
    given: Any = {"peak_lr": 0.4, "momentum": 0.9, "weight_decay": 5e-4, "batch_size": 512}
    derived = {"effective_lr": 4.0, "effective_decay": 0.002, "per_example_lr": 0.00078125, "relaxation_steps": 125.0}
    assert Hyperparameters(**given).coordinates() == pytest.approx(given | derived, rel=1e-12)


@pytest.mark.parametrize("weight_decay", [0.0, 1e-320])
def test_weights_that_never_relax_have_no_relaxation_time(weight_decay: float) -> None:
    assert Hyperparameters(0.4, 0.9, weight_decay, 512).relaxation_steps is None


@pytest.mark.parametrize("peak_lr", [1e-3, 0.1, 0.4, 6.4])
@pytest.mark.parametrize("momentum", [0.0, 0.5, 0.9, 0.99])
@pytest.mark.parametrize("weight_decay", [1e-5, 5e-4, 0.032])
@pytest.mark.parametrize("batch_size", [1, 96, 512])
def test_both_parametrisations_have_an_inverse(
    peak_lr: float, momentum: float, weight_decay: float, batch_size: int
) -> None:
    point = Hyperparameters(peak_lr, momentum, weight_decay, batch_size)
    rest: dict[str, Any] = {"momentum": momentum, "weight_decay": weight_decay, "batch_size": batch_size}
    for other in (
        Hyperparameters.from_effective(point.effective_decay, **rest),
        Hyperparameters.from_per_example(point.per_example_lr, **rest),
    ):
        assert vars(other) == {**rest, "peak_lr": pytest.approx(peak_lr, rel=1e-12)}


def test_only_finite_ints_and_floats_are_numbers() -> None:
    assert [is_finite_number(value) for value in (0, -1.5, 1e308)] == [True] * 3
    assert not any(map(is_finite_number, (True, math.nan, -math.inf, "1", None, [1], 10**400)))


ABOVE = "must be a finite number above 0"
DECAY = "must be a finite number of at least 0"
UNDEFINED = "weight_decay=0: must be above 0, because the effective parametrisation divides by it"


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: Hyperparameters(0.0, 0.9, 5e-4, 512), f"peak_lr=0.0: {ABOVE}"),
        (lambda: Hyperparameters(0.4, 1.0, 5e-4, 512), "momentum=1.0: must be a number in [0, 1)"),
        (lambda: Hyperparameters(0.4, 0.9, 5e-4, 0), "batch_size=0: must be an integer of at least 1"),
        (lambda: peak_lr_from_effective_decay(0.002, 0.9, 0), UNDEFINED),
        (lambda: peak_lr_from_effective_decay(0.0, 2, 5e-4),
         f"effective_decay=0.0: {ABOVE}; momentum=2: must be a number in [0, 1)"),
        (lambda: peak_lr_from_per_example(-1e-3, 512), f"per_example_lr=-0.001: {ABOVE}"),
        (lambda: peak_lr_from_per_example(1e-3, True), "batch_size=True: must be an integer of at least 1"),
    ],
)  # fmt: skip
def test_functions_refuse_values_out_of_range(call: Any, message: str) -> None:
    with pytest.raises(ValueError, match=r".") as refusal:
        call()
    assert str(refusal.value) == message


FACTORS = {"lr": 1.0, "weight_decay": 1.0}
GROUPS: dict[str, Any] = {"bias": FACTORS, "norm_scale": FACTORS, "head": FACTORS}
SHARED: dict[str, Any] = {"momentum": 0.9, "weight_decay": 5e-4, "groups": GROUPS}
DIRECT: dict[str, Any] = {**SHARED, "parametrisation": "direct", "peak_lr": 0.4}
EFFECTIVE: dict[str, Any] = {**SHARED, "parametrisation": "effective", "effective_decay": 0.002}
PER_EXAMPLE: dict[str, Any] = {**SHARED, "parametrisation": "per_example", "per_example_lr": 0.4 / 512}


@pytest.mark.parametrize("config", [DIRECT, EFFECTIVE, PER_EXAMPLE])
@pytest.mark.parametrize("relative_error", [0.0, 5e-7, -5e-7])
def test_an_agreeing_config_has_no_problems(config: dict[str, Any], relative_error: float) -> None:
    assert check(config, 0.4 * (1 + relative_error), 512) == []


@pytest.mark.parametrize("peak_lr", [0.3, 0.400001])
@pytest.mark.parametrize(("config", "name"), [(EFFECTIVE, "effective_decay"), (PER_EXAMPLE, "per_example_lr")])
def test_a_second_statement_of_the_peak_lr_must_agree(config: Any, name: str, peak_lr: float) -> None:
    assert check(config, peak_lr, 512) == [
        f"schedule.peak_lr={peak_lr}: contradicts hyperparameters={config['parametrisation']}, which makes "
        f"it 0.4; set hyperparameters.{name}, or choose hyperparameters=direct"
    ]


def test_the_peak_lr_is_set_in_the_schedule_alone() -> None:
    problem = "hyperparameters.peak_lr=0.4: contradicts schedule.peak_lr=0.3; set only the latter"
    assert check(DIRECT, 0.3, 512) == [problem]


POLAR = "must be one of direct, effective, per_example"
MOMENTUM = "must be a number in [0, 1)"
KINDS = "must be a mapping with the keys bias, norm_scale, head"

REFUSED: list[tuple[dict[str, Any], str, list[Any], str]] = [
    (DIRECT, "parametrisation", ["polar", None, ["direct"]], POLAR),
    (DIRECT, "momentum", [1.0, -0.1, False, math.nan, "0.9", None], MOMENTUM),
    (DIRECT, "weight_decay", [-5e-4, math.inf, "5e-4", True, None], DECAY),
    (EFFECTIVE, "effective_decay", [0.0, -1, None], ABOVE),
    (EFFECTIVE, "weight_decay", [0], UNDEFINED.partition(": ")[2]),
    (PER_EXAMPLE, "per_example_lr", [0, math.inf], ABOVE),
    (DIRECT, "groups", [None, 64], KINDS),
]


@pytest.mark.parametrize(
    ("config", "name", "value", "allowed"),
    [(config, name, value, allowed) for config, name, values, allowed in REFUSED for value in values],
)
def test_each_problem_names_the_key_the_value_and_what_is_allowed(
    config: dict[str, Any], name: str, value: Any, allowed: str
) -> None:
    assert check({**config, name: value}, 0.4, 512) == [f"hyperparameters.{name}={value!r}: {allowed}"]


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"bias": 64}, "bias=64: must be a mapping with the keys lr, weight_decay"),
        ({"bias": {"lr": -1, "weight_decay": 1}}, f"bias.lr=-1: {DECAY}"),
        ({"head": {"lr": 1, "weight_decay": math.nan}}, f"head.weight_decay=nan: {DECAY}"),
        ({"head": {"lr": 1}}, "head.weight_decay: is missing; the keys are lr, weight_decay"),
        ({"head": {**FACTORS, "momentum": 1}}, "head.momentum: is unknown; the keys are lr, weight_decay"),
        ({"conv": FACTORS}, "conv: is unknown; the keys are bias, norm_scale, head"),
    ],
)
def test_the_factors_of_every_kind_are_checked(change: dict[str, Any], problem: str) -> None:
    config = {**DIRECT, "groups": GROUPS | change}
    assert check(config, 0.4, 512) == [f"hyperparameters.groups.{problem}"]


def test_a_kind_without_factors_is_missed() -> None:
    problem = "hyperparameters.groups.head: is missing; the keys are bias, norm_scale, head"
    assert check({**DIRECT, "groups": {"bias": FACTORS, "norm_scale": FACTORS}}, 0.4, 512) == [problem]


def test_zeros_are_fine_where_nothing_divides_by_them() -> None:
    groups = {**GROUPS, "norm_scale": {"lr": 0, "weight_decay": 0}}
    for config in (DIRECT, PER_EXAMPLE):
        assert check({**config, "weight_decay": 0, "momentum": 0, "groups": groups}, 0.4, 512) == []


def test_all_problems_come_at_once_even_without_a_peak_lr() -> None:
    broken = {**EFFECTIVE, "effective_decay": -1.0, "momentum": 1.0, "weight_decay": 0}
    assert check(broken, None, 0) == [
        f"hyperparameters.effective_decay=-1.0: {ABOVE}",
        "hyperparameters.momentum=1.0: must be a number in [0, 1)",
        "batch_size=0: must be an integer of at least 1",
        f"hyperparameters.{UNDEFINED}",
    ]


@pytest.fixture
def main_config(tmp_path: Path) -> Iterator[str]:
    """A main configuration of schedule, hyperparameters and batch size, beside an experiment."""
    for function in (peak_lr_from_effective_decay, peak_lr_from_per_example):
        OmegaConf.register_new_resolver(function.__name__, function, replace=True)
    (tmp_path / "experiment").mkdir()
    (tmp_path / "experiment" / "tuned.yaml").write_text(
        "# @package _global_\n"
        "defaults:\n  - override /hyperparameters: effective\n  - override /schedule: one_cycle_momentum\n"
        "hyperparameters:\n  effective_decay: 0.00256\n  momentum: 0.875\n  weight_decay: 0.00125\n"
    )
    (tmp_path / "main.yaml").write_text(
        "defaults:\n  - schedule: one_cycle\n  - hyperparameters: direct\n  - _self_\n  - experiment: null\n"
        f"batch_size: 512\nhydra:\n  searchpath: ['file://{CONF}']\n"
    )
    with initialize_config_dir(str(tmp_path), version_base="1.3"):
        yield "main"


def problems_of(config: DictConfig) -> list[str]:
    return check(config.hyperparameters, config.schedule.peak_lr, config.batch_size)


@pytest.mark.parametrize(
    ("overrides", "peak_lr"),
    [
        ([], 0.4),
        (["schedule.peak_lr=0.1"], 0.1),
        (["hyperparameters=effective"], 0.4),
        (["hyperparameters=effective", "hyperparameters.effective_decay=0.00512"], 1.024),
        (["hyperparameters=effective", "hyperparameters.weight_decay=0.001"], 0.2),
        (["hyperparameters=effective", "schedule=range_test"], 0.4),
        (["hyperparameters=per_example"], 0.4),
        (["hyperparameters=per_example", "batch_size=128"], 0.1),
        (["hyperparameters=per_example", "hyperparameters.per_example_lr=0.001"], 0.512),
        (["experiment=tuned"], 0.256),
    ],
)
def test_the_composed_peak_lr_follows_the_parametrisation(
    main_config: str, overrides: list[str], peak_lr: float
) -> None:
    config = compose(main_config, overrides)
    assert config.schedule.peak_lr == pytest.approx(peak_lr, rel=1e-12)
    assert problems_of(config) == []


@pytest.mark.parametrize("name", ["direct", "effective", "per_example"])
def test_the_composed_files_share_the_base_under_one_key(main_config: str, name: str) -> None:
    config = compose(main_config, [f"hyperparameters={name}", "hyperparameters.groups.bias.lr=64"])
    assert set(config) == {"schedule", "hyperparameters", "batch_size"}
    groups = {**GROUPS, "bias": {"lr": 64, "weight_decay": 1.0}}
    shared = {"parametrisation": name, "momentum": 0.9, "weight_decay": 5e-4, "groups": groups}
    own = {"direct": "peak_lr", "effective": "effective_decay", "per_example": "per_example_lr"}[name]
    assert config.hyperparameters == {**shared, own: config.hyperparameters[own]}


@pytest.mark.parametrize(
    ("overrides", "key"),
    [
        (["hyperparameters=effective", "schedule.peak_lr=0.3"], "schedule.peak_lr=0.3: contradicts"),
        (["hyperparameters=per_example", "schedule.peak_lr=0.3"], "schedule.peak_lr=0.3: contradicts"),
        (["hyperparameters.peak_lr=0.3"], "hyperparameters.peak_lr=0.3: contradicts schedule.peak_lr=0.4"),
        (["hyperparameters=base"], "hyperparameters.parametrisation=None: must be one of"),
    ],
)
def test_a_composed_contradiction_is_found(main_config: str, overrides: list[str], key: str) -> None:
    (problem,) = problems_of(compose(main_config, overrides))
    assert problem.startswith(key)
