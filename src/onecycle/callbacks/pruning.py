"""Stops a run that Optuna's pruner finds hopeless."""

from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.trainer.states import TrainerFn

from onecycle.callbacks import optuna_storage
from onecycle.callbacks.options import PRUNED
from onecycle.training.classifier import Classifier


class Pruning(pl.Callback):
    """Reports the accuracy on held-out images after each evaluation, and ends the run if the pruner says so.

    storage, study, pruner, pruner_options: see `callbacks.optuna_storage`; trial: the trial's id in
    the storage. The run then counts as pruned: its record holds what it reached. Sets `pruned` on the module.
    """

    def __init__(self, storage: str, study: str, trial: int, pruner: str, pruner_options: dict[str, Any]) -> None:
        self.trial = optuna_storage.running_trial(storage, study, trial, pruner, pruner_options)

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Report, and ask the pruner; the evaluation after the fit decides nothing."""
        assert isinstance(pl_module, Classifier)
        if trainer.state.fn != TrainerFn.FITTING or pl_module.monitored is None:
            return
        self.trial.report(pl_module.monitored["accuracy"], trainer.global_step)
        if self.trial.should_prune():
            self.trial.set_user_attr(PRUNED, True)
            pl_module.pruned = True
            trainer.should_stop = True
