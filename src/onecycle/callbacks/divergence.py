"""Stops a run whose loss is lost."""

import math
from typing import Any

import lightning.pytorch as pl
import torch


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

    def on_train_start(self, trainer: pl.Trainer, pl_module: Any) -> None:
        """Stop, again if the checkpoint is that of a diverged run."""
        if self._diverged:
            pl_module.diverged = trainer.should_stop = True

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: Any, outputs: Any, *batch: Any) -> None:
        """Add the loss; look at the mean only every few steps, because looking makes the host wait for the device."""
        self._sum = self._sum + outputs["loss"].detach()
        self._count += 1
        if trainer.global_step % self.every_n_steps and trainer.global_step < trainer.max_steps:
            return
        mean = float(trainer.strategy.reduce(torch.as_tensor(self._sum), reduce_op="mean")) / self._count
        self._sum, self._count = 0.0, 0
        self._diverged = self._diverged or not math.isfinite(mean) or mean > self.max_loss
        self.on_train_start(trainer, pl_module)
