"""Batches from a data set that lives on the training device, with a state that continues mid-epoch."""

import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from onecycle.data.augment import NO_AUGMENTATION, Augmentation, Draws, Normalizer, Places, augment, draw, places
from onecycle.data.sources import Split


class Batch(NamedTuple):
    """float32 images [n, 3, h, w] in channels_last and int64 labels [n], both on the loader's device."""

    images: Tensor
    labels: Tensor


class BatchLoader:
    """Batches of augmented, normalised images. Equal seeds give equal batches on every device and number of ranks.

    An epoch's order and all its augmentations follow from (seed, epoch) alone, drawn by the loader's own generator:
    global random state has no influence, and two numbers are the whole state. `batch_size` counts the images of all
    ranks together; each rank takes its own slice of every batch. With `shuffle` false the order is that of the
    split, and the last, smaller batch is kept.

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
        augmentation: Augmentation = NO_AUGMENTATION,
        shuffle: bool = False,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        if shuffle and batch_size % world_size:
            raise ValueError(f"batch_size={batch_size} does not divide among {world_size} devices; take a multiple")
        if shuffle and len(split.labels) < batch_size:
            raise ValueError(
                f"batch_size={batch_size} is larger than the {len(split.labels)} training images; take a smaller one"
            )
        self.pixels, self.labels = split.pixels.to(device), split.labels.to(device)
        self.normalizer, self.augmentation = normalizer, augmentation
        self.batch_size, self.seed, self.shuffle = batch_size, seed, shuffle
        self.rank, self.world_size = rank, world_size
        self.epoch, self.batch = 0, 0
        self._restored = False

    @property
    def size(self) -> int:
        """Images in the split."""
        return len(self.labels)

    def __len__(self) -> int:
        """Batches an epoch: full ones only where shuffled (every step then sees the same batch size)."""
        return self.size // self.batch_size if self.shuffle else math.ceil(self.size / self.batch_size)

    def __iter__(self) -> Iterator[Batch]:
        """The rest of the epoch where a state was loaded, else the next whole epoch."""
        if self.batch >= len(self) or (self.batch and not self._restored):
            self.epoch, self.batch = self.epoch + 1, 0
        self._restored = False
        order, where = self._plan()
        while self.batch < len(self):
            start = self.batch * self.batch_size
            self.batch += 1
            yield self._gather(order, where, start, min(start + self.batch_size, self.size))

    def state_dict(self) -> dict[str, Any]:
        """Where the next batch comes from, and what must not change between saving and loading."""
        return {
            "epoch": self.epoch,
            "batch": self.batch,
            "seed": self.seed,
            "size": self.size,
            "batch_size": self.batch_size,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue behind the last batch that was given out. Raises ValueError for the state of another loader."""
        for name in ("seed", "size", "batch_size"):
            if state[name] != getattr(self, name):
                raise ValueError(
                    f"the saved loader had {name}={state[name]}, this one has {name}={getattr(self, name)}"
                )
        self.epoch, self.batch, self._restored = state["epoch"], state["batch"], True

    def positions(self) -> Tensor:
        """Where in the split this rank's images stand, int64, in the order in which an unshuffled epoch gives them."""
        starts = range(0, self.size, self.batch_size)
        return torch.cat(
            [self._share(torch.arange(start, min(start + self.batch_size, self.size))) for start in starts]
        )

    def _share(self, batch: Tensor) -> Tensor:
        """This rank's slice of something that has one row for each image of a batch."""
        share = -(-len(batch) // self.world_size)
        return batch[self.rank * share : (self.rank + 1) * share]

    def _plan(self) -> tuple[Tensor, Places]:
        """This epoch's order, int64 [size], and from where each image is read, by position in that order."""
        generator = _generator(self.seed, self.epoch)
        device = self.labels.device
        order = torch.randperm(self.size, generator=generator) if self.shuffle else torch.arange(self.size)
        _, height, width = self.pixels.shape
        draws = draw(self.augmentation, self.size, height, width, generator)
        if self.augmentation.flip == "alternating":
            first = torch.randint(0, 2, (self.size,), generator=_generator(self.seed, None))
            draws = draws._replace(flip=(first[order] + self.epoch) % 2)
        # One transfer an epoch: no step waits for a copy to the device.
        draws = Draws(*(part.to(device) for part in draws))
        return order.to(device), places(draws, self.augmentation, height, width)

    def _gather(self, order: Tensor, where: Places, start: int, stop: int) -> Batch:
        indices = self._share(order[start:stop])
        mine = Places(*(self._share(part[start:stop]) for part in where))
        images = augment(self.pixels, indices, mine, self.augmentation, self.normalizer)
        return Batch(images, self.labels[indices])


def _generator(seed: int, epoch: int | None) -> torch.Generator:
    """A generator for one epoch, or for what is drawn once for all of them (None)."""
    words = np.random.SeedSequence([seed, 0 if epoch is None else epoch + 1]).generate_state(2, np.uint32)
    return torch.Generator().manual_seed(int(words[0]) << 32 >> 1 | int(words[1]) >> 1)
