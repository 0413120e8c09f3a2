"""Whether a PNG is whole: every checksum, and as many pixels as it declares. Pillow takes some that are not."""

import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple

SIGNATURE = b"\x89PNG\r\n\x1a\n"
HEADER = struct.Struct(">IIBBBBB")  # width, height, bit depth, colour type, compression, filter, interlaced
GRAY, COLOUR, PALETTE = 0, 2, 3
CHANNELS = {GRAY: 1, COLOUR: 3, PALETTE: 1, 4: 2, 6: 4}
# Adam7 (PNG specification, third edition, 8.2): first column and row of each pass, and the steps between them.
PASSES = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))
BLOCK = 1 << 20  # bytes that are held at once


class Form(NamedTuple):
    """How a PNG writes its pixels: bits of a sample, and GRAY, COLOUR, PALETTE, or gray or colour with alpha."""

    depth: int
    colour: int


def check(path: Path) -> Form:
    """Read a PNG from its signature to its end; returns how it writes its pixels.

    Raises ValueError, or OSError, with the reason where it is not whole: Pillow fills with black what a stream that
    ends behind a row lacks, takes the last of two headers, and does not look at the end's checksum.
    """
    with path.open("rb") as file:
        if file.read(len(SIGNATURE)) != SIGNATURE:
            raise ValueError("it has no PNG signature")
        kind, blocks = _chunk(file)
        header = b"".join(blocks) if kind == b"IHDR" else b""
        if len(header) != HEADER.size:
            raise ValueError("it does not begin with a header")
        form = Form(*HEADER.unpack(header)[2:4])
        left = row_bytes(header)
        rows = zlib.decompressobj()
        kinds = [kind]
        while kind != b"IEND":
            kind, blocks = _chunk(file)
            if kind == b"IHDR" or (kind == b"IDAT" and b"IDAT" in kinds[:-1] and kinds[-1] != b"IDAT"):
                raise ValueError(f"its chunk {kind.decode()} is in the wrong place")
            kinds.append(kind)
            for data in blocks:  # to its end, where its checksum stands
                while kind == b"IDAT" and data and left > 0 and not rows.eof:
                    left -= len(rows.decompress(data, BLOCK))
                    data = rows.unconsumed_tail
    if left > 0:
        raise ValueError(f"{left:,} bytes of its pixels are missing")
    if form.colour == PALETTE and b"PLTE" not in kinds[: kinds.index(b"IDAT")]:
        raise ValueError("it has no palette")
    return form


def row_bytes(header: bytes) -> int:
    """The bytes of all rows, each with its filter's byte, that the data of an IHDR chunk declare."""
    width, height, depth, colour, _, _, interlaced = HEADER.unpack(header)
    bits = depth * CHANNELS.get(colour, 0)
    total = 0
    for left, top, across, down in PASSES if interlaced else ((0, 0, 1, 1),):
        columns, rows = -(-max(width - left, 0) // across), -(-max(height - top, 0) // down)
        total += rows * (1 + -(-columns * bits // 8)) if columns else 0
    return total


def _chunk(file: BinaryIO) -> tuple[bytes, Iterator[bytes]]:
    """The next chunk's kind, and its data in blocks; behind the last one its checksum is compared."""
    start = file.read(8)
    if len(start) < 8:
        raise ValueError("it ends early")
    length, kind = struct.unpack(">I4s", start)
    return kind, _blocks(file, length, kind)


def _blocks(file: BinaryIO, left: int, kind: bytes) -> Iterator[bytes]:
    checksum = zlib.crc32(kind)
    while left:
        data = file.read(min(left, BLOCK))
        if not data:
            raise ValueError("it ends early")
        left -= len(data)
        checksum = zlib.crc32(data, checksum)
        yield data
    if file.read(4) != struct.pack(">I", checksum):
        raise ValueError(f"the checksum of its chunk {ascii(kind)[2:-1]} does not match")
