"""Files that strangers have: each kind is decoded to the right pixels, or named and refused with a reason."""

import io
import struct
import time
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from onecycle.data.class_folders import MAX_PIXELS, ImageFolder, decode_image
from onecycle.data.png import row_bytes

RED, GREEN, BLUE, WHITE = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)


def encoded(image: Image.Image, form: str, **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, form, **options)
    return file.getvalue()


def joined(chunks: Sequence[tuple[bytes, bytes]]) -> bytes:
    """A PNG of these chunks, whose checksums match."""
    parts = (
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in chunks
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def header(width: int, height: int, depth: int, colour: int, interlaced: int = 0) -> bytes:
    return struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, interlaced)


def png(depth: int, colour: int, rows: Sequence[bytes], *chunks: tuple[bytes, bytes]) -> bytes:
    """A PNG of 2×2 pixels; rows: two of them, without their filter's byte."""
    pixels = zlib.compress(b"".join(b"\0" + row for row in rows))
    return joined([(b"IHDR", header(2, 2, depth, colour)), *chunks, (b"IDAT", pixels), (b"IEND", b"")])


def words(*values: int) -> bytes:
    return struct.pack(f">{len(values)}H", *values)


def decoded(data: bytes, folder: Path, size: int = 2) -> list[Any]:
    (folder / "image").write_bytes(data)
    pixels, _ = decode_image(folder / "image", size)
    return [[tuple(pixel) for pixel in row] for row in pixels.tolist()]


def refusal(data: bytes, folder: Path) -> str:
    with pytest.raises(ValueError, match=r".") as caught:
        decoded(data, folder)
    return str(caught.value)


PALETTE = (b"PLTE", bytes([*RED, *GREEN, *BLUE]))


@pytest.mark.parametrize(
    ("data", "rows"),
    [
        # 16 bits: the high byte
        (png(16, 0, [words(0x1234, 0xFFFF), words(0x00FF, 0x8000)]), [[18, 255], [0, 128]]),
        (png(16, 0, [words(0x1234, 0x1235)] * 2, (b"tRNS", words(0x1234))), [[255, 18]] * 2),
        (png(16, 2, [words(0x1234, 0xABCD, 0xFFFF, 0x00FF, 0x0100, 0x80FF)] * 2), [[(18, 171, 255), (0, 1, 128)]] * 2),
        (png(16, 4, [words(0x1234, 0xFFFF, 0x5678, 0)] * 2), [[18, 255]] * 2),
        (png(16, 6, [words(0x1234, 0xABCD, 0, 0xFFFF, 1, 2, 3, 0)] * 2), [[(18, 171, 0), WHITE]] * 2),
        # 1, 2 and 4 bits, also with one transparent gray
        (png(1, 0, [b"\x40"] * 2), [[0, 255]] * 2),
        (png(2, 0, [b"\x60"] * 2), [[85, 170]] * 2),
        (png(4, 0, [b"\x5a"] * 2), [[85, 170]] * 2),
        (png(1, 0, [b"\x40"] * 2, (b"tRNS", words(0))), [[255, 255]] * 2),
        (png(2, 0, [b"\x60"] * 2, (b"tRNS", words(1))), [[255, 170]] * 2),
        (png(4, 0, [b"\x5a"] * 2, (b"tRNS", words(10))), [[85, 255]] * 2),
        (png(8, 0, [b"\5\6"] * 2, (b"tRNS", words(0x0105))), [[255, 6]] * 2),
        # palettes, also of few bits, and with opacities
        (png(8, 3, [b"\0\1", b"\2\0"], PALETTE), [[RED, GREEN], [BLUE, RED]]),
        (png(1, 3, [b"\x40"] * 2, PALETTE), [[RED, GREEN]] * 2),
        (png(8, 3, [b"\0\1", b"\2\0"], PALETTE, (b"tRNS", b"\0\x80")), [[WHITE, (127, 255, 127)], [BLUE, WHITE]]),
        # alpha: on white
        (png(8, 4, [bytes([0, 255, 0, 51])] * 2), [[0, 204]] * 2),
        (png(8, 6, [bytes([*RED, 255, *BLUE, 0]), bytes([*RED, 51, *BLUE, 204])]),
         [[RED, WHITE], [(255, 204, 204), (51, 51, 255)]]),
        (png(8, 2, [bytes([1, 2, 3, 4, 5, 6])] * 2, (b"tRNS", words(1, 2, 3))), [[WHITE, (4, 5, 6)]] * 2),
    ],
)  # fmt: skip
def test_every_form_of_png_has_its_colours(data: bytes, rows: list[Any], tmp_path: Path) -> None:
    wanted = [[pixel if isinstance(pixel, tuple) else (pixel,) * 3 for pixel in row] for row in rows]
    assert decoded(data, tmp_path) == wanted


