"""What makes a GPU's steps fast: a warm-up before the clock starts, and the whole step as one CUDA graph."""

from collections.abc import Callable
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.strategies import SingleDeviceStrategy
from lightning.pytorch.utilities.model_helpers import is_overridden
from torch import Tensor

from onecycle.data.datamodule import Batch
from onecycle.models.resnet9 import ResNet9
from onecycle.training.muon import Muon

STEPS = 3  # the first one of a shape tries cuDNN's algorithms, or compiles; the later ones show that it is done
# What a callback may do inside a step; a graph calls nobody.
HOOKS = ("on_before_backward", "on_after_backward", "on_before_optimizer_step", "on_before_zero_grad")


def warm_up(classifier: Any, trainer: pl.Trainer) -> None:
    """Bring the images to the device, and take steps with every size of them where that prepares something.

    On a GPU the first steps load CUDA's libraries and let cuDNN choose its algorithms, and anywhere they compile the
    network if asked to; a CPU has nothing else of that kind. Weights, buffers, optimizer, order of the images and
    random state are afterwards those of before.
    """
    loaders = [trainer.datamodule.train_dataloader()]  # type: ignore[attr-defined]
    if trainer.limit_val_batches:
        loaders.append(trainer.datamodule.val_dataloader())  # type: ignore[attr-defined]
    device = classifier.device
    if device.type == "cpu" and not classifier.is_compiled:
        return
    optimizer, tensors = trainer.optimizers[0], [*classifier.network.parameters(), *classifier.network.buffers()]
    before = [tensor.detach().clone() for tensor in tensors]
    batches = [loader.first_batch() for loader in loaders]
    with torch.random.fork_rng():
        for progress, _ in classifier.resizing or [[0.0, 1.0]]:
            batch = classifier.at_size(batches[0], progress)
            for _ in range(STEPS):
                with trainer.precision_plugin.forward_context():
                    loss = classifier.task.loss(classifier(batch.images).float(), batch.labels)
                loss.backward()
                optimizer.step()
                optimizer.zero_grad()
        if len(batches) > 1:
            modes = {module: module.training for module in classifier.modules()}
            classifier.eval()
            with torch.no_grad(), trainer.precision_plugin.forward_context():
                classifier(batches[1].images)
            for module, mode in modes.items():
                module.training = mode
    with torch.no_grad():
        torch._foreach_copy_(tensors, before)
    optimizer.state.clear()


def can_be_graphed(classifier: Any, trainer: pl.Trainer) -> bool:
    """Whether nothing in a step depends on the host: neither the network, nor the optimizer, nor a callback."""
    optimizer, schedule, point = trainer.optimizers[0], classifier.schedule, classifier.point
    return (
        classifier.device.type == "cuda"
        and isinstance(classifier.network, ResNet9)
        and type(classifier.task).__module__.startswith("onecycle.")
        and (isinstance(optimizer, Muon) or (type(optimizer) is torch.optim.SGD and bool(optimizer.defaults["fused"])))
        and len({schedule.momentum(k / 100, point.momentum) for k in range(101)}) == 1
        and isinstance(trainer.strategy, SingleDeviceStrategy)
        and trainer.precision in ("32-true", "bf16-mixed", "bf16-true")
        and not (trainer.gradient_clip_val or trainer._detect_anomaly)
        and not any(is_overridden(hook, callback, pl.Callback) for callback in trainer.callbacks for hook in HOOKS)  # type: ignore[attr-defined]
    )


def record(work: Callable[[], None], pool: Any) -> tuple[Callable[[], None], Any]:
    """A function that repeats what `work` asks of the GPU, and the memory pool that further graphs may share."""
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, pool=pool):
        work()
    return graph.replay, graph.pool()


class GraphedSteps:
    """Training steps of a classifier, one graph for each size of the images; the first step must have been taken.

    Launching the kernels of a small network takes the host longer than the GPU takes for them.
    Between two steps the host writes only the images, the labels and the learning rate of each group.
    """

    def __init__(self, classifier: Any, optimizer: torch.optim.Optimizer) -> None:
        self.classifier, self.optimizer = classifier, optimizer
        self._graphs: dict[torch.Size, tuple[Callable[[], None], Batch]] = {}
        self._rates = torch.zeros(len(optimizer.param_groups), device=classifier.device)
        self._loss = torch.zeros((), device=classifier.device)
        self._pool: Any = None

    def step(self, batch: Batch) -> Tensor:
        """Forward, backward and the optimizer's step with its current rates; returns the loss, without a graph."""
        if batch.images.shape not in self._graphs:
            self._graphs[batch.images.shape] = self._recorded(batch)
        replay, inputs = self._graphs[batch.images.shape]
        torch._foreach_copy_(list(inputs), list(batch))
        self._rates.copy_(torch.tensor([group["lr"] for group in self.optimizer.param_groups]), non_blocking=True)
        replay()
        return self._loss

    def _recorded(self, batch: Batch) -> tuple[Callable[[], None], Batch]:
        inputs, groups = Batch(*(part.clone() for part in batch)), self.optimizer.param_groups
        rates = [group["lr"] for group in groups]

        def work() -> None:
            self.optimizer.zero_grad()
            loss = self.classifier.loss_of(inputs)
            self._loss.copy_(loss.detach())
            with torch.autocast(self._rates.device.type, enabled=False):  # as outside of Lightning's training step
                loss.backward()
                self.optimizer.step()

        try:
            for group, rate in zip(groups, self._rates, strict=True):
                group["lr"] = rate
            replay, self._pool = record(work, self._pool)
        finally:
            for group, lr in zip(groups, rates, strict=True):
                group["lr"] = lr
        return replay, inputs
