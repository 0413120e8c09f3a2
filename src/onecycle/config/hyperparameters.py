"""Learning rate, momentum, weight decay and batch size, in three interchangeable sets of coordinates.

In symbols: λ is the peak learning rate for the *mean* loss of a batch, ρ the momentum, α the weight decay and
N the batch size. A gradient moves the weights by λ/(1−ρ) in total, so a convolution before batch norm, whose
scale the loss ignores, feels λ, ρ and α through their product λα/(1−ρ), the effective decay, alone once its norm
has settled. Three parametrisations follow:

    direct       (λ,        ρ, α)   the optimizer's own arguments
    effective    (λα/(1−ρ), ρ, α)   ρ and α can change while the dynamics stay nearly the same
    per_example  (λ/N,      ρ, α)   N can change while the trajectory stays nearly the same

Source: D. Page, "How to Train Your ResNet 5: Hyperparameters" and "6: Weight decay" (2018–19). All numbers
here belong to the peak of the schedule and to the constant momentum, also in a run that cycles its momentum.
"""

import math
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Self, TypeGuard

PARAMETRISATIONS = ("direct", "effective", "per_example")
PARAMETER_KINDS = ("bias", "norm_scale", "head")
FACTORS = ("lr", "weight_decay")

_ABOVE_ZERO = "a finite number above 0"
_RULES: dict[str, tuple[Callable[[float], bool], str]] = {
    "peak_lr": (lambda value: value > 0, _ABOVE_ZERO),
    "effective_decay": (lambda value: value > 0, _ABOVE_ZERO),
    "per_example_lr": (lambda value: value > 0, _ABOVE_ZERO),
    "momentum": (lambda value: 0 <= value < 1, "a number in [0, 1)"),
    "weight_decay": (lambda value: value >= 0, "a finite number of at least 0"),
    "batch_size": (lambda value: isinstance(value, int) and value >= 1, "an integer of at least 1"),
}


def is_finite_number(value: object) -> TypeGuard[float]:
    """Tell an int or float that a float can hold from a bool, NaN, an infinity and anything else."""
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= sys.float_info.max


def peak_lr_from_effective_decay(effective_decay: float, momentum: float, weight_decay: float) -> float:
    """Peak LR λ whose λα/(1−ρ) is `effective_decay`; also a resolver of the configuration.

    Raises ValueError for values out of range and for a weight decay of 0; one line names them all.
    """
    values = {"effective_decay": effective_decay, "momentum": momentum, "weight_decay": weight_decay}
    _require([*_range_problems(values), *_undefined_effective_decay(weight_decay)])
    return effective_decay * (1 - momentum) / weight_decay


def peak_lr_from_per_example(per_example_lr: float, batch_size: int) -> float:
    """Peak LR λ whose share of one example, λ/N, is `per_example_lr`; also a resolver of the configuration.

    Raises ValueError for values out of range; one line names them all.
    """
    _require(_range_problems({"per_example_lr": per_example_lr, "batch_size": batch_size}))
    return per_example_lr * batch_size


