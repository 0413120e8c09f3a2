"""The first and the last words of a run: what starts, the record, the closing table."""

import logging
import sys
import threading
import time
import warnings
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from rich.console import Console
from rich.panel import Panel
from rich.table import Table

from onecycle.data.datamodule import DataModule
from onecycle.runs import processes
from onecycle.runs import record as run
from onecycle.runs.environment import environment, peak_memory
from onecycle.runs.loggers import flat, tensorboard_of
from onecycle.training.classifier import Classifier

log = logging.getLogger("onecycle")


def quiet() -> None:
    """Silence what Lightning says about machines, tips and loaders that does not apply here."""
    for name in ("lightning.pytorch", "lightning.fabric", "lightning"):
        logging.getLogger(name).setLevel(logging.WARNING)
    # The loader needs no workers: its data are on the device already.
    warnings.filterwarnings("ignore", ".*does not have many workers.*")
    warnings.filterwarnings("ignore", ".*is smaller than the logging interval.*")
    # The classifier's hook is the one that is meant: it knows the progress of the run, the data module does not.
    warnings.filterwarnings("ignore", ".*You have overridden `on_after_batch_transfer`.*")
    # Lightning 2.6 uses names that torch 2.14 deprecates.
    warnings.filterwarnings("ignore", ".*LeafSpec.*is deprecated.*")
    warnings.filterwarnings("ignore", ".*all_gather is deprecated.*")
    threading.excepthook = _show_thread


def _show_thread(failed: threading.ExceptHookArgs) -> None:
    """Print what ended a thread; TensorBoard's hands it to its next caller, and need not print it as well."""
    if type(failed.thread).__name__ != "_AsyncWriterThread":
        threading.__excepthook__(failed)


def show_start(
    this: run.Run,
    classifier: Classifier,
    datamodule: DataModule,
    trainer: pl.Trainer,
    steps_done: int,
) -> None:
    """Say what is trained on what, and unmistakably so if the data set is a stand-in."""
    if not trainer.is_global_zero:
        return
    _warn_stand_in(this)
    sizes = datamodule.record()
    epochs = classifier.total_steps / datamodule.steps_per_epoch
    going_on = f", going on behind step {steps_done}" if steps_done else ""
    log.info(
        "%s: %s, %s training images, %.4g epochs in %d steps of %d, %s%s.\nFolder: %s",
        this.result["name"], sizes["name"], f"{sizes['train_size']:,}", epochs, classifier.total_steps,
        datamodule.batch_size, _device_name(trainer), going_on, this.folder,
    )  # fmt: skip


def stands_in_for(this: run.Run) -> str | None:
    """The data set that the run was meant for, where it could not be had."""
    name = this.config["data"].get("stands_in_for")
    return None if name is None else str(name)


def _warn_stand_in(this: run.Run) -> None:
    replaced = stands_in_for(this)
    if replaced is None:
        return
    text = (
        f"{replaced} is neither in {this.config['data']['root']!r} nor can it be downloaded.\n"
        f"This run uses the embedded synthetic images instead: its accuracy says nothing about {replaced}.\n"
        f"Name the folder of {replaced} with data.root=… or ONECYCLE_DATA."
    )
    log.debug("%s", text)
    Console().print(Panel(text, title=f"NOT {replaced}: synthetic data", border_style="bold yellow"))


def _device_name(trainer: pl.Trainer) -> str:
    device = trainer.strategy.root_device
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"CPU, {torch.get_num_threads()} threads" if device.type == "cpu" else device.type


def finish(
    this: run.Run,
    classifier: Classifier,
    datamodule: DataModule,
    trainer: pl.Trainer,
    setup: float,
) -> None:
    """Test the trained network and write the record."""
    started = time.perf_counter()
    if trainer.interrupted:  # Lightning has ended the process before this line, unless a signal came late
        raise KeyboardInterrupt
    if datamodule.monitored == "val":
        trainer.limit_val_batches = 1.0  # 0 where nothing is evaluated while training
        trainer.validate(classifier, datamodule, verbose=False)
    trainer.test(classifier, datamodule, verbose=False)
    metrics = classifier.test_metrics()
    seconds = {"setup": setup, "fit": classifier.fit_seconds, "test": time.perf_counter() - started}
    images = trainer.global_step * datamodule.batch_size
    entries = {
        "test": metrics,
        "train": classifier.train_metrics(),
        "val": classifier.monitored if datamodule.monitored == "val" else None,
        "epochs": trainer.global_step / datamodule.steps_per_epoch,
        "steps": trainer.global_step,
        "parameters": sum(p.numel() for p in classifier.network.parameters() if p.requires_grad),
        "hyperparameters": classifier.point.coordinates(),
        "data": datamodule.record() | ({"stands_in_for": stands_in_for(this)} if stands_in_for(this) else {}),
        "seconds": seconds | {"total": sum(seconds.values())},
        "images_per_second": images / max(classifier.fit_seconds - classifier.validation_seconds, 1e-9),
        "measures": measures(trainer),
        "peak_memory_bytes": peak_memory(trainer.strategy.root_device),
        "device": _device_name(trainer).split(",")[0].replace("CPU", "cpu"),
        "precision": this.config["trainer"]["precision"],
        "environment": environment(torch.get_num_threads()),
    }
    if trainer.is_global_zero:
        _log_hyperparameters(this, trainer, metrics, classifier)
    this.finish("diverged" if classifier.diverged else "pruned" if classifier.pruned else "finished", **entries)


