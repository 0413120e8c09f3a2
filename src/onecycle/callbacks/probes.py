"""Callbacks that measure something of a run and change nothing of it."""

import copy
import math
from collections.abc import Iterable, Iterator
from itertools import chain, islice, repeat
from typing import Any

import lightning.pytorch as pl
import torch
from torch import Tensor, nn

from onecycle.data.augment import Normalizer
from onecycle.data.datamodule import Batch, BatchLoader
from onecycle.errors import ConfigError
from onecycle.training import breakdown
from onecycle.training.classifier import Classifier


class Probe(pl.Callback):
    """Base of the measurements: `measures` holds a probe's numbers, as JSON, once the fit is over.

    The final weights are measured in `teardown`, the first hook after the module's clock has stopped: it adds nothing
    to the seconds of fit, and an average of the weights has replaced them by then. Every rank measures the same by
    itself, with whole batches.
    """

    def __init__(self) -> None:
        self.measures: dict[str, Any] = {}

    def teardown(self, trainer: pl.Trainer, pl_module: Any, stage: str) -> None:
        """Measure the final weights; Lightning calls this only after a fit that was not interrupted."""
        if stage == "fit":
            self.measures |= self.measured(trainer, pl_module)

    def measured(self, trainer: pl.Trainer, module: Classifier) -> dict[str, Any]:
        """The numbers of the final weights."""
        return {}


class FinalLoss(Probe):
    """Loss and accuracy of the final network, in train mode, on evenly spaced training and test images.

    The network normalises with the statistics of each batch, which a running average follows too slowly at a high
    learning rate; the images are not augmented. final_loss, final_test_loss: the task's mean loss without label
    smoothing. final_accuracy, final_test_accuracy: percent.
    """

    def __init__(self, images: int, test_images: int = 0) -> None:
        super().__init__()
        self.images, self.test_images = images, test_images

    def measured(self, trainer: pl.Trainer, module: Classifier) -> dict[str, Any]:
        """Loss and accuracy."""
        network, found = final_network(trainer, module), dict[str, Any]()
        for split, images, prefix in (("train", self.images, "final"), ("test", self.test_images, "final_test")):
            if images:
                numbers = module.task.metrics(*answers(trainer, network, plain_batches(trainer, images, split)))
                percent = {name: value * (100 if name == "accuracy" else 1) for name, value in numbers.items()}
                found |= {f"{prefix}_{name}": value for name, value in percent.items()}
        return found


class Recency(Probe):
    """How much lower the final network's loss is on the batches that it saw last than on those an epoch before.

    The batches are those of the last epoch, augmented as they were trained on, in that order; if the run ends inside
    an epoch, as many last ones as an epoch has. recency: the loss without label smoothing by batch (train mode),
    each number the mean of `average` batches, oldest first. recency_oldest, recency_newest: means of the first and
    the last tenth; recency_gap: their difference; recency_gap_error: its standard error from the spread of the
    batches inside the two tenths, or of all batches if a tenth is only one; recency_z: gap over error.
    """

    def __init__(self, average: int) -> None:
        super().__init__()
        self.average = average

    def measured(self, trainer: pl.Trainer, module: Classifier) -> dict[str, Any]:
        """Losses by batch, and the gap between the ends."""
        logits, labels = answers(trainer, final_network(trainer, module), last_batches(trainer))
        batch_size = trainer.datamodule.batch_size  # type: ignore[attr-defined]
        pairs = zip(logits.split(batch_size), labels.split(batch_size), strict=True)
        losses = torch.stack([module.task.summed_loss(*pair) / batch_size for pair in pairs])
        count = max(1, round(len(losses) / 10))
        oldest, newest = losses[:count], losses[-count:]
        spread = torch.stack([oldest, newest] if count > 1 else [losses])
        # One batch alone has no spread: the error is NaN, without torch's warning.
        variance = spread.var(1).mean().item() if spread.shape[1] > 1 else math.nan
        gap, error = (oldest.mean() - newest.mean()).item(), math.sqrt(2 / count * variance)
        return {
            "recency": [part.mean().item() for part in losses.split(self.average)],
            "recency_oldest": oldest.mean().item(), "recency_newest": newest.mean().item(), "recency_gap": gap,
            "recency_gap_error": error, "recency_z": gap / error if error else math.nan,
            "recency_batches": len(losses),
        }  # fmt: skip


