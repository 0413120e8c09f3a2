"""Stops a run that Optuna's pruner finds hopeless."""

from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.trainer.states import TrainerFn

from onecycle.callbacks.options import PRUNED
from onecycle.callbacks.optuna_storage import open_storage, optuna_part
from onecycle.runs.record import score_of


class Pruning(pl.Callback):
    """Reports the score on held-out images after each evaluation, and ends the run if the pruner says so.

    The search runs in another process; trial: its id in the storage. The run then counts as pruned: its record holds
    what it reached. Sets `pruned` on the module. A run whose trial has ended, as one that failed and is resumed alone,
    is trained to its end.
    """

    def __init__(self, storage: str, study: str, trial: int, pruner: str, pruner_options: dict[str, Any]) -> None:
        import optuna  # an optional extra

        judge, opened = optuna_part("pruner", pruner, pruner_options), open_storage(storage)
        self.trial = optuna.Trial(optuna.load_study(study_name=study, storage=opened, pruner=judge), trial)
        self.has_ended = opened.get_trial(trial).state.is_finished()

    def on_validation_end(self, trainer: pl.Trainer, pl_module: Any) -> None:
        """Report, and ask the pruner; the evaluation after the fit decides nothing."""
        if trainer.state.fn != TrainerFn.FITTING or pl_module.monitored is None or self.has_ended:
            return
        self.trial.report(score_of(pl_module.monitored), trainer.global_step)
        if self.trial.should_prune():
            self.trial.set_user_attr(PRUNED, True)
            pl_module.pruned = trainer.should_stop = True
