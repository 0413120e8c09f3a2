"""From a validated configuration to the objects of a run."""

import contextlib
import logging
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import Checkpoint, LambdaCallback, ProgressBar
from lightning.pytorch.loggers import Logger
from lightning.pytorch.plugins.environments import LightningEnvironment
from omegaconf import OmegaConf
from torchmetrics import Metric

from onecycle.callbacks.checkpoint import Checkpoint as RunCheckpoint
from onecycle.callbacks.figures import Figures
from onecycle.callbacks.options import CALLBACKS
from onecycle.callbacks.twin import Average
from onecycle.config.compose import CONF
from onecycle.config.hyperparameters import Hyperparameters
from onecycle.config.schema import TrainOptions
from onecycle.config.targets import instantiate, takes
from onecycle.data import subsets
from onecycle.data.augment import NO_AUGMENTATION
from onecycle.data.datamodule import DataModule
from onecycle.data.sources import Dataset, DataUnavailableError, load
from onecycle.data.subsets import Smaller
from onecycle.errors import ConfigError
from onecycle.runs import environment
from onecycle.runs.loggers import RunContext, attach_all
from onecycle.runs.trained import Origin, TrainedRun, read_origin, start_from
from onecycle.training.classifier import Classifier
from onecycle.training.schedule import Constant, Schedule, TorchSchedule
from onecycle.training.tasks import Task, metrics_for, task_for

log = logging.getLogger("onecycle")

OWN_METRIC = re.compile("(train|val|test)/(loss|accuracy)")
WHITENING_IMAGES = 2_000  # 1.8 million patches for moments of 27 × 27


@contextlib.contextmanager
def value_errors_as_config_errors() -> Iterator[None]:
    """What the parts refuse on construction is an error of the configuration: lines, not a traceback."""
    try:
        yield
    except ConfigError:
        raise
    except ValueError as error:
        raise ConfigError(str(error).splitlines()) from error


def load_dataset(config: TrainOptions) -> tuple[TrainOptions, Dataset]:
    """The configuration that is used, and its data set.

    Only a data set that is neither here nor reachable is replaced, and only where data.fallback says so. The
    configuration then names in data.stands_in_for what is missing, and so does every record made from it.
    """
    source = instantiate(config.data.source, ("key", "decode"), "data.source")
    cache = Path(config.data.cache)
    try:
        return config, load(Smaller(source, config.data.side, cache) if config.data.side else source, cache)
    except DataUnavailableError as error:
        if config.data.fallback is None:
            raise
        log.warning("%s", error)
    conf = OmegaConf.load(CONF / "data" / f"{config.data.fallback}.yaml")
    changes = {"source": OmegaConf.to_container(conf.source), "classes": None, "stands_in_for": source.name}
    data, name = config.data.model_copy(update=changes), f"{config.name}-{config.data.fallback}"
    return load_dataset(config.model_copy(update={"data": data, "name": name}))


def choose_precision(config: TrainOptions) -> TrainOptions:
    """The configuration with trainer.precision resolved for this machine; the choice and its reason are logged."""
    chosen, reason = environment.choose(config.trainer.precision, environment.device_of(config.trainer.accelerator))
    log.info("Precision %s: %s.", chosen, reason)
    return config.model_copy(update={"trainer": config.trainer.model_copy(update={"precision": chosen})})


def load_origin(config: TrainOptions) -> tuple[TrainOptions, Origin | None]:
    """The configuration with the hash of the checkpoint in `init_from`, and what is taken from it.

    Raises ConfigError where the hash is given already, as in a run that is resumed, and is another.
    """
    origin = read_origin(config.init_from) if config.init_from else None
    found = origin.sha256 if origin else None
    if config.init_sha256 not in (None, found):
        raise ConfigError([f"init_from={config.init_from}: is not the checkpoint of init_sha256={config.init_sha256}"])
    return (config.model_copy(update={"init_sha256": found}) if origin else config), origin


def build_datamodule(config: TrainOptions, dataset: Dataset, **overrides: Any) -> DataModule:
    """The data module of a configuration.

    Training images come in the precision that the first convolution reads, rounded at once as autocast would: unless
    they are made smaller first, which is done in float32.
    """
    data = config.data
    arguments: dict[str, Any] = {
        "batch_size": config.batch_size, "evaluation_batch_size": config.evaluation.batch_size, "seed": config.seed,
        "augmentation": data.augment, "classes": data.classes,
        "subset_size": data.subset_size, "subset_seed": data.subset_seed, "val_size": data.val_size,
        "dtype": torch.float32 if config.resizing else environment.INPUTS.get(config.trainer.precision, torch.float32),
    }  # fmt: skip
    return DataModule(dataset, **(arguments | overrides))


def total_steps(config: TrainOptions, datamodule: DataModule) -> int:
    """Steps of the whole run, at least one; raises ConfigError where the images do not fit batch size or resizing."""
    pixels = datamodule.splits["train"].pixels
    unfit = subsets.size_problems(config.batch_size, len(pixels), config.resizing, min(pixels.shape[1:3]))
    if unfit:
        raise ConfigError(unfit)
    return config.trainer.max_steps or max(1, round(config.trainer.max_epochs * datamodule.steps_per_epoch))


