"""A trained network, whoever trained it: read from a run's folder with its classes and its normalisation.

Nothing of the folder is executed: the network's class must be of an allowed package, its arguments are plain values,
and its weights are unpickled as tensors alone.
"""

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from onecycle.config.targets import instantiate
from onecycle.errors import ConfigError, one_line, reason_of
from onecycle.runs import checkpoints
from onecycle.runs.record import read_result
from onecycle.runs.saved import Description, description


@dataclass(frozen=True)
class TrainedRun:
    """What is known of a finished run. The network is on the CPU; its logits are in the order of `classes`.

    normalization: mean and standard deviation of the three channels on 0–255, as in the run's training.
    """

    network: nn.Module
    classes: tuple[str, ...]
    normalization: tuple[tuple[float, ...], tuple[float, ...]]
    checkpoint: Path
    record: Mapping[str, Any]
    description: Description


def read_trained(folder: Path, checkpoint: str = checkpoints.LAST, allow: Sequence[str] = ()) -> TrainedRun:
    """The trained network of a run.

    checkpoint: a file in the run's checkpoints/, or any path. allow: packages, beside those that training may use,
    whose networks may be built. Raises ConfigError, with a line for each problem, for a folder that holds no finished
    run, a class that is not allowed, and a checkpoint that cannot be read or is of another network.
    """
    described, record = description(folder), read_result(folder)
    if record is None or not (record.get("data") or {}).get("classes"):
        raise ConfigError(
            [f"{folder}: the run has not been finished; onecycle-train {shlex.quote(f'resume={folder}')} does"]
        )
    classes = tuple(one_line(name) for name in record["data"]["classes"])
    path = folder / checkpoints.FOLDER / checkpoint
    path = path if path.exists() else Path(checkpoint)
    try:
        saved = checkpoints.read_checkpoint(path)
        weights = {name.removeprefix("network."): value for name, value in saved["state_dict"].items()}
        mean, std = (tuple(map(float, part)) for part in saved["onecycle"]["normalization"])
        if not len(mean) == len(std) == 3:
            raise ValueError("its normalization is not that of three channels")
    except (ValueError, AttributeError, KeyError, TypeError) as error:
        raise ConfigError([f"checkpoint={path}: cannot be read ({reason_of(error)})"]) from None
    try:
        network = _network(described.model, len(classes), weights, allow)
    except RuntimeError as error:
        raise ConfigError([f"checkpoint={path}: is not of this network: {reason_of(error)}"]) from None
    return TrainedRun(network, classes, (mean, std), path, record, described)


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
