import multiprocessing
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from helpers import warnings_of
from onecycle.data import sources
from onecycle.data.augment import NO_AUGMENTATION
from onecycle.data.datamodule import DataModule
from onecycle.data.sources import HEADER, Arrays, Dataset, load


@pytest.fixture(autouse=True)
def _new_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources, "_loaded", {})


class Counted:
    """A source of random images that counts how often it is decoded."""

    name, origin = "counted", "a test"

    def __init__(self, seed: int = 1) -> None:
        self.seed, self.decoded = seed, 0
        generator = np.random.default_rng(seed)
        self.arrays: Arrays = {
            "train_images": generator.integers(0, 128, (12, 8, 16, 3), dtype=np.uint8),
            "train_labels": np.arange(12) % 3,
            "test_images": generator.integers(0, 256, (6, 8, 16, 3), dtype=np.uint8),
            "test_labels": np.arange(6) % 3,
        }

    def key(self) -> dict[str, Any]:
        return {"name": self.name, "seed": self.seed}

    def decode(self) -> tuple[Arrays, list[str]]:
        self.decoded += 1
        return self.arrays, ["cat", "dog", "elk"]


class Inverted(Counted):
    """Another class, with the same name and key."""

    def decode(self) -> tuple[Arrays, list[str]]:
        arrays, classes = super().decode()
        return arrays | {"test_images": 255 - arrays["test_images"]}, classes


class Failing(Counted):
    def decode(self) -> tuple[Arrays, list[str]]:
        raise ZeroDivisionError


@pytest.fixture
def source() -> Counted:
    return Counted()


def opened(source: Counted, folder: Path) -> Dataset:
    """The data set as another process would load it."""
    sources._loaded.clear()
    return load(source, folder)


def test_another_class_with_an_equal_key_has_a_cache_of_its_own(source: Counted, tmp_path: Path) -> None:
    first, other = opened(source, tmp_path), opened(Inverted(), tmp_path)
    assert torch.equal(other.test.pixels, 255 - first.test.pixels)
    assert other.key == first.key


def is_whole(dataset: Dataset) -> bool:
    arrays = Counted().arrays
    return dataset.classes == ("cat", "dog", "elk") and all(
        np.array_equal(part.numpy(), arrays[f"{name}_{kind}"])
        for name in ("train", "test")
        for kind, part in zip(("images", "labels"), getattr(dataset, name), strict=True)
    )


def in_processes(folder: Path, count: int, is_killed: bool = False) -> list[Any]:
    """What processes read that start together; nothing where they are killed while they write."""
    context = multiprocessing.get_context("fork")  # a new one would import torch
    barrier, results = context.Barrier(count), context.Queue()

    def read() -> None:
        if is_killed:
            Path.rename = lambda *names: os.kill(os.getpid(), signal.SIGKILL)  # type: ignore[assignment, method-assign]
        source = Counted()
        barrier.wait(60)
        found = load(source, folder)
        results.put((found.fingerprint, is_whole(found), source.decoded))

    children = [context.Process(target=read) for _ in range(count)]
    for child in children:
        child.start()
    found = [] if is_killed else [results.get(timeout=60) for _ in children]
    for child in children:
        child.join(60)
    return found


def test_a_loaded_data_set_is_what_the_source_decoded(source: Counted, tmp_path: Path) -> None:
    dataset = load(source, tmp_path)
    assert is_whole(dataset)
    assert all((part.pixels.dtype, part.labels.dtype) == (torch.uint8, torch.int64) for part in
               (dataset.train, dataset.test))  # fmt: skip
    assert (dataset.name, dataset.origin, dataset.key) == ("counted", "a test", {"name": "counted", "seed": 1})
    images = source.arrays["train_images"].astype(np.float64)
    assert dataset.mean == pytest.approx(images.mean((0, 1, 2)), rel=1e-12)
    assert dataset.std == pytest.approx(images.std((0, 1, 2)), rel=1e-12)


def test_a_data_set_is_decoded_once_and_opened_once_a_process(source: Counted, tmp_path: Path) -> None:
    first = load(source, tmp_path / "new" / "cache")
    assert load(Counted(), tmp_path / "nowhere") is first  # an equal key, another object
    assert not (tmp_path / "nowhere").exists()
    again = opened(source, tmp_path / "new" / "cache")
    assert source.decoded == 1
    assert again is not first
    assert is_whole(again)
    assert (again.fingerprint, again.mean, again.std) == (first.fingerprint, first.mean, first.std)
    again.train.pixels.zero_()  # copied on write: the file stays as it is
    assert is_whole(opened(source, tmp_path / "new" / "cache"))
    other = load(Counted(seed=5), tmp_path / "new" / "cache")
    assert other.fingerprint != first.fingerprint
    assert list(sources._loaded.values()) == [other]  # only the last one stays in memory


