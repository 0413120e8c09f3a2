"""Components as users write them: built from their YAML alone, or with their run."""

from typing import Any

import lightning.pytorch as pl
import numpy as np
from lightning.pytorch.loggers import Logger

from helpers import CrashError, noise
from onecycle.runs.loggers import NeedsRun, RunContext


class Crash(pl.Callback):
    """Raises CrashError after a step."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_train_batch_end(self, trainer: pl.Trainer, *arguments: Any) -> None:
        if trainer.global_step == self.step:
            raise CrashError


class Counter(pl.Callback):
    def __init__(self, every: int) -> None:
        self.every, self.steps = every, 0
        self.measures: dict[str, Any] = {}

    def on_train_batch_end(self, *arguments: Any) -> None:
        self.steps += 1
        self.measures = {"counted": self.steps // self.every}


class Logging(pl.Callback):
    """Logs a metric of its own."""

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        pl_module.log("banana", 1.0)


class Memory(NeedsRun, Logger):
    """Keeps all that it is given; takes images, but neither folder nor steps."""

    latest: "Memory"
    name, version = "memory", 0

    def __init__(self, word: str) -> None:
        super().__init__()
        self.word = word
        self.metrics: list[tuple[int | None, dict[str, float]]] = []
        self.hyperparameters: dict[str, Any] = {}
        self.images: list[tuple[str, int | None]] = []
        type(self).latest = self

    def attach(self, run: RunContext) -> None:
        self.run = run

    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        self.metrics.append((step, metrics))

    def log_hyperparams(self, params: Any, *arguments: Any, **named: Any) -> None:
        self.hyperparameters.update(params)

    def log_image(self, key: str, images: list[Any], step: int | None = None) -> None:
        assert len(images) == 1
        self.images.append((key, step))


class Drawn:
    """Images of one colour whose labels, of other tasks than classification, follow from it."""

    name, origin = "drawn", "foreign"

    def __init__(self, task: str) -> None:
        self.task = task

    def key(self) -> dict[str, Any]:
        return {"name": self.name, "task": self.task}

    def decode(self) -> tuple[dict[str, np.ndarray], list[str]]:
        arrays = {}
        for seed, split in enumerate(("train", "test")):
            colors = noise(seed, 128, 1, 1, 3)
            values = colors[:, 0, 0, :2] / 127.5 - 1
            arrays[f"{split}_images"] = np.tile(colors, (1, 32, 32, 1))
            labels: dict[str, np.ndarray] = {
                "multilabel": (values > 0).astype(np.uint8),
                "regression": values.astype(np.float32),
            }
            arrays[f"{split}_labels"] = labels.get(self.task, values[:, 0])
        return arrays, ["bright", "red"]
