"""Whether classes and sizes fit a data set, told before an image is read or a heavy library imported."""

from collections.abc import Mapping, Sequence
from typing import Any

Counts = dict[str, int]  # training images by class

CIFAR10 = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
CIFAR_TRAINING = 50_000
CIFAR_SIDE = 32


def problems(config: Mapping[str, Any]) -> list[str]:
    """What a checked configuration asks of its data set in vain, a line each.

    Nothing is said of a source that is not this package's own; of CIFAR-100 its classes are not known here.
    """
    data = config["data"]
    side = _side(data["source"])
    found = [] if side is None else side_problems(config["resizing"], side)
    return found + _count_problems(data, config["batch_size"])


def _count_problems(data: Mapping[str, Any], batch_size: int) -> list[str]:
    try:
        counts = training_counts(data["source"])
    except ValueError as error:
        return str(error).splitlines()
    chosen = data["classes"]
    if counts and chosen:
        unknown = [name for name in chosen if name not in counts]
        if unknown:
            name = data["source"].get("name", "synthetic")
            return [f"data.classes: {', '.join(unknown)} unknown; {name} has {', '.join(counts)}"]
        return _size_problems(data, sum(counts[name] for name in chosen), batch_size)
    total = sum(counts.values()) if counts else _total(data["source"])
    return [] if chosen or total is None else _size_problems(data, total, batch_size)


def training_counts(source: Mapping[str, Any]) -> Counts | None:
    """The training images of each class where they follow from the settings or from file names; None where not.

    Raises ValueError for a folder that holds no data set, a line for each reason.
    """
    kind = source["_target_"]
    if kind == "onecycle.data.class_folders.ImageFolder":
        from onecycle.data.class_folders import ImageFolder

        return ImageFolder(source["name"], source["root"], source["image_size"]).counts()
    if kind == "onecycle.data.sources.Synthetic" and source["train_size"] % 10 == 0:
        from onecycle.data.synthetic import CLASSES

        return dict.fromkeys(CLASSES, source["train_size"] // 10)
    if kind == "onecycle.data.sources.Cifar" and source["name"] not in ("cifar10", "cifar100"):
        raise ValueError(f"data.source.name={source['name']}: must be cifar10 or cifar100")
    if kind == "onecycle.data.sources.Cifar" and source["name"] == "cifar10":
        return dict.fromkeys(CIFAR10, CIFAR_TRAINING // 10)
    return None


def _total(source: Mapping[str, Any]) -> int | None:
    """The training images of a source whose classes are not told apart here."""
    if source["_target_"] == "onecycle.data.sources.Synthetic":
        return int(source["train_size"])
    return CIFAR_TRAINING if source["_target_"] == "onecycle.data.sources.Cifar" else None


def _side(source: Mapping[str, Any]) -> int | None:
    """The pixels of a source's images along one side."""
    if source["_target_"] == "onecycle.data.class_folders.ImageFolder":
        return int(source["image_size"])
    if source["_target_"] == "onecycle.data.sources.Synthetic":
        from onecycle.data.synthetic import SIDE

        return SIDE
    return CIFAR_SIDE if source["_target_"] == "onecycle.data.sources.Cifar" else None


def side_problems(resizing: Sequence[Sequence[float]] | None, side: int) -> list[str]:
    """A line where training images of `side` pixels would have to grow."""
    if not resizing or max(wanted for _, wanted in resizing) <= side:
        return []
    return [f"resizing={resizing}: the images have {side} pixels; take at most {side}"]


def _size_problems(data: Mapping[str, Any], total: int, batch_size: int) -> list[str]:
    from onecycle.data.subsets import subset_count

    try:
        return batch_problems(batch_size, subset_count(data["subset_size"], data["val_size"], total))
    except ValueError as error:
        return str(error).splitlines()


def batch_problems(batch_size: int, size: int) -> list[str]:
    """A line where a training subset of `size` images holds no full batch."""
    if batch_size <= size:
        return []
    return [f"batch_size={batch_size}: larger than the {size} training images; take at most {size}"]
