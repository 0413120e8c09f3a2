"""Learning-rate and momentum curves as pure functions of the progress t of a run, t in [0, 1].

A curve knows no steps, epochs or optimizer: `progress` turns a step into t once, and `set_learning_rate`
hands the values to an optimizer's parameter groups.

Sources: L. N. Smith and N. Topin, "Super-Convergence: Very Fast Training of Neural Networks Using Large
Learning Rates" (2017), for one cycle, the opposite cycle of momentum and the range test; D. Page, "How to
Train Your ResNet" (2018–19) and its repository cifar10-fast for the triangle that ends at 0.
"""

import math
from abc import ABC, abstractmethod
from bisect import bisect_right
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from onecycle.config.hyperparameters import is_finite_number

SHAPES: dict[str, Callable[[float], float]] = {
    "linear": lambda fraction: fraction,
    "cosine": lambda fraction: (1 - math.cos(math.pi * fraction)) / 2,
}

Rule = tuple[str, bool, str]  # a field's name, whether its value is valid, what is allowed


def progress(step: int, total_steps: int) -> float:
    """Progress k/T at which step k of 1..T is applied.

    The first step is thus above the start of the curve and the last one ends it exactly, as in cifar10-fast,
    whose optimizer counts a step before it reads the schedule. Raises ValueError for any other step.
    """
    if not 1 <= step <= total_steps:
        raise ValueError(f"step={step}: must be from 1, the first step, to total_steps={total_steps}, the last")
    return step / total_steps


def set_learning_rate(groups: Iterable[dict[str, Any]], lr: float, momentum: float) -> None:
    """Write `lr` times its own `lr_multiplier`, and `momentum`, into each of an optimizer's parameter groups.

    Raises ValueError for an optimizer without momentum, on which half of the schedule would have no effect.
    """
    for group in groups:
        if "momentum" not in group:
            raise ValueError("optimizer: its parameter groups hold no 'momentum'; use torch.optim.SGD")
        group["lr"] = lr * group["lr_multiplier"]
        group["momentum"] = momentum


@dataclass(frozen=True)
class Schedule(ABC):
    """Base of the curves: a peak learning rate (for the mean loss), and constant momentum unless overridden.

    Every curve raises ValueError on construction, one line per problem: name, value, what is allowed.
    """

    peak_lr: float

    def __post_init__(self) -> None:
        values = vars(self)
        problems = [f"{name}={values[name]!r}: must be {rule}" for name, ok, rule in self._rules() if not ok]
        if problems:
            raise ValueError("\n".join(problems))
        # A config hands over its own mutable lists; tuples keep the curve immutable and comparable.
        for name, value in values.items():
            object.__setattr__(self, name, _as_tuples(value))

    def lr(self, t: float) -> float:
        """Learning rate at progress t; raises ValueError for t outside [0, 1]."""
        _require_progress(t)
        return self._lr(t)

    def momentum(self, t: float, base: float) -> float:
        """Momentum at progress t, `base` for a curve that does not cycle it; raises as `lr` does."""
        _require_progress(t)
        return self._momentum(t, base)

    def at(self, t: float, base: float) -> tuple[float, float]:
        """Learning rate and momentum at progress t; raises as `lr` does."""
        return self.lr(t), self.momentum(t, base)

    @abstractmethod
    def _lr(self, t: float) -> float: ...

    def _momentum(self, t: float, base: float) -> float:
        return base

    def _rules(self) -> list[Rule]:
        return [("peak_lr", is_finite_number(self.peak_lr) and self.peak_lr > 0, "a finite number above 0")]


@dataclass(frozen=True)
class OneCycle(Schedule):
    """One rise from `start` × peak LR to the peak at progress `peak_at`, one fall to `end` × peak LR at 1.

    With `peak_at` 0 there is no rise and with 1 no fall; the first or last value is then the peak itself.
    Each leg has the `shape` "linear" or "cosine". `momentum_range` [high, low] moves the momentum from high
    at 0 to low at the peak and back to high at 1, whatever `start` and `end` are; None keeps it constant.
    """

    peak_at: float
    start: float
    end: float
    shape: str
    momentum_range: Sequence[float] | None

    def _lr(self, t: float) -> float:
        return self.peak_lr * self._cycle(t, self.start, 1.0, self.end)

    def _momentum(self, t: float, base: float) -> float:
        high, low = self.momentum_range or (base, base)
        return self._cycle(t, high, low, high)

    def _cycle(self, t: float, first: float, middle: float, last: float) -> float:
        knots = [(0.0, first), (self.peak_at, middle), (1.0, last)]
        # A fall of no length would be a jump at 1, and its later value would hide the peak.
        return _interpolate(knots[:2] if self.peak_at == 1 else knots, t, self.shape)

    def _rules(self) -> list[Rule]:
        fractions = [_fraction_rule(name, getattr(self, name)) for name in ("peak_at", "start", "end")]
        shape = ("shape", self.shape in tuple(SHAPES), "linear or cosine")
        return [*super()._rules(), *fractions, shape, _momentum_rule(self.momentum_range)]


