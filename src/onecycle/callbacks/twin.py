"""Networks beside the one that is trained: the average of its weights, and its rescaled twin."""

from itertools import chain
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import WeightAveraging
from torch import Tensor

from onecycle.callbacks.probes import Probe, copy_with_optimizer, refuse_precision
from onecycle.data.datamodule import Batch
from onecycle.errors import ConfigError
from onecycle.training.classifier import Classifier

SCALED = "weights"  # the kind of parameters (see `parameter_groups`) to which the factors apply


class Average(WeightAveraging):
    """Lightning's averaging of all floating-point weights and buffers, on the device; replaces weights once.

    Each `every_n_steps` steps the average keeps decay_per_step ** every_n_steps of itself and takes the rest from the
    weights (all of them at the first update). Source: Page 2019, "How to Train Your ResNet" 8, whose 0.99 is a step's.

    Lightning chooses the average's device before the network has been moved, and replaces the weights at the end of
    training, which a run that is resumed after its last step never reaches.
    """

    def __init__(self, decay_per_step: float, every_n_steps: int) -> None:
        super().__init__()
        self.share = 1 - decay_per_step**every_n_steps  # that an update takes from the weights
        self.every_n_steps, self._replaced = every_n_steps, False

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Make the average on the device that will train."""
        self._device = trainer.strategy.root_device
        super().setup(trainer, pl_module, stage)
        if self._average_model is not None:  # read at each update: the host would wait for a GPU
            self._average_model.n_averaged = self._average_model.n_averaged.cpu()

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Update the average; Lightning's own update copies its counter to the device for each kind of tensor."""
        if trainer.global_step % self.every_n_steps or trainer.global_step <= self._latest_update_step:
            return
        average = self._average_model
        assert average is not None
        share = self.share if average.n_averaged else 1.0
        means, values = (
            [tensor for tensor in chain(module.parameters(), module.buffers()) if tensor.is_floating_point()]
            for module in (average.module, pl_module)
        )
        with torch.no_grad():
            values = [value.to(mean.dtype) for mean, value in zip(means, values, strict=True)]
            torch._foreach_lerp_(means, values, share)
        average.n_averaged += 1
        self._latest_update_step = trainer.global_step

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Replace the weights by their average, on all ranks by that of the first one, whose norms saw other images."""
        if not self._replaced:
            assert self._average_model is not None
            for buffer in self._average_model.buffers() if trainer.world_size > 1 else ():
                torch.distributed.broadcast(buffer, src=0)
            super().on_train_end(trainer, pl_module)
        self._replaced = True

    on_fit_end = on_train_end  # also if there was nothing left to train


class Twin(Probe):
    """Trains a copy of the network whose convolutions start `weight_scale` times as large, and follows its distance.

    The copy's convolutions have `lr` times the learning rate and `weight_decay` times the weight decay; all else is
    that of the run. A norm hides the scale k of the weights w before it: the loss is the same and the gradient 1/k
    of it. So k·w follows w at every step with the factors k² and 1/k²: for k = 2 they are 4 and 1/4. Powers of two are
    exact in floating point, and only the norm's eps is left: 1e-5 grows to percents in a few steps, as maxima flip;
    1e-12 is lost beside the variance in fp32.

    twin_deviation: by step, the largest ‖w′ − k·w‖ / ‖k·w‖ of a convolution; twin_deviation_max, twin_deviation_last:
    of all steps, and after the last. twin_loss_gap: the largest |loss′ − loss| of a batch.

    It takes the time of a second training inside the fit. Raises ConfigError where the copy cannot follow: with clipped
    or scaled gradients, or on several devices.
    """

    def __init__(self, lr: float, weight_decay: float, weight_scale: float) -> None:
        super().__init__()
        self.lr, self.weight_decay, self.weight_scale = lr, weight_decay, weight_scale
        self._network: Any = None
        self._optimizer: Any = None
        self._saved: dict[str, Any] = {}
        # Left on the device as they come: reading one makes the host wait.
        self._deviations: list[Tensor | float] = []
        self._loss_gaps: list[Tensor | float] = []

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Refuse what the copy's step does not do."""
        if trainer.gradient_clip_val:
            raise ConfigError([f"trainer.gradient_clip_val={trainer.gradient_clip_val}: callbacks.twin takes null"])
        if trainer.world_size > 1:
            raise ConfigError([f"trainer.devices={trainer.world_size}: callbacks.twin takes 1"])
        refuse_precision("twin", trainer)

    def state_dict(self) -> dict[str, Any]:
        """The copy, its optimizer, and what was measured so far."""
        if self._network is None:
            return {}
        return {
            "network": self._network.state_dict(), "optimizer": self._optimizer.state_dict(),
            "deviations": [*map(float, self._deviations)], "loss_gaps": [*map(float, self._loss_gaps)],
        }  # fmt: skip

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Keep the state until there is a copy to take it."""
        self._saved = state_dict

    def on_fit_start(self, trainer: pl.Trainer, pl_module: Any) -> None:
        """Make the copy, or continue with the saved one; the network is on its device by now."""
        self._network, self._optimizer = copy_with_optimizer(trainer, pl_module)
        for group in self._optimizer.param_groups:
            if group["kind"] == SCALED:
                group["weight_decay"] *= self.weight_decay
                with torch.no_grad():
                    torch._foreach_mul_(group["params"], self.weight_scale)
        if self._saved:
            self._network.load_state_dict(self._saved["network"])
            self._optimizer.load_state_dict(self._saved["optimizer"])
            self._deviations, self._loss_gaps = self._saved["deviations"], self._saved["loss_gaps"]

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: Any, outputs: Any, batch: Batch, batch_idx: int
    ) -> None:
        """Let the copy take the step that the network has just taken, and compare them."""
        pairs = list(zip(self._optimizer.param_groups, trainer.optimizers[0].param_groups, strict=True))
        for own, main in pairs:
            own["lr"] = main["lr"] * (self.lr if main["kind"] == SCALED else 1.0)
            own |= {key: main[key] for key in ("momentum", "betas") if key in main}
        with trainer.precision_plugin.forward_context():
            logits = self._network(batch.images)
            loss = pl_module.task.loss(logits, batch.labels)
        self._optimizer.zero_grad()
        loss.backward()
        self._optimizer.step()
        self._loss_gaps.append((loss - outputs["loss"]).abs().detach())
        scaled = [(own["params"], main["params"]) for own, main in pairs if main["kind"] == SCALED]
        with torch.no_grad():
            distances = [
                (copied - weight * self.weight_scale).norm() / (weight * self.weight_scale).norm()
                for params in scaled
                for copied, weight in zip(*params, strict=True)
            ]
        self._deviations.append(torch.stack(distances).max())

    def measured(self, trainer: pl.Trainer, module: Classifier) -> dict[str, Any]:
        """The deviations of all steps; a maximum is NaN if any of its values is."""
        deviations = torch.tensor(self._deviations, dtype=torch.float64)
        gap = torch.tensor(self._loss_gaps, dtype=torch.float64).max().item()
        return {
            "twin_deviation": deviations.tolist(), "twin_deviation_max": deviations.max().item(),
            "twin_deviation_last": deviations[-1].item(), "twin_loss_gap": gap,
        }  # fmt: skip
