"""Where images come from: CIFAR or the embedded set (here), or class folders. `load` makes a `Dataset` of each.

A decoded data set is cached on disk: a folder of memory-mapped arrays with a checksum, replaced as a whole.
"""

import contextlib
import hashlib
import inspect
import json
import logging
import mmap
import pickle
import shutil
import socket
import tarfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from filelock import FileLock
from torch import Tensor

from onecycle.data import synthetic
from onecycle.data.augment import channel_statistics

log = logging.getLogger(__name__)

Arrays = dict[str, np.ndarray]
DOWNLOAD_TIMEOUT = 30  # seconds without a byte
HEADER = "header.json"  # of a cached data set


class DataUnavailableError(ValueError):
    """The data set is not on this machine and cannot be downloaded; the message says what to do."""


class Split(NamedTuple):
    """`pixels` is uint8 [n, height, width, 3]; `labels` int64 [n], or of other tasks uint8 or float32 [n, names]."""

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
    mapped: tuple[np.memmap, ...] = ()

    def release(self) -> None:
        """Give the memory of the mapped files back; read again on the next use, they are without changes in place."""
        for array in self.mapped:
            array._mmap.madvise(mmap.MADV_DONTNEED)  # type: ignore[attr-defined]

    def only(self, classes: Sequence[str]) -> "Dataset":
        """The images of these classes, with labels in the order in which the classes are given here.

        Where labels are a column for each name, all images with the columns of these names.
        """
        number = torch.tensor([classes.index(name) if name in classes else -1 for name in self.classes])

        def chosen(split: Split) -> Split:
            if split.labels.dim() == 2:
                return Split(split.pixels, split.labels[:, [self.classes.index(name) for name in classes]])
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
        """Arrays train_images, test_images (uint8 [n, h, w, 3]), train_labels, test_labels (see `Split`); the names."""


class Cifar:
    """CIFAR-10 or CIFAR-100 as torchvision stores them (Krizhevsky, 2009), MD5-verified, downloaded if absent.

    root: a folder that holds the folder of the original files or their archive, or one of the two itself. An archive is
    read without being unpacked.
    """

    origin = "torchvision"

    def __init__(self, name: str, root: str, download: bool) -> None:
        self.name, self.root, self.download = name, Path(root), download

    def key(self) -> dict[str, Any]:
        """The name alone: the published MD5s fix the contents."""
        return {"name": self.name}

    def decode(self) -> tuple[Arrays, list[str]]:
        """Arrays in torchvision's order; the MD5 of every file is verified before it is unpickled."""
        from torchvision.datasets import CIFAR10, CIFAR100  # a slow import, needed at the first start only

        known = {"cifar10": CIFAR10, "cifar100": CIFAR100}[self.name]
        files = {name: pickle.loads(content, encoding="latin1") for name, content in self._contents(known).items()}
        arrays: Arrays = {}
        for split, names in (("train", known.train_list), ("test", known.test_list)):
            batches = [files.pop(name) for name, _ in names]
            pixels = np.concatenate([batch.pop("data") for batch in batches]).reshape(-1, 3, 32, 32)
            labels = [batch["labels" if "labels" in batch else "fine_labels"] for batch in batches]
            arrays[f"{split}_images"] = np.ascontiguousarray(pixels.transpose(0, 2, 3, 1))
            arrays[f"{split}_labels"] = np.concatenate(labels).astype(np.int64)
        return arrays, list(files[known.meta["filename"]][known.meta["key"]])

    def _contents(self, known: Any) -> dict[str, bytes]:
        """All files by name, verified; raises DataUnavailableError or, where one is missing or damaged, ValueError."""
        md5s = dict([*known.train_list, *known.test_list, (known.meta["filename"], known.meta["md5"])])
        inner, archive = self.root / known.base_folder, self.root / known.filename
        bad: list[str] = []
        for place in [inner if inner.is_dir() else self.root, *[archive] * archive.is_file()]:
            found, wrong = _verified(place, md5s)
            if not wrong:
                return found
            bad += wrong if found or place.is_file() else []
        reason = "data.source.download is false (true: it is downloaded)"
        if self.download:
            from torchvision.datasets.utils import download_url

            log.info("Downloading %s to %s.", self.name, self.root)
            previous = socket.getdefaulttimeout()
            socket.setdefaulttimeout(DOWNLOAD_TIMEOUT)  # torchvision passes no timeout
            try:
                download_url(known.url, str(self.root), known.filename, known.tgz_md5)
                return _verified(archive, md5s)[0]
            except (OSError, RuntimeError) as error:
                reason = f"the download failed: {error}"
            finally:
                socket.setdefaulttimeout(previous)
        if bad:
            raise ValueError(f"data.root: {', '.join(bad)}, and {reason}. Replace what is there by a good copy.")
        raise DataUnavailableError(
            f"data.root: {self.name} is not in {self.root.absolute()} and {reason}. Name the folder that holds "
            f"{known.base_folder}/ or {known.filename} with data.root=… or ONECYCLE_DATA, or use the embedded set: "
            "data=synthetic."
        )


def _verified(place: Path, md5s: dict[str, str]) -> tuple[dict[str, bytes], list[str]]:
    """What a folder or a tar archive holds of these files, and a phrase for each that is missing or damaged."""
    found = {name: (place / name).read_bytes() for name in md5s if (place / name).is_file()}
    if place.is_file():
        with contextlib.suppress(tarfile.TarError, OSError, EOFError, zlib.error), tarfile.open(place) as archive:
            for member in archive:
                name, file = Path(member.name).name, archive.extractfile(member) if member.isfile() else None
                if name in md5s and file:
                    found[name] = file.read()
    good = {name for name in found if hashlib.md5(found[name], usedforsecurity=False).hexdigest() == md5s[name]}
    state = {name: "has not the published MD5" if name in found else "is missing" for name in md5s if name not in good}
    return found, [f"{place / name} {what}" for name, what in state.items()]


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
    key = json.loads(json.dumps(source.key()))  # as it will be read back: a tuple is a list there
    digest = hashlib.sha256(json.dumps([key, _code(source)], sort_keys=True).encode()).hexdigest()[:12]
    if digest not in _loaded:
        arrays, header = _cached(source, key, cache_folder / f"{source.name}-{digest}")
        tensors = {name: torch.from_numpy(array) for name, array in arrays.items()}
        train, test = (Split(tensors[f"{split}_images"], tensors[f"{split}_labels"]) for split in ("train", "test"))
        classes, mean, std = (tuple(header["description"][name]) for name in ("classes", "mean", "std"))
        _loaded.clear()  # one data set at a time stays in memory: the runs of a sweep nearly always share it
        mapped = tuple(array for array in arrays.values() if isinstance(array, np.memmap))
        _loaded[digest] = Dataset(
            source.name, source.origin, key, classes, train, test, mean, std, header["sha256"], mapped
        )
    return _loaded[digest]


def _code(source: Source) -> list[str]:
    """What decodes, the class and its file's SHA-256: another one may give the same key to other images."""
    made, inner = type(source), getattr(source, "source", None)
    within = _code(inner) if inner else []
    with contextlib.suppress(OSError, TypeError):  # a class without a file
        file = Path(inspect.getfile(made)).read_bytes()
        return [made.__module__, made.__qualname__, hashlib.sha256(file).hexdigest(), *within]
    return [made.__module__, made.__qualname__, *within]


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
            return _read(path, key)  # the decoded arrays are freed
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
