"""Checkpoints of a run, replaced as it goes on: enough to continue with the very next batch."""

import signal
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from types import FrameType
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import Checkpoint as LightningCheckpoint

from onecycle.runs import checkpoints

ASK_EVERY_N_STEPS = 10
# At the end of an epoch a checkpoint is worth it where the time since the last one is this many times what it took.
WORTH = 100
SECONDS = 0.1  # what one takes, until it is measured


class Checkpoint(LightningCheckpoint):
    """Saves checkpoints/last.ckpt every so often, behind the last step, and on Ctrl-C or SIGTERM.

    every_n_minutes: at least so often. every_n_steps: if given, behind each so many steps as well. Besides, at the
    end of an epoch, as long as saving stays below 1 % of the time. run: what a resumed run must agree in.

    An interrupt waits for the step in progress: a checkpoint between two steps is one that can be continued exactly.
    A second Ctrl-C does not wait. Which steps are saved changes no bit of the result.
    """

    def __init__(
        self,
        folder: str,
        every_n_minutes: float,
        every_n_steps: int | None = None,
        run: Mapping[str, Any] | None = None,
    ) -> None:
        self.folder = Path(folder) / checkpoints.FOLDER
        self.seconds, self.every_n_steps, self.run = 60 * every_n_minutes, every_n_steps, run
        self._saved_at, self._took = time.monotonic(), SECONDS
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
        # What is saved between an epoch's last step and its evaluation would go on behind the evaluation; what is
        # saved at the end of an epoch that is not evaluated would train its last batch again.
        if not trainer.is_last_batch:
            self._consider(trainer)
        elif not _evaluates(trainer):
            self._consider(trainer, epoch_ends=True)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Save when it is worth it; a signal may have come while the monitored split was evaluated."""
        done = trainer.should_stop or trainer.global_step >= trainer.max_steps
        if done or _evaluates(trainer):
            self._consider(trainer, epoch_ends=True, must=done)

    def on_save_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Write down which run this is of."""
        checkpoint[checkpoints.RUN] = self.run and dict(self.run)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Give the signals back before Lightning does: or its handler would stay, and with it the whole run."""
        self._give_back()

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        """Give the signals back."""
        self._give_back()

    def _give_back(self) -> None:
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
        self._handlers.clear()

    def _interrupt(self, number: int, frame: FrameType | None) -> None:
        if self._interrupted:
            raise KeyboardInterrupt
        self._interrupted = True

    def _consider(self, trainer: pl.Trainer, epoch_ends: bool = False, must: bool = False) -> None:
        after = min(self.seconds, WORTH * self._took) if epoch_ends else self.seconds
        due, interrupted = self._agreed(trainer, after, now=epoch_ends)
        counted = self.every_n_steps is not None and trainer.global_step % self.every_n_steps == 0
        if must or due or interrupted or counted:
            self._save(trainer)
        if interrupted:
            raise KeyboardInterrupt

    def _agreed(self, trainer: pl.Trainer, after: float, now: bool) -> tuple[bool, bool]:
        """Whether a checkpoint is due `after` seconds and whether to stop; with several ranks, if any says so."""
        due = trainer.is_global_zero and time.monotonic() - self._saved_at >= after
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
        if trainer.is_global_zero:
            self._took = checkpoints.replace_last(self.folder, trainer.save_checkpoint)
        else:
            trainer.save_checkpoint(self.folder / "last.part")  # every rank has a part in it, the first one writes
        self._saved_at, self._saved_step = time.monotonic(), trainer.global_step


def _evaluates(trainer: pl.Trainer) -> bool:
    """Whether the monitored split is evaluated at the end of this epoch."""
    every = trainer.check_val_every_n_epoch
    return trainer.enable_validation and every is not None and (trainer.current_epoch + 1) % every == 0
