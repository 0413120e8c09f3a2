"""Where images come from: CIFAR or the embedded set (here), or class folders. `load` makes a `Dataset` of each.

A decoded data set is cached on disk: a folder of memory-mapped arrays with a checksum, replaced as a whole.
"""

import contextlib
import hashlib
import inspect
import json
import logging
import shutil
import socket
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from filelock import FileLock
from torch import Tensor

from onecycle.data import synthetic

log = logging.getLogger(__name__)

Arrays = dict[str, np.ndarray]
DOWNLOAD_TIMEOUT = 30  # seconds without a byte
HEADER = "header.json"  # of a cached data set


class DataUnavailableError(ValueError):
    """The data set is not on this machine and cannot be downloaded; the message says what to do."""


class Split(NamedTuple):
    """`pixels` is uint8 [n, height, width, 3], `labels` is int64 [n]."""

    pixels: Tensor
    labels: Tensor


@dataclass(frozen=True)
class Dataset:
    """A decoded data set. `mean` and `std` are those of the training images' channels, on the scale 0–255.

    key: what distinguishes the data set from others, part of a run's identity. fingerprint: SHA-256 of the contents.
    """

    name: str
    origin: str
    key: dict[str, Any]
    classes: tuple[str, ...]
    train: Split
    test: Split
    mean: tuple[float, ...]
    std: tuple[float, ...]
    fingerprint: str

    def only(self, classes: Sequence[str]) -> "Dataset":
        """The images of these classes, with labels in the order in which the classes are given here."""
        number = torch.tensor([classes.index(name) if name in classes else -1 for name in self.classes])

        def chosen(split: Split) -> Split:
            labels = number[split.labels]
            known = labels >= 0
            return Split(split.pixels, labels) if known.all() else Split(split.pixels[known], labels[known])

        return replace(self, classes=tuple(classes), train=chosen(self.train), test=chosen(self.test))


class Source(Protocol):
    """A data set that can be decoded. Equal keys mean equal images."""

    name: str
    origin: str

    def key(self) -> dict[str, Any]:
        """What distinguishes this data set from others, as JSON."""

    def decode(self) -> tuple[Arrays, list[str]]:
        """Arrays train_images, test_images (uint8 [n, h, w, 3]), train_labels, test_labels (int64 [n]); class names."""


class Cifar:
    """CIFAR-10 or CIFAR-100 as torchvision stores them (Krizhevsky, 2009), MD5-verified, downloaded if absent."""

    origin = "torchvision"

    def __init__(self, name: str, root: str, download: bool) -> None:
        self.name, self.root, self.download = name, Path(root), download

    def key(self) -> dict[str, Any]:
        """The name alone: the published MD5s fix the contents."""
        return {"name": self.name}

    def decode(self) -> tuple[Arrays, list[str]]:
        """Arrays in torchvision's order, which verifies the MD5 of every file before it is unpickled."""
        from torchvision.datasets import CIFAR10, CIFAR100  # a slow import, needed at the first start only

        dataset = {"cifar10": CIFAR10, "cifar100": CIFAR100}[self.name]
        self._ensure(dataset)
        arrays: Arrays = {}
        for split in ("train", "test"):
            decoded = dataset(str(self.root), train=split == "train")
            arrays[f"{split}_images"] = np.ascontiguousarray(decoded.data)
            arrays[f"{split}_labels"] = np.asarray(decoded.targets, dtype=np.int64)
        return arrays, list(decoded.classes)

    def _ensure(self, dataset: Any) -> None:
        """Download what is missing or damaged; raises DataUnavailableError or, for a damaged file, ValueError."""
        from torchvision.datasets.utils import check_integrity, download_and_extract_archive

        folder = self.root / dataset.base_folder
        files = [*dataset.train_list, *dataset.test_list, (dataset.meta["filename"], dataset.meta["md5"])]
        bad = [folder / name for name, md5 in files if not check_integrity(str(folder / name), md5)]
        if not bad:
            return
        reason = "data.source.download is false"
        if self.download:
            log.info("Downloading %s to %s.", self.name, self.root)
            previous = socket.getdefaulttimeout()
            socket.setdefaulttimeout(DOWNLOAD_TIMEOUT)  # torchvision passes no timeout
            try:
                download_and_extract_archive(dataset.url, str(self.root), None, dataset.filename, dataset.tgz_md5)
                return
            except (OSError, RuntimeError) as error:
                reason = f"the download failed: {error}"
            finally:
                socket.setdefaulttimeout(previous)
        damaged = ", ".join(str(path) for path in bad if path.exists())
        if damaged:
            raise ValueError(f"data.root: {damaged} has not the published MD5 and {reason}. Replace it by a good copy.")
        raise DataUnavailableError(
            f"data.root: {self.name} is not in {self.root.absolute()} and {reason}. Name the folder that holds "
            f"{dataset.base_folder}/ with data.root=… or ONECYCLE_DATA, or use the embedded set: data=synthetic."
        )


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
        """Newly drawn images."""
        log.info("Drawing %d synthetic images (once; they are cached).", self.train_size + self.test_size)
        arrays: Arrays = {}
        for split, size in (("train", self.train_size), ("test", self.test_size)):
            arrays[f"{split}_images"], arrays[f"{split}_labels"] = synthetic.draw_images(size, self.seed, split)
        return arrays, list(synthetic.CLASSES)


