import hashlib
import os
import pickle
import shutil
import socket
import tarfile
import urllib.error
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.datasets import CIFAR10, CIFAR100

from onecycle.data import sources, synthetic
from onecycle.data.augment import Normalizer, unpack
from onecycle.data.class_folders import ImageFolder
from onecycle.data.sources import (
    Arrays,
    Cifar,
    DataUnavailableError,
    Synthetic,
    channel_statistics,
    load,
    pack,
)

CIFAR10_CLASSES = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]


@pytest.fixture(autouse=True)
def _new_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources, "_loaded", {})


def noise(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def messages(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]


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


def test_cifar10_is_decoded_to_the_pixel(fake: FakeCifar, offline: list[float | None]) -> None:
    arrays, classes = Cifar("cifar10", str(fake.root), download=True).decode()
    assert np.array_equal(arrays["train_images"], fake.train)
    assert np.array_equal(arrays["test_images"], fake.test)
    assert arrays["train_images"].dtype == np.uint8
    assert arrays["train_labels"].tolist() == fake.train_labels
    assert arrays["test_labels"].tolist() == fake.test_labels
    assert arrays["train_labels"].dtype == arrays["test_labels"].dtype == np.int64
    assert classes == CIFAR10_CLASSES
    assert offline == []  # nothing was missing, so nothing was fetched


def test_cifar100_has_its_fine_labels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "cifar-100-python"
    train, test, names = noise(0, 6, 32, 32, 3), noise(1, 2, 32, 32, 3), [f"fine {i}" for i in range(100)]
    fine = {"coarse_labels": [0] * 6, "fine_labels": [99, 0, 50, 1, 2, 3]}
    monkeypatch.setattr(CIFAR100, "train_list", [write_batch(folder / "train", {"data": planes(train), **fine})])
    batch = {"data": planes(test), "coarse_labels": [1, 1], "fine_labels": [7, 98]}
    monkeypatch.setattr(CIFAR100, "test_list", [write_batch(folder / "test", batch)])
    _, md5 = write_batch(folder / "meta", {"fine_label_names": names, "coarse_label_names": ["coarse"] * 20})
    monkeypatch.setattr(CIFAR100, "meta", {"filename": "meta", "key": "fine_label_names", "md5": md5})
    arrays, classes = Cifar("cifar100", str(tmp_path), download=False).decode()
    assert np.array_equal(arrays["train_images"], train)
    assert np.array_equal(arrays["test_images"], test)
    assert arrays["train_labels"].tolist() == [99, 0, 50, 1, 2, 3]
    assert arrays["test_labels"].tolist() == [7, 98]
    assert classes == names


@pytest.mark.parametrize("download", [True, False])
@pytest.mark.parametrize("name", ["data_batch_3", "test_batch", "batches.meta"])
def test_a_damaged_batch_is_named_and_is_not_a_missing_data_set(
    name: str, download: bool, fake: FakeCifar, offline: list[float | None]
) -> None:
    path = fake.folder / name
    path.write_bytes(path.read_bytes()[:-1] + b"!")
    with pytest.raises(ValueError, match="is damaged") as caught:
        Cifar("cifar10", str(fake.root), download).decode()
    # A stand-in is for missing data only: damaged data would be replaced without a word.
    assert not isinstance(caught.value, DataUnavailableError)
    reason = "the download failed: <urlopen error Name or service not known>" if download else "data.download is false"
    assert str(caught.value) == (
        f"data.root: {path} is damaged (its MD5 is not the published one) and {reason}. "
        f"Delete it and put a good copy there."
    )


@pytest.mark.parametrize("download", [True, False])
@pytest.mark.parametrize(("name", "folder"), [("cifar10", "cifar-10-batches-py"), ("cifar100", "cifar-100-python")])
def test_a_data_set_that_cannot_be_had_says_what_to_do(
    name: str, folder: str, download: bool, tmp_path: Path, offline: list[float | None]
) -> None:
    reason = "the download failed: <urlopen error Name or service not known>" if download else "data.download is false"
    with pytest.raises(DataUnavailableError) as caught:
        Cifar(name, str(tmp_path / "empty"), download).decode()
    assert str(caught.value) == (
        f"data.root: {name} is not in {tmp_path / 'empty'} and {reason}. Name the folder that holds {folder}/ "
        f"with data.root=… or ONECYCLE_DATA, or take the embedded set: data=synthetic."
    )
    assert len(offline) == download


@pytest.mark.parametrize("name", ["data_batch_2", "batches.meta"])
@pytest.mark.parametrize("missing", [True, False])
def test_what_is_missing_or_damaged_is_downloaded_with_a_timeout(
    missing: bool, name: str, fake: FakeCifar, monkeypatch: pytest.MonkeyPatch
) -> None:
    (fake.folder / name).unlink()
    if not missing:
        (fake.folder / name).write_bytes(b"half of it")
    timeouts = []

    def fetch(url: str, root: str, filename: str, md5: str) -> None:
        timeouts.append(socket.getdefaulttimeout())
        assert url == "https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz"
        assert (Path(root), filename) == (fake.root, "cifar-10-python.tar.gz")
        assert md5 == "c58f30108f718f92721af3b95e74349a"  # the published one
        fake.write()
        with tarfile.open(fake.root / filename, "w:gz") as archive:
            archive.add(fake.folder, fake.folder.name)
        shutil.rmtree(fake.folder)

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


def test_cifar_is_10_or_100() -> None:
    with pytest.raises(ValueError, match=r"data\.source\.name=cifar11: must be cifar10 or cifar100"):
        Cifar("cifar11", "data", download=False)


Draw = Callable[..., Path]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "images"


@pytest.fixture
def put(root: Path) -> Draw:
    """Write pixels as root/<name>: put("train/cat/1.png", pixels)."""

    def write(name: str, pixels: np.ndarray | None = None, **options: Any) -> Path:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(noise(len(name), 32, 32, 3) if pixels is None else pixels).save(path, **options)
        return path

    return write


@pytest.fixture
def two_classes(put: Draw) -> None:
    for name in ("train/dog/a.png", "train/dog/b.png", "train/cat/c.png", "test/cat/d.png", "test/dog/e.png"):
        put(name)


def folder(root: Path, image_size: int = 32) -> ImageFolder:
    return ImageFolder("image_folder", str(root), image_size)


def test_class_folders_are_decoded_in_sorted_order(root: Path, put: Draw, caplog: pytest.LogCaptureFixture) -> None:
    colour, gray, alpha = noise(0, 32, 32, 3), noise(1, 32, 32), noise(2, 32, 32, 4)
    put("train/zebra/2.png", colour)
    put("train/zebra/1.PNG", gray)
    put("train/ant/x.png", alpha)
    put("train/ant/y.webp", colour, lossless=True)
    put("train/Bee/photo.jpg", np.full((32, 32, 3), 200, np.uint8))
    put("train/Bee/photo2.JPEG", np.full((32, 32), 90, np.uint8))
    put("test/zebra/1.png", colour[::-1].copy())
    arrays, classes = folder(root).decode()
    assert classes == ["Bee", "ant", "zebra"]
    assert arrays["train_labels"].tolist() == [0, 0, 1, 1, 2, 2]
    assert arrays["test_labels"].tolist() == [2]
    assert arrays["train_images"].shape == (6, 32, 32, 3)
    assert arrays["train_images"].dtype == np.uint8
    assert arrays["train_labels"].dtype == np.int64
    flat_colour, flat_gray, from_alpha, from_webp, from_gray, from_colour = arrays["train_images"]
    assert np.abs(flat_colour.astype(int) - 200).max() <= 2  # JPEG loses a little
    assert np.abs(flat_gray.astype(int) - 90).max() <= 2
    colours, opacity = alpha[..., :3].astype(float), alpha[..., 3:] / 255
    assert np.abs(from_alpha - (colours * opacity + 255 * (1 - opacity))).max() <= 1  # laid on white
    assert np.array_equal(from_webp, colour)
    assert np.array_equal(from_gray, np.repeat(gray[..., None], 3, axis=2))
    assert np.array_equal(from_colour, colour)
    assert np.array_equal(arrays["test_images"][0], colour[::-1])
    assert messages(caplog) == []


def test_other_sizes_are_cropped_and_resized_with_one_message(
    root: Path, put: Draw, caplog: pytest.LogCaptureFixture
) -> None:
    # 40 rows of 80 columns: the middle 40 are green, and only they are kept.
    wide = np.zeros((40, 80, 3), np.uint8)
    wide[:, 20:60, 1] = 255
    put("train/a/wide.png", wide)
    put("train/a/large.png", np.full((64, 64, 3), (10, 20, 30), np.uint8))
    put("train/a/small.png", np.full((5, 5), 7, np.uint8))
    put("test/a/fits.png")
    arrays, _ = folder(root).decode()
    large, small, green = arrays["train_images"]
    assert (large == (10, 20, 30)).all()
    assert (small == 7).all()
    assert (green[:, 2:-2] == (0, 255, 0)).all()
    assert messages(caplog) == ["3 images were cropped and resized to 32×32."]
    caplog.clear()
    arrays, _ = folder(root, image_size=64).decode()
    assert arrays["train_images"].shape == (3, 64, 64, 3)
    assert messages(caplog) == ["3 images were cropped and resized to 64×64."]


def test_16_bit_gray_keeps_its_high_byte(root: Path, put: Draw) -> None:
    gray = np.arange(1024, dtype=np.uint16).reshape(32, 32) * 64
    put("train/a/deep.png", gray)
    put("test/a/1.png")
    arrays, _ = folder(root).decode()
    assert np.array_equal(arrays["train_images"][0], np.repeat((gray >> 8).astype(np.uint8)[..., None], 3, axis=2))


@pytest.mark.usefixtures("two_classes")
def test_hidden_and_other_files_are_passed_over(root: Path) -> None:
    before, key = folder(root).decode(), folder(root).key()
    (root / "train" / "notes.txt").write_text("about")
    (root / "train" / "cat" / "labels.csv").write_text("c,1")
    (root / "train" / "cat" / "._c.png").write_bytes(b"\0\5\26\7\0")  # what macOS leaves on other file systems
    (root / "train" / ".ipynb_checkpoints").mkdir()
    (root / "test" / ".cache").mkdir()
    after = folder(root).decode()
    assert after[1] == before[1] == ["cat", "dog"]
    assert all(np.array_equal(after[0][name], before[0][name]) for name in before[0])
    assert folder(root).key() == key


@pytest.mark.usefixtures("two_classes")
def test_any_change_of_a_file_changes_the_key_and_a_copy_elsewhere_does_not(root: Path, put: Draw) -> None:
    keys = [folder(root).key()]
    assert folder(root).key() == keys[0]

    def differs() -> bool:
        keys.append(folder(root).key())
        return keys[-1] not in keys[:-1]

    path = root / "train" / "cat" / "c.png"
    stat = path.stat()
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns + 1))
    assert differs()  # another time, as when pixels were changed
    path.write_bytes(path.read_bytes() + b"\0")
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert differs()  # another size
    put("test/dog/new.png")
    assert differs()
    (root / "train" / "dog" / "a.png").rename(root / "train" / "dog" / "aa.png")
    assert differs()
    (root / "train" / "dog" / "b.png").rename(root / "train" / "cat" / "b.png")
    assert differs()
    assert folder(root, image_size=64).key() not in keys
    root.rename(root.with_name("moved"))
    assert folder(root.with_name("moved")).key() == keys[-1]


