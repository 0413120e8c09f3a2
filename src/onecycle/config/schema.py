"""Every key of a training and of an evaluation, once: its type, its range and its meaning. Defaults stand in conf/.

The options of a component (what a `_target_` names) stand in a class beside it; `COMPONENTS` collects those classes. A
component from elsewhere is passed through: its constructor checks its own arguments. Nothing here imports torch.
"""

import math
import sys
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

from pydantic import AfterValidator, ConfigDict, Field, model_validator

from onecycle.callbacks.options import CALLBACKS, LOGGERS
from onecycle.config.hyperparameters import peak_lr_from_effective_decay, peak_lr_from_per_example
from onecycle.config.types import (
    BelowOne,
    Count,
    CountOrZero,
    FolderName,
    FolderPath,
    NonNegativeNumber,
    Number,
    Options,
    PositiveNumber,
    Seed,
    Text,
    allowed,
)
from onecycle.data.options import SOURCES, AugmentOptions
from onecycle.models.options import ResNet9Options
from onecycle.training.options import CLASSIFICATION, OPTIMIZERS, TASKS, EmaOptions, Sides
from onecycle.training.schedule import SCHEDULES

# What a configuration may name in `_target_`. Add your own package here.
ALLOWED_TARGETS = ("onecycle", "torch.optim", "torch.nn", "torchmetrics", "lightning.pytorch")

# The classes of this package's components and what each takes, by the group in which they are named.
COMPONENTS: dict[str, Mapping[str, type[Options]]] = {
    "model": {"onecycle.models.resnet9.ResNet9": ResNet9Options}, "schedule": SCHEDULES, "optimizer": OPTIMIZERS,
    "schedule.scheduler": {}, "data.source": SOURCES, "callbacks": CALLBACKS, "logger": LOGGERS,
    "task": TASKS, "metrics": {},
}  # fmt: skip

# What cannot change a result: names, places, what is shown, how often it is written down, which device computes.
NO_EFFECT = (
    "name", "tags", "output", "resume", "study",
    "data.root", "data.cache", "data.fallback", "data.stands_in_for",
    "data.source.root", "data.source.download",
    "logger", "callbacks.progress", "callbacks.training_log", "callbacks.checkpoint", "callbacks.figures",
    "callbacks.pruning",  # the status of a run that it ended says so
    "evaluation.batch_size", "evaluation.every_n_epochs",
    "trainer.accelerator", "trainer.threads",
    "trainer.log_every_n_steps", "trainer.benchmark", "trainer.deterministic", "trainer.detect_anomaly",
)  # fmt: skip

# Classes that an earlier version had elsewhere: what its runs wrote is read with the new paths.
MOVED = {
    "onecycle.schedule.": "onecycle.training.schedule.",
    "onecycle.muon.": "onecycle.training.muon.",
    "onecycle.loggers.": "onecycle.runs.loggers.",
    "onecycle.callbacks.training_log.": "onecycle.callbacks.progress.",
}

NO_TARGET = "must name its class in _target_"
Precision = Literal["auto", "16-mixed", "bf16-mixed", "bf16-true", "32-true"]
Accelerator = Literal["auto", "cpu", "gpu", "cuda", "mps"]


def _with_target(component: dict[str, Any]) -> dict[str, Any]:
    if not isinstance(component.get("_target_"), str):
        raise ValueError(NO_TARGET)
    return component


def _class_names(names: list[str]) -> list[str]:
    if len(names) < 2 or len(set(names)) < len(names):
        raise ValueError("must be null or a list of at least two different class names")
    return names


def _subset(size: int | float) -> int | float:
    if not math.isfinite(size) or not (0 < size <= 1 if isinstance(size, float) else size >= 1):
        raise ValueError("must be null, a count of at least 1, or a fraction above 0.0 up to 1.0")
    return size


def _different(devices: list[int]) -> list[int]:
    if len(set(devices)) < len(devices):
        raise ValueError("must be different numbers")
    return devices


