"""Learning-rate and momentum curves as pure functions of the progress t of a run, t in [0, 1].

A curve knows no steps, epochs or optimizer: the classifier does. Nothing here imports torch.

Sources: L. N. Smith and N. Topin, "Super-Convergence: Very Fast Training of Neural Networks Using Large Learning
Rates" (2017), for one cycle, the opposite cycle of momentum and the range test; D. Page, "How to Train Your ResNet"
(2018–19) and its repository cifar10-fast for the triangle that ends at 0.
"""

import math
from abc import ABC, abstractmethod
from bisect import bisect_right
from collections.abc import Sequence
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, Field, PrivateAttr, model_validator

from onecycle.config.types import Fraction, NonNegativeNumber, Options, PositiveNumber

Pair = Annotated[list[Fraction], Field(min_length=2, max_length=2)]


def _falling(momentum_range: list[float]) -> list[float]:
    high, low = momentum_range
    if not 1 > high >= low:
        raise ValueError("must be null or [high, low] with 1 > high >= low >= 0")
    return momentum_range


def _rising_to_one(knots: list[list[float]]) -> list[list[float]]:
    times, fractions = zip(*knots, strict=True)
    if list(times) != sorted(times) or max(fractions) != 1:
        raise ValueError("must be in the order of progress, with a largest fraction of 1; peak_lr sets the height")
    return knots


MomentumRange = Annotated[Pair, AfterValidator(_falling)]


class Schedule(Options, ABC):
    """Base of the curves: a peak learning rate (for the mean loss), and constant momentum unless overridden."""

    peak_lr: PositiveNumber = Field(description="highest learning rate, for the mean loss of a batch")

    @abstractmethod
    def lr(self, t: float) -> float:
        """Learning rate at progress t."""

    def momentum(self, t: float, base: float) -> float:
        """Momentum at progress t; `base` for a curve that keeps it constant."""
        return base


class OneCycle(Schedule):
    """One rise from `start` × peak LR to the peak at progress `peak_at`, one fall to `end` × peak LR at 1.

    With `peak_at` 0 there is no rise and with 1 no fall; the first or last value is then the peak itself.
    """

    peak_at: Fraction = Field(description="progress at which the peak is reached")
    start: Fraction = Field(description="fraction of the peak before the first step")
    end: Fraction = Field(description="fraction of the peak at the last step")
    shape: Literal["linear", "cosine"] = Field(description="form of the rise and of the fall")
    momentum_range: MomentumRange | None = Field(
        description="[high, low]: momentum from high at 0 to low at the peak and back; null keeps it constant"
    )

    def lr(self, t: float) -> float:
        """Learning rate at progress t."""
        return self.peak_lr * self._cycle(t, self.start, 1.0, self.end)

    def momentum(self, t: float, base: float) -> float:
        """Momentum at progress t, whatever `start` and `end` are."""
        high, low = self.momentum_range or (base, base)
        return self._cycle(t, high, low, high)

    def _cycle(self, t: float, first: float, middle: float, last: float) -> float:
        knots = [(0.0, first), (self.peak_at, middle), (1.0, last)]
        # A fall of no length would be a jump at 1, and its later value would hide the peak.
        return _interpolate(knots[:2] if self.peak_at == 1 else knots, t, cosine=self.shape == "cosine")


class Knots(Schedule):
    """Straight lines through `knots`, constant before the first and after the last.

    Two knots at the same progress are a jump, and the value there is the later one's: so a step schedule is written.
    """

    knots: Annotated[list[Pair], Field(min_length=1), AfterValidator(_rising_to_one)] = Field(
        description="[progress, fraction of the peak], in the order of progress, with a largest fraction of 1"
    )
    momentum_range: MomentumRange | None = Field(
        description="[high, low]: momentum high at fraction 0, low at fraction 1; null keeps it constant"
    )

    def lr(self, t: float) -> float:
        """Learning rate at progress t."""
        return self.peak_lr * _interpolate(self.knots, t)

    def momentum(self, t: float, base: float) -> float:
        """Momentum at progress t."""
        high, low = self.momentum_range or (base, base)
        return _blend(high, low, _interpolate(self.knots, t))


