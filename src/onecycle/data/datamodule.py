"""The LightningDataModule, and its loader: batches of images that are stored on the training device."""

import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import lightning.pytorch as pl
import numpy as np
import torch
from torch import Tensor

from onecycle.data.augment import NO_AUGMENTATION, Canvas, Normalizer, random_draws
from onecycle.data.options import AugmentOptions
from onecycle.data.sources import Dataset, Split
from onecycle.data.subsets import augmentation_problems, check_class_names, split_indices

# Pixels that are made at a time by all ranks together, as whole batches: 8 batches of 256 images of 32×32. On a CPU a
# single batch between two steps takes twice as long as one after another batch, because the step evicts the caches.
AHEAD = 1 << 21


class Batch(NamedTuple):
    """Images [n, 3, h, w] in channels_last, of the normalizer's dtype, and labels (see `Split`), on the device."""

    images: Tensor
    labels: Tensor


class BatchLoader:
    """Batches of augmented, normalised images. Equal seeds give equal batches on every device and number of ranks.

    An epoch's order and all its augmentations depend on (seed, epoch) only and are drawn by the loader's own generator:
    global random state has no influence, and epoch and batch are the whole state, with which it continues mid-epoch.
    `batch_size` counts the images of all ranks together; each rank takes its own slice of every batch. Without
    `shuffle` the order is that of the split, and the last, smaller batch is kept.
    """

    def __init__(
        self, split: Split, normalizer: Normalizer, *, batch_size: int, seed: int, device: torch.device,
        augmentation: AugmentOptions = NO_AUGMENTATION, shuffle: bool = False, rank: int = 0, world_size: int = 1,
    ) -> None:  # fmt: skip
        assert not shuffle or (batch_size % world_size == 0 and batch_size <= len(split.labels))
        self.canvas, self.labels = Canvas(split.pixels, augmentation, device), split.labels.to(device)
        self.normalizer, self.size = normalizer, len(split.labels)
        self.batch_size, self.seed, self.shuffle = batch_size, seed, shuffle
        self.rank, self.world_size = rank, world_size
        self.ahead = max(1, AHEAD // (batch_size * self.canvas.height * self.canvas.width))  # batches made at a time
        self.epoch, self.batch, self._restored = 0, 0, False

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

    def first_batch(self) -> Batch:
        """The first batch of the current epoch; the loader's state stays as it is."""
        return self._gather(*self._plan(), 0, 1)[0]

    def state_dict(self) -> dict[str, Any]:
        """Epoch and number of the next batch, and what must not change between saving and loading."""
        return {name: getattr(self, name) for name in ("epoch", "batch", "seed", "size", "batch_size")}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue after the last batch of the saved loader, which must have had the same seed and sizes."""
        self.epoch, self.batch, self._restored = state["epoch"], state["batch"], True

    def positions(self) -> Tensor:
        """Indices into the split of this rank's images, int64, in the order of an unshuffled epoch."""
        batches = range(math.ceil(self.size / self.batch_size))
        return torch.cat([torch.arange(0), *(torch.arange(*self._share(batch)) for batch in batches)])

    def _share(self, batch: int) -> tuple[int, int]:
        """Start and stop of this rank's slice of a batch, counted from the start of the epoch."""
        start = batch * self.batch_size
        stop = min(start + self.batch_size, self.size)
        share = -(-(stop - start) // self.world_size)
        return min(start + self.rank * share, stop), min(start + (self.rank + 1) * share, stop)

    def _plan(self) -> tuple[Tensor, Tensor]:
        """This rank's part of the epoch's order, int64 [n], and the draws of its images in that order."""
        generator = _generator(self.seed, self.epoch + 1)
        order = torch.randperm(self.size, generator=generator) if self.shuffle else torch.arange(self.size)
        augmentation = self.canvas.augmentation
        draws = random_draws(augmentation, self.size, self.canvas.height, self.canvas.width, generator)
        if augmentation.flip == "alternating":
            first = torch.randint(0, 2, (self.size,), generator=_generator(self.seed, 0))
            draws[2] = (first[order] + self.epoch) % 2
        # One transfer per epoch, so that no step waits for a copy to the device.
        mine, device = self.positions(), self.labels.device
        return order[mine].to(device), draws[:, mine].to(device)

    def _gather(self, order: Tensor, draws: Tensor, first: int, last: int) -> list[Batch]:
        """This rank's slices of the batches from `first` to before `last`."""
        sizes = [stop - start for start, stop in (self._share(0), *map(self._share, range(first, last)))]
        start = first * sizes.pop(0)  # only the last batch of an epoch may be smaller than the first
        mine = slice(start, start + sum(sizes))
        images = self.canvas.batches(order[mine], draws[:, mine], sizes, self.normalizer)
        return [Batch(*pair) for pair in zip(images, self.labels[order[mine]].split(sizes), strict=True)]


class DataModule(pl.LightningDataModule):
    """The training subset, the validation images and the test images of a data set, as batches on the device.

    `monitored` names the split that is evaluated during training: "val", or "test" where no image is held out.
    `dtype` is that of the training images. `normalization` ([mean, std] on 0–255) replaces the data set's own
    constants, for a network that was trained with others.

    Raises ValueError for classes, sizes or an augmentation that do not fit the data set.
    """

    def __init__(
        self, dataset: Dataset, *, batch_size: int, evaluation_batch_size: int, seed: int, augmentation: AugmentOptions,
        classes: list[str] | None, subset_size: int | float | None, subset_seed: int, val_size: int,
        dtype: torch.dtype = torch.float32,
        normalization: tuple[tuple[float, ...], tuple[float, ...]] | None = None,
    ) -> None:  # fmt: skip
        super().__init__()
        labels, names = dataset.train.labels, len(dataset.classes)
        has_classes = labels.dim() == 1
        if not (labels.dtype == torch.int64 if has_classes else labels.shape[1:] == (names,)):
            raise ValueError(f"data.source: labels must be int64 [n], or [n, {names}] with a column for each name")
        if classes is not None:
            check_class_names(classes, dataset.classes, dataset.name)
            dataset = dataset.only([name for name in dataset.classes if name in classes])
        train = dataset.train
        unfit = augmentation_problems(augmentation, min(train.pixels.shape[1:3]))
        if unfit:
            raise ValueError("\n".join(unfit))
        balanced = train.labels.numpy() if has_classes else np.zeros(len(train.labels), np.int64)
        subset, val = split_indices(balanced, subset_size, val_size, subset_seed)
        if has_classes and len(dataset.classes) < 2:
            raise ValueError(f"data.classes={list(dataset.classes)}: there must be at least two classes")
        self.dataset, self.classes = dataset, dataset.classes
        self.splits = {"train": _take(train, subset), "val": _take(train, val), "test": dataset.test}
        self.normalization = normalization or (dataset.mean, dataset.std)
        self.batch_size, self.evaluation_batch_size, self.seed = batch_size, evaluation_batch_size, seed
        self.augmentation, self.dtype = augmentation, dtype
        self.monitored = "val" if val_size else "test"
        self._loaders: dict[str, BatchLoader] = {}

    @property
    def steps_per_epoch(self) -> int:
        """Full batches in one pass over the subset."""
        return len(self.splits["train"].labels) // self.batch_size

    def train_dataloader(self) -> BatchLoader:
        """Shuffled, augmented batches of the subset."""
        return self._loader("train")

    def val_dataloader(self) -> BatchLoader:
        """The images of the monitored split in order."""
        return self._loader(self.monitored)

    def test_dataloader(self) -> BatchLoader:
        """The test images in order."""
        return self._loader("test")

    def sample(self, count: int, name: str = "train") -> Split:
        """`count` images, or all if there are fewer, evenly spaced, because a folder's images are ordered by class."""
        size = len(self.splits[name].labels)
        count = min(count, size)
        return _take(self.splits[name], np.arange(count) * size // count)

    def normalized(self, count: int) -> Tensor:
        """A sample of `count` images without augmentation: float32 [count, 3, h, w], on the CPU."""
        return Normalizer(*self.normalization, torch.device("cpu"))(self.sample(count).pixels)

    def record(self) -> dict[str, Any]:
        """The entry about the data in a run's record."""
        sizes = {f"{name}_size": len(split.labels) for name, split in self.splits.items()}
        names = {"name": self.dataset.name, "source": self.dataset.origin, "classes": list(self.classes)}
        side = min(self.splits["test"].pixels.shape[1:3])
        return {**names, **sizes, "side": side, "fingerprint": self.dataset.fingerprint}

    def loader(self, name: str, device: torch.device, rank: int = 0, world_size: int = 1) -> BatchLoader:
        """A new loader of the split "train", "val" or "test"; only the first is shuffled and augmented."""
        train = name == "train"
        loader = BatchLoader(
            self.splits[name], Normalizer(*self.normalization, device, self.dtype if train else torch.float32),
            batch_size=self.batch_size if train else self.evaluation_batch_size, seed=self.seed, device=device,
            augmentation=self.augmentation if train else NO_AUGMENTATION, shuffle=train,
            rank=rank, world_size=world_size,
        )  # fmt: skip
        self.dataset.release()
        return loader

    def teardown(self, stage: str) -> None:
        """Free the training images after a fit, and the others after a test.

        The garbage collector would free the Trainer, and what it refers to, only some runs later.
        """
        for name in [name for name in self._loaders if (name == "train") == (stage == "fit")]:
            del self._loaders.pop(name).canvas  # up to a quarter of a gigabyte

    def _loader(self, name: str) -> BatchLoader:
        # The test images are used during training and at the end: they are copied to the device once.
        if name not in self._loaders:
            t: Any = self.trainer
            place = (t.strategy.root_device, t.global_rank, t.world_size) if t else (torch.device("cpu"),)
            self._loaders[name] = self.loader(name, *place)
        return self._loaders[name]


def _take(split: Split, indices: np.ndarray) -> Split:
    if len(indices) == len(split.labels):
        return split  # all of it, sorted: the memory map itself instead of a copy
    return Split(split.pixels[indices], split.labels[indices])


def _generator(seed: int, stream: int) -> torch.Generator:
    """A generator for epoch `stream` − 1, or, for stream 0, for what is drawn once for all epochs."""
    words = np.random.SeedSequence([seed, stream]).generate_state(2, np.uint32)
    return torch.Generator().manual_seed(int(words[0]) << 32 >> 1 | int(words[1]) >> 1)