def check_monitors(config: TrainOptions, datamodule: DataModule, steps: int) -> None:
    """Raise ConfigError for callbacks that monitor what this run does not log, or logs only after its training."""
    parts = {name: part for name, part in (config.callbacks or {}).items() if part}
    split, every, errors = datamodule.monitored, config.evaluation.every_n_epochs, []
    task, metrics = _task(config, datamodule)
    known = [f"{split}/{name}" for name in ("loss", task.score, *metrics)]
    # A callback from elsewhere may log metrics of its own.
    closed = all("monitor" in part or part["_target_"] in CALLBACKS for part in parts.values())
    for name, part in parts.items():
        monitor, saves = part.get("monitor"), "Checkpoint" in part["_target_"]
        line = f"callbacks.{name}.monitor={monitor}: "
        if monitor in known or str(monitor).startswith(tuple(f"{split}/{name}/" for name in metrics)):
            # Lightning's ModelCheckpoint writes nothing then, or the last state; its EarlyStopping raises an error.
            if not every or (steps < every * datamodule.steps_per_epoch and not saves):
                errors.append(f"{line}the run ends before it is known; evaluation.every_n_epochs={every}")
        elif monitor is None or (saves and monitor in ("epoch", "step")):
            continue
        elif OWN_METRIC.fullmatch(str(monitor)) or closed:
            errors.append(f"{line}this run logs {' and '.join(known)}")
    if errors:
        raise ConfigError(errors)


def build_classifier(
    config: TrainOptions, datamodule: DataModule, steps: int, origin: Origin | None = None
) -> Classifier:
    """Network and recipe, initialised from the seed alone, or as far as they fit with the weights of another run."""
    with torch.random.fork_rng():
        torch.manual_seed(config.seed)
        network = instantiate(config.model, torch.nn.Module, "model", classes=len(datamodule.classes))
    if origin:
        log.info("init_from=%s: %s.", config.init_from, start_from(origin, network, datamodule.classes))
    if getattr(network, "needs_whitening", False):
        network.fit_whitening(datamodule.normalized(WHITENING_IMAGES))
    h, settings = config.hyperparameters, dict(config.optimizer)
    schedule = instantiate(config.schedule, Schedule, "schedule")
    if isinstance(schedule, TorchSchedule):
        schedule.fill(_rates(schedule.scheduler, schedule.peak_lr, steps))
    # A fused optimizer unscales the gradients itself: too late for them to be clipped, and where the very first ones
    # overflow it skips the step but leaves the momentum that it allocated unset.
    if "fused" in settings and (config.trainer.gradient_clip_val or config.trainer.precision == "16-mixed"):
        settings["fused"] = None
    task, metrics = _task(config, datamodule)
    return Classifier(
        network, task=task, metrics=metrics, schedule=schedule, groups=h.groups.model_dump(), optimizer=settings,
        total_steps=steps,
        hyperparameters=Hyperparameters(schedule.peak_lr, _momentum(config), h.weight_decay, config.batch_size),
        resizing=config.resizing, tta=config.evaluation.tta, compile_network=config.trainer.compile,
        cuda_graph=config.trainer.cuda_graph,
    )  # fmt: skip


def _task(config: TrainOptions, datamodule: DataModule) -> tuple[Task, dict[str, Metric]]:
    labels = datamodule.splits["train"].labels
    task = task_for(labels, config.task, config.label_smoothing)
    return task, metrics_for(labels, task, config.metrics, datamodule.classes)


def _momentum(config: TrainOptions) -> float:
    """The momentum ρ, 0 for an optimizer without; raises ConfigError for hyperparameters that do not apply to it."""
    h, target = config.hyperparameters, config.optimizer["_target_"]
    if h.weight_decay and not takes(config.optimizer, "weight_decay"):
        raise ConfigError([f"hyperparameters.weight_decay={h.weight_decay}: {target} has none; set 0"])
    if takes(config.optimizer, "momentum"):
        return h.momentum
    if h.parametrisation == "effective":
        raise ConfigError([f"hyperparameters.parametrisation=effective: {target} has no momentum ρ; take direct"])
    log.info("hyperparameters.momentum does not apply to %s.", target)
    return 0.0


def _rates(part: Mapping[str, Any], peak_lr: float, steps: int) -> list[tuple[float, float | None]]:
    """Learning rate and momentum that a scheduler of torch sets in each step; None where it leaves momentum alone."""
    key, rates = "schedule.scheduler", []
    optimizer = torch.optim.SGD([torch.zeros(1)], lr=peak_lr, momentum=0.5)
    filled = {"optimizer": optimizer, "max_lr": peak_lr, "total_steps": steps, "T_max": steps}
    arguments = {name: value for name, value in filled.items() if takes(part, name) and name not in part}
    scheduler = instantiate(part, torch.optim.lr_scheduler.LRScheduler, key, **arguments)
    for _ in range(steps):
        rates.append((float(optimizer.param_groups[0]["lr"]), optimizer.param_groups[0]["momentum"]))
        optimizer.step()
        try:
            scheduler.step()
        except TypeError as error:  # one that wants a metric
            raise ConfigError([f"{key}._target_={part['_target_']}: {error}"]) from None
    is_driven = any(momentum != 0.5 for _, momentum in rates)
    return [(lr, momentum if is_driven else None) for lr, momentum in rates]


