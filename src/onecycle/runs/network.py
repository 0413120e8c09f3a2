"""A trained network to use: `from onecycle import load`. It needs neither Hydra nor Lightning, nor the data set."""

from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
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
    place = Path(folder)
    if place.is_file() and place.parent.name == checkpoints.FOLDER:
        place, checkpoint = place.parents[1], place.name
    return TrainedNetwork(read_trained(place, checkpoint, allow), allow)
