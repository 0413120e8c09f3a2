"""Batches from images that are stored on the training device, with a state that continues mid-epoch."""

import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from onecycle.data.augment import NO_AUGMENTATION, Canvas, Draws, Normalizer, Places, draw
from onecycle.data.options import AugmentOptions
from onecycle.data.sources import Split

# Pixels that are made at a time by all ranks together, as whole batches: 8 batches of 256 images of 32×32. On a CPU a
# single batch between two steps takes twice as long as one after another batch, because the step evicts the caches.
AHEAD = 1 << 21


class Batch(NamedTuple):
    """Images [n, 3, h, w] in channels_last, of the normalizer's dtype, and int64 labels [n], on the loader's device."""

    images: Tensor
    labels: Tensor


class BatchLoader:
    """Batches of augmented, normalised images. Equal seeds give equal batches on every device and number of ranks.

    An epoch's order and all its augmentations depend on (seed, epoch) only and are drawn by the loader's own generator:
    global random state has no influence, and epoch and batch are the whole state. `batch_size` counts the images of all
    ranks together; each rank takes its own slice of every batch. Without `shuffle` the order is that of the split,
    and the last, smaller batch is kept.

    Raises ValueError where batch_size does not divide among the ranks or leaves no full batch.
    """

    def __init__(
        self,
        split: Split,
        normalizer: Normalizer,
        *,
        batch_size: int,
        seed: int,
        device: torch.device,
        augmentation: AugmentOptions = NO_AUGMENTATION,
        shuffle: bool = False,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        if shuffle and batch_size % world_size:
            raise ValueError(f"batch_size={batch_size}: must be a multiple of the {world_size} devices")
        if shuffle and len(split.labels) < batch_size:
            raise ValueError(f"batch_size={batch_size}: must be at most {len(split.labels)}, the training images")
        self.canvas, self.labels = Canvas(split.pixels, augmentation, device), split.labels.to(device)
        self.normalizer = normalizer
        self.batch_size, self.seed, self.shuffle = batch_size, seed, shuffle
        self.rank, self.world_size = rank, world_size
        self.epoch, self.batch = 0, 0
        self._restored = False

    @property
    def size(self) -> int:
        """Images in the split."""
        return len(self.labels)

    @property
    def ahead(self) -> int:
        """Batches that are made at a time."""
        return max(1, AHEAD // (self.batch_size * self.canvas.height * self.canvas.width))

    def __len__(self) -> int:
        """Batches an epoch: full ones only where shuffled (every step then sees the same batch size)."""
        return self.size // self.batch_size if self.shuffle else math.ceil(self.size / self.batch_size)

    def __iter__(self) -> Iterator[Batch]:
        """The rest of the epoch where a state was loaded, else the next whole epoch."""
        if self.batch >= len(self) or (self.batch and not self._restored):
            self.epoch, self.batch = self.epoch + 1, 0
        self._restored = False
        order, draws = self._plan()
        while self.batch < len(self):
            for batch in self._gather(order, draws, self.batch, min(self.batch + self.ahead, len(self))):
                self.batch += 1
                yield batch

    def close(self) -> None:
        """Free the images, which may be half a gigabyte; the loader cannot be used any more."""
        del self.canvas

    def state_dict(self) -> dict[str, Any]:
        """Epoch and number of the next batch, and what must not change between saving and loading."""
        return {name: getattr(self, name) for name in ("epoch", "batch", "seed", "size", "batch_size")}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue after the last batch of the saved loader. Raises ValueError for the state of another loader."""
        for name in ("seed", "size", "batch_size"):
            if state[name] != getattr(self, name):
                raise ValueError(
                    f"the saved loader had {name}={state[name]}, this one has {name}={getattr(self, name)}"
                )
        self.epoch, self.batch, self._restored = state["epoch"], state["batch"], True

    def positions(self) -> Tensor:
        """Indices into the split of this rank's images, int64, in the order of an unshuffled epoch."""
        parts = [torch.arange(*self._share(batch)) for batch in range(math.ceil(self.size / self.batch_size))]
        return torch.cat([torch.arange(0), *parts])

    def _share(self, batch: int) -> tuple[int, int]:
        """Start and stop of this rank's slice of a batch, counted from the start of the epoch."""
        start = batch * self.batch_size
        stop = min(start + self.batch_size, self.size)
        share = -(-(stop - start) // self.world_size)
        return min(start + self.rank * share, stop), min(start + (self.rank + 1) * share, stop)

    def _plan(self) -> tuple[Tensor, Draws]:
        """This rank's part of the epoch's order, int64 [n], and the draws of its images in that order."""
        generator = _generator(self.seed, self.epoch)
        order = torch.randperm(self.size, generator=generator) if self.shuffle else torch.arange(self.size)
        augmentation = self.canvas.augmentation
        draws = draw(augmentation, self.size, self.canvas.height, self.canvas.width, generator)
        if augmentation.flip == "alternating":
            first = torch.randint(0, 2, (self.size,), generator=_generator(self.seed, None))
            draws = draws._replace(flip=(first[order] + self.epoch) % 2)
        # One transfer per epoch, so that no step waits for a copy to the device.
        mine, device = self.positions(), self.labels.device
        return order[mine].to(device), Draws(*(part[mine].to(device) for part in draws))

    def _gather(self, order: Tensor, draws: Draws, first: int, last: int) -> list[Batch]:
        """This rank's slices of the batches from `first` to before `last`."""
        sizes = [stop - start for start, stop in (self._share(0), *map(self._share, range(first, last)))]
        start = first * sizes.pop(0)  # only the last batch of an epoch may be smaller than the first
        mine = slice(start, start + sum(sizes))
        indices = order[mine]
        where = self.canvas.places(indices, Draws(*(part[mine] for part in draws)))
        parts = zip(*(part.split(sizes) for part in (*where, self.labels[indices])), strict=True)
        return [Batch(self.canvas.gather(Places(*part), self.normalizer), labels) for *part, labels in parts]


def _generator(seed: int, epoch: int | None) -> torch.Generator:
    """A generator for one epoch, or for what is drawn once for all of them (None)."""
    words = np.random.SeedSequence([seed, 0 if epoch is None else epoch + 1]).generate_state(2, np.uint32)
    return torch.Generator().manual_seed(int(words[0]) << 32 >> 1 | int(words[1]) >> 1)