def build_trainer(
    config: TrainOptions, folder: Path, steps: int, *, progress: bool, check: Callable[[], None] = lambda: None
) -> pl.Trainer:
    """Lightning's Trainer with this run's callbacks and loggers, which are not attached to the run yet.

    progress: false leaves the bar out. check: raises where the folder is another process's now.
    """
    # Ahead of everything that is written: Lightning calls the checkpoint's callback last.
    owned = LambdaCallback(on_train_batch_end=lambda *_: check(), on_train_epoch_end=lambda *_: check())
    callbacks: list[pl.Callback] = [owned, *_built(config.callbacks, pl.Callback, "callbacks")]
    if not progress:
        callbacks = [callback for callback in callbacks if not isinstance(callback, ProgressBar)]
    if config.ema:
        callbacks.append(Average(config.ema.decay_per_step, config.ema.every_n_steps))
    callbacks.sort(key=lambda callback: isinstance(callback, RunCheckpoint))  # last: it saves what the others hold
    # A logger whose run has no name is given that of the folder: all runs of a sweep have the same `config.name`.
    named = {
        key: part and part | {name: folder.name for name in ("name", "run_name") if name in part and part[name] is None}
        for key, part in (config.logger or {}).items()
    }
    loggers = _built(named, Logger, "logger")
    every = config.evaluation.every_n_epochs
    trainer = instantiate(
        config.trainer.arguments(), pl.Trainer, "trainer",
        max_epochs=-1, max_steps=steps, logger=loggers, callbacks=callbacks, num_sanity_val_steps=0,
        check_val_every_n_epoch=every or 1, limit_val_batches=1.0 if every else 0,
        enable_progress_bar=any(isinstance(callback, ProgressBar) for callback in callbacks),
        enable_checkpointing=any(isinstance(callback, Checkpoint) for callback in callbacks),
        enable_model_summary=False, use_distributed_sampler=False, default_root_dir=folder,
        plugins=[LightningEnvironment()],  # who started the processes is known: see processes.py
    )  # fmt: skip
    assert isinstance(trainer, pl.Trainer)
    return trainer


def attach(trainer: pl.Trainer, run: RunContext) -> None:
    """Give the run to the callbacks and loggers of its Trainer, which may write from now on."""
    attach_all([*trainer.callbacks, *trainer.loggers], run)  # type: ignore[attr-defined]


def _built(parts: Mapping[str, Any] | None, kind: type, group: str) -> list[Any]:
    return [instantiate(part, kind, f"{group}.{name}") for name, part in (parts or {}).items() if part]


def for_testing(
    run: TrainedRun, dataset: Dataset, metrics: Mapping[str, Any] | None = None
) -> tuple[Classifier, DataModule]:
    """A trained classifier and the images to test it on, normalised as in its training.

    The data set's classes must be among those of the run. Raises ValueError where none is.
    """
    foreign = [name for name in dataset.classes if name not in run.classes]
    if len(foreign) == len(dataset.classes):
        raise ValueError(f"data: none of its classes ({', '.join(foreign)}) is one of {', '.join(run.classes)}")
    if foreign:
        log.warning("The classes %s are unknown to the network: their images are left out.", ", ".join(foreign))
    options = run.description.evaluation
    datamodule = DataModule(
        dataset.only(run.classes), batch_size=1, evaluation_batch_size=options.batch_size, seed=0,
        augmentation=NO_AUGMENTATION, classes=None, subset_size=None, subset_seed=0, val_size=0,
        normalization=run.normalization,
    )  # fmt: skip
    labels = datamodule.splits["test"].labels
    task = task_for(labels, run.description.task)
    classifier = Classifier(
        run.network, tta=options.tta, compile_network=False, cuda_graph=False, task=task,
        metrics=metrics_for(labels, task, metrics or {}, datamodule.classes),
        # Nothing is trained.
        schedule=Constant(peak_lr=1.0), hyperparameters=Hyperparameters(1.0, 0.0, 0.0, 1), total_steps=1, groups={},
        optimizer={}, resizing=None,
    )  # fmt: skip
    return classifier, datamodule


def build_evaluator(accelerator: str, precision: Any, folder: Path, *, figures: bool) -> pl.Trainer:
    """A Trainer that only tests."""
    callbacks: list[pl.Callback] = [Figures(mistakes=25)] if figures else []
    attach_all(callbacks, RunContext(folder))
    return pl.Trainer(
        accelerator=accelerator, devices=1, logger=False, precision=precision, callbacks=callbacks,
        enable_progress_bar=False, enable_model_summary=False, enable_checkpointing=False,
    )  # fmt: skip
