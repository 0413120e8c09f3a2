"""What a run says at its start and its end: messages, the record's entries, the tables of results."""

import logging
import math
import shlex
import sys
import threading
import time
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.loggers import TensorBoardLogger
from rich.panel import Panel
from torchmetrics.functional.classification import multiclass_confusion_matrix

from onecycle.config.validate import flat
from onecycle.data.datamodule import DataModule
from onecycle.errors import masked
from onecycle.runs import processes
from onecycle.runs import record as run
from onecycle.runs.environment import environment, peak_memory
from onecycle.runs.identity import override_key, settings
from onecycle.runs.table import console, print_table
from onecycle.training.classifier import Classifier
from onecycle.training.tasks import Classification

log = logging.getLogger("onecycle")

NOT_HERE = (
    ".*does not have many workers.*",  # the loader needs none: its data are on the device already
    ".*is smaller than the logging interval.*",
    ".*You have overridden `on_after_batch_transfer`.*",  # the classifier's is meant: it knows the run's progress
    ".*LeafSpec.*is deprecated.*",  # Lightning 2.6 uses names that torch 2.14 deprecates
    ".*all_gather is deprecated.*",
    ".*NaN values found in confusion matrix.*",  # of classes without test images
)


def silence_libraries() -> None:
    """Silence what Lightning says about machines, tips and loaders that does not apply here."""
    for name in ("lightning.pytorch", "lightning.fabric", "lightning"):
        logging.getLogger(name).setLevel(logging.WARNING)
    for message in NOT_HERE:
        warnings.filterwarnings("ignore", message)

    def show_thread(failed: threading.ExceptHookArgs) -> None:
        # TensorBoard's thread hands its error to the next caller, who reports it.
        if type(failed.thread).__name__ != "_AsyncWriterThread":
            threading.__excepthook__(failed)

    threading.excepthook = show_thread


def show_start(
    this: run.Run, classifier: Classifier, datamodule: DataModule, trainer: pl.Trainer, steps_done: int
) -> None:
    """Say what is trained on what, and clearly if the data set is a stand-in; the loggers get the configuration."""
    if not trainer.is_global_zero:
        return
    _warn_stand_in(this)
    sizes = datamodule.record()
    log.info(
        "%s: %s, %s training images, %.4g epochs in %d steps of %d, %s%s.\nFolder: %s",
        this.result["name"], sizes["name"], f"{sizes['train_size']:,}",
        classifier.total_steps / datamodule.steps_per_epoch, classifier.total_steps, datamodule.batch_size,
        _device_name(trainer), f", continuing after step {steps_done}" if steps_done else "", this.folder,
    )  # fmt: skip
    for logger in trainer.loggers:
        if type(logger) is not TensorBoardLogger:  # Lightning's wants them together with the results
            shown = flat({**this.config, **classifier.point.coordinates()})
            logger.log_hyperparams(
                {key: masked(str(one)) if isinstance(one, str | list) else one for key, one in shown.items()}
            )


def _warn_stand_in(this: run.Run) -> None:
    missing = this.config["data"].get("stands_in_for")
    if missing is None:
        return
    text = (
        f"{missing} is neither in {this.config['data']['root']!r} nor can it be downloaded.\n"
        f"This run uses the embedded synthetic images instead: its accuracy says nothing about {missing}.\n"
        f"Name the folder of {missing} with data.root=… or ONECYCLE_DATA."
    )
    log.debug("%s", text)
    console().print(Panel(text, title=f"NOT {missing}: synthetic data", border_style="bold yellow"))


def _device_name(trainer: pl.Trainer) -> str:
    device = trainer.strategy.root_device
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"CPU, {torch.get_num_threads()} threads" if device.type == "cpu" else device.type


def test_and_record(
    this: run.Run, classifier: Classifier, datamodule: DataModule, trainer: pl.Trainer, setup: float
) -> None:
    """Test the trained network and write the record. setup: seconds from the program's start to the fit."""
    started = time.perf_counter()
    if trainer.interrupted:  # Lightning has ended the process before this line, unless a signal came late
        raise KeyboardInterrupt
    if datamodule.monitored == "val":
        trainer.limit_val_batches = 1.0  # 0 where nothing is evaluated while training
        trainer.validate(classifier, datamodule, verbose=False)
    trainer.test(classifier, datamodule, verbose=False)
    metrics, stand_in = classifier.test_metrics(), this.config["data"].get("stands_in_for")
    seconds = {
        "setup": setup, "warm_up": classifier.warm_up_seconds, "fit": classifier.fit_seconds,
        "test": time.perf_counter() - started,
    }  # fmt: skip
    images = trainer.global_step * datamodule.batch_size
    kernels = this.config["trainer"]  # on a GPU they repeat exactly only where they are chosen by rule
    is_repeatable = kernels["deterministic"] is True and not kernels["benchmark"]
    callbacks: list[Any] = trainer.callbacks  # type: ignore[attr-defined]
    if trainer.is_global_zero:
        _log_results(this, trainer, metrics, classifier)
    if not isinstance(classifier.task, Classification):
        this.result["task"] = this.config["task"]["_target_"]
    this.finish(
        "diverged" if classifier.diverged else "pruned" if classifier.pruned else "finished",
        test=metrics,
        train=classifier.train_metrics(),
        val=classifier.monitored if datamodule.monitored == "val" else None,
        epochs=trainer.global_step / datamodule.steps_per_epoch,
        steps=trainer.global_step,
        parameters=sum(p.numel() for p in classifier.network.parameters() if p.requires_grad),
        hyperparameters=classifier.point.coordinates(),
        data=datamodule.record() | ({"stands_in_for": stand_in} if stand_in else {}),
        seconds=seconds | {"total": sum(seconds.values())},
        images_per_second=images / max(classifier.fit_seconds - classifier.validation_seconds, 1e-9),
        measures=dict(entry for part in callbacks for entry in getattr(part, "measures", {}).items()),
        peak_memory_bytes=peak_memory(trainer.strategy.root_device),
        device=_device_name(trainer).split(",")[0].replace("CPU", "cpu"),
        precision=kernels["precision"],
        repeatable=is_repeatable or trainer.strategy.root_device.type == "cpu",
        environment=environment(),
    )