def steps_for_examples(examples: int, batch_size: int) -> int:
    """Steps that show at least `examples` images in batches of `batch_size`; also a resolver of the configuration."""
    _require(_range_problems({"batch_size": batch_size}))
    return -(-examples // batch_size)


@dataclass(frozen=True)
class Hyperparameters:
    """One point (λ, ρ, α, N); every other coordinate is a property.

    Raises ValueError for values out of range; one line names them all.
    """

    peak_lr: float
    momentum: float
    weight_decay: float
    batch_size: int

    def __post_init__(self) -> None:
        _require(_range_problems(vars(self)))

    @classmethod
    def from_effective(cls, effective_decay: float, momentum: float, weight_decay: float, batch_size: int) -> Self:
        """Point with this λα/(1−ρ); raises as `peak_lr_from_effective_decay` does."""
        return cls(
            peak_lr_from_effective_decay(effective_decay, momentum, weight_decay), momentum, weight_decay, batch_size
        )

    @classmethod
    def from_per_example(cls, per_example_lr: float, momentum: float, weight_decay: float, batch_size: int) -> Self:
        """Point with the per-example rate λ/N; raises as `peak_lr_from_per_example` does."""
        return cls(peak_lr_from_per_example(per_example_lr, batch_size), momentum, weight_decay, batch_size)

    @property
    def effective_lr(self) -> float:
        """Total contribution λ/(1−ρ) of one gradient to the weights, Nesterov included."""
        return self.peak_lr / (1 - self.momentum)

    @property
    def effective_decay(self) -> float:
        """λα/(1−ρ)."""
        return self.peak_lr * self.weight_decay / (1 - self.momentum)

    @property
    def per_example_lr(self) -> float:
        """λ/N."""
        return self.peak_lr / self.batch_size

    @property
    def relaxation_steps(self) -> float | None:
        """Steps (1−ρ)/(4λα) in which a scale-invariant weight forgets its first norm; None if never."""
        rate = 4 * self.peak_lr * self.weight_decay
        steps = (1 - self.momentum) / rate if rate > 0 else math.inf
        return steps if math.isfinite(steps) else None

    def coordinates(self) -> dict[str, float | None]:
        """Every coordinate by name, flat and valid as JSON, for a run's record."""
        derived = ("effective_lr", "effective_decay", "per_example_lr", "relaxation_steps")
        return {**vars(self), **{name: getattr(self, name) for name in derived}}


def check(hyperparameters: Mapping[str, Any], peak_lr: float | None, batch_size: int) -> list[str]:
    """Problems of a composed `hyperparameters` config, one line each: key, value, what is allowed.

    `peak_lr` is the run's `schedule.peak_lr`, or None where it could not be resolved. Its range is for the
    schedule to check; here it must agree with what the parametrisation says.
    """
    parametrisation = hyperparameters.get("parametrisation")
    names = {"effective": ["effective_decay"], "per_example": ["per_example_lr"]}.get(str(parametrisation), [])
    values = {name: hyperparameters.get(name) for name in [*names, "momentum", "weight_decay"]}
    problems = _range_problems(values, "hyperparameters.") + _range_problems({"batch_size": batch_size})
    if parametrisation not in PARAMETRISATIONS:
        allowed = ", ".join(PARAMETRISATIONS)
        problems.insert(0, f"hyperparameters.parametrisation={parametrisation!r}: must be one of {allowed}")
    if parametrisation == "effective":
        problems += [f"hyperparameters.{line}" for line in _undefined_effective_decay(values["weight_decay"])]
    if not problems and is_finite_number(peak_lr):
        problems = _contradictions(hyperparameters, peak_lr, batch_size)
    return problems + _group_problems(hyperparameters.get("groups"))


def _require(problems: list[str]) -> None:
    if problems:
        raise ValueError("; ".join(problems))


def _range_problems(values: Mapping[str, object], prefix: str = "") -> list[str]:
    problems = []
    for name, value in values.items():
        holds, allowed = _RULES[name]
        if not (is_finite_number(value) and holds(value)):
            problems.append(f"{prefix}{name}={value!r}: must be {allowed}")
    return problems


def _undefined_effective_decay(weight_decay: object) -> list[str]:
    if is_finite_number(weight_decay) and weight_decay == 0:
        return ["weight_decay=0: must be above 0, because the effective parametrisation divides by it"]
    return []


def _contradictions(hyperparameters: Mapping[str, Any], peak_lr: float, batch_size: int) -> list[str]:
    parametrisation = hyperparameters["parametrisation"]
    if parametrisation == "direct":
        own = hyperparameters.get("peak_lr")
        if is_finite_number(own) and _agree(own, peak_lr):
            return []
        return [f"hyperparameters.peak_lr={own!r}: contradicts schedule.peak_lr={peak_lr!r}; set only the latter"]
    if parametrisation == "effective":
        momentum, weight_decay = hyperparameters["momentum"], hyperparameters["weight_decay"]
        name, implied = (
            "effective_decay",
            peak_lr_from_effective_decay(hyperparameters["effective_decay"], momentum, weight_decay),
        )
    else:
        name = "per_example_lr"
        implied = peak_lr_from_per_example(hyperparameters["per_example_lr"], batch_size)
    if _agree(implied, peak_lr):
        return []
    return [
        f"schedule.peak_lr={peak_lr!r}: contradicts hyperparameters={parametrisation}, which makes it "
        f"{implied:.6g}; set hyperparameters.{name}, or choose hyperparameters=direct"
    ]


def _agree(a: float, b: float) -> bool:
    return math.isclose(a, b, rel_tol=1e-6)


def _group_problems(groups: object) -> list[str]:
    key = "hyperparameters.groups"
    problems = _key_problems(key, groups, PARAMETER_KINDS)
    if not isinstance(groups, Mapping):
        return problems
    for kind, factors in groups.items():
        if kind not in PARAMETER_KINDS:
            continue
        problems += _key_problems(f"{key}.{kind}", factors, FACTORS)
        for factor, value in factors.items() if isinstance(factors, Mapping) else ():
            if factor in FACTORS and not (is_finite_number(value) and value >= 0):
                problems.append(f"{key}.{kind}.{factor}={value!r}: must be a finite number of at least 0")
    return problems


def _key_problems(key: str, mapping: object, names: tuple[str, ...]) -> list[str]:
    allowed = ", ".join(names)
    if not isinstance(mapping, Mapping):
        return [f"{key}={mapping!r}: must be a mapping with the keys {allowed}"]
    missing = [f"{key}.{name}: is missing; the keys are {allowed}" for name in names if name not in mapping]
    return missing + [f"{key}.{name}: is unknown; the keys are {allowed}" for name in mapping if name not in names]
