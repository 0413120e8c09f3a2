"""A trained network, whoever trained it, read from a run's folder: to use, to evaluate, or to start from.

`from onecycle import load` needs neither Hydra nor Lightning, nor the data set.

Nothing of the folder is executed: the network's class must be of an allowed package, its arguments are plain values,
and its weights are unpickled as tensors alone.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from onecycle.config.targets import instantiate
from onecycle.data.class_folders import decode_image
from onecycle.errors import ConfigError, one_line, reason_of
from onecycle.models.resnet9 import head_of
from onecycle.runs import checkpoints
from onecycle.runs.saved import Description, finished_run, origin_of
from onecycle.training.tasks import Task

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


class TrainedNetwork(nn.Module):
    """The network of a run in eval mode, which normalises images as in its training.

    classes: names in the order of the logits. record: the run's `result.json`. side: pixels of the images that it was
    tested on, high and wide.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, run: TrainedRun, allow: Sequence[str] = ()) -> None:
        super().__init__()
        self.network, self.classes, self.record = run.network, run.classes, run.record
        described = run.description  # of version 0.1, whose records do not say the side
        self.side: int = run.record["data"].get("side") or described.side or described.source.get("image_size", 32)
        self.task: Task = instantiate(run.description.task, Task, "task", allow)
        for name, values in zip(("mean", "std"), run.normalization, strict=True):
            self.register_buffer(name, torch.tensor(values).view(3, 1, 1))
        self.eval()

    def forward(self, images: Tensor) -> Tensor:
        """Logits, float [n, classes], of RGB images [n, 3, h, w]: uint8, or floats from 0 to 1."""
        values = images.to(self.mean.dtype) if images.dtype == torch.uint8 else images.to(self.mean.dtype) * 255
        return self.network((values - self.mean) / self.std)

    def predict(self, paths: Iterable[str | Path], batch_size: int = 256) -> Tensor:
        """Probabilities, float [n, classes] on the CPU, of image files: cropped and resized as in class folders.

        For a regression these are its outputs. Raises ValueError for a file that cannot be read.
        """
        found = [torch.empty(0, len(self.classes))]
        for _, answers, problems in self.answers([Path(path) for path in paths], batch_size=batch_size):
            if problems:
                raise ValueError(problems[0])
            found.append(answers)
        return torch.cat(found)

    def answers(
        self, files: Sequence[Path], *, batch_size: int = 256, flip: bool = False
    ) -> Iterator[tuple[list[Path], Tensor, list[str]]]:
        """For each batch of files: those that could be read, their rows of `predict`, and a line for each other one.

        flip: average the logits of each image and its mirror image. Files are decoded by several threads.
        """
        with ThreadPoolExecutor() as pool:
            for first in range(0, len(files), batch_size):
                batch = files[first : first + batch_size]
                decoded = list(zip(batch, pool.map(self._decoded, batch), strict=True))
                good = [(path, image) for path, image in decoded if not isinstance(image, str)]
                found = torch.empty(0, len(self.classes))
                if good:
                    pixels = torch.from_numpy(np.stack([image for _, image in good])).permute(0, 3, 1, 2)
                    found = self._answered(pixels.to(self.mean.device), flip)
                yield [path for path, _ in good], found, [image for _, image in decoded if isinstance(image, str)]

    @torch.inference_mode()
    def _answered(self, images: Tensor, flip: bool) -> Tensor:
        logits = (self(images) + self(images.flip(3))) / 2 if flip else self(images)
        return self.task.predictions(logits).float().cpu()

    def _decoded(self, path: Path) -> np.ndarray | str:
        try:
            return decode_image(path, self.side)[0]
        except ValueError as error:
            return f"{path}: {error}"


def load_network(
    folder: str | Path, checkpoint: str = checkpoints.LAST, *, allow: Sequence[str] = ()
) -> TrainedNetwork:
    """The trained network of a run's folder, or of a checkpoint in it, on the CPU.

    checkpoint: a file in the run's checkpoints/, or any path. allow: packages, beside those that training may use,
    whose networks may be built. Raises ConfigError for a folder that holds no finished run. Whoever made the run,
    nothing of its folder is executed: see `read_trained`.
    """
    place, named = origin_of(str(folder))
    return TrainedNetwork(read_trained(place, named or checkpoint, allow), allow)
