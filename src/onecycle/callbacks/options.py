"""Options of the callbacks and loggers of this package, by the dotted path of the class. Nothing here imports torch."""

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field

from onecycle.config.types import Count, CountOrZero, Fraction, NonNegativeNumber, Options, PositiveNumber, Seed, Text

PRUNED = "pruned"  # user attribute of a trial whose run was pruned
Pruner = Literal["none", "median", "percentile", "hyperband", "halving"]  # of a search
# What they are called in `optuna.pruners`.
PRUNERS = {
    "none": "NopPruner", "median": "MedianPruner", "percentile": "PercentilePruner", "hyperband": "HyperbandPruner",
    "halving": "SuccessiveHalvingPruner",
}  # fmt: skip


class ProgressOptions(Options):
    """Options of the progress bar."""

    refresh_per_second: PositiveNumber = Field(description="how often the bar is drawn at most")


class CheckpointOptions(Options):
    """Options of the checkpoints."""

    every_n_minutes: PositiveNumber = Field(description="longest time between two checkpoints")
    every_n_steps: Count | None = Field(None, description="besides, a checkpoint after each so many steps")


class DivergenceOptions(Options):
    """Options of the check for a loss that is lost."""

    max_loss: PositiveNumber = Field(description="a mean loss above this ends the run as diverged")
    every_n_steps: Count = Field(description="steps whose mean loss is compared with max_loss")


class FiguresOptions(Options):
    """Options of a run's figures."""

    mistakes: Count = Field(description="how many wrongly answered images are shown, highest loss first")


class FinalLossOptions(Options):
    """Options of the loss of the final network."""

    images: Count = Field(description="training images that are measured")
    test_images: CountOrZero = Field(0, description="test images that are measured; 0 leaves them out")


class RecencyOptions(Options):
    """Options of the losses of the last epoch's batches."""

    average: Count = Field(description="batches whose mean is one number of the curve")


def _different(fractions: list[float]) -> list[float]:
    if len({f"{fraction:g}" for fraction in fractions}) < len(fractions):
        raise ValueError("must be different fractions")
    return fractions


class GradientNormsOptions(Options):
    """Options of the gradients' norms."""

    at: Annotated[list[Fraction], Field(min_length=1), AfterValidator(_different)] = Field(
        description="fractions of training, different, each in [0, 1]: 0 is the first step, 1 the last"
    )
    every_n_steps: Count | None = Field(None, description="the norms also go to the loggers, each so many steps")


class StepBreakdownOptions(Options):
    """Options of the profile of a step."""

    steps: Count = Field(description="steps that are profiled")


def _odd(points: int) -> int:
    if points % 2 == 0:
        raise ValueError("must be odd, so that one point is the weights themselves")
    return points


class LossSurfaceOptions(Options):
    """Options of the loss surface."""

    images: Count = Field(description="training images whose loss is measured at each point")
    points: Annotated[Count, Field(ge=3), AfterValidator(_odd)] = Field(
        description="points along each side of the grid, odd"
    )
    extent: PositiveNumber = Field(description="half the side of the grid, in norms of the filters")
    seed: Seed = Field(description="seed of the two directions")


class TwinOptions(Options):
    """Options of the rescaled copy of the network, as factors of the run's own values."""

    lr: PositiveNumber = Field(description="factor of the learning rate of the copy's convolutions")
    weight_decay: NonNegativeNumber = Field(description="factor of the weight decay of the copy's convolutions")
    weight_scale: PositiveNumber = Field(description="factor of the copy's convolutions at the start")


class PruningOptions(Options):
    """What a search by Optuna hands to its runs."""

    storage: Text = Field(description="the study's storage: a database's URL, or journal:PATH")
    study: Text = Field(description="name of the Optuna study")
    trial: CountOrZero = Field(description="the trial's id in the storage")
    pruner: Pruner = Field(description="kind of the pruner")
    pruner_options: dict[str, Any] = Field(description="arguments of the pruner's class")


CALLBACKS: dict[str, type[Options]] = {
    "onecycle.callbacks.progress.Progress": ProgressOptions,
    "onecycle.callbacks.progress.TrainingLog": Options,
    "onecycle.callbacks.checkpoint.Checkpoint": CheckpointOptions,
    "onecycle.callbacks.divergence.Divergence": DivergenceOptions,
    "onecycle.callbacks.figures.Figures": FiguresOptions,
    "onecycle.callbacks.probes.FinalLoss": FinalLossOptions,
    "onecycle.callbacks.probes.Recency": RecencyOptions,
    "onecycle.callbacks.probes.GradientNorms": GradientNormsOptions,
    "onecycle.callbacks.probes.StepBreakdown": StepBreakdownOptions,
    "onecycle.callbacks.surface.LossSurface": LossSurfaceOptions,
    "onecycle.callbacks.twin.Twin": TwinOptions,
    "onecycle.callbacks.pruning.Pruning": PruningOptions,
}
# Lightning's callbacks that loader, schedule and record do not follow.
CALLBACKS_NOT_TAKEN = {
    "GradientAccumulationScheduler": "every batch is a step of the schedule and of the record; set batch_size",
    "BatchSizeFinder": "the schedule and the record follow from the batch size; set batch_size",
    "LearningRateFinder": "the schedule sets the learning rate; take study=lr_range_test",
    "StochasticWeightAveraging": "the schedule sets the learning rate; set ema",
}
LOGGERS: dict[str, type[Options]] = {
    "onecycle.runs.loggers.TensorBoard": Options,
    "onecycle.runs.loggers.Csv": Options,
}
