"""Whether classes and sizes fit a data set, checked before an image is read or torch is imported."""

from collections.abc import Mapping, Sequence
from typing import Any

CIFAR10 = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
CIFAR_TRAINING = 50_000
SIDE = 32  # pixels of the images of CIFAR and of the embedded set


def data_problems(config: Mapping[str, Any]) -> list[str]:
    """One line for each way in which a valid configuration does not fit its data set.

    Nothing is reported for a source of another package. Of CIFAR-100 the classes are not known here.
    """
    data, source = config["data"], config["data"]["source"]
    side = source.get("image_size", SIDE) if source["_target_"].startswith("onecycle.data.") else None
    found = side_problems(config["resizing"], side) if side else []
    try:
        counts, total = training_counts(source)
        if counts and data["classes"]:
            unknown = [name for name in data["classes"] if name not in counts]
            if unknown:
                name = source.get("name", "synthetic")
                raise ValueError(f"data.classes: {', '.join(unknown)} unknown; {name} has {', '.join(counts)}")
            total = sum(counts[name] for name in data["classes"])
        if total is None or (data["classes"] and not counts):
            return found
        from onecycle.data.subsets import subset_count  # imports numpy

        return found + batch_problems(config["batch_size"], subset_count(data["subset_size"], data["val_size"], total))
    except ValueError as error:
        return found + str(error).splitlines()


def training_counts(source: Mapping[str, Any]) -> tuple[dict[str, int] | None, int | None]:
    """Training images of each class and of all of them, from the options or the names of files; None where unknown.

    Raises ValueError for a folder that holds no data set.
    """
    match source["_target_"]:
        case "onecycle.data.class_folders.ImageFolder":
            from onecycle.data.class_folders import ImageFolder  # imports numpy

            counts = ImageFolder(source["name"], source["root"], source["image_size"]).counts()
            return counts, sum(counts.values())
        case "onecycle.data.sources.Synthetic":
            from onecycle.data.synthetic import CLASSES  # imports numpy

            size = source["train_size"]
            return (None if size % 10 else dict.fromkeys(CLASSES, size // 10)), size
        case "onecycle.data.sources.Cifar":
            ten = source["name"] == "cifar10"
            return (dict.fromkeys(CIFAR10, CIFAR_TRAINING // 10) if ten else None), CIFAR_TRAINING
    return None, None


def side_problems(resizing: Sequence[Sequence[float]] | None, side: int) -> list[str]:
    """A line where training images of `side` pixels would be enlarged."""
    if not resizing or max(wanted for _, wanted in resizing) <= side:
        return []
    return [f"resizing={resizing}: the images have {side} pixels; use at most {side}"]


def batch_problems(batch_size: int, size: int) -> list[str]:
    """A line where a training subset of `size` images holds no full batch."""
    if batch_size <= size:
        return []
    return [f"batch_size={batch_size}: larger than the {size} training images; use at most {size}"]
