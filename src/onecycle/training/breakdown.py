"""Where the time of a training step goes, by component, from PyTorch's profiler."""

import os
from collections.abc import Callable, Iterable
from itertools import chain, cycle, islice, repeat

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd import DeviceType
from torch.autograd.profiler_util import FunctionEvent
from torch.profiler import ProfilerActivity, profile, record_function

from onecycle.data.datamodule import Batch

# An operator belongs to the component with a word that is in its name, or else in the name of one that called it.
WORDS = {
    "data": ("onecycle.data",),
    "optimizer": ("onecycle.optimizer",),
    "convolution": ("conv",),
    "norm": ("batch_norm", "group_norm", "batchnorm", "groupnorm"),
    "activation": ("relu", "threshold", "elu"),
    "pooling": ("pool",),
    "head and loss": ("softmax", "nll_", "cross_entropy", "linear", "addmm", "aten::mm"),
    "casts": ("aten::to", "_to_copy"),
}
OTHER = "other"
WARM = 2  # steps before those that are measured

# The profiler's library prints each start and stop, and a missing GPU as an error, between the lines of a study.
os.environ.setdefault("KINETO_LOG_LEVEL", "6")


def of_steps(
    network: nn.Module, optimizer: torch.optim.Optimizer, loader: Iterable[Batch], *, steps: int,
    bf16: bool = False, loss: Callable[[Tensor, Tensor], Tensor] = F.cross_entropy,
) -> dict[str, float]:  # fmt: skip
    """Seconds a step by component, largest first, over `steps` training steps of `network` after `WARM` others.

    "data" is the time to make a batch, averaged over as many as the loader makes at a time. On a CPU these are the
    operators' own times, on a GPU those of the kernels that they start.
    """
    batches = chain.from_iterable(repeat(loader))
    device = next(network.parameters()).device

    def step(batch: Batch) -> None:
        images, labels = batch
        with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
            value = loss(network(images), labels)
        value.backward()
        with record_function("onecycle.optimizer"):
            optimizer.step()
            optimizer.zero_grad()

    network.train()
    for batch in islice(batches, WARM):
        step(batch)
    activities = [ProfilerActivity.CPU] + [ProfilerActivity.CUDA] * (device.type == "cuda")
    with profile(activities=activities) as profiler:
        with record_function("onecycle.data"):
            made = list(islice(batches, getattr(loader, "ahead", 1)))
        for batch in islice(cycle(made), steps):
            step(batch)
    seconds = dict.fromkeys((*WORDS, OTHER), 0.0)
    for event in profiler.events() or ():
        if event.device_type != DeviceType.CPU:
            continue  # a kernel: its time stands at the operator that started it, too
        own = event.self_device_time_total if device.type == "cuda" else event.self_cpu_time_total
        part = component(event)
        seconds[part] += own / 1e6 / (len(made) if part == "data" else steps)
    return dict(sorted(seconds.items(), key=lambda item: -item[1]))


def component(event: FunctionEvent) -> str:
    """The component of an operator; all that happens inside "data" and "optimizer" belongs to them."""
    names = []
    caller: FunctionEvent | None = event
    while caller is not None:
        names.append(caller.name.lower())
        caller = caller.cpu_parent
    for part in ("data", "optimizer"):
        if WORDS[part][0] in names:
            return part
    return next((part for name in names for part, words in WORDS.items() if any(word in name for word in words)), OTHER)
