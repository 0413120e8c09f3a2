"""Checkpoints of a run, replaced as it goes on: enough to continue with the very next batch."""

import signal
import threading
import time
from types import FrameType
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import Checkpoint as LightningCheckpoint

from onecycle.runs import checkpoints, processes
from onecycle.runs.loggers import NeedsRun, RunContext

ASK_EVERY_N_STEPS = 10
WORTH = 100  # at the end of an epoch one is saved if the time since the last is this many times what that took


class Checkpoint(NeedsRun, LightningCheckpoint):
    """Saves checkpoints/last.ckpt every `every_n_minutes`, after the last step, and on Ctrl-C, SIGTERM or SIGHUP.

    Besides, after each `every_n_steps` steps, if given, and at the end of an epoch, as long as saving stays below 1 %
    of the time. An interrupt waits for the step in progress: a checkpoint between two steps is one that can be
    continued exactly. A second Ctrl-C does not wait. Which steps are saved changes no bit of the result.
    """

    def __init__(self, every_n_minutes: float, every_n_steps: int | None = None) -> None:
        self.seconds, self.every_n_steps = 60 * every_n_minutes, every_n_steps
        self._saved_at, self._took, self._saved_step = time.monotonic(), 0.1, -1
        self._interrupted = False
        self._handlers: dict[int, Any] = {}

    def attach(self, run: RunContext) -> None:
        """Save into the run's folder, with the key of the run."""
        self.folder, self.key = run.folder / checkpoints.FOLDER, dict(run.key)

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Handle the interrupt signals while training (only the main thread may)."""
        if threading.current_thread() is threading.main_thread():
            for number in processes.stop_signals():
                self._handlers[number] = signal.signal(number, self._interrupt)

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *batch: Any) -> None:
        """Save when it is time, or when a signal came."""
        # What is saved between an epoch's last step and its evaluation would continue after the evaluation; what is
        # saved at the end of an epoch that is not evaluated would train its last batch again.
        if not (trainer.is_last_batch and _evaluates(trainer)):
            self._consider(trainer, epoch_ends=trainer.is_last_batch)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Save when it is worth it; a signal may have come while the monitored split was evaluated."""
        done = trainer.should_stop or trainer.global_step >= trainer.max_steps
        if done or _evaluates(trainer):
            self._consider(trainer, epoch_ends=True, must=done)

    def on_save_checkpoint(self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: Any) -> None:
        """Store of which run this is a checkpoint."""
        checkpoint[checkpoints.RUN] = self.key

    def on_train_end(self, *event: Any) -> None:
        """Restore the signals before Lightning does: else its handler would stay, and with it the whole run."""
        while self._handlers:
            signal.signal(*self._handlers.popitem())

    on_exception: Any = on_train_end

    def _interrupt(self, number: int, frame: FrameType | None) -> None:
        if self._interrupted:
            raise KeyboardInterrupt
        self._interrupted = True

    def _consider(self, trainer: pl.Trainer, epoch_ends: bool, must: bool = False) -> None:
        after = min(self.seconds, WORTH * self._took) if epoch_ends else self.seconds
        due, interrupted = time.monotonic() - self._saved_at >= after, self._interrupted
        # Asking the other ranks makes the host wait for its device: not at every step.
        if trainer.world_size > 1 and not epoch_ends and trainer.global_step % ASK_EVERY_N_STEPS:
            due = interrupted = False
        elif trainer.world_size > 1:
            flags = torch.tensor([due and trainer.is_global_zero, interrupted], device=trainer.strategy.root_device)
            due, interrupted = trainer.strategy.reduce(flags.float(), reduce_op="max").bool().tolist()
        counted = self.every_n_steps is not None and trainer.global_step % self.every_n_steps == 0
        if must or due or interrupted or counted:
            self._save(trainer)
        if interrupted:
            raise KeyboardInterrupt

    def _save(self, trainer: pl.Trainer) -> None:
        if trainer.global_step == self._saved_step:
            return
        if trainer.is_global_zero:
            self._took = checkpoints.replace_last(self.folder, trainer.save_checkpoint)
        else:
            trainer.save_checkpoint(self.folder / checkpoints.PART)  # every rank takes part, the first one writes
        self._saved_at, self._saved_step = time.monotonic(), trainer.global_step


def _evaluates(trainer: pl.Trainer) -> bool:
    """Whether the monitored split is evaluated at the end of this epoch."""
    every = trainer.check_val_every_n_epoch
    return trainer.enable_validation and every is not None and (trainer.current_epoch + 1) % every == 0