def flipped(content: bytes, place: int) -> bytes:
    return content[:place] + bytes([content[place] ^ 0x0F]) + content[place + 1 :]


DAMAGES: dict[str, tuple[str, Callable[[bytes], bytes]]] = {
    "a byte short": ("train_labels.npy", lambda content: content[:-1]),
    "a changed byte": ("train_images.npy", lambda content: flipped(content, len(content) // 2)),
    "a changed shape": ("train_images.npy", lambda content: content.replace(b"(12, 8, 16", b"(12, 16, 8")),
    "an object array": ("test_labels.npy", lambda content: content.replace(b"<i8", b"|O8")),
    "a header that is no JSON": (HEADER, lambda content: content[:-1]),
    "a header without checksum": (HEADER, lambda content: content.replace(b'"sha256"', b'"sha255"')),
    "the header of another data set": (HEADER, lambda content: content.replace(b'"seed": 1', b'"seed": 2')),
    "another description": (HEADER, lambda content: content.replace(b"cat", b"cow")),
    "missing": ("train_labels.npy", lambda content: b""),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_entry_is_decoded_again_with_one_warning(
    damage: str, tmp_path: Path, source: Counted, caplog: pytest.LogCaptureFixture
) -> None:
    fingerprint = opened(source, tmp_path).fingerprint
    assert warnings_of(caplog) == []
    name, change = DAMAGES[damage]
    (path,) = tmp_path.glob(f"counted-*/{name}")
    damaged = change(path.read_bytes())
    assert damaged != path.read_bytes()
    path.write_bytes(damaged)
    if damage == "missing":
        path.unlink()
    rebuilt = opened(source, tmp_path)
    assert is_whole(rebuilt)
    assert rebuilt.fingerprint == fingerprint
    (warning,) = warnings_of(caplog)
    assert str(path.parent) in warning
    assert is_whole(opened(source, tmp_path))
    assert source.decoded == 2


def test_processes_decode_once_and_after_one_dies_while_writing_the_next_ones_decode(tmp_path: Path) -> None:
    in_processes(tmp_path, 1, is_killed=True)
    assert len(list(tmp_path.glob("*.part"))) == 1
    found = in_processes(tmp_path, 3)
    assert len({fingerprint for fingerprint, *_ in found}) == 1
    assert all(whole for _, whole, _ in found)
    assert sum(decoded for *_, decoded in found) == 1
    assert list(tmp_path.glob("*.part")) == []


@pytest.mark.parametrize("reason", ["full disk", "folder cannot be made"])
def test_what_cannot_be_written_is_a_warning_that_names_the_setting(
    reason: str, tmp_path: Path, source: Counted, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "file" / "cache"
    with monkeypatch.context() as patch:
        if reason == "full disk":
            folder.mkdir(parents=True)

            def full(file: Any, array: Any) -> None:
                raise OSError("12800 requested and 4096 written")  # what numpy raises, without a number

            patch.setattr(sources.np, "save", full)
        else:
            (tmp_path / "file").write_text("not a folder")
        assert is_whole(opened(source, folder))
    (warning,) = warnings_of(caplog)
    assert str(folder) in warning
    assert "data.cache=" in warning
    if reason == "full disk":
        assert [path.suffix for path in folder.iterdir()] == [".lock"]


def resident(folder: Path) -> int:
    """KiB of this process that are pages of files in a folder."""
    lines = Path("/proc/self/smaps").read_text().splitlines()
    heads = [number for number, line in enumerate(lines) if line.endswith(".npy") and str(folder) in line]
    return sum(int(line.split()[1]) for head in heads for line in lines[head + 1 : head + 6] if line.startswith("Rss:"))


@pytest.mark.skipif(not Path("/proc/self/smaps").exists(), reason="counts the pages of a process on Linux")
def test_a_loader_leaves_no_mapped_images_in_memory_and_they_are_read_again(tmp_path: Path) -> None:
    source = Counted()
    source.arrays["train_images"] = np.random.default_rng(0).integers(0, 128, (12, 200, 300, 3), dtype=np.uint8)
    for _ in ("decoded", "read"):
        sources._loaded.clear()
        data = load(source, tmp_path)
        assert resident(tmp_path) > 1000
        module = DataModule(
            data, batch_size=4, evaluation_batch_size=4, seed=0, augmentation=NO_AUGMENTATION, classes=None,
            subset_size=None, subset_seed=0, val_size=0,
        )  # fmt: skip
        module.loader("train", torch.device("cpu"))
        assert resident(tmp_path) == 0
        np.testing.assert_array_equal(data.train.pixels, source.arrays["train_images"])


def test_a_key_may_hold_tuples(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = Counted()
    monkeypatch.setattr(source, "key", lambda: {"size": (3, 4)})
    for _ in range(2):
        sources._loaded.clear()
        assert load(source, tmp_path).key == {"size": [3, 4]}
    assert source.decoded == 1
