"""From a checked configuration to the objects of a run."""

import contextlib
import logging
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.loggers import Logger
from lightning.pytorch.plugins.environments import LightningEnvironment
from omegaconf import DictConfig, OmegaConf

from onecycle.callbacks.average import Average
from onecycle.callbacks.ownership import Ownership
from onecycle.config import checks as config
from onecycle.config.checks import CONF, instantiate
from onecycle.config.hyperparameters import Hyperparameters
from onecycle.data import room
from onecycle.data.augment import Augmentation
from onecycle.data.datamodule import DataModule
from onecycle.data.sources import Dataset, DataUnavailableError, Source, Split, load
from onecycle.errors import ConfigError
from onecycle.runs import checkpoints
from onecycle.runs.loggers import TensorBoard
from onecycle.training import precision
from onecycle.training.classifier import Classifier
from onecycle.training.resizing import Resizing
from onecycle.training.schedule import Schedule

log = logging.getLogger("onecycle")

SOURCE = ("key", "decode")  # what makes a class a source of images
WHITENING_IMAGES = 2_000  # 1.8 million patches for moments of 27 × 27


@contextlib.contextmanager
def value_errors_as_config_errors() -> Iterator[None]:
    """What the parts refuse on construction is a mistake in the configuration: shown in a line, not as a traceback."""
    try:
        yield
    except ConfigError:
        raise
    except ValueError as error:
        raise ConfigError(str(error).splitlines()) from error


def load_dataset(cfg: DictConfig, keep: bool = True) -> tuple[DictConfig, Dataset, Source]:
    """The config that is used, the data set and its source.

    Only a data set that is neither here nor reachable is replaced, and only where data.fallback says so; the config
    then names in data.stands_in_for what is missing, and so does every record made from it. keep: false writes no
    cache, into a folder that somebody else has named.
    """
    source = instantiate(cfg.data.source, SOURCE)
    try:
        return cfg, load(source, Path(cfg.data.cache), keep), source
    except DataUnavailableError as error:
        if cfg.data.fallback is None:
            raise
        log.warning("%s", error)
    replaced = cfg.copy()
    OmegaConf.set_struct(replaced, False)
    replaced.data.source = OmegaConf.load(CONF / "data" / f"{cfg.data.fallback}.yaml").source
    replaced.data.classes = None  # the embedded set has classes of its own
    replaced.data.stands_in_for = source.name
    replaced.name = f"{cfg.name}-{cfg.data.fallback}"
    stand_in = instantiate(replaced.data.source, SOURCE)
    return replaced, load(stand_in, Path(cfg.data.cache), keep), stand_in


def device_of(accelerator: str) -> torch.device:
    """The kind of device that Lightning will train on."""
    if accelerator == "cpu" or (accelerator == "auto" and not torch.accelerator.is_available()):
        return torch.device("cpu")
    if accelerator != "auto" and not torch.accelerator.is_available():
        raise ConfigError([f"trainer.accelerator={accelerator}: there is none on this machine; take auto or cpu"])
    current = torch.accelerator.current_accelerator()
    assert current is not None
    return current


def choose_precision(cfg: DictConfig) -> DictConfig:
    """The config with trainer.precision resolved for this machine; the choice and its reason are logged."""
    chosen, reason = precision.choose(cfg.trainer.precision, device_of(cfg.trainer.accelerator))
    log.info("Precision %s: %s.", chosen, reason)
    resolved = cfg.copy()
    resolved.trainer.precision = chosen
    return resolved


def build_datamodule(cfg: DictConfig, dataset: Dataset, **overrides: Any) -> DataModule:
    """The data module of a config.

    Training images come in the precision that the first convolution reads, rounded as autocast would, at once: unless
    they are made smaller first, which is done in float32.
    """
    data = cfg.data
    dtype = torch.float32 if cfg.resizing else precision.INPUTS.get(cfg.trainer.precision, torch.float32)
    arguments = {
        "batch_size": cfg.batch_size, "evaluation_batch_size": cfg.evaluation.batch_size, "seed": cfg.seed,
        "augmentation": Augmentation(**data.augment), "classes": data.classes and list(data.classes),
        "subset_size": data.subset_size, "subset_seed": data.subset_seed, "val_size": data.val_size,
        "dtype": dtype,
    }  # fmt: skip
    return DataModule(dataset, **{**arguments, **overrides})


