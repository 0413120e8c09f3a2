"""Which images are trained on, how large, and whether classes and sizes fit a data set. It imports no torch."""

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from onecycle.data.class_folders import ImageFolder
from onecycle.data.options import AugmentOptions
from onecycle.data.synthetic import CLASSES, SIDE

if TYPE_CHECKING:
    from onecycle.data.sources import Arrays, Source

CIFAR10 = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
CIFAR_TRAINING = 50_000
SMALLEST_SIDE = 12  # pixels of a training image


def split_indices(
    labels: np.ndarray, subset_size: int | float | None, val_size: int, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Class-balanced, nested choices: int64 indices of the training subset and of the held-out validation images.

    The images of every class are put in one random order. Subsets take them from the front, one class after the other,
    so that a smaller subset is contained in every larger one and the class counts differ by at most one while each
    class has images left. Validation takes them in the same way from the back, so that no subset contains any of them.

    labels: int64 [n]. subset_size: a count (int), a fraction of what validation leaves (float in (0, 1]), or None for
    all of it, sorted. Raises ValueError where the sizes do not fit the n images.
    """
    size = subset_count(subset_size, val_size, len(labels))
    # Raw Philox output is the same in every version of numpy; the methods built on it need not be.
    shuffle, front_ties, back_ties = np.random.Philox(key=seed).random_raw(3 * len(labels)).reshape(3, -1)
    counts = np.bincount(labels)
    rank = np.empty(len(labels), dtype=np.int64)  # of an image within its class, in the random order
    rank[np.lexsort((shuffle, labels))] = np.concatenate([np.arange(count) for count in counts])
    val = np.sort(np.lexsort((back_ties, counts[labels] - 1 - rank))[:val_size])
    front = np.lexsort((front_ties, rank))
    subset = front[~np.isin(front, val)][:size]
    return (np.sort(subset) if size == len(labels) - val_size else subset), val


def subset_count(subset_size: int | float | None, val_size: int, total: int) -> int:
    """Images in a subset of `total` images of which `val_size` are held out; raises as `split_indices` does."""
    if not 0 <= val_size < total:
        raise ValueError(f"data.val_size={val_size}: with {total} training images it must be 0 … {total - 1}")
    available = total - val_size
    if subset_size is None:
        return available
    size = max(1, round(subset_size * available)) if isinstance(subset_size, float) else subset_size
    if not 1 <= size <= available:
        raise ValueError(
            f"data.subset_size={subset_size}: a count must be 1 … {available}, a fraction above 0.0 and up to 1.0 "
            f"({available} training images are left beside validation)"
        )
    return size


def data_problems(config: Mapping[str, Any]) -> list[str]:
    """One line for each way in which a valid configuration does not fit its data set, before an image is read.

    Nothing is reported for a source of another package. Of CIFAR-100 the classes are not known here.
    """
    data, source = config["data"], config["data"]["source"]
    side = source.get("image_size", SIDE) if source["_target_"].startswith("onecycle.data.") else None
    found, size = [], None
    try:
        counts, size = training_counts(source)
        if data["classes"]:
            check_class_names(data["classes"], counts or data["classes"], source.get("name", "synthetic"))
            size = sum(counts[name] for name in data["classes"]) if counts else None
        size = size and subset_count(data["subset_size"], data["val_size"], size)
    except ValueError as error:
        found, size = str(error).splitlines(), None
    if side and data["side"] and data["side"] > side:
        found.append(f"data.side={data['side']}: must be at most {side}, the side of the images")
    side = data["side"] or side
    if side:
        found += augmentation_problems(AugmentOptions(**data["augment"]), side)
    return size_problems(config["batch_size"], size, config["resizing"], side) + found


def training_counts(source: Mapping[str, Any]) -> tuple[dict[str, int] | None, int | None]:
    """Training images of each class and of all of them, from the options or the names of files; None where unknown.

    Raises ValueError for a folder that holds no data set.
    """
    match source["_target_"]:
        case "onecycle.data.class_folders.ImageFolder":
            counts = ImageFolder(source["name"], source["root"], source["image_size"]).counts()
            return counts, sum(counts.values())
        case "onecycle.data.sources.Synthetic":
            size = source["train_size"]
            return (None if size % 10 else dict.fromkeys(CLASSES, size // 10)), size
        case "onecycle.data.sources.Cifar":
            ten = source["name"] == "cifar10"
            return (dict.fromkeys(CIFAR10, CIFAR_TRAINING // 10) if ten else None), CIFAR_TRAINING
    return None, None


def check_class_names(wanted: Sequence[str], known: Collection[str], name: str) -> None:
    """Raise ValueError for classes that the data set `name` does not have."""
    unknown = [one for one in wanted if one not in known]
    if unknown:
        raise ValueError(f"data.classes: {', '.join(unknown)} unknown; {name} has {', '.join(known)}")


def augmentation_problems(a: AugmentOptions, side: int) -> list[str]:
    """A line for each part of an augmentation that is larger than images of `side` pixels."""
    found = []
    if a.crop + a.shift >= side:
        words = f"data.augment.crop={a.crop}, data.augment.shift={a.shift}"
        found.append(f"{words}: images of {side} pixels allow {side - 1}, for both together")
    if a.cutout > side:
        found.append(f"data.augment.cutout={a.cutout}: images of {side} pixels allow {side}")
    return found


def size_problems(
    batch_size: int, size: int | None, resizing: Sequence[Sequence[float]] | None, side: int | None
) -> list[str]:
    """A line where `size` training images make no full batch, and where those of `side` pixels would be enlarged."""
    found = []
    pixels = [wanted if isinstance(wanted, int) else round(wanted * (side or 0)) for _, wanted in resizing or ()]
    if side and pixels and not SMALLEST_SIDE <= min(pixels) <= max(pixels) <= side:
        found.append(f"resizing={resizing}: the images have {side} pixels; use {SMALLEST_SIDE} to {side} of them")
    if size and batch_size > size:
        found.append(f"batch_size={batch_size}: larger than the {size} training images; use at most {size}")
    return found


class Smaller:
    """The images of another source, training and test alike, averaged over areas to `side` × `side` pixels.

    The averages are rounded to bytes and cached as a data set of their own. Raises ValueError where `side` would
    enlarge the images.
    """

    def __init__(self, source: "Source", side: int, cache: Path) -> None:
        self.source, self.side, self.cache = source, side, cache
        self.name, self.origin = source.name, source.origin

    def key(self) -> dict[str, Any]:
        """That of the source, and the side."""
        return self.source.key() | {"side": self.side}

    def decode(self) -> tuple["Arrays", list[str]]:
        """The smaller images."""
        import torch
        import torch.nn.functional as F

        from onecycle.data.sources import load

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
