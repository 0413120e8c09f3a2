"""A trained network to use: `from onecycle import load`. It needs neither Hydra nor Lightning, nor the data set."""

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from onecycle.config.targets import instantiate
from onecycle.data.class_folders import decode_image
from onecycle.runs import checkpoints
from onecycle.runs.trained import TrainedRun, read_trained
from onecycle.training.tasks import Task


class TrainedNetwork(nn.Module):
    """The network of a run in eval mode, which normalises images as in its training.

    classes: names in the order of the logits. side: pixels of the images that it was tested on, high and wide.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, run: TrainedRun, allow: Sequence[str] = ()) -> None:
        super().__init__()
        self.network, self.classes = run.network, run.classes
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

    @torch.inference_mode()
    def predict(self, paths: Iterable[str | Path], batch_size: int = 256) -> Tensor:
        """Probabilities, float [n, classes] on the CPU, of image files: cropped and resized as in class folders.

        For a regression these are its outputs. Raises ValueError for a file that cannot be read.
        """
        files, found = list(map(Path, paths)), [torch.empty(0, len(self.classes))]
        for first in range(0, len(files), batch_size):
            batch = np.stack([self._decoded(path) for path in files[first : first + batch_size]])
            images = torch.from_numpy(batch).permute(0, 3, 1, 2).to(self.mean.device)
            found.append(self.task.predictions(self(images)).float().cpu())
        return torch.cat(found)

    def _decoded(self, path: Path) -> np.ndarray:
        try:
            return decode_image(path, self.side)[0]
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from None


def load_network(
    folder: str | Path, checkpoint: str = checkpoints.LAST, *, allow: Sequence[str] = ()
) -> TrainedNetwork:
    """The trained network of a run's folder, on the CPU.

    checkpoint: a file in the run's checkpoints/, or any path. allow: packages, beside those that training may use,
    whose networks may be built. Raises ConfigError for a folder that holds no finished run. Whoever made the run,
    nothing of its folder is executed: see `read_trained`.
    """
    return TrainedNetwork(read_trained(Path(folder), checkpoint, allow), allow)