@pytest.mark.parametrize(
    ("ink", "light"),
    [((0, 255, 255, 0), RED), ((255, 0, 255, 0), GREEN), ((0, 0, 0, 255), (0, 0, 0)), ((0, 0, 0, 0), WHITE),
     ((0, 0, 0, 128), (127, 127, 127))],
)  # fmt: skip
def test_cmyk_is_light_and_not_its_negative(ink: tuple[int, ...], light: tuple[int, ...], tmp_path: Path) -> None:
    data = encoded(Image.new("CMYK", (16, 16), ink), "JPEG", quality=100)
    pixels = np.array(decoded(data, tmp_path, 16))
    assert np.abs(pixels - light).max() <= 2


def test_alpha_of_webp_is_laid_on_white(tmp_path: Path) -> None:
    layer = Image.new("RGBA", (16, 16), (*RED, 51))
    assert decoded(encoded(layer, "WEBP", lossless=True), tmp_path, 16)[3][4] == (255, 204, 204)
    assert np.abs(np.array(decoded(encoded(layer, "WEBP", quality=100), tmp_path, 16)) - (255, 204, 204)).max() <= 3


# Where EXIF's values put the corners (upper left, upper right, lower left, lower right) of the picture below.
TURNS = {1: "rgbw", 2: "grwb", 3: "wbgr", 4: "bwrg", 5: "rbgw", 6: "brwg", 7: "wgbr", 8: "gwrb"}


@pytest.mark.parametrize("form", ["PNG", "JPEG", "WEBP"])
@pytest.mark.parametrize("turn", TURNS)
def test_an_image_stands_as_its_exif_says(turn: int, form: str, tmp_path: Path) -> None:
    pixels = np.zeros((32, 32, 3), np.uint8)
    pixels[:16, :16], pixels[:16, 16:], pixels[16:, :16], pixels[16:, 16:] = RED, GREEN, BLUE, WHITE
    exif = Image.Exif()
    exif[0x0112] = turn
    shown = np.array(decoded(encoded(Image.fromarray(pixels), form, exif=exif, quality=100), tmp_path, 32))
    corners = [shown[4, 4], shown[4, 27], shown[27, 4], shown[27, 27]]
    wanted = [{"r": RED, "g": GREEN, "b": BLUE, "w": WHITE}[name] for name in TURNS[turn]]
    assert np.abs(np.array(corners) - wanted).max() <= 40  # WebP halves the resolution of colour


COLOUR = Image.fromarray(np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8))
FRAMES: dict[str, Any] = {"save_all": True, "append_images": [COLOUR.rotate(90), COLOUR.rotate(180)]}
WHOLE = encoded(COLOUR, "PNG")
ROW = zlib.compress(bytes(7))
FOREIGN = "cannot be read as an image (it is no PNG, JPEG or WebP). Repair or remove it."