@pytest.mark.usefixtures("two_classes")
@pytest.mark.parametrize(
    "content",
    [b"", b"not an image", b"\x89PNG\r\n\x1a\n", b"\x89PNG\r\n\x1a\n\0\0\0\5IHDR" + bytes(20)],
)
def test_an_unreadable_image_is_named(content: bytes, root: Path) -> None:
    path = root / "test" / "dog" / "e.png"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"Repair or remove it\.$") as caught:
        folder(root).decode()
    assert str(caught.value).startswith(f"data.root: {path} cannot be read as an image (")


@pytest.mark.usefixtures("two_classes")
@pytest.mark.parametrize("suffix", [".png", ".jpg", ".webp"])
def test_an_image_that_ends_early_is_named(suffix: str, root: Path, put: Draw) -> None:
    path = put(f"train/cat/cut{suffix}")
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(ValueError, match="cannot be read as an image") as caught:
        folder(root).decode()
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("ask", [ImageFolder.key, ImageFolder.decode])
@pytest.mark.parametrize(
    ("files", "empty_folders", "problem"),
    [
        ([], [], "{root}/train holds no class folders. Lay the images out as train/<class>/* and test/<class>/*"),
        (["train/a.png"], [], "{root}/train holds no class folders."),
        (["train/a/1.png"], [], "{root}/test holds no class folders."),
        (["train/a/1.png", "test/a/1.png"], ["train/b"], "no png, jpg or webp image in {root}/train/b."),
        ([], ["train/a", "train/b", "test/a"], "no png, jpg or webp image in {root}/train."),
        (["train/a/1.png"], ["test/a"], "no png, jpg or webp image in {root}/test."),
        (
            ["train/b/1.png", "test/a/1.png", "test/b/1.png", "test/c/1.png"], [],
            "the classes a, c are in test/ but not in train/.",
        ),
    ],
)  # fmt: skip
def test_a_layout_that_does_not_hold_two_splits_is_refused(
    files: list[str],
    empty_folders: list[str],
    problem: str,
    ask: Callable[[ImageFolder], Any],
    root: Path,
    put: Draw,
) -> None:
    for name in files:
        put(name)
    for name in empty_folders:
        (root / name).mkdir(parents=True)
    with pytest.raises(ValueError, match=r"^data\.root: ") as caught:
        ask(folder(root))
    assert str(caught.value).startswith("data.root: " + problem.format(root=root))
    assert not isinstance(caught.value, DataUnavailableError)