_loaded: dict[str, Dataset] = {}


def load(source: Source, cache_folder: Path) -> Dataset:
    """The decoded data set of a source: from this process, from the cache, or decoded now and cached.

    Raises DataUnavailableError where it is neither on this machine nor reachable, ValueError where it is unfit.
    """
    key = source.key()
    digest = hashlib.sha256(json.dumps([key, _code(source)], sort_keys=True).encode()).hexdigest()[:12]
    if digest not in _loaded:
        _loaded.clear()  # one data set at a time stays in memory: the runs of a sweep nearly always share it
        arrays, header = _cached(source, key, cache_folder / f"{source.name}-{digest}")
        tensors = {name: torch.from_numpy(array) for name, array in arrays.items()}
        train, test = (Split(tensors[f"{split}_images"], tensors[f"{split}_labels"]) for split in ("train", "test"))
        classes, mean, std = (tuple(header["description"][name]) for name in ("classes", "mean", "std"))
        _loaded[digest] = Dataset(source.name, source.origin, key, classes, train, test, mean, std, header["sha256"])
    return _loaded[digest]


def _code(source: Source) -> list[str]:
    """What decodes, the class and its file's SHA-256: another one may give the same key to other images."""
    made = type(source)
    with contextlib.suppress(OSError, TypeError):  # a class without a file
        file = Path(inspect.getfile(made)).read_bytes()
        return [made.__module__, made.__qualname__, hashlib.sha256(file).hexdigest()]
    return [made.__module__, made.__qualname__]


def channel_statistics(images: np.ndarray) -> tuple[list[float], list[float]]:
    """Per-channel mean and standard deviation of uint8 [n, h, w, 3], on 0–255, exact (from counts of the values).

    A constant channel gets the standard deviation 1, so that normalising makes it 0.
    """
    means, stds = [], []
    values = np.arange(256, dtype=np.float64)
    for channel in torch.from_numpy(images).reshape(-1, 3).unbind(1):
        counts = torch.bincount(channel, minlength=256).numpy()
        means.append(float(counts @ values / counts.sum()))
        stds.append(float(counts @ (values - means[-1]) ** 2 / counts.sum()) ** 0.5 or 1.0)
    return means, stds


def _cached(source: Source, key: dict[str, Any], path: Path) -> tuple[Arrays, dict[str, Any]]:
    """The arrays of a source and their header, read from the folder `path`, or decoded and written there.

    One process at a time decodes: a second one waits for it and reads what it wrote. A truncated or altered entry is
    decoded again. Where the folder cannot be written (full disk, read-only) a warning says so.
    """
    with contextlib.ExitStack() as stack:
        with contextlib.suppress(OSError):  # then writing fails as well, or the folder has no locks
            path.parent.mkdir(parents=True, exist_ok=True)
            stack.enter_context(FileLock(f"{path}.lock"))
        try:
            return _read(path, key)
        except (FileNotFoundError, NotADirectoryError):
            pass
        except Exception as error:  # a damaged header makes numpy and json raise many kinds
            log.warning("The cache %s cannot be used (%s): it is built again.", path, error)
        arrays, classes = source.decode()
        mean, std = channel_statistics(arrays["train_images"])
        description = {"classes": classes, "mean": mean, "std": std}
        header = {"key": key, "description": description, "sha256": _fingerprint(arrays, description)}
        try:
            _write(path, arrays, header)
        except OSError as error:
            log.warning(
                "The cache %s cannot be written (%s). This run goes on without it, and the next one decodes the data "
                "set again: free some space, or name another folder with data.cache=….", path, error.strerror or error,
            )  # fmt: skip
        return arrays, header


def _read(path: Path, key: dict[str, Any]) -> tuple[Arrays, dict[str, Any]]:
    """An entry's arrays, memory-mapped copy-on-write, and its header."""
    header = json.loads((path / HEADER).read_bytes())
    arrays = {file.stem: np.load(file, mmap_mode="c") for file in path.glob("*.npy")}
    if header["key"] != key or _fingerprint(arrays, header["description"]) != header["sha256"]:
        raise ValueError("its contents do not match their checksum")
    return arrays, header


def _fingerprint(arrays: Arrays, description: dict[str, Any]) -> str:
    """SHA-256 of the description and of every array's name, type, shape and bytes."""
    digest = hashlib.sha256(json.dumps(description, sort_keys=True).encode())
    for name in sorted(arrays):
        digest.update(json.dumps([name, arrays[name].dtype.str, arrays[name].shape]).encode())
        digest.update(np.ascontiguousarray(arrays[name]).data.cast("B"))
    return digest.hexdigest()


def _write(path: Path, arrays: Arrays, header: dict[str, Any]) -> None:
    """Write to a temporary folder and rename it: a reader sees the whole entry or none."""
    temporary = path.with_name(path.name + ".part")
    shutil.rmtree(temporary, ignore_errors=True)
    try:
        temporary.mkdir()
        for name, array in arrays.items():
            np.save(temporary / f"{name}.npy", array)
        (temporary / HEADER).write_text(json.dumps(header))
        shutil.rmtree(path, ignore_errors=True)
        temporary.rename(path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
