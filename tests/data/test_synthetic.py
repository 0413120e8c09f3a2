import hashlib
import os
import subprocess
import sys
from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray

from onecycle.data import synthetic
from onecycle.data.synthetic import draw_images

PINNED = {
    (0, "train"): "643a7d3382e302035bf517306829bf546ca5872a8f31e8b7a5a221eb3b15f970",
    (2024, "test"): "4e3d8de9ec9e616922160edcabf4d6a1d4b5cfe01b2d15656f6c5c3dbf41ffc3",
}


def digest(count: int, seed: int, split: str) -> str:
    images, labels = draw_images(count, seed, split)
    return hashlib.sha256(images.tobytes() + labels.astype("<i8").tobytes()).hexdigest()


@pytest.mark.parametrize("count", [1, 7, 250, 251, 499])
def test_a_smaller_draw_is_a_prefix_of_a_larger_one(count: int) -> None:
    images, labels = draw_images(600, 5, "train")
    fewer_images, fewer_labels = draw_images(count, 5, "train")
    assert (fewer_images.shape, fewer_images.dtype) == ((count, 32, 32, 3), np.uint8)
    assert (fewer_labels.shape, fewer_labels.dtype) == ((count,), np.int64)
    assert np.array_equal(fewer_images, images[:count])
    assert np.array_equal(fewer_labels, labels[:count])
    counts = np.bincount(fewer_labels, minlength=10)
    assert counts.max() - counts.min() == (count % 10 > 0)  # balanced at any size


def test_splits_and_seeds_share_no_image_and_no_order_of_labels() -> None:
    draws = [draw_images(200, seed, split) for seed in (0, 1, 2**64 - 1) for split in ("train", "test")]
    assert len({image.tobytes() for images, _ in draws for image in images}) == 200 * 6
    assert len({labels.tobytes() for _, labels in draws}) == 6


@pytest.mark.parametrize(("seed", "split"), PINNED)
def test_pixels_and_labels_are_pinned(seed: int, split: str) -> None:
    assert digest(300, seed, split) == PINNED[seed, split], "raise VERSION if the drawing changed on purpose"
    assert synthetic.VERSION == 1


def test_pixels_are_the_same_with_numpys_vector_instructions_switched_off() -> None:
    features = np.show_config(mode="dicts")["SIMD Extensions"].get("found", [])
    program = (
        "import hashlib; from onecycle.data.synthetic import draw_images\n"
        "images, labels = draw_images(300, 0, 'train')\n"
        "print(hashlib.sha256(images.tobytes() + labels.astype('<i8').tobytes()).hexdigest())"
    )
    environment = os.environ | {"NPY_DISABLE_CPU_FEATURES": " ".join(features), "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", program]
    plain = subprocess.run(command, env=environment, capture_output=True, text=True, check=True, timeout=120)
    assert plain.stdout.strip() == PINNED[0, "train"]


def raw_pixels(images: NDArray[np.uint8]) -> NDArray[np.floating]:
    return images.reshape(len(images), -1).astype(np.float32)


def channel_statistics(images: NDArray[np.uint8]) -> NDArray[np.floating]:
    return np.concatenate([images.mean(axis=(1, 2)), images.std(axis=(1, 2))], axis=1)


@pytest.mark.parametrize("features", [raw_pixels, channel_statistics])
def test_no_class_is_told_by_a_trivial_statistic(features: Callable[[NDArray[np.uint8]], NDArray[np.floating]]) -> None:
    images, labels = draw_images(3000, 0, "train")
    seen = features(images)
    seen_mean, seen_std = seen.mean(axis=0), seen.std(axis=0)
    seen = (seen - seen_mean) / seen_std
    centres = np.stack([seen[labels == label].mean(axis=0) for label in range(10)])

    images, labels = draw_images(1000, 0, "test")
    asked = (features(images) - seen_mean) / seen_std
    nearness = asked @ centres.T - (centres**2).sum(axis=1) / 2
    assert np.mean(nearness.argmax(axis=1) == labels) < 0.20