Component = Annotated[dict[str, Any], AfterValidator(_with_target), allowed("a group of keys with a _target_")]
Metrics = Annotated[
    dict[str, Component | None], allowed("a name for each metric, without /, with a group of keys with a _target_")
]
SubsetSize = Annotated[
    Annotated[int, Field(le=10**9)] | float,
    AfterValidator(_subset),
    allowed("a count of at least 1, or a fraction above 0.0 up to 1.0"),
]
Devices = Annotated[
    Literal["auto"] | Count | Annotated[list[CountOrZero], Field(min_length=1), AfterValidator(_different)],
    allowed("auto, a count of at least 1, or a list of different device numbers"),
]


class DataOptions(Options):
    """The data set, which of its images are used, and how they are augmented."""

    source: Component = Field(description="where the images come from")
    root: FolderPath = Field(description="folder of the data set")
    cache: FolderPath = Field(description="folder for decoded images, one file for each data set")
    fallback: Literal["synthetic"] | None = Field(description="the data set to take where this one cannot be had")
    stands_in_for: Text | None = Field(None, description="set by the program: the data set that a fallback replaced")
    side: Annotated[int, Field(ge=12, le=512)] | None = Field(
        None, description="make all images smaller first, by area averaging, to so many pixels; null: as they are"
    )
    classes: Annotated[list[Text], AfterValidator(_class_names)] | None = Field(description="classes to restrict to")
    subset_size: SubsetSize | None = Field(description="training images, class-balanced; null: all")
    subset_seed: Seed = Field(description="seed of the choice of images")
    val_size: CountOrZero = Field(description="training images held out for validation, in no subset")
    augment: AugmentOptions = Field(description="what is drawn for each training image")


class EvaluationOptions(Options):
    """How a network is tested."""

    batch_size: Count = Field(description="images a batch")
    tta: Literal["flip", "none"] = Field(description="also average the logits of each image and its mirror image")
    every_n_epochs: CountOrZero = Field(description="evaluate every n epochs while training; 0: only at the end")


class FactorsOptions(Options):
    """Factors of one kind of parameter."""

    lr: NonNegativeNumber = Field(description="factor on the learning rate")
    weight_decay: NonNegativeNumber = Field(description="factor on the weight decay")


class GroupsOptions(Options):
    """Factors on learning rate and weight decay by kind of parameter; all other parameters have 1."""

    bias: FactorsOptions = Field(description="β of norms, biases of convolutions and of the head")
    norm_scale: FactorsOptions = Field(description="γ of norms")
    head: FactorsOptions = Field(description="weight of the last linear layer")


class HyperparametersOptions(Options):
    """Momentum ρ, weight decay α, and one of three ways to say the peak learning rate λ; N is the batch size."""

    parametrisation: Literal["direct", "effective", "per_example"] = Field(
        description="what sets λ: schedule.peak_lr, effective_decay or per_example_lr"
    )
    momentum: BelowOne = Field(description="ρ")
    weight_decay: NonNegativeNumber = Field(description="α")
    groups: GroupsOptions = Field(description="factors by kind of parameter")
    peak_lr: Number | None = Field(None, description="set by schedule.peak_lr, with parametrisation direct")
    effective_decay: PositiveNumber | None = Field(None, description="λα/(1−ρ), with parametrisation effective")
    per_example_lr: PositiveNumber | None = Field(None, description="λ/N, with parametrisation per_example")

    def contradiction(self, peak_lr: float, batch_size: int) -> str | None:
        """The error line where the schedule's peak learning rate is not the one that the parametrisation says."""
        if self.parametrisation == "effective" and self.effective_decay and self.weight_decay:
            key = "effective_decay"
            implied = peak_lr_from_effective_decay(self.effective_decay, self.momentum, self.weight_decay)
        elif self.parametrisation == "per_example" and self.per_example_lr:
            key, implied = "per_example_lr", peak_lr_from_per_example(self.per_example_lr, batch_size)
        else:
            key, implied = "peak_lr", self.peak_lr or 0.0
        if math.isclose(implied, peak_lr, rel_tol=1e-6):
            return None
        if key == "peak_lr":
            return f"hyperparameters.peak_lr={implied}: contradicts schedule.peak_lr={peak_lr}; set only the latter"
        return (
            f"schedule.peak_lr={peak_lr}: contradicts hyperparameters={self.parametrisation}, which makes it "
            f"{implied:.6g}; set hyperparameters.{key}, or choose hyperparameters=direct"
        )