# Derived coordinates under names that come after all others: HParams shows what varies in the order of the alphabet.
DERIVED_NAMES = {"effective_lr": "λ/(1−ρ)", "effective_decay": "λα/(1−ρ)", "per_example_lr": "λ/N"}


def _log_results(this: run.Run, trainer: pl.Trainer, metrics: dict[str, float], classifier: Classifier) -> None:
    """Give the test's numbers to all loggers, and to TensorBoard the hyperparameters and what was overridden."""
    tags = {f"test/{name}": value for name, value in metrics.items()}
    classifier.log_now(tags)
    config, data = this.config, this.config["data"]
    point = classifier.point.coordinates()
    shown = {**vars(classifier.point), "epochs": config["trainer"]["max_epochs"]}
    shown |= {name: config[name] for name in ("seed", "label_smoothing", "model", "schedule")}
    shown |= {name: data[name] for name in ("subset_size", "val_size")} | {"training": data["augment"]}
    shown = flat(shown | {"tags": ", ".join(config.get("tags", []))})
    shown |= {name: point[key] for key, name in DERIVED_NAMES.items()}
    shown.pop("schedule.peak_lr", None)
    for word in settings(this.result["overrides"]):
        key = override_key(word)
        if key not in shown and key.rpartition(".")[2] not in (*shown, *point, "max_epochs"):
            shown[key] = word.partition("=")[2]
    for logger in trainer.loggers:
        if isinstance(logger, TensorBoardLogger):
            logger.log_hyperparams(shown, tags, trainer.global_step)
        logger.finalize("success")


def show_end(this: run.Run, *, single: bool) -> None:
    """Print the table of results; one line in a sweep, also for a run that had been finished before."""
    if not processes.is_first():
        return
    result, test, seconds = this.result, this.result["test"], this.result["seconds"]
    numbers = {name: run.metrics_text({name: math.nan if value is None else value}) for name, value in test.items()}
    numbers = {
        name.replace("_tta", " with flip TTA"): text.removeprefix(f"{name} ") for name, text in numbers.items() if text
    }
    if not single:
        status = f"{result['status']} before, skipped" if this.done else result["status"]
        score = ", ".join(f"{name} {text}" for name, text in numbers.items() if name != "loss")
        log.info("%s: %s, test %s, fit %.1f s", this.folder.name, status, score, seconds["fit"])
        return
    board = Path(sys.executable).with_name("tensorboard")
    command = board.relative_to(Path.cwd()) if board.is_relative_to(Path.cwd()) else board.name
    rows = {
        "data": "{name}, {train_size:,} training and {test_size:,} test images".format_map(result["data"]),
        **{f"test {name}": text for name, text in numbers.items()},
        "time": "fit {fit:.1f} s, warm-up {warm_up:.1f} s, test {test:.1f} s, set-up {setup:.1f} s".format_map(seconds),
        "speed": "{images_per_second:,.0f} images/s, {precision} on {device}".format_map(result),
        "folder": str(this.folder),
        "TensorBoard": f"{command} --logdir {shlex.quote(str(this.folder.parent))}",
    }
    print_table([], rows.items(), f"{result['name']}: {result['status']}")
    if result["status"] == "diverged":
        log.warning("The loss diverged at step %d: training stopped there.", result["steps"])
    _warn_stand_in(this)


def per_class(classifier: Classifier, classes: tuple[str, ...]) -> dict[str, dict[str, float]]:
    """Images, accuracy (recall) and precision of every class that has test images; empty for other tasks."""
    if not isinstance(classifier.task, Classification):
        return {}
    answers, labels = classifier.test_logits["plain"].argmax(1), classifier.test_labels
    matrix = multiclass_confusion_matrix(answers, labels, len(classes)).cpu()  # true class × answer
    numbers = zip(classes, matrix.diag().tolist(), matrix.sum(1).tolist(), matrix.sum(0).tolist(), strict=True)
    return {
        name: {"images": images, "accuracy": right / images, "precision": right / max(answered, 1)}
        for name, right, images, answered in numbers
        if images
    }


def show_evaluation(evaluation: dict[str, Any], folder: Path | None, recorded: Mapping[str, Any] | None) -> None:
    """Print the table of classes, the accuracies, and whether they are those of the record, if it is given."""
    lines = [
        [name, f"{row['images']:,.0f}", f"{row['accuracy']:.2%}", f"{row['precision']:.2%}"]
        for name, row in evaluation["classes"].items()
    ]
    test, size = evaluation["test"], f"{evaluation['test_size']:,}"
    for name, value in test.items():
        if "/" not in name and name != "loss":
            text = run.metrics_text({name: value}).removeprefix(f"{name} ")
            lines.append([f"all, {name}".replace("_tta", " with flip TTA"), size, text, ""])
    print_table(["class", "images", "accuracy", "precision"], lines, f"{evaluation['run']} on {evaluation['data']}")
    if recorded:
        name = "accuracy" if "accuracy" in test else "loss"
        before, now = recorded[name], test[name]
        if before == now:
            log.info("Reproduced: the recorded %s, exactly.", name)
        else:
            log.info("Different: %.6g, the record says %.6g.", now, before)
    if folder:
        log.info("Folder: %s", folder)
