import hashlib
import os
import subprocess
import sys
import tracemalloc
from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray

from onecycle.data import synthetic
from onecycle.data.synthetic import draw

PINNED = {
    (0, "train"): "643a7d3382e302035bf517306829bf546ca5872a8f31e8b7a5a221eb3b15f970",
    (2024, "test"): "4e3d8de9ec9e616922160edcabf4d6a1d4b5cfe01b2d15656f6c5c3dbf41ffc3",
}


def digest(count: int, seed: int, split: str) -> str:
    images, labels = draw(count, seed, split)
    return hashlib.sha256(images.tobytes() + labels.astype("<i8").tobytes()).hexdigest()


@pytest.mark.parametrize("count", [1, 9, 10, 14, 257, 1000])
def test_class_counts_differ_by_at_most_one(count: int) -> None:
    counts = np.bincount(draw(count, 3, "train")[1], minlength=10)
    assert counts.sum() == count
    assert counts.max() - counts.min() == (count % 10 > 0)


def test_labels_come_in_random_order() -> None:
    labels = draw(2000, 0, "train")[1]
    after = np.zeros((10, 10), int)
    np.add.at(after, (labels[:-1], labels[1:]), 1)
    # A class follows each other one about 20 times, and itself only over the border between two tens.
    assert after.min() >= 0
    assert after[~np.eye(10, dtype=bool)].min() >= 6
    assert after.max() <= 45


@pytest.mark.parametrize("count", [1, 7, 250, 251, 499])
def test_a_smaller_draw_is_a_prefix_of_a_larger_one(count: int) -> None:
    images, labels = draw(600, 5, "train")
    fewer_images, fewer_labels = draw(count, 5, "train")
    assert (fewer_images.shape, fewer_images.dtype) == ((count, 32, 32, 3), np.uint8)
    assert (fewer_labels.shape, fewer_labels.dtype) == ((count,), np.int64)
    assert np.array_equal(fewer_images, images[:count])
    assert np.array_equal(fewer_labels, labels[:count])


def test_splits_and_seeds_share_no_image_and_no_order_of_labels() -> None:
    draws = [draw(200, seed, split) for seed in (0, 1, 2**64 - 1) for split in ("train", "test")]
    assert len({image.tobytes() for images, _ in draws for image in images}) == 200 * 6
    assert len({labels.tobytes() for _, labels in draws}) == 6


def test_images_do_not_depend_on_chunks_or_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    expected = draw(300, 11, "test")[0]
    monkeypatch.setattr(synthetic, "_CHUNK", 7)
    monkeypatch.setattr(os, "cpu_count", lambda: 1)
    assert np.array_equal(draw(300, 11, "test")[0], expected)


@pytest.mark.parametrize(("seed", "split"), PINNED)
def test_pixels_and_labels_are_pinned(seed: int, split: str) -> None:
    assert digest(300, seed, split) == PINNED[seed, split], "raise VERSION if the drawing changed on purpose"
    assert synthetic.VERSION == 1


def test_pixels_are_the_same_with_numpys_vector_instructions_switched_off() -> None:
    features = np.show_config(mode="dicts")["SIMD Extensions"].get("found", [])
    program = (
        "import hashlib; from onecycle.data.synthetic import draw; images, labels = draw(300, 0, 'train');"
        "print(hashlib.sha256(images.tobytes() + labels.astype('<i8').tobytes()).hexdigest())"
    )
    environment = os.environ | {
        "NPY_DISABLE_CPU_FEATURES": " ".join(features),
        "PYTHONPATH": os.pathsep.join(sys.path),
    }
    command = [sys.executable, "-c", program]
    plain = subprocess.run(command, env=environment, capture_output=True, text=True, check=True, timeout=120)
    assert plain.stdout.strip() == PINNED[0, "train"]


@pytest.fixture(scope="module")
def pictures() -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    return draw(3000, 0, "train")


def raw_pixels(images: NDArray[np.uint8]) -> NDArray[np.floating]:
    return images.reshape(len(images), -1).astype(np.float32)


def channel_statistics(images: NDArray[np.uint8]) -> NDArray[np.floating]:
    return np.concatenate([images.mean(axis=(1, 2)), images.std(axis=(1, 2))], axis=1)


@pytest.mark.parametrize("features", [raw_pixels, channel_statistics])
def test_no_class_is_told_by_a_trivial_statistic(
    features: Callable[[NDArray[np.uint8]], NDArray[np.floating]],
    pictures: tuple[NDArray[np.uint8], NDArray[np.int64]],
) -> None:
    images, labels = pictures
    seen = features(images)
    seen_mean, seen_std = seen.mean(axis=0), seen.std(axis=0)
    seen = (seen - seen_mean) / seen_std
    centres = np.stack([seen[labels == label].mean(axis=0) for label in range(10)])

    images, labels = draw(1000, 0, "test")
    asked = (features(images) - seen_mean) / seen_std
    nearness = asked @ centres.T - (centres**2).sum(axis=1) / 2
    assert np.mean(nearness.argmax(axis=1) == labels) < 0.20


def test_colours_fill_the_range_in_every_class(
    pictures: tuple[NDArray[np.uint8], NDArray[np.int64]],
) -> None:
    images, labels = pictures
    for label in range(10):
        own = images[labels == label]
        assert own.mean(axis=(0, 1, 2)) == pytest.approx(128, abs=15)
        assert own.std(axis=(0, 1, 2)) == pytest.approx(64, abs=8)
        assert (own.min(), own.max()) == (0, 255)


def test_memory_beyond_the_result_stays_below_300_megabytes() -> None:
    tracemalloc.start()
    images, _ = draw(1500, 0, "train")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak - images.nbytes < 300e6
