"""Options of the optimizers, of the weights' average and of the resizing. Nothing here imports torch."""

from itertools import pairwise
from typing import Annotated

from pydantic import AfterValidator, ConfigDict, Field

from onecycle.config.types import BelowOne, Count, Number, Options, allowed


class SgdOptions(Options):
    """Own keys of torch.optim.SGD; rate, momentum and weight decay come from the hyperparameters.

    Keys that are not listed here are arguments of its constructor.
    """

    model_config = ConfigDict(extra="allow")

    nesterov: bool = Field(False, description="Nesterov momentum")
    fused: bool | None = Field(None, description="update all parameters in one kernel; null leaves it to torch")


class MuonOptions(Options):
    """Own keys of onecycle.training.muon.Muon."""

    iterations: Annotated[int, Field(ge=1, le=100)] = Field(description="Newton-Schulz iterations a step")


OPTIMIZERS: dict[str, type[Options]] = {"torch.optim.SGD": SgdOptions, "onecycle.training.muon.Muon": MuonOptions}


CLASSIFICATION = "onecycle.training.tasks.Classification"
TASKS = dict.fromkeys(
    [CLASSIFICATION, *(f"onecycle.training.tasks.{name}" for name in ("Multilabel", "Regression"))], Options
)


class EmaOptions(Options):
    """Exponential moving average of the weights, which is what is tested."""

    decay_per_step: BelowOne = Field(
        description="share of the average that is left after a step; an update keeps its every_n_steps-th power"
    )
    every_n_steps: Count = Field(description="steps from one update of the average to the next")


def _from_zero_below_one(sides: list[list[float]]) -> list[list[float]]:
    starts = [start for start, _ in sides]
    rising = all(earlier < later for earlier, later in pairwise(starts))
    if not (starts[0] == 0 and starts[-1] < 1 and rising):
        raise ValueError("must be a list of [progress, side]: progress from 0 on, rising, below 1")
    if not all(12 <= side <= 512 if isinstance(side, int) else 0 < side <= 1 for _, side in sides):
        raise ValueError(
            "must be a list of [progress, side]: sides are pixels, whole numbers from 12 to 512, or fractions of the "
            "images' side up to 1.0"
        )
    return sides


# The key `resizing`: sides of the training images, each from its progress on.
Sides = Annotated[
    list[Annotated[list[Number], Field(min_length=2, max_length=2)]],
    Field(min_length=1),
    AfterValidator(_from_zero_below_one),
    allowed("a list of [progress, side in pixels, or as a fraction up to 1.0]"),
]