def test_a_class_may_lack_test_images(root: Path, put: Draw) -> None:
    for name in ("train/a/1.png", "train/b/1.png", "test/b/1.png"):
        put(name)
    arrays, classes = folder(root).decode()
    assert classes == ["a", "b"]
    assert arrays["test_labels"].tolist() == [1]


class Counted:
    """A source of random images that counts how often it is decoded."""

    origin = "a test"

    def __init__(self, name: str = "counted", seed: int = 0) -> None:
        self.name, self.seed, self.decoded = name, seed, 0
        self.arrays = {
            "train_images": noise(seed, 12, 8, 16, 3) // 2, "train_labels": np.arange(12) % 3,
            "test_images": noise(seed + 1, 6, 8, 16, 3), "test_labels": np.arange(6) % 3,
        }  # fmt: skip

    def key(self) -> dict[str, Any]:
        return {"name": self.name, "seed": self.seed}

    def decode(self) -> tuple[Arrays, list[str]]:
        self.decoded += 1
        return self.arrays, ["x", "y", "z"]


def unpacked(pixels: torch.Tensor) -> np.ndarray:
    return pixels.contiguous().numpy().view(np.uint8).reshape(*pixels.shape, 4)


def test_a_loaded_data_set_is_what_the_source_decoded(tmp_path: Path) -> None:
    source = Counted()
    dataset = load(source, tmp_path)
    for split in ("train", "test"):
        pixels, labels = getattr(dataset, split)
        assert (pixels.dtype, labels.dtype) == (torch.int32, torch.int64)
        assert np.array_equal(unpacked(pixels)[..., :3], source.arrays[f"{split}_images"])
        assert not unpacked(pixels)[..., 3].any()
        assert np.array_equal(labels.numpy(), source.arrays[f"{split}_labels"])
    assert (dataset.name, dataset.origin, dataset.classes) == ("counted", "a test", ("x", "y", "z"))
    images = source.arrays["train_images"].astype(np.float64)
    assert dataset.mean == pytest.approx(images.mean((0, 1, 2)), rel=1e-12)
    assert dataset.std == pytest.approx(images.std((0, 1, 2)), rel=1e-12)


