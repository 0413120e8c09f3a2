"""Keys of the callbacks and loggers of this package, by the dotted path of the class. Nothing here imports torch."""

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, create_model

from onecycle.config.types import Count, CountOrZero, Fraction, NonNegativeNumber, Options, PositiveNumber, Seed, Text

PRUNED = "pruned"  # user attribute of a trial whose run was pruned
# The pruners of a search, and what they are called in `optuna.pruners`.
PRUNERS = {
    "none": "NopPruner", "median": "MedianPruner", "percentile": "PercentilePruner", "hyperband": "HyperbandPruner",
    "halving": "SuccessiveHalvingPruner",
}  # fmt: skip


def _different(fractions: list[float]) -> list[float]:
    if len({f"{fraction:g}" for fraction in fractions}) < len(fractions):
        raise ValueError("must be different fractions")
    return fractions


def _odd(points: int) -> int:
    if points % 2 == 0:
        raise ValueError("must be odd, so that one point is the weights themselves")
    return points


Fractions = Annotated[list[Fraction], Field(min_length=1), AfterValidator(_different)]
OddCount = Annotated[Count, Field(ge=3), AfterValidator(_odd)]


def _keys(**fields: tuple[Any, Any]) -> type[Options]:
    """A class of options with these fields: type and description each."""
    return create_model("Keys", __base__=Options, **fields)  # type: ignore[call-overload]


CALLBACKS: dict[str, type[Options]] = {
    "onecycle.callbacks.progress.Progress": _keys(
        refresh_per_second=(PositiveNumber, Field(description="how often the bar is drawn at most")),
    ),
    "onecycle.callbacks.progress.TrainingLog": Options,
    "onecycle.callbacks.checkpoint.Checkpoint": _keys(
        every_n_minutes=(PositiveNumber, Field(description="longest time between two checkpoints")),
        every_n_steps=(Count | None, Field(description="besides, a checkpoint after each so many steps", default=None)),
    ),
    "onecycle.callbacks.divergence.Divergence": _keys(
        max_loss=(PositiveNumber, Field(description="a mean loss above this ends the run as diverged")),
        every_n_steps=(Count, Field(description="steps whose mean loss is compared with max_loss")),
    ),
    "onecycle.callbacks.figures.Figures": _keys(
        mistakes=(Count, Field(description="how many wrongly answered images are shown, highest loss first")),
    ),
    "onecycle.callbacks.probes.FinalLoss": _keys(
        images=(Count, Field(description="training images that are measured")),
        test_images=(CountOrZero, Field(description="test images that are measured; 0 leaves them out", default=0)),
    ),
    "onecycle.callbacks.probes.Recency": _keys(
        average=(Count, Field(description="batches whose mean is one number of the curve")),
    ),
    "onecycle.callbacks.probes.GradientNorms": _keys(
        at=(
            Fractions,
            Field(description="fractions of training, different, each in [0, 1]: 0 is the first step, 1 the last"),
        ),
    ),
    "onecycle.callbacks.probes.StepBreakdown": _keys(
        steps=(Count, Field(description="steps that are profiled")),
    ),
    "onecycle.callbacks.surface.LossSurface": _keys(
        images=(Count, Field(description="training images whose loss is measured at each point")),
        points=(OddCount, Field(description="points along each side of the grid, odd")),
        extent=(PositiveNumber, Field(description="half the side of the grid, in norms of the filters")),
        seed=(Seed, Field(description="seed of the two directions")),
    ),
    "onecycle.callbacks.twin.Twin": _keys(
        lr=(PositiveNumber, Field(description="factor of the learning rate of the copy's convolutions")),
        weight_decay=(NonNegativeNumber, Field(description="factor of the weight decay of the copy's convolutions")),
        weight_scale=(PositiveNumber, Field(description="factor of the copy's convolutions at the start")),
    ),
    "onecycle.callbacks.pruning.Pruning": _keys(
        storage=(Text, Field(description="the study's storage: a database's URL, or journal:PATH")),
        study=(Text, Field(description="name of the Optuna study")),
        trial=(CountOrZero, Field(description="the trial's id in the storage")),
        pruner=(
            Literal["none", "median", "percentile", "hyperband", "halving"],
            Field(description="kind of the pruner"),
        ),
        pruner_options=(dict[str, Any], Field(description="arguments of the pruner's class")),
    ),
}
LOGGERS: dict[str, type[Options]] = {
    "onecycle.runs.loggers.TensorBoard": Options,
    "onecycle.runs.loggers.Csv": Options,
}
