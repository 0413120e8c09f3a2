"""Where images come from: torchvision's CIFAR, the program itself, or class_folders.py. All end as one `Dataset`."""

import hashlib
import logging
import pickle
import socket
import urllib.error
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor

from onecycle.data import synthetic
from onecycle.data.archives import ArchiveError, unpack
from onecycle.data.cache import cached, key_digest

log = logging.getLogger(__name__)

Arrays = dict[str, np.ndarray]
DOWNLOAD_TIMEOUT = 30  # seconds of silence


class DataUnavailableError(ValueError):
    """The data set is not on this machine and cannot be fetched; the message says what to do."""


class Split(NamedTuple):
    """Images and labels.

    `pixels` is int32 [n, height, width]: the bytes red, green, blue, 0 of one pixel in one number, so that whole
    pixels are indexed. `labels` is int64 [n].
    """

    pixels: Tensor
    labels: Tensor


@dataclass(frozen=True)
class Dataset:
    """A decoded data set. `mean` and `std` are the training images' per-channel constants on the scale 0–255."""

    name: str
    origin: str
    classes: tuple[str, ...]
    train: Split
    test: Split
    mean: tuple[float, ...]
    std: tuple[float, ...]
    fingerprint: str


class Source(Protocol):
    """A data set that can be decoded. `key` names its contents; equal keys mean equal images."""

    name: str
    origin: str

    def key(self) -> dict[str, Any]:
        """What tells this data set from others, as JSON."""

    def decode(self) -> tuple[Arrays, list[str]]:
        """Arrays train_images, test_images (uint8 [n, h, w, 3]), train_labels, test_labels (int64 [n]); class names."""


class Cifar:
    """CIFAR-10 or CIFAR-100 as torchvision stores them (Krizhevsky, 2009), MD5-verified, downloaded if absent."""

    origin = "torchvision"

    def __init__(self, name: str, root: str, download: bool) -> None:
        if name not in ("cifar10", "cifar100"):
            raise ValueError(f"data.source.name={name}: must be cifar10 or cifar100")
        self.name, self.root, self.download = name, Path(root), download

    def key(self) -> dict[str, Any]:
        """The name alone: the published MD5s fix the contents."""
        return {"name": self.name}

    def decode(self) -> tuple[Arrays, list[str]]:
        """Verified arrays, in torchvision's order."""
        from torchvision.datasets import CIFAR10, CIFAR100  # only a first start pays for this import

        dataset = {"cifar10": CIFAR10, "cifar100": CIFAR100}[self.name]
        self._ensure(dataset)
        folder = self.root / dataset.base_folder
        arrays: Arrays = {}
        for split, files in (("train", dataset.train_list), ("test", dataset.test_list)):
            batches = [_unpickled(folder / name, md5) for name, md5 in files]
            planes = np.concatenate([batch["data"] for batch in batches]).reshape(-1, 3, 32, 32)
            labels = [label for batch in batches for label in batch["labels" if "labels" in batch else "fine_labels"]]
            arrays[f"{split}_images"] = planes.transpose(0, 2, 3, 1)
            arrays[f"{split}_labels"] = np.asarray(labels, dtype=np.int64)
        names = _unpickled(folder / dataset.meta["filename"], dataset.meta["md5"])
        return arrays, list(names[dataset.meta["key"]])

    def _ensure(self, dataset: Any) -> None:
        """Download what is absent or damaged; raise `DataUnavailableError` or, for a damaged file, `ValueError`."""
        from torchvision.datasets.utils import check_integrity, download_url

        files = dict([*dataset.train_list, *dataset.test_list, (dataset.meta["filename"], dataset.meta["md5"])])
        wanted = {f"{dataset.base_folder}/{name}": md5 for name, md5 in files.items()}
        bad = [self.root / name for name, md5 in wanted.items() if not check_integrity(str(self.root / name), md5)]
        if not bad:
            return
        reason = "data.download is false"
        if self.download:
            log.info("Downloading %s to %s.", self.name, self.root)
            previous = socket.getdefaulttimeout()
            try:
                socket.setdefaulttimeout(DOWNLOAD_TIMEOUT)
                download_url(dataset.url, str(self.root), filename=dataset.filename, md5=dataset.tgz_md5)
                unpack(self.root / dataset.filename, self.root, wanted)
                return
            except (urllib.error.URLError, OSError, RuntimeError, ArchiveError) as error:
                reason = f"the download failed: {error}"
            finally:
                socket.setdefaulttimeout(previous)
        damaged = [str(path) for path in bad if path.exists()]
        if damaged:
            raise ValueError(
                f"data.root: {', '.join(damaged)} is damaged (its MD5 is not the published one) and {reason}. "
                f"Delete it and put a good copy there."
            )
        raise DataUnavailableError(
            f"data.root: {self.name} is not in {self.root.absolute()} and {reason}. Name the folder that holds "
            f"{dataset.base_folder}/ with data.root=… or ONECYCLE_DATA, or take the embedded set: data=synthetic."
        )


