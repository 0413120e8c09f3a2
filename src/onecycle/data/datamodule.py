"""The LightningDataModule: data set, subset, augmentation and loaders."""

from typing import Any

import lightning.pytorch as pl
import numpy as np
import torch

from onecycle.data.augment import NO_AUGMENTATION, Normalizer
from onecycle.data.loader import BatchLoader
from onecycle.data.options import AugmentOptions
from onecycle.data.sources import Dataset, Split
from onecycle.data.subsets import split_indices


class DataModule(pl.LightningDataModule):
    """The training subset, the validation images and the test images of a data set, as batches on the device.

    `monitored` names the split that is evaluated during training: "val", or "test" where no image is held out.
    `dtype` is that of the training images. `normalization` ([mean, std] on 0–255) replaces the data set's own
    constants, for a network that was trained with others.

    Raises ValueError for classes, sizes or an augmentation that do not fit the data set.
    """

    def __init__(
        self,
        dataset: Dataset,
        *,
        batch_size: int,
        evaluation_batch_size: int,
        seed: int,
        augmentation: AugmentOptions,
        classes: list[str] | None,
        subset_size: int | float | None,
        subset_seed: int,
        val_size: int,
        dtype: torch.dtype = torch.float32,
        normalization: tuple[tuple[float, ...], tuple[float, ...]] | None = None,
    ) -> None:
        super().__init__()
        unknown = [name for name in classes or () if name not in dataset.classes]
        if unknown:
            known = ", ".join(dataset.classes)
            raise ValueError(f"data.classes: {', '.join(unknown)} unknown; {dataset.name} has {known}")
        if classes is not None:
            dataset = dataset.only([name for name in dataset.classes if name in classes])
        train = dataset.train
        _check_augmentation(augmentation, min(train.pixels.shape[1:3]))
        subset, val = split_indices(train.labels.numpy(), subset_size, val_size, subset_seed)
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
        split = self.splits[name]
        size = len(split.labels)
        count = min(count, size)
        return _take(split, np.arange(count) * size // count)

    def normalized(self, count: int) -> torch.Tensor:
        """A sample of `count` images without augmentation: float32 [count, 3, h, w], on the CPU."""
        return Normalizer(*self.normalization, torch.device("cpu"))(self.sample(count).pixels)

    def record(self) -> dict[str, Any]:
        """The entry about the data in a run's record."""
        sizes = {f"{name}_size": len(split.labels) for name, split in self.splits.items()}
        names = {"name": self.dataset.name, "source": self.dataset.origin, "classes": list(self.classes)}
        return {**names, **sizes, "fingerprint": self.dataset.fingerprint}

    def loader(self, name: str, device: torch.device, rank: int = 0, world_size: int = 1) -> BatchLoader:
        """A new loader of the split "train", "val" or "test"; only the first is shuffled and augmented."""
        train = name == "train"
        return BatchLoader(
            self.splits[name],
            Normalizer(*self.normalization, device, self.dtype if train else torch.float32),
            batch_size=self.batch_size if train else self.evaluation_batch_size,
            seed=self.seed,
            device=device,
            augmentation=self.augmentation if train else NO_AUGMENTATION,
            shuffle=train,
            rank=rank,
            world_size=world_size,
        )

    def teardown(self, stage: str) -> None:
        """Free the training images after a fit, and the others after a test.

        The garbage collector would free the Trainer, and what it refers to, only some runs later.
        """
        for name in [name for name in self._loaders if (name == "train") == (stage == "fit")]:
            self._loaders.pop(name).close()

    def _loader(self, name: str) -> BatchLoader:
        # The test images are used during training and at the end: they are copied to the device once.
        if name not in self._loaders:
            trainer = self.trainer
            place = (trainer.strategy.root_device, trainer.global_rank, trainer.world_size) if trainer else ()
            self._loaders[name] = self.loader(name, *(place or (torch.device("cpu"),)))
        return self._loaders[name]


def _take(split: Split, indices: np.ndarray) -> Split:
    if len(indices) == len(split.labels):
        return split  # all of it, sorted: the memory map itself instead of a copy
    chosen = torch.from_numpy(indices)
    return Split(split.pixels[chosen], split.labels[chosen])


def _check_augmentation(a: AugmentOptions, side: int) -> None:
    found = [f"data.augment.{name}={getattr(a, name)}" for name in ("crop", "shift") if getattr(a, name)]
    if a.crop + a.shift >= side:
        raise ValueError(f"{', '.join(found)}: images of {side} pixels allow {side - 1}, for both together")
    if a.cutout > side:
        raise ValueError(f"data.augment.cutout={a.cutout}: images of {side} pixels allow {side}")
