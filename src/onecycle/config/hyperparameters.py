"""Learning rate, momentum, weight decay and batch size, in three interchangeable sets of coordinates.

In symbols: λ is the peak learning rate for the *mean* loss of a batch, ρ the momentum, α the weight decay and
N the batch size. A gradient moves the weights by λ/(1−ρ) in total. A convolution before batch norm, whose scale the
loss ignores, therefore feels λ, ρ and α through their product λα/(1−ρ) alone, the effective decay, once its norm has
settled. There are three parametrisations:

    direct       (λ,        ρ, α)   the optimizer's own arguments
    effective    (λα/(1−ρ), ρ, α)   ρ and α can change while the dynamics stay nearly the same
    per_example  (λ/N,      ρ, α)   N can change while the trajectory stays nearly the same

Source: D. Page, "How to Train Your ResNet 5: Hyperparameters" and "6: Weight decay" (2018–19). All numbers
here belong to the peak of the schedule and to the constant momentum, also in a run that cycles its momentum.
"""

import math
from dataclasses import dataclass
from typing import Any


def peak_lr_from_effective_decay(effective_decay: float, momentum: float, weight_decay: float) -> float:
    """Peak LR λ whose λα/(1−ρ) is `effective_decay`; a resolver of the configuration, as are the next two functions.

    They raise ValueError for values that are no numbers, or by which they cannot divide.
    """
    _require_numbers(effective_decay=effective_decay, momentum=momentum, weight_decay=weight_decay)
    if weight_decay <= 0:
        raise ValueError(f"weight_decay={weight_decay}: must be above 0, the effective parametrisation divides by it")
    return effective_decay * (1 - momentum) / weight_decay


def peak_lr_from_per_example(per_example_lr: float, batch_size: int) -> float:
    """Peak LR λ whose share of one example, λ/N, is `per_example_lr`."""
    _require_numbers(per_example_lr=per_example_lr, batch_size=batch_size)
    return per_example_lr * batch_size


def steps_for_examples(examples: int, batch_size: int) -> int:
    """Steps that show at least `examples` images in batches of `batch_size`."""
    _require_numbers(examples=examples, batch_size=batch_size)
    if batch_size < 1:
        raise ValueError(f"batch_size={batch_size}: must be at least 1")
    return -(-examples // batch_size)


def _require_numbers(**values: object) -> None:
    for name, value in values.items():
        if not isinstance(value, int | float) or isinstance(value, bool) or not -math.inf < value < math.inf:
            raise ValueError(f"{name}={value}: must be a finite number")


@dataclass(frozen=True)
class Hyperparameters:
    """One point (λ, ρ, α, N). The values are validated by the schema."""

    peak_lr: float
    momentum: float
    weight_decay: float
    batch_size: int

    def coordinates(self) -> dict[str, Any]:
        """Every coordinate by name, flat and valid as JSON, for a run's record.

        effective_lr, λ/(1−ρ), is the total contribution of one gradient to the weights, Nesterov included.
        relaxation_steps, (1−ρ)/(4λα), are those in which a scale-invariant weight forgets its norm; None if never.
        """
        rate = 4 * self.peak_lr * self.weight_decay
        steps = (1 - self.momentum) / rate if rate > 0 else math.inf
        return {
            **vars(self),
            "effective_lr": self.peak_lr / (1 - self.momentum),
            "effective_decay": self.peak_lr * self.weight_decay / (1 - self.momentum),
            "per_example_lr": self.peak_lr / self.batch_size,
            "relaxation_steps": steps if math.isfinite(steps) else None,
        }
