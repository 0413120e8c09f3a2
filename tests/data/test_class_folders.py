import io
import os
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from helpers import noise, warnings_of
from onecycle.data.class_folders import ImageFolder, decode_image
from onecycle.data.sources import DataUnavailableError

RED, GREEN, BLUE, WHITE = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)


def encoded(image: Image.Image, form: str, **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, form, **options)
    return file.getvalue()


def decoded(data: bytes, folder: Path, size: int = 32) -> np.ndarray:
    (folder / "image").write_bytes(data)
    return decode_image(folder / "image", size)[0].astype(int)


Put = Callable[..., Path]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "images"


@pytest.fixture
def put(root: Path) -> Put:
    """Write pixels as root/<name>: put("train/cat/1.png", pixels)."""

    def write(name: str, pixels: np.ndarray | None = None) -> Path:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(noise(len(name), 32, 32, 3) if pixels is None else pixels).save(path, lossless=True)
        return path

    return write


@pytest.fixture
def two_classes(put: Put) -> None:
    for name in ("train/dog/a.png", "train/dog/b.png", "train/cat/c.png", "test/cat/d.png", "test/dog/e.png"):
        put(name)


def source(root: Path, image_size: int = 32) -> ImageFolder:
    return ImageFolder("image_folder", str(root), image_size)


def test_class_folders_are_decoded_in_sorted_order(root: Path, put: Put, caplog: pytest.LogCaptureFixture) -> None:
    colour, gray = noise(0, 32, 32, 3), noise(1, 32, 32)
    put("train/zebra/2.png", colour)
    put("train/zebra/1.PNG", gray)
    put("train/ant/y.webp", colour)
    put("train/Bee/photo.jpg", np.full((32, 32, 3), 200, np.uint8))
    put("train/Bee/photo2.JPEG", np.full((32, 32, 3), 90, np.uint8))
    put("test/zebra/1.png", colour[::-1].copy())
    (root / "train/zebra/3.png").symlink_to(root / "test/zebra/1.png")
    arrays, classes = source(root).decode()
    assert classes == ["Bee", "ant", "zebra"]
    assert source(root).counts() == {"Bee": 2, "ant": 1, "zebra": 3}
    assert arrays["train_labels"].tolist() == [0, 0, 1, 2, 2, 2]
    assert arrays["test_labels"].tolist() == [2]
    assert [array.dtype for array in arrays.values()] == [np.uint8, np.int64] * 2
    expected = [
        np.full((32, 32, 3), 200), np.full((32, 32, 3), 90), colour, np.repeat(gray[..., None], 3, axis=2), colour,
        colour[::-1],
    ]  # fmt: skip
    for image, wanted, loss in zip(arrays["train_images"], expected, (2, 2, 0, 0, 0, 0), strict=True):
        assert np.abs(image.astype(int) - wanted).max() <= loss  # JPEG loses a little
    assert np.array_equal(arrays["test_images"][0], colour[::-1])
    assert warnings_of(caplog) == []


def test_other_sizes_are_cropped_and_resized_with_one_warning(
    root: Path, put: Put, caplog: pytest.LogCaptureFixture
) -> None:
    # 40 rows of 80 columns: the middle 40 are green, and only they are kept.
    wide = np.zeros((40, 80, 3), np.uint8)
    wide[:, 20:60, 1] = 255
    put("train/a/wide.png", wide)
    put("train/a/large.png", np.full((64, 64, 3), (10, 20, 30), np.uint8))
    put("train/a/small.png", np.full((5, 5), 7, np.uint8))
    put("test/a/fits.png")
    arrays, _ = source(root).decode()
    large, small, green = arrays["train_images"]
    assert (large == (10, 20, 30)).all()
    assert (small == 7).all()
    assert (green[:, 2:-2] == (0, 255, 0)).all()
    assert [warning[:2] for warning in warnings_of(caplog)] == ["3 "]
    assert source(root, image_size=64).decode()[0]["train_images"].shape == (3, 64, 64, 3)


