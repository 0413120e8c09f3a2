"""One checkpoint a run, replaced as the run goes on: enough to continue with the very next batch."""

import signal
import threading
import time
from pathlib import Path
from types import FrameType
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import Checkpoint as LightningCheckpoint

ASK_EVERY_N_STEPS = 10


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
        """Save when it is time, or when a signal came."""
        due, interrupted = self._agreed(trainer)
        if due or interrupted:
            self._save(trainer)
        if interrupted:
            raise KeyboardInterrupt

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Save the epoch's end; a signal may have come while the monitored split was evaluated."""
        self._save(trainer)
        if self._agreed(trainer, now=True)[1]:
            raise KeyboardInterrupt

    def teardown(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Give the signals back."""
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
        self._handlers.clear()

    def _interrupt(self, number: int, frame: FrameType | None) -> None:
        if self._interrupted:
            raise KeyboardInterrupt
        self._interrupted = True

    def _agreed(self, trainer: pl.Trainer, now: bool = False) -> tuple[bool, bool]:
        """Whether a checkpoint is due and whether to stop; with several ranks, if any of them thinks so."""
        due = time.monotonic() - self._saved_at >= self.seconds
        if trainer.world_size == 1:
            return due, self._interrupted
        # Asking the other ranks makes the host wait for its device: not at every step.
        if not now and trainer.global_step % ASK_EVERY_N_STEPS:
            return False, False
        flags = torch.tensor([due, self._interrupted], dtype=torch.float32, device=trainer.strategy.root_device)
        agreed = trainer.strategy.reduce(flags, reduce_op="max")
        return bool(agreed[0]), bool(agreed[1])

    def _save(self, trainer: pl.Trainer) -> None:
        if trainer.global_step == self._saved_step:
            return
        part = self.path.with_suffix(".part")
        trainer.save_checkpoint(part)
        if trainer.is_global_zero:
            part.replace(self.path)
        self._saved_at, self._saved_step = time.monotonic(), trainer.global_step