class Constant(Schedule):
    """The peak LR from the first step to the last."""

    def lr(self, t: float) -> float:
        """Learning rate at progress t."""
        return self.peak_lr


class WarmupConstant(Schedule):
    """A linear rise from 0 over the progress [0, `warmup`], then the peak LR; no rise with `warmup` 0."""

    warmup: Fraction = Field(description="progress at which the peak is reached")

    def lr(self, t: float) -> float:
        """Learning rate at progress t."""
        return _interpolate([(0.0, 0.0), (self.warmup, self.peak_lr)], t)


class RangeTest(Schedule):
    """A rise from `start_lr` at progress 0 to `peak_lr` at 1: with equal ratios of steps, or linear."""

    start_lr: NonNegativeNumber = Field(description="learning rate before the first step, below peak_lr")
    shape: Literal["exponential", "linear"] = Field(description="form of the rise; exponential has equal ratios")

    def lr(self, t: float) -> float:
        """Learning rate at progress t."""
        if self.shape == "linear":
            return _interpolate([(0.0, self.start_lr), (1.0, self.peak_lr)], t)
        # Written so that both ends are exact: x**1 is x and x**0 is 1.
        return float(self.start_lr ** (1 - t) * self.peak_lr**t)

    @model_validator(mode="after")
    def _rises(self) -> Self:
        if self.start_lr >= self.peak_lr:
            raise ValueError(f"start_lr={self.start_lr}: must be below peak_lr={self.peak_lr}")
        if self.start_lr == 0 and self.shape == "exponential":
            raise ValueError("start_lr=0: must be above 0 with shape=exponential")
        return self


class TorchSchedule(Schedule):
    """A scheduler of torch.optim that is stepped after every batch, as the table of what it sets in each step.

    The table is made for the run's number of steps, which the scheduler gets as `total_steps` or `T_max`; peak_lr is
    the optimizer's rate, which it starts from, and its `max_lr`.
    """

    scheduler: dict[str, Any] = Field(description="the scheduler: its class in _target_, beside it its arguments")
    _rates: list[tuple[float, float | None]] = PrivateAttr(default_factory=list)

    def fill(self, rates: list[tuple[float, float | None]]) -> None:
        """Take the learning rate of each step, and the momentum or None where the scheduler leaves it alone."""
        self._rates[:] = rates

    def lr(self, t: float) -> float:
        """Learning rate at progress t."""
        return self._rates[max(round(t * len(self._rates)), 1) - 1][0]

    def momentum(self, t: float, base: float) -> float:
        """Momentum at progress t."""
        momentum = self._rates[max(round(t * len(self._rates)), 1) - 1][1]
        return base if momentum is None else momentum


CURVES = (OneCycle, Knots, Constant, WarmupConstant, RangeTest, TorchSchedule)
SCHEDULES: dict[str, type[Schedule]] = {f"{curve.__module__}.{curve.__name__}": curve for curve in CURVES}


def _interpolate(knots: Sequence[Sequence[float]], t: float, cosine: bool = False) -> float:
    right = bisect_right(knots, t, key=lambda knot: knot[0])
    if right == 0 or right == len(knots):
        return knots[max(right - 1, 0)][1]
    (left_t, left_value), (right_t, right_value) = knots[right - 1], knots[right]
    fraction = (t - left_t) / (right_t - left_t)
    return _blend(left_value, right_value, (1 - math.cos(math.pi * fraction)) / 2 if cosine else fraction)


def _blend(first: float, last: float, fraction: float) -> float:
    # Measured from the nearer end, so that both ends, and a constant stretch, come out exact.
    rise = last - first
    return first + rise * fraction if fraction < 0.5 else last - rise * (1 - fraction)
