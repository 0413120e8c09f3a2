from typing import Any

import numpy as np
import pytest
import torch

from onecycle.data.augment import NO_AUGMENTATION
from onecycle.data.datamodule import DataModule
from onecycle.data.options import AugmentOptions
from onecycle.data.sources import Dataset, Split

CLASSES = ("ant", "bee", "cat", "dog")
AUGMENTATION = AugmentOptions(crop=2, flip="random", shift=0, cutout=3)


def flat_colours(count: int, blue: int) -> Split:
    """Images of 8×8 in one colour each, which is the image's number; its class is the number modulo 4."""
    images = np.zeros((count, 8, 8, 3), np.uint8)
    images[..., 0] = (np.arange(count) % 256)[:, None, None]
    images[..., 1] = (np.arange(count) // 256)[:, None, None]
    images[..., 2] = blue
    return Split(torch.from_numpy(images), torch.arange(count) % 4)


DATASET = Dataset(
    "toy", "a test", {"name": "toy"}, CLASSES, flat_colours(400, 1), flat_colours(80, 2),
    mean=(100.0, 0.5, 1.0), std=(50.0, 2.0, 4.0), fingerprint="f00d",
)  # fmt: skip


def datamodule(**changes: Any) -> DataModule:
    arguments: dict[str, Any] = {
        "batch_size": 32, "evaluation_batch_size": 50, "seed": 0, "augmentation": NO_AUGMENTATION,
        "classes": None, "subset_size": None, "subset_seed": 0, "val_size": 0,
    }  # fmt: skip
    return DataModule(DATASET, **(arguments | changes))


def numbers(split: Split) -> list[int]:
    """The numbers of the images, out of their pixels."""
    red, green, _ = split.pixels[:, 0, 0].long().unbind(1)
    return (red + 256 * green).tolist()


def test_without_restrictions_the_images_are_the_data_sets_own_memory() -> None:
    data = datamodule()
    assert data.splits["train"].pixels.data_ptr() == DATASET.train.pixels.data_ptr()
    assert data.splits["test"].pixels.data_ptr() == DATASET.test.pixels.data_ptr()
    assert data.classes == CLASSES
    assert len(data.splits["val"].labels) == 0


@pytest.mark.parametrize("asked", [["dog", "bee"], ["bee", "dog"]])
def test_chosen_classes_are_kept_and_renumbered_in_the_data_sets_order_and_sizes_count_them(asked: list[str]) -> None:
    data = datamodule(classes=asked)
    assert data.classes == ("bee", "dog")
    for name, count in (("train", 400), ("test", 80)):
        split = data.splits[name]
        assert numbers(split) == [i for i in range(count) if i % 4 in (1, 3)]
        assert split.labels.tolist() == [0, 1] * (count // 4)
        assert split.labels.dtype == torch.int64
    part = datamodule(classes=asked, subset_size=0.5, val_size=20)
    assert part.splits["train"].labels.bincount().tolist() == [45, 45]
    assert part.splits["val"].labels.bincount().tolist() == [10, 10]
    with pytest.raises(ValueError, match=r"data\.subset_size=201"):
        datamodule(classes=asked, subset_size=201)
    with pytest.raises(ValueError, match=r"data\.classes: cow, Dog .*ant, bee, cat, dog"):
        datamodule(classes=["ant", "cow", "Dog"])


def test_one_class_is_refused() -> None:
    with pytest.raises(ValueError, match="at least two classes"):
        datamodule(classes=["ant"])


@pytest.mark.parametrize("subset_size", [1, 37, 0.25, 300, None])
def test_held_out_images_are_the_same_for_every_subset_and_in_none(subset_size: int | float | None) -> None:
    data = datamodule(subset_size=subset_size, val_size=100, seed=1)
    assert numbers(data.splits["train"]) == numbers(datamodule(subset_size=subset_size, val_size=100).splits["train"])
    train, val = set(numbers(data.splits["train"])), numbers(data.splits["val"])
    assert len(train) == {None: 300, 0.25: 75}.get(subset_size, subset_size)
    assert len(set(val)) == 100
    assert not train & set(val)
    assert val == numbers(datamodule(val_size=100).splits["val"])
    assert data.splits["val"].labels.bincount().tolist() == [25] * 4
    assert all(split.labels.tolist() == [number % 4 for number in numbers(split)] for split in data.splits.values())
    assert numbers(data.splits["test"]) == list(range(80))


@pytest.mark.parametrize(("val_size", "monitored", "images"), [(100, "val", 100), (0, "test", 80)])
def test_training_is_watched_on_held_out_images_or_on_the_test_images(
    val_size: int, monitored: str, images: int
) -> None:
    data = datamodule(val_size=val_size, evaluation_batch_size=30)
    assert data.monitored == monitored
    labels = torch.cat([batch.labels for batch in data.val_dataloader()])
    assert torch.equal(labels, data.splits[monitored].labels)
    assert len(labels) == images
    assert (data.val_dataloader() is data.test_dataloader()) == (val_size == 0)


def test_only_training_batches_are_augmented() -> None:
    data = datamodule(augmentation=AugmentOptions(crop=0, flip="none", shift=0, cutout=4), val_size=40)
    red = next(iter(data.train_dataloader())).images[:, 0]
    # Every image is one colour, so that the number of its colours tells whether a square was cut out.
    assert all(len(image.unique()) == 2 for image in red)
    assert (red == 0).sum((1, 2)).tolist() == [16] * 32
    for loader in (data.val_dataloader(), data.test_dataloader()):
        assert all(len(image.unique()) == 1 for batch in loader for image in batch.images[:, 0])


@pytest.mark.parametrize("normalization", [None, ((10.0, 0.0, 3.0), (5.0, 8.0, 0.5))])
def test_images_are_normalised_by_the_constants_given_or_else_the_data_sets(
    normalization: tuple[tuple[float, ...], tuple[float, ...]] | None,
) -> None:
    data = datamodule(normalization=normalization)
    (mean, std) = normalization or ((100.0, 0.5, 1.0), (50.0, 2.0, 4.0))
    assert data.normalization == (mean, std)

    def expected(number: int, blue: int) -> list[float]:
        colour = (number % 256, number // 256, blue)
        return [(c - m) / s for c, m, s in zip(colour, mean, std, strict=True)]

    images = data.normalized(300)
    assert images.shape == (300, 3, 8, 8)
    assert images.dtype == torch.float32
    for number in (0, 5, 299):  # 300 of the 400 images, evenly spaced
        assert images[number, :, 3, 4].tolist() == pytest.approx(expected(number * 400 // 300, 1), abs=1e-5)
    tested = next(iter(data.test_dataloader())).images
    assert tested[7, :, 0, 0].tolist() == pytest.approx(expected(7, 2), abs=1e-5)
    trained = next(iter(data.train_dataloader())).images
    assert trained[:, 2].unique().tolist() == pytest.approx([(1 - mean[2]) / std[2]], abs=1e-6)


@pytest.mark.parametrize(
    ("fitting", "too_large"),
    [({"crop": 7}, {"crop": 8}), ({"shift": 7}, {"shift": 8}), ({"cutout": 8}, {"cutout": 9}),
     ({"crop": 4, "shift": 3}, {"crop": 4, "shift": 4})],
)  # fmt: skip
def test_an_augmentation_larger_than_the_image_is_refused(fitting: dict[str, int], too_large: dict[str, int]) -> None:
    data = datamodule(augmentation=NO_AUGMENTATION.model_copy(update=fitting))
    assert next(iter(data.train_dataloader())).images.shape == (32, 3, 8, 8)
    with pytest.raises(ValueError, match=", ".join(rf"data\.augment\.{key}={n}" for key, n in too_large.items())):
        datamodule(augmentation=NO_AUGMENTATION.model_copy(update=too_large))


def test_the_record_says_what_was_trained_on() -> None:
    data = datamodule(classes=["dog", "ant"], subset_size=50, val_size=40, augmentation=AUGMENTATION)
    assert data.record() == {
        "name": "toy", "source": "a test", "classes": ["ant", "dog"],
        "train_size": 50, "val_size": 40, "test_size": 40, "side": 8, "fingerprint": "f00d",
    }  # fmt: skip
