import hashlib
import pickle
import shutil
import socket
import tarfile
import urllib.error
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from torchvision.datasets import CIFAR10, CIFAR100

from helpers import noise
from onecycle.data import sources, synthetic
from onecycle.data.augment import channel_statistics
from onecycle.data.sources import Cifar, DataUnavailableError, Synthetic, load

CIFAR10_CLASSES = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]


@pytest.fixture(autouse=True)
def _new_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources, "_loaded", {})


def write_batch(path: Path, content: dict[str, Any]) -> list[str]:
    """One of CIFAR's pickles; returns the name and the MD5 that torchvision expects."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(pickle.dumps(content))
    return [path.name, hashlib.md5(path.read_bytes()).hexdigest()]


def planes(images: np.ndarray) -> np.ndarray:
    """uint8 [n, 32, 32, 3] as CIFAR stores it: [n, 3072], all red, then all green, then all blue."""
    return images.transpose(0, 3, 1, 2).reshape(len(images), 3072)


class FakeCifar:
    """Batch files of a few images below `root`, and torchvision's lists changed to expect them."""

    def __init__(self, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.root, self.folder = root, root / "cifar-10-batches-py"
        self.train, self.test = noise(0, 15, 32, 32, 3), noise(1, 4, 32, 32, 3)
        self.train_labels, self.test_labels = [i % 10 for i in range(15)], [9, 0, 5, 5]
        self.write()
        names = [f"data_batch_{i}" for i in range(1, 6)]
        monkeypatch.setattr(CIFAR10, "train_list", [self.entry(name) for name in names])
        monkeypatch.setattr(CIFAR10, "test_list", [self.entry("test_batch")])
        _, md5 = self.entry("batches.meta")
        monkeypatch.setattr(CIFAR10, "meta", {"filename": "batches.meta", "key": "label_names", "md5": md5})

    def write(self) -> None:
        pixels = planes(self.train)
        for i in range(5):
            part = slice(3 * i, 3 * i + 3)
            batch = {"data": pixels[part], "labels": self.train_labels[part]}
            write_batch(self.folder / f"data_batch_{i + 1}", batch)
        write_batch(self.folder / "test_batch", {"data": planes(self.test), "labels": self.test_labels})
        write_batch(self.folder / "batches.meta", {"label_names": CIFAR10_CLASSES})

    def pack(self) -> Path:
        """The archive of the folder, which is removed."""
        with tarfile.open(self.root / "cifar-10-python.tar.gz", "w:gz") as archive:
            archive.add(self.folder, self.folder.name)
        shutil.rmtree(self.folder)
        return self.root / "cifar-10-python.tar.gz"

    def entry(self, name: str) -> list[str]:
        return [name, hashlib.md5((self.folder / name).read_bytes()).hexdigest()]


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeCifar:
    return FakeCifar(tmp_path / "data", monkeypatch)


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch) -> list[float | None]:
    """No download succeeds; the list gets the socket timeout of each attempt."""
    timeouts: list[float | None] = []

    def refuse(*arguments: Any, **named: Any) -> None:
        timeouts.append(socket.getdefaulttimeout())
        raise urllib.error.URLError("Name or service not known")

    monkeypatch.setattr("torchvision.datasets.utils.download_url", refuse)
    return timeouts


def test_cifar100_has_its_fine_labels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, names = tmp_path / "cifar-100-python", [f"fine {i}" for i in range(100)]
    batch = {"data": planes(noise(0, 3, 32, 32, 3)), "coarse_labels": [0] * 3, "fine_labels": [99, 0, 50]}
    for split in ("train", "test"):
        monkeypatch.setattr(CIFAR100, f"{split}_list", [write_batch(folder / split, batch)])
    _, md5 = write_batch(folder / "meta", {"fine_label_names": names, "coarse_label_names": ["coarse"] * 20})
    monkeypatch.setattr(CIFAR100, "meta", {"filename": "meta", "key": "fine_label_names", "md5": md5})
    arrays, classes = Cifar("cifar100", str(tmp_path), download=False).decode()
    assert arrays["train_labels"].tolist() == arrays["test_labels"].tolist() == [99, 0, 50]
    assert classes == names


def test_cifar10_is_decoded_to_the_pixel(fake: FakeCifar, offline: list[float | None]) -> None:
    arrays, classes = Cifar("cifar10", str(fake.root), download=True).decode()
    for name, expected in (("train", (fake.train, fake.train_labels)), ("test", (fake.test, fake.test_labels))):
        assert np.array_equal(arrays[f"{name}_images"], expected[0])
        assert arrays[f"{name}_labels"].tolist() == expected[1]
    assert [array.dtype for array in arrays.values()] == [np.uint8, np.int64] * 2
    assert classes == CIFAR10_CLASSES
    assert offline == []  # nothing was missing, so nothing was fetched


def refused(root: Path, named: Path, download: bool) -> str:
    with pytest.raises(ValueError, match=rf"^data\.root: {named} ") as caught:
        Cifar("cifar10", str(root), download).decode()
    # The fallback is for missing data only: damaged data would be replaced without a word.
    assert not isinstance(caught.value, DataUnavailableError)
    assert ("data.source.download" in str(caught.value)) == (not download)
    return str(caught.value)


