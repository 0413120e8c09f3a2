"""Exponential moving average of the weights."""

import lightning.pytorch as pl
from lightning.pytorch.callbacks import EMAWeightAveraging


class Average(EMAWeightAveraging):
    """Lightning's averaging of all weights and buffers, kept on the training device and taken over exactly once.

    Lightning chooses the average's device before the network has been moved, and takes the average over at the end of
    training, which never comes for a run that is resumed behind its last step.
    """

    _taken_over = False

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Make the average on the device that will train."""
        self._device = trainer.strategy.root_device
        super().setup(trainer, pl_module, stage)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Replace the weights by their average."""
        super().on_train_end(trainer, pl_module)
        self._taken_over = True

    def on_fit_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Do so also where there was nothing left to train."""
        if not self._taken_over:
            self.on_train_end(trainer, pl_module)