def total_steps(cfg: DictConfig, datamodule: DataModule) -> int:
    """Steps of the whole run, at least one; raises ConfigError where the subset holds no full batch."""
    if not datamodule.steps_per_epoch:
        raise ConfigError(room.batch_problems(cfg.batch_size, len(datamodule.splits["train"].labels)))
    return cfg.trainer.max_steps or max(1, round(cfg.trainer.max_epochs * datamodule.steps_per_epoch))


def build_classifier(cfg: DictConfig, datamodule: DataModule, steps: int) -> Classifier:
    """Network and recipe, initialised from the seed alone."""
    with torch.random.fork_rng():
        torch.manual_seed(cfg.seed)
        network = instantiate(cfg.model, torch.nn.Module, classes=len(datamodule.classes))
    too_large = room.side_problems(cfg.resizing, min(datamodule.splits["train"].pixels.shape[1:]))
    if too_large:
        raise ConfigError(too_large)
    if getattr(network, "needs_whitening", False):
        network.fit_whitening(datamodule.normalized(WHITENING_IMAGES))
    return _classifier(cfg, network, steps)


def _classifier(cfg: DictConfig, network: torch.nn.Module, total_steps: int) -> Classifier:
    h = cfg.hyperparameters
    return Classifier(
        network,
        schedule=instantiate(cfg.schedule, Schedule),
        hyperparameters=Hyperparameters(cfg.schedule.peak_lr, h.momentum, h.weight_decay, cfg.batch_size),
        groups=config.plain(h.groups),
        optimizer=_optimizer(cfg),
        total_steps=total_steps,
        label_smoothing=cfg.label_smoothing,
        resizing=Resizing(config.plain(cfg)["resizing"]) if cfg.resizing else None,
        tta=cfg.evaluation.tta,
        compile_network=cfg.trainer.compile,
    )


def _optimizer(cfg: DictConfig) -> dict[str, Any]:
    """The optimizer's config; a fused one unscales the gradients itself, too late for them to be clipped before."""
    settings = config.plain(cfg.optimizer)
    return settings | ({"fused": None} if cfg.trainer.gradient_clip_val and "fused" in settings else {})


def build_trainer(
    cfg: DictConfig,
    folder: Path,
    steps: int,
    key: Mapping[str, Any],
    *,
    steps_done: int,
    progress: bool,
    check: Callable[[], None] = lambda: None,
) -> pl.Trainer:
    """Lightning's Trainer with this run's callbacks and loggers, writing into `folder`.

    key: what a run that goes on from one of its checkpoints must agree in. steps_done: those of a resumed run's
    checkpoint, else 0. progress: false leaves the bar out. check: raises where the folder is another process's now.
    """
    if cfg.trainer.threads:
        torch.set_num_threads(cfg.trainer.threads)
    arguments: dict[str, dict[str, Any]] = {
        "checkpoint": {"folder": str(folder), "run": key},
        "figures": {"folder": str(folder)},
    }
    wanted = {name: part for name, part in (cfg.callbacks or {}).items() if part and (progress or name != "progress")}
    callbacks: list[pl.Callback] = [Ownership(check)]
    callbacks += [instantiate(part, pl.Callback, **arguments.get(name, {})) for name, part in wanted.items()]
    if cfg.ema:
        callbacks.append(Average(decay=cfg.ema.decay, update_every_n_steps=cfg.ema.every_n_steps))
    parts = [part for part in (cfg.logger or {}).values() if part]
    loggers = [instantiate(part, Logger, folder=str(folder), steps_done=steps_done) for part in parts]
    for board in loggers:
        if isinstance(board, TensorBoard) and not steps_done:
            board.write_layout()
    every = cfg.evaluation.every_n_epochs
    own = ("compile", "threads", "max_epochs", "max_steps")
    trainer = instantiate(
        {key: value for key, value in config.plain(cfg.trainer).items() if key not in own},
        pl.Trainer,
        max_epochs=-1, max_steps=steps, logger=loggers, callbacks=callbacks, num_sanity_val_steps=0,
        check_val_every_n_epoch=every or 1, limit_val_batches=1.0 if every else 0,
        enable_progress_bar="progress" in wanted, enable_model_summary=False,
        enable_checkpointing="checkpoint" in wanted, use_distributed_sampler=False,
        plugins=[LightningEnvironment()],  # who started the processes is known: see processes.py
    )  # fmt: skip
    assert isinstance(trainer, pl.Trainer)
    if cfg.batch_size % trainer.world_size:
        raise ValueError(f"batch_size={cfg.batch_size}: does not divide among {trainer.world_size} devices")
    return trainer