def test_a_data_set_is_decoded_once_and_opened_once_a_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = Counted()
    first = load(source, tmp_path)
    assert load(Counted(), tmp_path / "nowhere") is first  # an equal key, another object
    assert not (tmp_path / "nowhere").exists()
    monkeypatch.setattr(sources, "_loaded", {})  # as in another process
    again = load(source, tmp_path)
    assert source.decoded == 1
    assert again is not first
    assert again.fingerprint == first.fingerprint
    assert (again.mean, again.std, again.classes) == (first.mean, first.std, first.classes)
    assert torch.equal(again.train.pixels, first.train.pixels)
    assert torch.equal(again.test.labels, first.test.labels)


def test_only_the_last_data_set_stays_in_memory(tmp_path: Path) -> None:
    first = load(Counted(seed=0), tmp_path)
    second = load(Counted(seed=5), tmp_path)
    assert second.fingerprint != first.fingerprint
    assert list(sources._loaded.values()) == [second]
    assert load(Counted(seed=5), tmp_path) is second


def test_the_synthetic_set_holds_the_drawn_images(tmp_path: Path) -> None:
    source = Synthetic(train_size=30, test_size=20, seed=3)
    dataset = load(source, tmp_path)
    for split, size in (("train", 30), ("test", 20)):
        images, labels = synthetic.draw(size, 3, split)
        pixels, numbers = getattr(dataset, split)
        assert np.array_equal(unpacked(pixels)[..., :3], images)
        assert np.array_equal(numbers.numpy(), labels)
    assert (dataset.name, dataset.classes) == ("synthetic", synthetic.CLASSES)
    assert source.key() == Synthetic(30, 20, 3).key()
    others = [Synthetic(31, 20, 3), Synthetic(30, 21, 3), Synthetic(30, 20, 4)]
    assert all(source.key() != other.key() for other in others)


