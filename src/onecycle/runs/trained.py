"""A trained network, whoever trained it: read from a run's folder with its classes and its normalisation.

Nothing of the folder is executed: the network's class must be of an allowed package, its arguments are plain values,
and its weights are unpickled as tensors alone.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from onecycle.config.targets import instantiate
from onecycle.errors import ConfigError, one_line, reason_of
from onecycle.models.resnet9 import head_of
from onecycle.runs import checkpoints
from onecycle.runs.saved import Description, finished_run, origin_of

Normalization = tuple[tuple[float, ...], tuple[float, ...]]


@dataclass(frozen=True)
class Origin:
    """What a training starts from in place of the seed's weights: those of another run, and how it saw its images."""

    weights: Mapping[str, Tensor]
    classes: tuple[str, ...]
    normalization: Normalization
    sha256: str


@dataclass(frozen=True)
class TrainedRun:
    """What is known of a finished run. The network is on the CPU; its logits are in the order of `classes`.

    normalization: mean and standard deviation of the three channels on 0–255, as in the run's training.
    """

    network: nn.Module
    classes: tuple[str, ...]
    normalization: Normalization
    checkpoint: Path
    record: Mapping[str, Any]
    description: Description


def read_trained(folder: Path, checkpoint: str = checkpoints.LAST, allow: Sequence[str] = ()) -> TrainedRun:
    """The trained network of a run.

    checkpoint: a file in the run's checkpoints/, or any path. allow: packages, beside those that training may use,
    whose networks may be built. Raises ConfigError, with a line for each problem, for a folder that holds no finished
    run, a class that is not allowed, and a checkpoint that cannot be read or is of another network.
    """
    described, record = finished_run(folder)
    classes = tuple(one_line(name) for name in record["data"]["classes"])
    path = folder / checkpoints.FOLDER / checkpoint
    path = path if path.exists() else Path(checkpoint)
    weights, normalization = _contents(path, f"checkpoint={path}")
    try:
        network = _network(described.model, len(classes), weights, allow)
    except RuntimeError as error:
        raise ConfigError([f"checkpoint={path}: is not of this network: {reason_of(error)}"]) from None
    return TrainedRun(network, classes, normalization, path, record, described)


def read_origin(given: str) -> Origin:
    """What `init_from` names; raises ConfigError for a folder of no finished run and an unreadable checkpoint."""
    folder, name = origin_of(given)
    path = folder / checkpoints.FOLDER / (name or checkpoints.LAST)
    _, record = finished_run(folder)
    weights, normalization = _contents(path, f"init_from={path}")
    return Origin(weights, tuple(record["data"]["classes"]), normalization, checkpoints.sealed_with(path))


def start_from(origin: Origin, network: nn.Module, classes: Sequence[str]) -> str:
    """Copy those weights of an earlier run that fit into a network of `classes`; says which did not, in one line.

    Tensors fit by name and shape. The head is taken for the same classes in the same order only. Raises ValueError
    where no parameter fits.
    """
    own, head = network.state_dict(), f"{head_of(network)}."
    same_classes = tuple(classes) == origin.classes
    taken = {
        name: value
        for name, value in origin.weights.items()
        if name in own and value.shape == own[name].shape and (same_classes or not name.startswith(head))
    }
    if not taken.keys() & dict(network.named_parameters()).keys():
        raise ValueError("init_from: no layer of that run fits this network")
    network.load_state_dict(taken, strict=False)
    said = [f"{len(taken)} of {len(own)} tensors from the checkpoint {origin.sha256[:12]}"]
    for what, names in (("from the seed", own.keys() - taken.keys()), ("not used", origin.weights.keys() - own.keys())):
        layers = sorted({name.rpartition(".")[0] or name for name in names})
        said += [f"{what}: {', '.join(layers)}"] * bool(layers)
    return one_line("; ".join(said))


def _contents(path: Path, key: str) -> tuple[dict[str, Tensor], Normalization]:
    """Weights and normalization of a checkpoint; raises ConfigError, with a line that begins with `key`."""
    try:
        saved = checkpoints.read_checkpoint(path)
        weights = {name.removeprefix("network."): value for name, value in saved["state_dict"].items()}
        mean, std = (tuple(map(float, part)) for part in saved["onecycle"]["normalization"])
        if not len(mean) == len(std) == 3:
            raise ValueError("its normalization is not that of three channels")
    except (ValueError, AttributeError, KeyError, TypeError) as error:
        raise ConfigError([f"{key}: cannot be read ({reason_of(error)})"]) from None
    return weights, (mean, std)


def _network(model: Mapping[str, Any], classes: int, weights: dict[str, Tensor], allow: Sequence[str]) -> nn.Module:
    def built(device: str) -> nn.Module:
        with torch.random.fork_rng(devices=[]), torch.device(device):
            network = instantiate(model, nn.Module, "model", allow, classes=classes)
        assert isinstance(network, nn.Module)
        return network

    # First without memory: a configuration may ask for a network that is larger than its weights, and than any machine.
    if not str(model["_target_"]).startswith(tuple(f"{package}." for package in allow)):
        built("meta").load_state_dict(weights, assign=True)
    network = built("cpu")
    network.load_state_dict(weights)
    return network.eval()
