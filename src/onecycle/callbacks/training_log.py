"""Loss, accuracy, learning rate, momentum and throughput, every few steps."""

import time
from typing import Any

import lightning.pytorch as pl

from onecycle.training.classifier import Classifier


class TrainingLog(pl.Callback):
    """Logs the means since the last log every `trainer.log_every_n_steps` steps.

    Throughput counts training alone: the clock stops while the monitored split is evaluated. `latest` holds the
    last numbers.
    """

    def __init__(self) -> None:
        self.latest: dict[str, float] = {}
        self._since = time.perf_counter()

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Start the clock."""
        self._since = time.perf_counter()

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Log before the evaluation, whose time would count as training time."""
        if trainer.training:
            self._log(trainer, pl_module)

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Restart the clock."""
        self._since = time.perf_counter()

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Log when it is time."""
        if trainer.global_step % trainer.log_every_n_steps == 0 or trainer.is_last_batch:  # type: ignore[attr-defined]
            self._log(trainer, pl_module)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Log what is left of a last, partial window."""
        self._log(trainer, pl_module)

    def _log(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        assert isinstance(module, Classifier)
        loss, correct, count = module.reduced(module.window_sums)
        if not count:
            return
        module.window_sums.zero_()
        now = time.perf_counter()
        seconds, self._since = now - self._since, now
        group = trainer.optimizers[0].param_groups[0]
        self.latest = {
            "train/loss": loss / count, "train/accuracy": correct / count,
            "lr": group["lr"] / (group["lr_multiplier"] or 1.0), "momentum": group["momentum"],
            "images_per_second": count / seconds,
        }  # fmt: skip
        module.log_now(self.latest)
