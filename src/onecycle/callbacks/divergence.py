"""Stops a run whose loss is lost."""

import math
from typing import Any

import lightning.pytorch as pl
import torch

from onecycle.classifier import Classifier


class Divergence(pl.Callback):
    """Stops training when the mean loss of `every_n_steps` steps is not finite or above `max_loss`.

    The run then counts as diverged: a result, not a failure. Sets `diverged` and `diverged_at` on the module.
    """

    def __init__(self, max_loss: float, every_n_steps: int) -> None:
        self.max_loss, self.every_n_steps = max_loss, every_n_steps
        self._sum: torch.Tensor | float = 0.0
        self._count = 0

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Add the loss; look at the mean only every few steps, because looking makes the host wait for the device."""
        self._sum = self._sum + outputs["loss"].detach()
        self._count += 1
        if trainer.global_step % self.every_n_steps and trainer.global_step < trainer.max_steps:
            return
        mean = float(trainer.strategy.reduce(torch.as_tensor(self._sum), reduce_op="mean")) / self._count
        self._sum, self._count = 0.0, 0
        if not math.isfinite(mean) or mean > self.max_loss:
            assert isinstance(pl_module, Classifier)
            pl_module.diverged = True
            trainer.should_stop = True
