"""Stops a run whose loss is lost."""

import math
from typing import Any

import lightning.pytorch as pl
import torch

from onecycle.training.classifier import Classifier


class Divergence(pl.Callback):
    """Stops training when the mean loss of `every_n_steps` steps is not finite or above `max_loss`.

    The run then counts as diverged: a result, not a failure. Sets `diverged` on the module. Its sums are part of the
    checkpoint, so that a resumed run looks at the same windows.
    """

    def __init__(self, max_loss: float, every_n_steps: int) -> None:
        self.max_loss, self.every_n_steps = max_loss, every_n_steps
        self._sum: torch.Tensor | float = 0.0
        self._count, self._diverged = 0, False

    def state_dict(self) -> dict[str, Any]:
        """Sum and count of the window so far, and whether the run has diverged."""
        return {"sum": float(self._sum), "count": self._count, "diverged": self._diverged}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue the window."""
        self._sum, self._count, self._diverged = state_dict["sum"], state_dict["count"], state_dict["diverged"]

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Stop again if the checkpoint is that of a diverged run."""
        self._stop_if_diverged(trainer, pl_module)

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
        self._diverged = self._diverged or not math.isfinite(mean) or mean > self.max_loss
        self._stop_if_diverged(trainer, pl_module)

    def _stop_if_diverged(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        if self._diverged:
            assert isinstance(module, Classifier)
            module.diverged = trainer.should_stop = True