def restore(cfg: DictConfig, dataset: Dataset, checkpoint: Path, classes: list[str]) -> tuple[Classifier, DataModule]:
    """A trained classifier and the images to test it on, normalised as in its training.

    classes: the names behind the logits; the data set's classes must be among them. Only tensors and plain values
    are unpickled. Raises ValueError for a checkpoint that cannot be read or that fits another network.
    """
    try:
        saved = checkpoints.load(checkpoint)
        weights = {name.removeprefix("network."): value for name, value in saved["state_dict"].items()}
        normalization = tuple(tuple(part) for part in saved["onecycle"]["normalization"])
    except (checkpoints.DamagedError, AttributeError, KeyError, TypeError) as error:
        raise ValueError(f"checkpoint={checkpoint}: cannot be read ({error})") from None
    dataset = _with_classes(dataset, classes)
    datamodule = build_datamodule(cfg, dataset, normalization=normalization, classes=None, subset_size=None, val_size=0)
    with torch.random.fork_rng():
        network = instantiate(cfg.model, torch.nn.Module, classes=len(classes))
    try:
        network.load_state_dict(weights)
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:200]
        raise ValueError(f"checkpoint={checkpoint}: is not of this network: {reason}") from None
    return _classifier(cfg, network, total_steps=1), datamodule


def _with_classes(dataset: Dataset, classes: list[str]) -> Dataset:
    """The data set with its labels numbered as in `classes`; images of other classes are refused."""
    foreign = [name for name in dataset.classes if name not in classes]
    if len(foreign) == len(dataset.classes):
        raise ValueError(f"data: none of its classes ({', '.join(dataset.classes)}) is one of {', '.join(classes)}")
    number = torch.tensor([classes.index(name) if name in classes else -1 for name in dataset.classes])

    def renumbered(split: Split) -> Split:
        labels = number[split.labels]
        known = labels >= 0
        return Split(split.pixels, labels) if known.all() else Split(split.pixels[known], labels[known])

    if foreign:
        log.warning("The classes %s are unknown to the network: their images are left out.", ", ".join(foreign))
    return replace(dataset, classes=tuple(classes), train=renumbered(dataset.train), test=renumbered(dataset.test))


def build_evaluator(cfg: DictConfig, folder: Path, *, figures: bool) -> pl.Trainer:
    """A Trainer that only tests, in the precision of the config."""
    if cfg.trainer.threads:
        torch.set_num_threads(cfg.trainer.threads)
    callbacks = (
        [instantiate(cfg.callbacks.figures, pl.Callback, folder=str(folder))]
        if figures and cfg.callbacks.figures
        else []
    )
    return pl.Trainer(
        accelerator=cfg.trainer.accelerator, devices=1, precision=cfg.trainer.precision, logger=False,
        callbacks=callbacks, enable_progress_bar=False, enable_model_summary=False, enable_checkpointing=False,
    )  # fmt: skip
