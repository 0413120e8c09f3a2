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
        self._interrupted = self._between_epochs = self._stopped = False
        self._handlers: dict[int, Any] = {}

    def attach(self, run: RunContext) -> None:
        """Save into the run's folder, with the key of the run, what is not there yet."""
        self.folder, self.key, self._saved_step = run.folder / checkpoints.FOLDER, dict(run.key), run.steps_done

    def state_dict(self) -> dict[str, Any]:
        """Whether a callback has ended the training."""
        return {"stopped": self._stopped}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore it."""
        self._stopped = state_dict["stopped"]

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """End what had been ended, and handle the interrupt signals while training (only the main thread may)."""
        trainer.should_stop = trainer.should_stop or self._stopped
        if threading.current_thread() is threading.main_thread():
            for number in processes.stop_signals():
                self._handlers[number] = signal.signal(number, self._interrupt)

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *batch: Any) -> None:
        """Save when it is time, or when a signal came; after the last step of an epoch only once it is evaluated."""
        if not trainer.is_last_batch and trainer.global_step < trainer.max_steps:
            self._consider(trainer)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Save when it is worth it, or when a signal came since the last step."""
        done = trainer.global_step >= trainer.max_steps
        self._stopped, self._between_epochs = trainer.should_stop, trainer.is_last_batch and not done
        self._consider(trainer, epoch_ends=True, must=done or trainer.should_stop)
        self._between_epochs = False

    def on_save_checkpoint(self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: Any) -> None:
        """Store of which run this is a checkpoint."""
        checkpoint[checkpoints.RUN] = self.key
        if self._between_epochs:
            _begin_epoch(trainer, checkpoint["loops"]["fit_loop"])

    def on_train_end(self, *event: Any) -> None:
        """Restore the signals before Lightning does: else its handler would stay, and with it the whole run."""
        while self._handlers:
            signal.signal(*self._handlers.popitem())

    on_exception: Any = on_train_end

    def _interrupt(self, number: int, frame: FrameType | None) -> None:
        if self._interrupted:
            raise KeyboardInterrupt
        self._interrupted = True

    def _consider(self, trainer: pl.Trainer, epoch_ends: bool = False, must: bool = False) -> None:
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


def _begin_epoch(trainer: pl.Trainer, loop: dict[str, Any]) -> None:
    """Change the state of Lightning's loop in `on_train_epoch_end` to that before the first batch of the next epoch.

    As it is, a resumed run would end the epoch a second time: count it twice, or train its last batch again.
    """
    _reset_current({name: state for name, state in loop.items() if "val_loop" not in name})
    for counts in loop["epoch_progress"].values():
        counts |= dict.fromkeys(counts, loop["epoch_progress"]["total"]["ready"])
    loop["epoch_loop.batch_progress"]["is_last_batch"] = False
    evaluated = loop["epoch_loop.val_loop.batch_progress"]["total"]
    evaluated |= dict.fromkeys(evaluated, 0)
    every = trainer.check_val_every_n_epoch
    if trainer.enable_validation and every and (trainer.current_epoch + 2) % every == 0:
        # Where the next epoch is evaluated, Lightning takes the first look at its batches for an evaluation.
        loop["epoch_loop.state_dict"]["_batches_that_stepped"] -= 1


def _reset_current(node: dict[str, Any]) -> None:
    for name, child in node.items():
        if isinstance(child, dict):
            node[name] = dict.fromkeys(child, 0) if name == "current" else child
            _reset_current(child)
