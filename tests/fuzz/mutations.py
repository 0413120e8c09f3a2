"""Mutations of bytes: what damage, chance and malice do to any file, whatever its format."""

import random
from collections.abc import Callable, Sequence

# Where lengths, counts and offsets go wrong: around zero, and around the largest numbers of 8, 16, 32 and 64 bits.
INTEGERS = (0, 1, 2, 127, 128, 255, 256, 32767, 32768, 65535, 65536, 2**31 - 1, 2**31, 2**32 - 1, 2**63 - 1, 2**64 - 1)


def _place(rng: random.Random, data: bytes) -> int:
    return rng.randrange(len(data) + 1)


def _span(rng: random.Random, data: bytes) -> tuple[int, int]:
    """A stretch, mostly short: half of them have at most eight bytes."""
    start = _place(rng, data)
    longest = len(data) - start
    return start, start + min(longest, rng.choice((1, 2, 4, 8, rng.randrange(64), rng.randrange(longest + 1))))


def _flip_a_bit(rng: random.Random, data: bytes, _: Sequence[bytes]) -> bytes:
    if not data:
        return data
    place = rng.randrange(len(data))
    return data[:place] + bytes([data[place] ^ 1 << rng.randrange(8)]) + data[place + 1 :]


def _set_an_integer(rng: random.Random, data: bytes, _: Sequence[bytes]) -> bytes:
    size = rng.choice((1, 2, 4, 8))
    number = rng.choice(INTEGERS) % 256**size
    place = _place(rng, data)
    return data[:place] + number.to_bytes(size, rng.choice(("little", "big"))) + data[place + size :]


def _insert_noise(rng: random.Random, data: bytes, _: Sequence[bytes]) -> bytes:
    place = _place(rng, data)
    return data[:place] + rng.randbytes(rng.choice((1, 2, 4, 16, 200))) + data[place:]


def _delete(rng: random.Random, data: bytes, _: Sequence[bytes]) -> bytes:
    start, end = _span(rng, data)
    return data[:start] + data[end:]


def _duplicate(rng: random.Random, data: bytes, _: Sequence[bytes]) -> bytes:
    start, end = _span(rng, data)
    return data[:end] + data[start:end] * rng.choice((1, 1, 2, 50)) + data[end:]


def _move(rng: random.Random, data: bytes, _: Sequence[bytes]) -> bytes:
    start, end = _span(rng, data)
    rest = data[:start] + data[end:]
    place = _place(rng, rest)
    return rest[:place] + data[start:end] + rest[place:]


def _zero(rng: random.Random, data: bytes, _: Sequence[bytes]) -> bytes:
    start, end = _span(rng, data)
    return data[:start] + b"\0" * (end - start) + data[end:]


def _truncate(rng: random.Random, data: bytes, _: Sequence[bytes]) -> bytes:
    return data[: _place(rng, data)]


def _splice(rng: random.Random, data: bytes, others: Sequence[bytes]) -> bytes:
    other = rng.choice(others)
    return data[: _place(rng, data)] + other[_place(rng, other) :]


def _graft(rng: random.Random, data: bytes, others: Sequence[bytes]) -> bytes:
    other = rng.choice(others)
    start, end = _span(rng, other)
    place = _place(rng, data)
    return data[:place] + other[start:end] + data[place + rng.choice((0, end - start)) :]


Operation = Callable[[random.Random, bytes, Sequence[bytes]], bytes]
OPERATIONS: tuple[Operation, ...] = (
    _flip_a_bit, _flip_a_bit, _set_an_integer, _set_an_integer, _insert_noise, _delete, _duplicate, _move, _zero,
    _truncate, _splice, _graft,
)  # fmt: skip
LARGEST = 1 << 20  # bytes; duplicates of duplicates would only make the campaign slow


def mutated(rng: random.Random, data: bytes, others: Sequence[bytes]) -> bytes:
    """A few operations on `data`, one of them most often; `others` lend their parts."""
    for _ in range(rng.choice((1, 1, 1, 2, 3, 6))):
        data = rng.choice(OPERATIONS)(rng, data, others)[:LARGEST]
    return data