class GradientNorms(Probe):
    """L2 norms of the gradients of every convolution and linear layer at the fractions `at` of training.

    0 is the first step, 1 the last. gradient_norms: by fraction the names of the "layers", the norms ("values") and
    each norm over that of its weights ("relative"). The gradients are those of the batch's loss, before they are
    clipped and without the scale of 16-mixed. Fractions that a diverged run did not reach are missing.

    every_n_steps: besides, both norms go to the loggers, as gradient_norm/LAYER and weight_norm/LAYER, each so many
    steps.
    """

    def __init__(self, at: list[float], every_n_steps: int | None = None) -> None:
        super().__init__()
        self.at, self.every_n_steps = at, every_n_steps
        self.measures = {"gradient_norms": {}}

    def state_dict(self) -> dict[str, Any]:
        """The norms so far."""
        return dict(self.measures)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue the table."""
        self.measures = dict(state_dict)

    def on_before_optimizer_step(self, trainer: pl.Trainer, pl_module: Any, optimizer: torch.optim.Optimizer) -> None:
        """Take the norms if this is the step of one of the fractions."""
        last = pl_module.total_steps - 1
        due = [f"{fraction:g}" for fraction in self.at if round(fraction * last) == trainer.global_step]
        is_logged = self.every_n_steps and trainer.global_step % self.every_n_steps == 0
        if not (due or is_logged):
            return
        # A fused optimizer unscales the gradients only inside its step.
        scaled = trainer.scaler is not None and getattr(optimizer, "_step_supports_amp_scaling", False)
        scale = float(trainer.scaler.get_scale()) if scaled else 1.0  # type: ignore[union-attr]
        trained = {name: weight for name, weight in layers(pl_module.network).items() if weight.grad is not None}
        with torch.no_grad():
            norms = [torch.stack([w.grad.norm() / scale, w.norm()]) for w in trained.values()]  # type: ignore[union-attr]
        rows = torch.stack(norms).double().tolist()
        if is_logged:
            names = [f"{kind}_norm/{name}" for name in trained for kind in ("gradient", "weight")]
            pl_module.log_now(dict(zip(names, chain.from_iterable(rows), strict=True)))
        relative = [value / norm if norm else math.nan for value, norm in rows]
        table = {"layers": list(trained), "values": [value for value, _ in rows], "relative": relative}
        self.measures["gradient_norms"] |= dict.fromkeys(due, table)


class StepBreakdown(Probe):
    """Where the time of a training step goes, over `steps` steps of a copy of the final network after two others.

    breakdown_ms: milliseconds a step by component (see `breakdown.of_steps`), largest first. step_ms: their sum.
    convolution_share and so on: the part of each in it. The network is not compiled, not even in a run that compiles
    it. Raises ValueError for 16-mixed, which it cannot measure.
    """

    def __init__(self, steps: int) -> None:
        super().__init__()
        self.steps = steps

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Refuse a precision that is not measured."""
        refuse_precision("step_breakdown", trainer)

    def measured(self, trainer: pl.Trainer, module: Classifier) -> dict[str, Any]:
        """Milliseconds by component and in all."""
        network, optimizer = copy_with_optimizer(trainer, module)
        loader = trainer.datamodule.loader("train", trainer.strategy.root_device)  # type: ignore[attr-defined]
        seconds = breakdown.of_steps(
            network, optimizer, loader, steps=self.steps, bf16=trainer.precision == "bf16-mixed",
            loss=module.task.loss,
        )  # fmt: skip
        milliseconds = {name: 1e3 * part for name, part in seconds.items()}
        total = sum(milliseconds.values())
        shares = {f"{name.replace(' ', '_')}_share": part / total for name, part in milliseconds.items()}
        return {"breakdown_ms": milliseconds, "step_ms": total, **shares}


def refuse_precision(name: str, trainer: pl.Trainer) -> None:
    """Raise ConfigError for a precision that a step outside the Trainer does not follow: scaled gradients, all bf16."""
    if trainer.scaler is not None or trainer.precision == "bf16-true":
        raise ConfigError([f"trainer.precision={trainer.precision}: callbacks.{name} takes bf16-mixed or 32-true"])


def layers(network: nn.Module) -> dict[str, Tensor]:
    """The weights of all convolutions and linear layers by readable name: "prep", "layer1.residual.first", "head"."""
    return {
        name.removesuffix(".conv"): module.weight
        for name, module in network.named_modules()
        if isinstance(module, nn.Conv2d | nn.Linear)
    }


def final_network(trainer: pl.Trainer, module: Classifier) -> nn.Module:
    """A copy of the network in train mode, on the device that trained; the network itself is on the CPU again."""
    return copy.deepcopy(module.network).to(trainer.strategy.root_device).train()


def copy_with_optimizer(trainer: pl.Trainer, module: Classifier) -> tuple[nn.Module, torch.optim.Optimizer]:
    """A copy of the network in train mode, on the device that trains, and an optimizer like its own, without state."""
    network, optimizer = copy.deepcopy((module.network, trainer.optimizers[0]))
    optimizer.state.clear()
    return network.to(trainer.strategy.root_device).train(), optimizer


def plain_batches(trainer: pl.Trainer, images: int, split: str = "train") -> list[Batch]:
    """`images` images of a split, evenly spaced, not augmented: full batches of the run's size, or one smaller one."""
    data, device = trainer.datamodule, trainer.strategy.root_device  # type: ignore[attr-defined]
    mean, std = data.normalization
    sample, normalizer = data.sample(images, split), Normalizer(mean, std, device)
    batches = list(BatchLoader(sample, normalizer, batch_size=data.batch_size, seed=data.seed, device=device))
    is_partial = len(batches[-1].labels) < data.batch_size
    return batches[:-1] if is_partial and len(batches) > 1 else batches


def last_batches(trainer: pl.Trainer) -> Iterator[Batch]:
    """The batches of the last steps, as many as an epoch has, as they were trained on and in that order."""
    loader = trainer.datamodule.loader("train", trainer.strategy.root_device)  # type: ignore[attr-defined]
    count = min(trainer.global_step, len(loader))
    epoch, batch = divmod(trainer.global_step - count, len(loader))
    loader.load_state_dict(loader.state_dict() | {"epoch": epoch, "batch": batch})
    return islice(chain.from_iterable(repeat(loader)), count)


@torch.no_grad()
def answers(trainer: pl.Trainer, network: nn.Module, batches: Iterable[Batch]) -> tuple[Tensor, Tensor]:
    """Logits (float64 [n, classes]) and labels (int64 [n]) of all batches, on the CPU, in the trainer's precision."""
    plugin = trainer.precision_plugin
    logits, labels = [], []
    for batch in batches:
        with plugin.forward_context():
            logits.append(network(plugin.convert_input(batch.images)))
        labels.append(batch.labels)
    return torch.cat(logits).cpu().double(), torch.cat(labels).cpu()