def measures(trainer: pl.Trainer) -> dict[str, Any]:
    """What the callbacks measured of the run, by name."""
    own = [getattr(callback, "measures", {}) for callback in trainer.callbacks]  # type: ignore[attr-defined]
    return {name: value for part in own for name, value in part.items()}


def _log_hyperparameters(this: run.Run, trainer: pl.Trainer, metrics: dict[str, float], classifier: Classifier) -> None:
    tags = {f"test/{name}": value for name, value in metrics.items()}
    classifier.log_now(tags)
    board = tensorboard_of(trainer.loggers)
    if board:
        board.log_hyperparams(_shown_hyperparameters(this.config, classifier), tags, trainer.global_step)
    for logger in trainer.loggers:
        logger.finalize("success")


def _shown_hyperparameters(config: dict[str, Any], classifier: Classifier) -> dict[str, Any]:
    """What HParams lists. It shows the first five names of the alphabet: those are plain, the others have a prefix."""
    plain = {**classifier.point.coordinates(), "epochs": config["trainer"]["max_epochs"]}
    plain |= {name: config[name] for name in ("seed", "label_smoothing")}
    plain |= {name: config["data"][name] for name in ("subset_size", "val_size")}
    groups = {name: config[name] for name in ("model", "schedule")} | {"training": config["data"]["augment"]}
    return flat({**plain, **groups})


def show_skipped(this: run.Run) -> None:
    """Say that a run of a sweep had been finished before."""
    log.info("%s: %s before, skipped. %s", this.folder.name, this.result["status"], _accuracies(this.result))


def _accuracies(result: dict[str, Any]) -> str:
    test = result["test"]
    text = f"test accuracy {test['accuracy']:.2%}"
    return text + (f" ({test['accuracy_tta']:.2%} with flip TTA)" if "accuracy_tta" in test else "")


def show_end(this: run.Run, *, single: bool) -> None:
    """Print the closing table, or one line in a sweep."""
    if not processes.is_first():
        return
    result = this.result
    seconds = result["seconds"]
    if not single:
        log.info("%s: %s, %s, fit %.1f s", this.folder.name, result["status"], _accuracies(result), seconds["fit"])
        return
    table = Table(title=f"{result['name']}: {result['status']}", show_header=False, title_justify="left")
    data = result["data"]
    rows = {
        "data": f"{data['name']}, {data['train_size']:,} training and {data['test_size']:,} test images",
        "test accuracy, plain": f"{result['test']['accuracy']:.2%}",
        "test accuracy, flip TTA": f"{result['test'].get('accuracy_tta', float('nan')):.2%}",
        "test loss": f"{result['test']['loss']:.4f}",
        "time": f"fit {seconds['fit']:.1f} s, test {seconds['test']:.1f} s, set-up {seconds['setup']:.1f} s",
        "speed": f"{result['images_per_second']:,.0f} images/s, {result['precision']} on {result['device']}",
        "folder": str(this.folder),
        "TensorBoard": f"{_tensorboard()} --logdir {this.folder.parent}",
    }
    if "accuracy_tta" not in result["test"]:
        del rows["test accuracy, flip TTA"]
    for name, text in rows.items():
        table.add_row(name, text)
    console().print(table)
    if result["status"] == "diverged":
        log.warning("The loss diverged at step %d: training stopped there.", result["steps"])
    _warn_stand_in(this)


def _tensorboard() -> str:
    """The command of this environment where it lies in the current folder, else the bare name."""
    path = Path(sys.executable).with_name("tensorboard")
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else path.name


def console() -> Console:
    """A terminal as wide as it is; anywhere else wide enough that no path is folded."""
    own = Console()
    return own if own.is_terminal else Console(width=200)


def per_class(classifier: Classifier, classes: tuple[str, ...]) -> dict[str, dict[str, float]]:
    """Images, accuracy (recall) and precision of every class that has test images."""
    labels, answers = classifier.test_labels, classifier.test_logits["plain"].argmax(1)
    table = {}
    for number, name in enumerate(classes):
        own, answered = labels == number, answers == number
        if own.any():
            right = (own & answered).sum().item()
            table[name] = {
                "images": int(own.sum()), "accuracy": right / own.sum().item(),
                "precision": right / max(int(answered.sum()), 1),
            }  # fmt: skip
    return table


def show_evaluation(evaluation: dict[str, Any], folder: Path, recorded: dict[str, Any] | None) -> None:
    """Print the per-class table, the accuracies, and whether they are the recorded ones."""
    table = Table(title=f"{evaluation['run']} on {evaluation['data']}", title_justify="left")
    for column in ("class", "images", "accuracy", "precision"):
        table.add_column(column, justify="left" if column == "class" else "right")
    for name, row in evaluation["classes"].items():
        table.add_row(name, f"{row['images']:,.0f}", f"{row['accuracy']:.2%}", f"{row['precision']:.2%}")
    table.add_section()
    table.add_row("all, plain", f"{evaluation['test_size']:,}", f"{evaluation['test']['accuracy']:.2%}", "")
    if "accuracy_tta" in evaluation["test"]:
        table.add_row("all, flip TTA", f"{evaluation['test_size']:,}", f"{evaluation['test']['accuracy_tta']:.2%}", "")
    console().print(table)
    if recorded and recorded.get("test"):
        before, now = recorded["test"]["accuracy"], evaluation["test"]["accuracy"]
        same = "the recorded accuracy, exactly" if before == now else f"{now:.4%}, the record says {before:.4%}"
        log.info("Reproduced: %s." if before == now else "Different: %s.", same)
    log.info("Folder: %s", folder)
