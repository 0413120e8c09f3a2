"""Exponential moving average of the weights."""

import lightning.pytorch as pl
from lightning.pytorch.callbacks import EMAWeightAveraging


class Average(EMAWeightAveraging):
    """Lightning's averaging of all weights and buffers, kept on the training device; replaces the weights exactly once.

    Lightning chooses the average's device before the network has been moved, and replaces the weights at the end of
    training, which a run that is resumed after its last step never reaches.
    """

    _replaced = False

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Make the average on the device that will train."""
        self._device = trainer.strategy.root_device
        super().setup(trainer, pl_module, stage)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Replace the weights by their average."""
        super().on_train_end(trainer, pl_module)
        self._replaced = True

    def on_fit_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Do so also if there was nothing left to train."""
        if not self._replaced:
            self.on_train_end(trainer, pl_module)