@pytest.mark.usefixtures("two_classes")
def test_hidden_files_are_passed_over_and_other_suffixes_with_a_warning(
    root: Path, caplog: pytest.LogCaptureFixture
) -> None:
    before, key = source(root).decode(), source(root).key()
    (root / "train" / "notes.txt").write_text("about")
    (root / "train" / "cat" / "._c.png").write_bytes(b"\0\5\26\7\0")  # what macOS leaves on other file systems
    (root / "train" / ".ipynb_checkpoints").mkdir()
    source(root).decode()
    assert warnings_of(caplog) == []
    for name in ("labels.csv", "README"):
        (root / "train" / "cat" / name).write_text("c,1")
    after = source(root).decode()
    (warning,) = warnings_of(caplog)
    assert ".csv" in warning
    assert after[1] == before[1] == ["cat", "dog"]
    assert all(np.array_equal(after[0][name], before[0][name]) for name in before[0])
    assert source(root).key() == key


@pytest.mark.usefixtures("two_classes")
def test_any_change_of_a_file_changes_the_key_and_a_copy_elsewhere_does_not(root: Path, put: Put) -> None:
    path = root / "train" / "cat" / "c.png"
    before = path.stat()

    def times(changed: int) -> None:
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns + changed))

    def longer() -> None:
        path.write_bytes(path.read_bytes() + b"\0")
        times(1)

    changes: list[Callable[[], Any]] = [
        lambda: times(1), longer, lambda: put("test/dog/new.png"),
        lambda: (root / "train" / "dog" / "b.png").rename(root / "train" / "cat" / "b.png"),
    ]  # fmt: skip
    keys = [source(root).key(), source(root, image_size=64).key()]
    for change in changes:
        change()
        keys.append(source(root).key())
    assert all(key not in keys[:place] for place, key in enumerate(keys))
    root.rename(root.with_name("moved"))
    assert source(root.with_name("moved")).key() == keys[-1]


@pytest.mark.parametrize("ask", [ImageFolder.key, ImageFolder.counts, ImageFolder.decode])
@pytest.mark.parametrize(
    ("files", "link", "named"),
    [
        ("", "", "{root}/train'"), ("train/a.png", "", "{root}/train'"), ("train/a/1.png", "", "{root}/test'"),
        ("train/a/1.png test/a/1.png", "train/b", "{root}/train/b"),
        ("train/b/1.png test/a/1.png test/b/1.png test/c/1.png", "", "a, c"),
    ],
)  # fmt: skip
def test_a_layout_that_does_not_hold_two_splits_is_refused(
    files: str, link: str, named: str, ask: Callable[[ImageFolder], Any], root: Path, put: Put
) -> None:
    for name in files.split():
        put(name)
    for target in ("nowhere", "empty") if link else ():
        (root / "empty").mkdir(exist_ok=True)
        (root / link).unlink(missing_ok=True)
        (root / link).symlink_to(root / target)
        with pytest.raises(ValueError, match=rf"^data\.root: .*{root / link}"):
            ask(source(root))
    with pytest.raises(ValueError, match=r"^data\.root: ") as caught:
        ask(source(root))
    assert named.format(root=root) in str(caught.value)
    assert not isinstance(caught.value, DataUnavailableError)


@pytest.mark.usefixtures("two_classes")
def test_a_class_may_lack_test_images(root: Path, put: Put) -> None:
    put("train/elk/1.png")
    assert source(root).decode()[0]["test_labels"].tolist() == [0, 1]


def palette(**info: int) -> Image.Image:
    image = Image.new("P", (32, 32), 1)
    image.putpalette([*RED, *GREEN])
    image.info.update(info)
    return image