def _unpickled(path: Path, md5: str) -> dict[str, Any]:
    """The contents of a pickle of CIFAR's. What is unpickled are the very bytes whose checksum was found right.

    A pickle can run any code. Raises ValueError for other bytes than the published ones, which are never unpickled.
    """
    content = path.read_bytes()
    if hashlib.md5(content, usedforsecurity=False).hexdigest() != md5:
        raise ValueError(f"data.root: {path} is damaged (its MD5 is not the published one) and was changed just now.")
    batch = pickle.loads(content, encoding="latin1")
    assert isinstance(batch, dict)
    return batch


class Synthetic:
    """The embedded set: shapes and textures drawn by the program, the same for a seed on every machine."""

    name = "synthetic"
    origin = "drawn"

    def __init__(self, train_size: int, test_size: int, seed: int) -> None:
        self.train_size, self.test_size, self.seed = train_size, test_size, seed

    def key(self) -> dict[str, Any]:
        """The seed, the sizes and the version of the drawing."""
        sizes = {"train_size": self.train_size, "test_size": self.test_size}
        return {"name": self.name, "version": synthetic.VERSION, "seed": self.seed, **sizes}

    def decode(self) -> tuple[Arrays, list[str]]:
        """Images drawn now."""
        log.info("Drawing %d synthetic images (once; they are cached).", self.train_size + self.test_size)
        arrays: Arrays = {}
        for split, size in (("train", self.train_size), ("test", self.test_size)):
            arrays[f"{split}_images"], arrays[f"{split}_labels"] = synthetic.draw(size, self.seed, split)
        return arrays, list(synthetic.CLASSES)


_loaded: dict[str, Dataset] = {}


def load(source: Source, cache_folder: Path, keep: bool = True) -> Dataset:
    """The decoded data set of a source: from this process, from the cache file, or decoded now and, if `keep`, cached.

    Raises `DataUnavailableError` where it is neither on this machine nor reachable, `ValueError` where it is unfit.
    """
    key = source.key()
    digest = key_digest(key)
    if digest not in _loaded:
        # One data set at a time stays in memory: the runs of a sweep nearly always share it.
        _loaded.clear()
        arrays, description, fingerprint = cached(cache_folder, source.name, key, lambda: _packed(source), keep)
        train, test = (
            Split(torch.from_numpy(arrays[f"{split}_pixels"]), torch.from_numpy(arrays[f"{split}_labels"]))
            for split in ("train", "test")
        )
        mean, std = tuple(description["mean"]), tuple(description["std"])
        classes = tuple(description["classes"])
        _loaded[digest] = Dataset(source.name, source.origin, classes, train, test, mean, std, fingerprint)
    return _loaded[digest]


def _packed(source: Source) -> tuple[Arrays, dict[str, Any]]:
    arrays, classes = source.decode()
    mean, std = channel_statistics(arrays["train_images"])
    packed = {f"{split}_labels": arrays[f"{split}_labels"] for split in ("train", "test")}
    packed |= {f"{split}_pixels": pack(arrays[f"{split}_images"]) for split in ("train", "test")}
    return packed, {"classes": classes, "mean": mean, "std": std}


def pack(images: np.ndarray) -> np.ndarray:
    """uint8 [n, h, w, 3] → int32 [n, h, w], the bytes red, green, blue, 0 in one number."""
    bytes_of_pixel = np.zeros((*images.shape[:3], 4), dtype=np.uint8)
    bytes_of_pixel[..., :3] = images
    return bytes_of_pixel.view(np.int32)[..., 0]


def channel_statistics(images: np.ndarray) -> tuple[list[float], list[float]]:
    """Per-channel mean and standard deviation of uint8 [n, h, w, 3], on 0–255, exact (from counts of the values).

    A constant channel gets the standard deviation 1, so that normalising leaves it at 0.
    """
    means, stds = [], []
    values = np.arange(256, dtype=np.float64)
    for channel in range(3):
        # Chunks keep the int64 copy that bincount makes small.
        counts = sum(
            (
                np.bincount(images[i : i + 4096, ..., channel].ravel(), minlength=256)
                for i in range(0, len(images), 4096)
            ),
            start=np.zeros(256, dtype=np.int64),
        )
        mean = float(counts @ values / counts.sum())
        variance = float(counts @ (values - mean) ** 2 / counts.sum())
        means.append(mean)
        stds.append(variance**0.5 or 1.0)
    return means, stds