@dataclass(frozen=True)
class Knots(Schedule):
    """Straight lines through `knots`, a list of [progress, fraction of the peak LR].

    Progress never decreases. Two knots at the same progress are a jump, and the value there is the later
    one's; so a step schedule can be written. The LR is constant before the first and after the last knot. The
    largest fraction is 1, so that `peak_lr` is the peak. `momentum_range` [high, low] puts the momentum at
    high where the fraction is 0, at low where it is 1, and linearly between; None keeps it constant.
    """

    knots: Sequence[Sequence[float]]
    momentum_range: Sequence[float] | None

    def _lr(self, t: float) -> float:
        return self.peak_lr * _interpolate(self.knots, t)

    def _momentum(self, t: float, base: float) -> float:
        high, low = self.momentum_range or (base, base)
        return _blend(high, low, _interpolate(self.knots, t))

    def _rules(self) -> list[Rule]:
        pairs = _is_list(self.knots) and all(_is_pair(knot, _is_fraction) for knot in self.knots)
        times, fractions = zip(*self.knots, strict=True) if pairs else ((0.0,), (1.0,))
        return [
            *super()._rules(),
            ("knots", pairs, "a list of at least one [progress, fraction of peak_lr], both in [0, 1]"),
            ("knots", list(times) == sorted(times), "in the order of progress"),
            ("knots", max(fractions) == 1, "scaled to a largest fraction of 1; peak_lr sets the height"),
            _momentum_rule(self.momentum_range),
        ]


@dataclass(frozen=True)
class Constant(Schedule):
    """The peak LR from the first step to the last."""

    def _lr(self, t: float) -> float:
        return self.peak_lr


@dataclass(frozen=True)
class WarmupConstant(Schedule):
    """A linear rise from 0 over the progress [0, `warmup`], then the peak LR; no rise with `warmup` 0."""

    warmup: float

    def _lr(self, t: float) -> float:
        return _interpolate([(0.0, 0.0), (self.warmup, self.peak_lr)], t)

    def _rules(self) -> list[Rule]:
        return [*super()._rules(), _fraction_rule("warmup", self.warmup)]


@dataclass(frozen=True)
class RangeTest(Schedule):
    """A rise from `start_lr` at 0 to `peak_lr` at 1: "exponential" (equal ratios of steps) or "linear"."""

    start_lr: float
    shape: str

    def _lr(self, t: float) -> float:
        if self.shape == "linear":
            return _interpolate([(0.0, self.start_lr), (1.0, self.peak_lr)], t)
        # Written so that both ends are exact: x**1 is x and x**0 is 1.
        return float(self.start_lr ** (1 - t) * self.peak_lr**t)

    def _rules(self) -> list[Rule]:
        start, peak = self.start_lr, self.peak_lr
        valid = is_finite_number(start) and (start > 0 or (start == 0 and self.shape == "linear"))
        return [
            *super()._rules(),
            ("start_lr", valid, "a finite number above 0 (or 0 with shape=linear)"),
            ("start_lr", not (valid and is_finite_number(peak)) or start < peak, f"below peak_lr={peak!r}"),
            ("shape", self.shape in ("exponential", "linear"), "exponential or linear"),
        ]


def _interpolate(knots: Sequence[Sequence[float]], t: float, shape: str = "linear") -> float:
    right = bisect_right(knots, t, key=lambda knot: knot[0])
    if right == 0 or right == len(knots):
        return knots[max(right - 1, 0)][1]
    (left_t, left_value), (right_t, right_value) = knots[right - 1], knots[right]
    return _blend(left_value, right_value, SHAPES[shape]((t - left_t) / (right_t - left_t)))


def _blend(first: float, last: float, fraction: float) -> float:
    # Measured from the nearer end, so that both ends, and a constant stretch, come out exact.
    if fraction < 0.5:
        return first + (last - first) * fraction
    return last - (last - first) * (1 - fraction)


def _require_progress(t: float) -> None:
    if not 0 <= t <= 1:
        raise ValueError(f"t={t!r}: must be a progress in [0, 1]; make it with progress(step, total_steps)")


def _is_list(value: object) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, str) and len(value) > 0


def _as_tuples(value: Any) -> Any:
    return tuple(map(_as_tuples, value)) if _is_list(value) else value


def _is_pair(value: Any, valid: Callable[[object], bool]) -> bool:
    return _is_list(value) and len(value) == 2 and all(map(valid, value))


def _is_fraction(value: object) -> bool:
    return is_finite_number(value) and 0 <= value <= 1


def _fraction_rule(name: str, value: object) -> Rule:
    return name, _is_fraction(value), "a number in [0, 1]"


def _momentum_rule(value: Any) -> Rule:
    valid = value is None or (_is_pair(value, is_finite_number) and 1 > value[0] >= value[1] >= 0)
    return "momentum_range", valid, "null or [high, low] with 1 > high >= low >= 0"
