"""A data set whose images are made smaller once, before anything else: for studies of many short runs."""

from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F

from onecycle.data.sources import Arrays, Source, load


class Smaller:
    """The images of another source, training and test alike, averaged over areas to `side` × `side` pixels.

    The averages are rounded to bytes and cached as a data set of their own. Raises ValueError where `side` would
    enlarge the images.
    """

    def __init__(self, source: Source, side: int, cache: Path) -> None:
        self.source, self.side, self.cache = source, side, cache
        self.name, self.origin = source.name, source.origin

    def key(self) -> dict[str, Any]:
        """That of the source, and the side."""
        return self.source.key() | {"side": self.side}

    def decode(self) -> tuple[Arrays, list[str]]:
        """The smaller images."""
        dataset, arrays = load(self.source, self.cache), {}
        for name, split in (("train", dataset.train), ("test", dataset.test)):
            largest = min(split.pixels.shape[1:3])
            if self.side > largest:
                raise ValueError(f"data.side={self.side}: must be at most {largest}, the side of the {name} images")
            small = [
                F.interpolate(part.permute(0, 3, 1, 2).float(), (self.side, self.side), mode="area").round().byte()
                for part in split.pixels.split(1000)
            ]
            arrays[f"{name}_images"] = torch.cat(small).permute(0, 2, 3, 1).contiguous().numpy()
            arrays[f"{name}_labels"] = split.labels.numpy()
        return arrays, list(dataset.classes)
