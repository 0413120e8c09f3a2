"""Stops a run that another process has taken over."""

from collections.abc import Callable
from typing import Any

import lightning.pytorch as pl


class Ownership(pl.Callback):
    """Calls `check`, which raises where this process may not write any more, ahead of everything that is written.

    It stands before the checkpoint's callback, which Lightning puts last.
    """

    def __init__(self, check: Callable[[], None]) -> None:
        self.check = check

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Check; without a look at the disk as long as the lease is fresh."""
        self.check()

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Check again behind an evaluation."""
        self.check()