def unreadable(reason: str) -> str:
    return f"cannot be read as an image ({reason}). Repair or remove it."


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        # animated
        (encoded(COLOUR, "PNG", **FRAMES), "is an animation of 3 frames. Keep one of them, or remove it."),
        (encoded(COLOUR, "WEBP", **FRAMES), "is an animation of 3 frames. Keep one of them, or remove it."),
        (encoded(COLOUR, "GIF", **FRAMES), FOREIGN),
        # other kinds
        (encoded(COLOUR, "GIF"), FOREIGN), (encoded(COLOUR, "BMP"), FOREIGN), (encoded(COLOUR, "TIFF"), FOREIGN),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n", FOREIGN), (b"<svg xmlns='http://www.w3.org/2000/svg'/>", FOREIGN),
        (b"", unreadable("it is empty")),
        # corrupt
        (WHOLE[:-13] + bytes([WHOLE[-13] ^ 1]) + WHOLE[-12:],
         unreadable("the checksum of its chunk IDAT does not match")),
        (WHOLE[:-1] + b"\0", unreadable("the checksum of its chunk IEND does not match")),
        # cut off, also so that every checksum is right
        (WHOLE[:-12], unreadable("it ends early")), (WHOLE[:1000], unreadable("it ends early")),
        (joined([(b"IHDR", header(2, 2, 8, 2)), (b"IDAT", ROW), (b"IEND", b"")]),
         unreadable("7 bytes of its pixels are missing")),
        (joined([(b"IHDR", header(2, 2, 8, 2)), (b"IDAT", ROW[:4]), (b"tEXt", b"a\0b"), (b"IDAT", ROW[4:]),
                 (b"IEND", b"")]), unreadable("its chunk IDAT is in the wrong place")),
        (joined([(b"IHDR", header(2, 2, 8, 2)), (b"IHDR", header(2, 1, 8, 2)), (b"IDAT", ROW), (b"IEND", b"")]),
         unreadable("its chunk IHDR is in the wrong place")),
        # a palette that is not there, or too short; a transparent colour that cannot be told from others
        (png(8, 3, [b"\0\1", b"\2\0"]), unreadable("it has no palette")),
        (png(8, 3, [b"\0\1", b"\3\0"], PALETTE), "has colours that are not in its palette. Repair or remove it."),
        (png(16, 2, [words(*range(6))] * 2, (b"tRNS", words(0, 1, 2))),
         "has a transparent colour of 16 bits a sample. Give it an alpha channel, or remove it."),
        # gigantic
        (joined([(b"IHDR", header(30_000, 3_000, 8, 2)), (b"IDAT", ROW), (b"IEND", b"")]),
         "has 30000×3000 pixels, more than 80,000,000. Scale it down or remove it."),
        (joined([(b"IHDR", header(2**31 - 1, 2**31 - 1, 8, 2)), (b"IDAT", ROW), (b"IEND", b"")]),
         "has more than 80,000,000 pixels. Scale it down or remove it."),
        (joined([(b"IHDR", header(1, 70_000, 8, 2)), (b"IDAT", ROW), (b"IEND", b"")]),
         "has 1×70000 pixels, more than 65,535 on a side. Scale it down or remove it."),
        (joined([(b"IHDR", header(2, 2, 8, 2)), (b"zTXt", b"a\0\0" + zlib.compress(bytes(10**8), 9)), (b"IDAT", ROW),
                 (b"IEND", b"")]), unreadable("Decompressed data too large for PngImagePlugin.MAX_TEXT_CHUNK")),
    ],
)  # fmt: skip
def test_what_cannot_be_decoded_rightly_is_refused_with_the_reason(data: bytes, reason: str, tmp_path: Path) -> None:
    started = time.monotonic()
    assert refusal(data, tmp_path) == reason
    assert time.monotonic() - started < 5  # nothing of a bomb is decoded


@pytest.mark.parametrize("place", range(0, len(WHOLE), 97))
def test_one_bit_of_a_png_that_changed_is_noticed_wherever_it_is(place: int, tmp_path: Path) -> None:
    damaged = WHOLE[:place] + bytes([WHOLE[place] ^ 1 << place % 8]) + WHOLE[place + 1 :]
    assert refusal(damaged, tmp_path).startswith("cannot be read as an image (")


