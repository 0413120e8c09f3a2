"""Images: tiny ones of every kind, damaged, and forged with checksums that match."""

import io
import random
import struct
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from fuzz import mutations
from fuzz.kinds import Kind, must, must_be_readable, regressions
from onecycle.data.class_folders import decode_image

MAX_PIXELS = Image.MAX_IMAGE_PIXELS or 0

SIZE = 8
SIGNATURE = b"\x89PNG\r\n\x1a\n"
Chunks = list[tuple[bytes, bytes]]


def _encoded(image: Image.Image, form: str, **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, form, **options)
    return file.getvalue()


def joined(chunks: Chunks) -> bytes:
    """A PNG of these chunks, whose checksums match."""
    return SIGNATURE + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in chunks
    )


def chunks(png: bytes) -> Chunks | None:
    """The chunks of a PNG up to its end, or None where it is none or a checksum does not match."""
    found: Chunks = []
    place = len(SIGNATURE)
    while png.startswith(SIGNATURE) and place + 12 <= len(png):
        (length,) = struct.unpack_from(">I", png, place)
        kind, data = png[place + 4 : place + 8], png[place + 8 : place + 8 + length]
        if png[place + 8 + length : place + 12 + length] != struct.pack(">I", zlib.crc32(kind + data)):
            return None
        found.append((kind, data))
        if kind == b"IEND":
            return found
        place += 12 + length
    return None


def _bomb(width: int, height: int) -> bytes:
    """A PNG that declares far more pixels than it has."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return joined([(b"IHDR", header), (b"IDAT", zlib.compress(bytes(1000))), (b"IEND", b"")])


def _corpus() -> list[bytes]:
    colour = Image.fromarray(np.random.default_rng(0).integers(0, 256, (SIZE, SIZE, 3), dtype=np.uint8))
    alpha = colour.copy()
    alpha.putalpha(128)
    turned = Image.Exif()
    turned[0x0112] = 6
    deep = Image.fromarray(np.arange(64, dtype=np.uint16).reshape(8, 8) * 1000)
    frames = {"save_all": True, "append_images": [colour.rotate(90)]}
    short = struct.pack(">IIBBBBB", 8, 8, 8, 2, 0, 0, 0)
    return [
        joined([(b"IHDR", short), (b"IDAT", zlib.compress(bytes(25))), (b"IEND", b"")]),  # one row of eight
        _encoded(colour, "PNG"), _encoded(colour, "JPEG"), _encoded(colour, "WEBP"), _encoded(colour, "WEBP",
        lossless=True),
        _encoded(colour, "PNG", exif=turned), _encoded(colour, "JPEG", exif=turned, progressive=True),
        _encoded(colour, "WEBP", exif=turned), _encoded(alpha, "PNG"), _encoded(alpha, "WEBP"), _encoded(deep, "PNG"),
        _encoded(colour.quantize(16), "PNG", transparency=3), _encoded(colour.convert("L"), "JPEG"),
        _encoded(colour.convert("CMYK"), "JPEG"), _encoded(colour.convert("1"), "PNG"), _encoded(alpha.convert("LA"),
        "PNG"),
        _encoded(colour.convert("L"), "PNG", transparency=7), _encoded(colour, "PNG", **frames),
        _encoded(colour, "WEBP", **frames), _encoded(colour, "GIF"), _encoded(colour, "BMP"), _encoded(colour, "TIFF"),
        _encoded(colour, "MPO", **frames), _encoded(colour, "PPM"), b"", b"%!PS-Adobe-3.0 EPSF-3.0\n", b"<svg></svg>",
        _bomb(2**31 - 1, 2**31 - 1), _bomb(30_000, 30_000), _bomb(8_000, 9_000), _bomb(1, MAX_PIXELS), _bomb(0, 5),
        joined([(b"IHDR", short), (b"zTXt", b"a\0\0" + zlib.compress(bytes(10**8), 9)),
                (b"IDAT", zlib.compress(bytes(8 * 25))), (b"IEND", b"")]),
    ]  # fmt: skip


def _mutated_chunks(rng: random.Random, found: Chunks) -> bytes:
    """A PNG with valid checksums: fields of its header, its compressed rows or its other chunks are changed."""
    for _ in range(rng.choice((1, 1, 2, 3))):
        place = rng.randrange(len(found))
        kind, data = found[place]
        change = rng.randrange(6)
        if change == 0 and kind == b"IDAT":
            try:
                data = zlib.compress(mutations.mutated(rng, zlib.decompress(data), [data]))
            except zlib.error:
                data = mutations.mutated(rng, data, [data])
            found[place] = (kind, data)
        elif change == 1:
            found.insert(rng.randrange(len(found) + 1), found[place])
        elif change == 2:
            del found[place]
        elif change == 3:
            name = rng.choice(
                (b"tRNS", b"PLTE", b"acTL", b"fcTL", b"fdAT", b"eXIf", b"iCCP", b"gAMA", b"cHRM", b"IDAT", b"iTXt")
            )
            found[place] = (name, data)
        elif kind == b"IHDR" and len(data) == 13:
            place = rng.choice((0, 4, 8, 9, 12))
            number = rng.choice((0, 1, 2, 4, 8, 16, 3, 6, 255, 2**16, 10**4, 2**31 - 1))
            field = struct.pack(">I", number) if place < 8 else bytes([number & 255])
            found[0] = (kind, data[:place] + field + data[place + len(field) :])
        else:
            found[place] = (kind, mutations.mutated(rng, data, [data]))
        found = found or [(b"IEND", b"")]
    return joined(found)


def _mutated(rng: random.Random, corpus: Sequence[bytes]) -> bytes:
    data = rng.choice(corpus)
    found = chunks(data)
    if found and len(data) < 10_000 and rng.random() < 0.6:
        return _mutated_chunks(rng, found)
    return mutations.mutated(rng, data, corpus)


def check(path: Path) -> bool:
    """An accepted file is a PNG whose checksums match, a JPEG or a WebP within the limit, and fills the square."""
    data = path.read_bytes()
    try:
        pixels, resized = decode_image(path, SIZE)
    except ValueError as error:
        must_be_readable(str(error))
        must(str(error).endswith("emove it."), "the refusal does not say what to do")
        return False
    must(pixels.shape == (SIZE, SIZE, 3) and pixels.dtype == np.uint8, f"decoded to {pixels.shape} {pixels.dtype}")
    if data.startswith(SIGNATURE):
        found = chunks(data)
        must(found is not None and found[0][0] == b"IHDR", "its checksums do not match")
        assert found is not None
        width, height = struct.unpack_from(">II", found[0][1])
        must(width * height <= MAX_PIXELS, f"it has {width}×{height} pixels")
        must(resized == ((width, height) != (SIZE, SIZE)), "its size is not the declared one")
    else:
        must(data.startswith(b"\xff\xd8") or (data[:4], data[8:12]) == (b"RIFF", b"WEBP"), "it is no JPEG and no WebP")
        with Image.open(path) as opened:
            must(opened.width * opened.height <= MAX_PIXELS, f"it has {opened.size} pixels")
            must(resized == (opened.size != (SIZE, SIZE)), "its size is not the declared one")
    return True


IMAGE = Kind("image", ".bin", (*_corpus(), *regressions("image")), _mutated, check)