@pytest.mark.parametrize("download", [True, False])
@pytest.mark.parametrize("name", ["data_batch_3", "test_batch", "batches.meta"])
def test_a_damaged_batch_is_named_never_unpickled_and_not_a_missing_data_set(
    name: str, download: bool, fake: FakeCifar, offline: list[float | None], monkeypatch: pytest.MonkeyPatch
) -> None:
    (fake.folder / name).write_bytes(b"cposix\nsystem\n.")
    monkeypatch.setattr(pickle, "loads", lambda *arguments, **named: pytest.fail("unpickled"))
    refused(fake.root, fake.folder / name, download)
    refused(fake.folder, fake.folder / name, download)
    archive = fake.pack()
    refused(fake.root, archive / name, download)
    refused(archive, archive / name, download)
    assert len(offline) == 4 * download


def test_the_files_that_a_folder_or_an_archive_lacks_are_named(fake: FakeCifar) -> None:
    (fake.folder / "data_batch_3").unlink()
    refused(fake.root, fake.folder / "data_batch_3", download=False)
    archive = fake.pack()
    refused(fake.root, archive / "data_batch_3", download=False)
    archive.write_bytes(archive.read_bytes()[:-2000])  # the download was interrupted
    assert f"{archive / 'test_batch'} is missing" in refused(fake.root, archive / "data_batch_3", download=False)


def test_the_form_of_the_original_files_changes_nothing(fake: FakeCifar, tmp_path: Path) -> None:
    found = []

    def read(root: Path) -> None:
        before = sorted(fake.root.rglob("*"))
        sources._loaded.clear()
        found.append(load(Cifar("cifar10", str(root), download=False), tmp_path / "cache"))
        assert sorted(fake.root.rglob("*")) == before  # nothing is unpacked

    read(fake.root)
    read(fake.folder)
    archive = fake.pack()
    read(fake.root)
    read(archive)
    assert np.array_equal(found[0].train.pixels.numpy(), fake.train)
    assert [(one.key, one.fingerprint) for one in found] == [({"name": "cifar10"}, found[0].fingerprint)] * 4


@pytest.mark.parametrize("download", [True, False])
@pytest.mark.parametrize(("name", "folder"), [("cifar10", "cifar-10-batches-py"), ("cifar100", "cifar-100-python")])
def test_a_data_set_that_is_not_available_says_what_to_do(
    name: str, folder: str, download: bool, tmp_path: Path, offline: list[float | None]
) -> None:
    with pytest.raises(DataUnavailableError, match=r"data\.root: ") as caught:
        Cifar(name, str(tmp_path / "empty"), download).decode()
    for word in (str(tmp_path / "empty"), folder, "data.root=", "data=synthetic"):
        assert word in str(caught.value)
    assert ("download is false" in str(caught.value)) == (not download)
    assert len(offline) == download


@pytest.mark.parametrize("name", ["data_batch_2", "batches.meta"])
def test_what_is_damaged_is_downloaded_with_a_timeout(
    name: str, fake: FakeCifar, monkeypatch: pytest.MonkeyPatch
) -> None:
    (fake.folder / name).write_bytes(b"half of it")
    timeouts = []

    def fetch(url: str, root: str, filename: str, md5: str) -> None:
        timeouts.append(socket.getdefaulttimeout())
        assert url == "https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz"
        assert (Path(root), filename) == (fake.root, "cifar-10-python.tar.gz")
        assert md5 == "c58f30108f718f92721af3b95e74349a"  # the published one
        fake.write()
        fake.pack()

    monkeypatch.setattr("torchvision.datasets.utils.download_url", fetch)
    before = socket.getdefaulttimeout()
    arrays, _ = Cifar("cifar10", str(fake.root), download=True).decode()
    assert np.array_equal(arrays["train_images"], fake.train)
    assert timeouts == [sources.DOWNLOAD_TIMEOUT]
    assert socket.getdefaulttimeout() == before


def test_a_failed_download_is_not_cached(fake: FakeCifar, offline: list[float | None], tmp_path: Path) -> None:
    elsewhere = Cifar("cifar10", str(tmp_path / "elsewhere"), download=True)
    with pytest.raises(DataUnavailableError):
        load(elsewhere, tmp_path / "cache")
    dataset = load(Cifar("cifar10", str(fake.root), download=True), tmp_path / "cache")
    assert len(dataset.train.labels) == 15
    # From now on the original files are not needed, wherever they are.
    assert load(elsewhere, tmp_path / "cache") is dataset


def test_the_synthetic_set_holds_the_drawn_images(tmp_path: Path) -> None:
    source = Synthetic(train_size=30, test_size=20, seed=3)
    dataset = load(source, tmp_path)
    for split, size in (("train", 30), ("test", 20)):
        images, labels = synthetic.draw_images(size, 3, split)
        assert np.array_equal(getattr(dataset, split).pixels.numpy(), images)
        assert np.array_equal(getattr(dataset, split).labels.numpy(), labels)
    assert (dataset.name, dataset.classes) == ("synthetic", synthetic.CLASSES)
    assert source.key() == Synthetic(30, 20, 3).key()
    others = [Synthetic(31, 20, 3), Synthetic(30, 21, 3), Synthetic(30, 20, 4)]
    assert all(source.key() != other.key() for other in others)


@pytest.mark.parametrize("count", [1, 4095, 4097, 9000])
def test_channel_statistics_are_those_of_all_pixels(count: int) -> None:
    images = noise(count, count, 2, 3, 3)
    images[..., 1] //= 5
    images[..., 2] = 77
    mean, std = channel_statistics(images)
    assert mean == pytest.approx(images.mean((0, 1, 2), dtype=np.float64), rel=1e-12)
    assert std == pytest.approx([*images[..., :2].std((0, 1, 2), dtype=np.float64), 1.0], rel=1e-9)