@pytest.mark.parametrize(
    ("image", "form", "colour"),
    [
        (Image.new("RGBA", (32, 32), (*RED, 51)), "PNG", (255, 204, 204)),
        (Image.new("LA", (32, 32), (0, 51)), "PNG", (204, 204, 204)),
        (Image.new("1", (32, 32), 1), "PNG", WHITE),
        (palette(), "PNG", GREEN),
        (palette(transparency=1), "PNG", WHITE),
        (Image.fromarray(np.full((32, 32), 0x1234, np.uint16)), "PNG", (0x12, 0x12, 0x12)),
        # 0.992 and 254.498 of 255, of which the high byte would make 0 and 255.
        (Image.fromarray(np.full((32, 32), 255, np.uint16)), "PNG", (1, 1, 1)),
        (Image.fromarray(np.full((32, 32), 65406, np.uint16)), "TIFF", (254, 254, 254)),
        (Image.fromarray(np.full((32, 32), 65535, np.int32)), "TIFF", WHITE),
        (palette(), "GIF", GREEN),
        (palette(transparency=1), "GIF", WHITE),
        (Image.new("RGB", (32, 32), RED), "BMP", RED),
        (Image.new("RGBA", (32, 32), (*RED, 51)), "TIFF", (255, 204, 204)),
        (Image.new("CMYK", (32, 32), (0, 255, 255, 0)), "JPEG", RED),
    ],
)  # fmt: skip
def test_an_image_has_the_colours_that_a_viewer_shows(
    image: Image.Image, form: str, colour: tuple[int, ...], tmp_path: Path
) -> None:
    shown = decoded(encoded(image, form, quality=100), tmp_path)
    assert np.abs(shown - colour).max() <= (3 if form == "JPEG" else 0)


# Where EXIF's values put the corners (upper left, upper right, lower left, lower right) of the picture below.
TURNS = {1: "rgbw", 2: "grwb", 3: "wbgr", 4: "bwrg", 5: "rbgw", 6: "brwg", 7: "wgbr", 8: "gwrb"}


@pytest.mark.parametrize("form", ["PNG", "JPEG", "WEBP", "TIFF"])
@pytest.mark.parametrize("turn", TURNS)
def test_an_image_is_turned_as_its_exif_says(turn: int, form: str, tmp_path: Path) -> None:
    pixels = np.zeros((32, 32, 3), np.uint8)
    pixels[:16, :16], pixels[:16, 16:], pixels[16:, :16], pixels[16:, 16:] = RED, GREEN, BLUE, WHITE
    exif = Image.Exif()
    exif[0x0112] = turn
    shown = decoded(encoded(Image.fromarray(pixels), form, exif=exif, quality=100), tmp_path)
    corners = [shown[4, 4], shown[4, 27], shown[27, 4], shown[27, 27]]
    wanted = [{"r": RED, "g": GREEN, "b": BLUE, "w": WHITE}[name] for name in TURNS[turn]]
    assert np.abs(np.array(corners) - wanted).max() <= 40  # WebP halves the resolution of colour


COLOUR = Image.fromarray(noise(0, 32, 32, 3))
FRAMES: dict[str, Any] = {"save_all": True, "append_images": [COLOUR.rotate(90), COLOUR.rotate(180)]}
WHOLE = encoded(COLOUR, "PNG")


def declared(width: int, height: int) -> bytes:
    """A PNG whose header declares a size that its data do not have."""
    header = b"IHDR" + struct.pack(">II", width, height) + WHOLE[24:29]
    return WHOLE[:12] + header + struct.pack(">I", zlib.crc32(header)) + WHOLE[33:]