class TrainerOptions(Options):
    """Lightning's Trainer. Keys that are not listed here are arguments of its constructor."""

    model_config = ConfigDict(extra="allow")
    # Arguments of the constructor that the program gives itself, or that loader, schedule or record do not follow.
    NOT_TAKEN: ClassVar[dict[str, str]] = {
        **dict.fromkeys(
            ("min_epochs", "min_steps", "num_sanity_val_steps", "enable_progress_bar", "enable_model_summary",
             "enable_checkpointing", "use_distributed_sampler", "default_root_dir", "plugins"), "is set by the program",
        ),
        "logger": "loggers are keys below logger",
        "callbacks": "callbacks are keys below callbacks",
        "accumulate_grad_batches": "every batch is a step of the schedule and of the record; set batch_size",
        "limit_train_batches": "an epoch is every full batch of the subset; set data.subset_size or trainer.max_steps",
        "overfit_batches": "an epoch is every full batch of the subset; set data.subset_size",
        "limit_val_batches": "the held-out images are evaluated as a whole; set data.val_size",
        "limit_test_batches": "the test images are tested as a whole",
        "limit_predict_batches": "nothing is predicted while training",
        "val_check_interval": "the network is evaluated at the end of epochs; set evaluation.every_n_epochs",
        "check_val_every_n_epoch": "set evaluation.every_n_epochs",
        "fast_dev_run": "a run leaves its record; take experiment=debug or trainer.max_steps",
        "barebones": "a run leaves its record",
        "reload_dataloaders_every_n_epochs": "the images stay on the device; every epoch draws its own augmentation",
    }  # fmt: skip
    # Keys that Lightning's constructor is not given.
    OWN: ClassVar[tuple[str, ...]] = ("compile", "cuda_graph", "threads", "max_epochs", "max_steps")

    accelerator: Accelerator = Field(description="kind of device")
    devices: Devices = Field(description="how many of them, or which")
    num_nodes: Count = Field(description="machines")
    strategy: Annotated[
        Literal["auto", "ddp"],
        allowed("auto or ddp; Muon, ema and the probes need whole parameters, which fsdp and deepspeed share out"),
    ] = Field(description="ddp: one process for each device")
    precision: Precision = Field(description="number format; auto: what the device is fast in")
    max_epochs: Annotated[Number, Field(ge=1e-6, le=10**6)] = Field(description="epochs, also a fraction of one")
    max_steps: Count | None = Field(description="steps in place of epochs")
    log_every_n_steps: Count = Field(description="steps between two lines of the log")
    gradient_clip_val: PositiveNumber | None = Field(description="largest norm of the gradient")
    deterministic: bool | Literal["warn"] = Field(description="only operations that repeat exactly")
    benchmark: bool = Field(description="let cuDNN choose its convolutions by trial")
    detect_anomaly: bool = Field(description="an error at the first gradient that is NaN")
    compile: bool | Literal["reduce-overhead", "max-autotune", "max-autotune-no-cudagraphs"] = Field(
        description="compile the network with torch.compile, or in this mode of it"
    )
    cuda_graph: bool = Field(True, description="replay a step as one CUDA graph, where nothing in the run forbids it")
    threads: Annotated[Count, Field(le=1024)] | None = Field(
        description="CPU threads; null: one for each core, or as many as a container's quota allows"
    )
    sync_batchnorm: bool = Field(False, description="batch norm over the whole batch of several GPUs")
    gradient_clip_algorithm: Literal["norm", "value"] | None = Field(None, description="how the gradient is clipped")
    inference_mode: bool = Field(True, description="evaluate in torch.inference_mode, else in torch.no_grad")
    profiler: Literal["simple", "advanced", "pytorch"] | None = Field(None, description="a profiler of Lightning")
    max_time: str | dict[str, int] | None = Field(None, description="longest fit, as Lightning's Timer takes it")

    def arguments(self) -> dict[str, Any]:
        """What the constructor is given, its `_target_` included."""
        return self.model_dump(exclude=set(self.OWN), exclude_unset=True)


