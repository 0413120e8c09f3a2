"""One checkpoint a run, replaced as the run goes on: enough to continue with the very next batch."""

import signal
import threading
import time
from pathlib import Path
from types import FrameType
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.callbacks import Checkpoint as LightningCheckpoint


class Checkpoint(LightningCheckpoint):
    """Saves checkpoints/last.ckpt every `every_n_minutes`, at the end of every epoch, and on Ctrl-C or SIGTERM.

    The file is written beside its place and renamed, so a kill at any moment leaves the old or the new one whole.
    An interrupt waits for the step in progress: a checkpoint between two steps is one that can be continued exactly.
    A second Ctrl-C does not wait.
    """

    def __init__(self, folder: str, every_n_minutes: float) -> None:
        self.path = Path(folder) / "checkpoints" / "last.ckpt"
        self.seconds = 60 * every_n_minutes
        self._saved_at = time.monotonic()
        self._saved_step = -1
        self._interrupted = False
        self._handlers: dict[int, Any] = {}

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Take over the interrupt signals while training (only the main thread may)."""
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._handlers[number] = signal.signal(number, self._interrupt)

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Save when it is time; all ranks follow the first one's clock."""
        due = self._interrupted or time.monotonic() - self._saved_at >= self.seconds
        if trainer.world_size > 1:
            due = bool(trainer.strategy.broadcast(due))
        if due:
            self._save(trainer)
        if self._interrupted:
            raise KeyboardInterrupt

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Save the epoch's end."""
        self._save(trainer)

    def teardown(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Give the signals back."""
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
        self._handlers.clear()

    def _interrupt(self, number: int, frame: FrameType | None) -> None:
        if self._interrupted:
            raise KeyboardInterrupt
        self._interrupted = True

    def _save(self, trainer: pl.Trainer) -> None:
        if trainer.global_step == self._saved_step:
            return
        part = self.path.with_suffix(".part")
        trainer.save_checkpoint(part)
        if trainer.is_global_zero:
            part.replace(self.path)
        self._saved_at, self._saved_step = time.monotonic(), trainer.global_step