@pytest.mark.parametrize(
    "data",
    [
        b"", b"not an image", WHOLE[:8], WHOLE[:1000],
        WHOLE[:-12],  # no end
        WHOLE[:500] + bytes([WHOLE[500] ^ 1]) + WHOLE[501:],  # a wrong checksum
        encoded(COLOUR, "JPEG")[:-200], encoded(COLOUR, "JPEG", progressive=True)[:-200], encoded(COLOUR, "WEBP")[:-50],
        encoded(COLOUR, "GIF")[:-500], encoded(COLOUR, "BMP")[:-100], encoded(COLOUR, "TIFF")[:-100],
        encoded(COLOUR, "TIFF", compression="tiff_lzw")[:-100],
        encoded(Image.fromarray(np.full((32, 32), 65536, np.int32)), "TIFF"),
        encoded(Image.fromarray(np.full((32, 32), -1, np.int32)), "TIFF"),
        encoded(Image.fromarray(np.full((32, 32), 0.5, np.float32)), "TIFF"),
        encoded(COLOUR, "ICO"), b"%!PS-Adobe-3.0 EPSF-3.0\n",
        declared(10_000, 9_000), declared(2**31 - 1, 2**31 - 1),  # too large, by the header
    ],
)  # fmt: skip
def test_what_is_no_image_to_train_on_is_refused_with_a_reason_on_one_line(data: bytes, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"^cannot be read as an image \(.+\)\. .+$"):
        decoded(data, tmp_path)


@pytest.mark.parametrize("form", ["PNG", "WEBP", "GIF", "TIFF"])
def test_of_several_frames_the_first_is_read(form: str, tmp_path: Path) -> None:
    gray = Image.fromarray(noise(0, 32, 32))
    frames = {"save_all": True, "append_images": [gray.rotate(90), gray.rotate(180)], "lossless": True}
    assert np.array_equal(decoded(encoded(gray, form, **frames), tmp_path)[..., 0], np.asarray(gray))


@pytest.mark.usefixtures("two_classes")
def test_images_in_folders_inside_a_class_are_named_and_counted(
    root: Path, put: Put, caplog: pytest.LogCaptureFixture
) -> None:
    before = source(root).decode()
    for name in ("more/1.png", "more/2.png", "more/still/3.bmp", "v1.0/4.tif"):
        put(f"train/cat/{name}")
    (root / "train" / "cat" / "empty").mkdir()
    after = source(root).decode()
    assert all(np.array_equal(after[0][name], before[0][name]) for name in before[0])
    (warning,) = warnings_of(caplog)
    assert warning.startswith("train/: ")
    assert f"{str(root / 'train/cat/more')!r} (images: 3), {str(root / 'train/cat/v1.0')!r} (images: 1)" in warning
    (root / "train" / "cat" / "c.png").unlink()
    with pytest.raises(ValueError, match=r"^data\.root: ") as caught:
        source(root).counts()
    assert f"{str(root / 'train/cat')!r}; move them up from {str(root / 'train/cat/more')!r} (images: 3)" in str(
        caught.value
    )


def test_every_suffix_is_read(root: Path, put: Put) -> None:
    suffixes = ["png", "jpg", "jpeg", "jfif", "webp", "bmp", "gif", "tif", "TIFF"]
    for number, suffix in enumerate(suffixes):
        put(f"train/a/{number}.{suffix}", np.full((32, 32), 100, np.uint8))
    put("test/a/1.png")
    arrays, _ = source(root).decode()
    assert len(arrays["train_images"]) == len(suffixes)
    assert np.abs(arrays["train_images"].astype(int) - 100).max() <= 1


@pytest.mark.usefixtures("two_classes")
def test_refused_files_are_named_up_to_twenty_and_then_counted(root: Path) -> None:
    paths = [root / "train" / "cat" / f"{number:02}.png" for number in range(21)]
    for path in paths:
        path.write_bytes(b"no image")
    special = [root / "test" / "dog" / name for name in ("folder.png", "link.png", "pipe.png")]
    special[0].mkdir()
    special[1].symlink_to(root / "nowhere")
    os.mkfifo(special[2])
    for wrong, others in ((paths + special, 4), (special, 0)):
        with pytest.raises(ValueError, match=r"^data\.root: ") as caught:
            source(root).decode()
        lines = str(caught.value).splitlines()
        assert all(str(path) in line for path, line in zip(wrong[:20], lines, strict=False))
        assert len(lines) == min(len(wrong), 20) + bool(others)
        assert not others or f"{others} more" in lines[-1]
        for path in paths:
            path.unlink(missing_ok=True)