class TrainOptions(Options):
    """The configuration of `onecycle-train`."""

    name: FolderName = Field(description="part of the folder's name and of the record")
    tags: list[Text] = Field([], description="words of your own for the record and TensorBoard")
    seed: Annotated[int, Field(ge=0, le=2**32 - 1)] = Field(description="seed of weights, order and augmentation")
    batch_size: Count = Field(description="images a step, over all devices together (N)")
    label_smoothing: BelowOne = Field(description="share of the target that is spread over all classes")
    ema: EmaOptions | None = Field(description="exponential moving average of all weights and buffers")
    resizing: Sides | None = Field(description="smaller training images to begin with")
    data: DataOptions = Field(description="data set, subset and augmentation")
    evaluation: EvaluationOptions = Field(description="how the network is tested")
    task: Component = Field({"_target_": CLASSIFICATION}, description="what is learnt: loss and score")
    metrics: Metrics = Field({}, description="further metrics of the validation and test images, of torchmetrics")
    model: Component = Field(description="the network")
    schedule: Component = Field(description="learning rate and momentum over the run")
    hyperparameters: HyperparametersOptions = Field(description="momentum, weight decay and how λ is set")
    optimizer: Component = Field(description="the optimizer")
    trainer: TrainerOptions = Field(description="Lightning's Trainer")
    callbacks: dict[str, Component | None] | None = Field(None, description="what accompanies a run")
    logger: dict[str, Component | None] | None = Field(None, description="where curves are written")
    output: FolderPath = Field(description="folder in which runs/, sweeps/ and studies/ are made")
    resume: FolderPath | None = Field(description="folder of the interrupted run to go on with")
    init_from: FolderPath | None = Field(None, description="a finished run, or a checkpoint in one, to start from")
    init_sha256: Text | None = Field(None, description="set by the program: SHA-256 of that checkpoint")
    study: dict[str, Any] | None = Field(None, description="a study, see docs/studies.md")

    @model_validator(mode="after")
    def _consistent(self) -> "TrainOptions":
        peak_lr = self.schedule.get("peak_lr")
        if isinstance(peak_lr, int | float) and 0 < peak_lr <= sys.float_info.max:
            line = self.hyperparameters.contradiction(peak_lr, self.batch_size)
            if line:
                raise ValueError(line)
        if self.trainer.sync_batchnorm and self.model.get("norm") == "ghost":
            raise ValueError("trainer.sync_batchnorm=true: must be false with model.norm=ghost, which it would replace")
        return self


class EvaluatedDataOptions(DataOptions):
    """The data set of an evaluation: by default that of the run, looked for in `root`."""

    source: Component | None = Field(  # type: ignore[assignment] # what a training cannot leave out
        None, description="another data set of the same classes, as in training"
    )


class EvaluateOptions(Options):
    """The configuration of `onecycle-evaluate`."""

    run: FolderPath = Field(description="folder of a finished run")
    checkpoint: Text = Field(description="file in the run's checkpoints/, or any path")
    data: EvaluatedDataOptions = Field(description="the images, and where they are")
    metrics: Metrics = Field({}, description="further metrics of the test images, of torchmetrics")
    allow: list[Text] = Field(description="further packages whose networks may be built")
    figures: bool = Field(description="also draw the confusion matrix and the worst errors")
    precision: Precision | None = Field(description="number format; null: the run's own")
    accelerator: Accelerator | None = Field(description="kind of device; null: the run's own, if it is here")