@pytest.mark.parametrize(("form", "options"), [("JPEG", {}), ("JPEG", {"progressive": True}), ("WEBP", {})])
def test_a_cut_off_photograph_is_refused_at_every_length(form: str, options: dict[str, Any], tmp_path: Path) -> None:
    whole = encoded(COLOUR, form, **options)
    for length in range(1, len(whole) - 2, 37):
        assert refusal(whole[:length], tmp_path).startswith("cannot be read as an image (")


@pytest.mark.parametrize("marker", [b"\xff\xc0", b"\xff\xc2"])
def test_a_jpeg_that_declares_too_many_pixels_is_refused_by_its_header(marker: bytes, tmp_path: Path) -> None:
    data = encoded(COLOUR, "JPEG", progressive=marker == b"\xff\xc2")
    place = data.index(marker) + 5
    forged = data[:place] + words(20_000, 5_000) + data[place + 4 :]
    assert refusal(forged, tmp_path) == "has 5000×20000 pixels, more than 80,000,000. Scale it down or remove it."


def test_a_webp_that_declares_too_many_pixels_is_refused_by_its_header(tmp_path: Path) -> None:
    data = encoded(COLOUR, "WEBP", lossless=True)
    place = data.index(b"VP8L") + 9
    (bits,) = struct.unpack_from("<I", data, place)
    forged = data[:place] + struct.pack("<I", bits >> 28 << 28 | 16_000 << 14 | 16_000) + data[place + 4 :]
    assert refusal(forged, tmp_path) == "has more than 80,000,000 pixels. Scale it down or remove it."


def test_of_a_phones_two_pictures_the_first_is_the_photograph(tmp_path: Path) -> None:
    data = encoded(
        Image.new("RGB", (16, 16), RED), "MPO", save_all=True, append_images=[Image.new("RGB", (16, 16), BLUE)]
    )
    assert np.abs(np.array(decoded(data, tmp_path, 16)) - RED).max() <= 2


@pytest.mark.parametrize("interlaced", [0, 1])
@pytest.mark.parametrize(("depth", "colour", "mode"), [(8, 2, "RGB"), (1, 0, "1"), (8, 0, "L"), (8, 4, "LA")])
def test_the_bytes_of_all_rows_are_those_of_the_specification(
    depth: int, colour: int, mode: str, interlaced: int
) -> None:
    for width in (1, 3, 5, 8, 33):
        for height in (1, 2, 7, 20):
            bits = depth * {"RGB": 3, "1": 1, "L": 1, "LA": 2}[mode]
            rows = [width] * height
            if interlaced:  # the pixels of each of the seven passes, counted one by one
                order = ("16462646", "77777777", "56565656", "77777777", "36463646", "77777777", "56565656", "77777777")
                kinds = [[order[y % 8][x % 8] for x in range(width)] for y in range(height)]
                rows = [count for number in "1234567" for row in kinds if (count := row.count(number))]
            assert row_bytes(header(width, height, depth, colour, interlaced)) == sum(
                1 + -(-pixels * bits // 8) for pixels in rows
            )


def test_every_refused_file_of_a_folder_is_named_and_the_good_ones_are_not(tmp_path: Path) -> None:
    for split in ("train", "test"):
        (tmp_path / split / "a").mkdir(parents=True)
        (tmp_path / split / "a" / "good.png").write_bytes(WHOLE)
    (tmp_path / "train/a/bomb.png").write_bytes(
        joined([(b"IHDR", header(9, MAX_PIXELS, 8, 2)), (b"IDAT", ROW), (b"IEND", b"")])
    )
    (tmp_path / "test/a/moving.webp").write_bytes(encoded(COLOUR, "WEBP", **FRAMES))
    with pytest.raises(ValueError, match=r"^data\.root: ") as caught:
        ImageFolder("mine", str(tmp_path), 32).decode()
    assert str(caught.value).splitlines() == [
        f"data.root: {tmp_path}/train/a/bomb.png has more than 80,000,000 pixels. Scale it down or remove it.",
        f"data.root: {tmp_path}/test/a/moving.webp is an animation of 3 frames. Keep one of them, or remove it.",
    ]