def test_a_new_version_of_the_drawing_is_another_data_set(monkeypatch: pytest.MonkeyPatch) -> None:
    before = Synthetic(30, 20, 3).key()
    monkeypatch.setattr(synthetic, "VERSION", synthetic.VERSION + 1)
    assert Synthetic(30, 20, 3).key() != before


def test_a_packed_pixel_is_red_green_blue_zero() -> None:
    images = np.array([[[[1, 2, 3], [255, 0, 0]], [[0, 255, 0], [0, 0, 255]]]], dtype=np.uint8)
    packed = pack(images)
    assert packed.dtype == np.int32
    assert packed.tolist() == [[[1 + (2 << 8) + (3 << 16), 255], [255 << 8, 255 << 16]]]
    assert np.array_equal(pack(images.transpose(0, 2, 1, 3)), packed.transpose(0, 2, 1))


@pytest.mark.parametrize("count", [1, 4095, 4097, 9000])
def test_channel_statistics_are_those_of_all_pixels(count: int) -> None:
    images = noise(count, count, 2, 3, 3)
    images[..., 1] //= 5
    mean, std = channel_statistics(images)
    assert mean == pytest.approx(images.mean((0, 1, 2), dtype=np.float64), rel=1e-12)
    assert std == pytest.approx(images.std((0, 1, 2), dtype=np.float64), rel=1e-9)


def test_a_constant_channel_becomes_zero_not_a_division_by_zero() -> None:
    images = noise(0, 10, 4, 4, 3)
    images[..., 2] = 77
    mean, std = channel_statistics(images)
    assert (mean[2], std[2]) == (77.0, 1.0)
    normalized = Normalizer(tuple(mean), tuple(std), torch.device("cpu"))(unpack(torch.from_numpy(pack(images))))
    assert torch.equal(normalized[:, 2], torch.zeros(10, 4, 4))


def test_normalised_training_images_have_mean_0_and_deviation_1(tmp_path: Path) -> None:
    dataset = load(Counted(), tmp_path)
    images = Normalizer(dataset.mean, dataset.std, torch.device("cpu"))(unpack(dataset.train.pixels))
    assert images.mean((0, 2, 3)).tolist() == pytest.approx([0, 0, 0], abs=1e-5)
    assert images.std((0, 2, 3), correction=0).tolist() == pytest.approx([1, 1, 1], rel=1e-5)
