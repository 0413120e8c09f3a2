"""Stops a run that Optuna's pruner finds hopeless."""

from typing import Any

import lightning.pytorch as pl
import optuna
from lightning.pytorch.trainer.states import TrainerFn
from optuna.storages.journal import JournalFileBackend

from onecycle.callbacks.options import PRUNED, PRUNERS
from onecycle.training.classifier import Classifier


class Pruning(pl.Callback):
    """Reports the accuracy on held-out images after each evaluation, and ends the run if the pruner says so.

    A search by Optuna gives each of its runs this callback. storage: a database's URL, or "journal:PATH"; study: the
    name of the Optuna study; trial: the trial's id in the storage; pruner: a key of `PRUNERS`. The run then counts as
    pruned: its record holds what it reached. Sets `pruned` on the module.
    """

    def __init__(self, storage: str, study: str, trial: int, pruner: str, pruner_options: dict[str, Any]) -> None:
        judge = getattr(optuna.pruners, PRUNERS[pruner])(**pruner_options)
        kind, _, path = storage.partition(":")
        place = optuna.storages.JournalStorage(JournalFileBackend(path)) if kind == "journal" else storage
        self.trial = optuna.Trial(optuna.load_study(study_name=study, storage=place, pruner=judge), trial)

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
