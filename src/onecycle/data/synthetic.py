"""Ten classes of 32×32 colour images, drawn by the program: shapes and textures under heavy nuisance.

The pixels are the same on every machine. Randomness is the raw output of a counter-based generator (Philox
4×64), whose streams are fixed by its definition, and the drawing uses nothing but elementwise + − × ÷ min max
floor on float32, each of which IEEE 754 defines to the last bit. Sine, square root, matrix products, sums and
numpy's distributions are left out on purpose: they may differ between processors or versions.
"""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from numpy.typing import NDArray

Field = NDArray[np.floating]  # float32 [n, 32, 32], or [n, 1, 1] for one number per image
Colour = NDArray[np.floating]  # float32 [n, 3], on the scale 0…255

VERSION = 1  # raised whenever a drawn pixel changes
SIDE = 32

_CHUNK = 250  # images drawn together: small enough that a field of theirs stays in a core's cache
_NOISE_WORDS = SIDE * SIDE * 3 // 8  # one byte per pixel and channel
_WORDS = _NOISE_WORDS + 48  # per image; a multiple of 4, the generator's block


class _Dice:
    """Uniform random numbers for n images, handed out one column after the other."""

    def __init__(self, words: NDArray[np.uint64]) -> None:
        halves = words.astype("<u8", copy=False).view("<u2")
        self.columns = iter(((halves.astype(np.float32) + 0.5) / 65536.0).T)

    def columns_between(self, low: float, high: float, count: int) -> Colour:
        """Return [n, count] numbers in (low, high)."""
        taken = np.stack([next(self.columns) for _ in range(count)], axis=1)
        return taken * (high - low) + low

    def between(self, low: float, high: float) -> Field:
        """[n, 1, 1] numbers in (low, high)."""
        return self.columns_between(low, high, 1)[:, :, None]

    def below(self, chance: float) -> Field:
        """[n, 1, 1] ones with probability `chance`, else zeros."""
        return (self.between(0, 1) < chance).astype(np.float32)


def _frame(dice: _Dice, x: Field, y: Field, stretch: Field) -> tuple[Field, Field]:
    """Pixel coordinates [n, 32, 32] in a frame at (x, y), turned at random and stretched."""
    # Cosine and sine of a nearly uniform angle: a rational point, quarter-turned.
    t = dice.between(-0.41421356, 0.41421356)
    cosine, sine = (1 - t * t) / (1 + t * t), 2 * t / (1 + t * t)
    quarter = np.floor(dice.between(0, 4))
    odd = np.floor(quarter / 2) * 2 != quarter
    sign = np.where(quarter < 2, np.float32(1), np.float32(-1))
    cosine, sine = np.where(odd, -sine, cosine) * sign, np.where(odd, cosine, sine) * sign
    centres = np.arange(SIDE, dtype=np.float32) + 0.5
    across, down = centres[None, None, :] - x, centres[None, :, None] - y
    return (cosine * across + sine * down) * stretch, (cosine * down - sine * across) / stretch


def _round(u: Field, v: Field, radius: Field | float) -> Field:
    # The distance to a circle to first order at its edge: enough for smooth edges, and free of a square root.
    return (u * u + v * v - radius * radius) / (2 * radius)


def _five(u: Field, v: Field) -> tuple[Field, Field]:
    """The largest and the second largest of the heights over the five sides of a pentagon."""
    wide, narrow = 0.95105652 * u, 0.58778525 * u
    upper, lower = 0.30901699 * v, -0.80901699 * v
    first, second = v, np.full_like(v, -np.inf)
    for height in (upper + wide, upper - wide, lower + narrow, lower - narrow):
        second = np.maximum(second, np.minimum(first, height))
        first = np.maximum(first, height)
    return first, second


def _cross(u: Field, v: Field, knob: Field) -> Field:
    a, b, arm = np.abs(u), np.abs(v), 0.22 + 0.36 * knob
    return np.minimum(np.maximum(a - 1, b - arm), np.maximum(a - arm, b - 1))


def _patch(u: Field, v: Field, knob: Field) -> Field:
    # The textures fill shapes that are classes themselves, so that an outline alone does not give them away.
    return np.where(knob < 0.5, _OUTLINES["disc"](u, v, knob), _OUTLINES["square"](u, v, knob))


# Distance to the edge, negative inside, of shapes of size about 1; `knob` in (0, 1) varies some of them.
_OUTLINES: dict[str, Callable[[Field, Field, Field], Field]] = {
    "disc": lambda u, v, knob: _round(u, v, 0.95),
    "ring": lambda u, v, knob: np.maximum(_round(u, v, 1), -_round(u, v, 0.25 + 0.5 * knob)),
    "crescent": lambda u, v, knob: np.maximum(_round(u, v, 1), -_round(u - 0.35 - 0.45 * knob, v, 0.85)),
    "triangle": lambda u, v, knob: np.maximum(-v, 0.8660254 * np.abs(u) + 0.5 * v) - 0.6,
    "square": lambda u, v, knob: np.maximum(np.abs(u), np.abs(v)) - 0.82,
    "pentagon": lambda u, v, knob: _five(u, v)[0] - 0.85,
    "star": lambda u, v, knob: _five(u, v)[1] - (0.36 + 0.2 * knob),
    "cross": _cross,
    "stripes": _patch,
    "checks": _patch,
}
CLASSES = tuple(_OUTLINES)
_TEXTURES = ("stripes", "checks")


def _wave(t: Field) -> Field:
    """A periodic trapezium of period 1 between −1 and 1."""
    return np.clip((np.abs(t - np.floor(t) - 0.5) - 0.25) * 8, -1, 1)


def _contrasting(dice: _Dice, colour: Colour, low: float, high: float) -> Colour:
    """A colour whose most different channel is low…high away from `colour`."""
    step = dice.columns_between(-1, 1, 3)
    step = step / np.abs(step).max(axis=1, keepdims=True) * dice.columns_between(low, high, 1)
    moved = colour + step
    return np.where((moved < 0) | (moved > 255), colour - step, moved)


def _lay(canvas: Field, cover: Field, colour: Field) -> None:
    """Lay a colour over the canvas [3, n, 32, 32] where `cover` is 1, in proportion in between."""
    for channel, tint in zip(canvas, colour, strict=True):
        channel += cover * (tint - channel)


def _texture(dice: _Dice) -> Field:
    """A field of blotches, fine and coarse, some with faint stripes, within about ±1."""
    knots = dice.columns_between(-1, 1, 81).reshape(-1, 9, 9)
    field = _stretched(knots) * dice.between(0, 0.5) + _stretched(knots[:, ::2, ::2]) * dice.between(0, 0.7)
    u, _ = _frame(dice, dice.between(0, 16), dice.between(0, 16), dice.between(0.1, 0.25))
    return field + _wave(u) * (dice.below(0.35) * dice.between(0.1, 0.6))


def _stretched(knots: Field) -> Field:
    """The lattice interpolated to the picture's size, [n, k, k] to [n, 32, 32]."""
    place = (np.arange(SIDE, dtype=np.float32) + 0.5) * ((knots.shape[1] - 1) / SIDE)
    floor = np.floor(place)
    left, weight = floor.astype(np.intp), place - floor
    rows = knots[:, left] + (knots[:, left + 1] - knots[:, left]) * weight[:, None]
    return rows[:, :, left] + (rows[:, :, left + 1] - rows[:, :, left]) * weight


def _planes(colour: Colour) -> Field:
    """Return [3, n, 1, 1], a colour per image in the canvas's layout."""
    return np.ascontiguousarray(colour.T)[:, :, None, None]


def _strew(canvas: Field, dice: _Dice, ground: Colour, length: float, width: float) -> None:
    """Lay a bar or blot with round corners, up to so many pixels, anywhere in half of the pictures."""
    u, v = _frame(dice, dice.between(0, 32), dice.between(0, 32), np.ones((1, 1, 1), np.float32))
    u = np.maximum(np.abs(u) - dice.between(0, length), 0)
    v = np.maximum(np.abs(v) - dice.between(0, width), 0)
    cover = np.clip(0.5 - _round(u, v, 1.0), 0, 1) * dice.below(0.5)
    _lay(canvas, cover, _planes(_contrasting(dice, ground, 20, 130)))


def _object(dice: _Dice, labels: NDArray[np.int64]) -> tuple[Field, Field]:
    """The cover of the object that the label names, and its paint between two colours, −1…1."""
    radius = np.maximum(dice.between(3.5, 13), dice.between(3.5, 13))  # small ones are rare
    room = 17 - radius
    x, y = 16 + room * dice.between(-1, 1), 16 + room * dice.between(-1, 1)
    u, v = _frame(dice, x, y, dice.between(0.8, 1.25))
    knob, blur = dice.between(0, 1), dice.between(0.8, 3)
    tightest = dice.between(3.5, 7)  # pixels per period of a texture
    rate, phase = np.maximum(1 / tightest, 0.6 / radius), dice.between(0, 1)
    cover, paint = np.empty_like(u), (u + v) * (0.5 / radius)
    for label, name in enumerate(CLASSES):
        of = np.flatnonzero(labels == label)
        size = radius[of]
        distance = _OUTLINES[name](u[of] / size, v[of] / size, knob[of]) * size
        cover[of] = np.clip(0.5 - distance / blur[of], 0, 1)
        if name in _TEXTURES:
            paint[of] = _wave(u[of] * rate[of] + phase[of])
        if name == "checks":
            paint[of] *= _wave(v[of] * rate[of] + knob[of])
    return cover, paint


def _pictures(words: NDArray[np.uint64], labels: NDArray[np.int64]) -> NDArray[np.uint8]:
    """The pictures [n, 32, 32, 3] that the random words [n, _WORDS] make of the labels."""
    dice = _Dice(words[:, _NOISE_WORDS:])
    ground = dice.columns_between(20, 235, 3)
    other = _contrasting(dice, ground, 0, 110)
    canvas = _planes(ground) + _planes(other - ground) * _texture(dice)
    for _ in range(3):
        _strew(canvas, dice, ground, length=5, width=1.5)
    cover, paint = _object(dice, labels)
    body = _contrasting(dice, ground, 20, 140)
    textured = np.isin(labels, [CLASSES.index(name) for name in _TEXTURES])[:, None]
    second = _contrasting(dice, body, 15, 60)
    amount = np.where(textured, np.float32(1), dice.columns_between(0, 1, 1))
    _lay(canvas, cover, _planes(body) + _planes((second - body) * amount) * paint)
    _strew(canvas, dice, ground, length=14, width=1.5)

    noise = words[:, :_NOISE_WORDS].astype("<u8").view(np.uint8).reshape(-1, SIDE, SIDE, 3)
    loudness = dice.between(1, 8) * dice.between(0.5, 7)  # a product: most pictures are clean, some are not
    grain = (noise.astype(np.float32) - 127.5) * (loudness / 127.5)[..., None]
    return np.clip(np.moveaxis(canvas, 0, -1) + grain + 0.5, 0, 255).astype(np.uint8)


def draw_images(count: int, seed: int, split: str) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Draw images uint8 [count, 32, 32, 3] and labels int64 [count], bit for bit the same on every machine.

    Image i depends on (seed, split, i) alone: a smaller draw is a prefix of a larger one. Every ten
    images hold each class once. "train" and "test" are separate random streams. The seed is in 0…2⁶⁴ − 1.
    """
    import joblib  # only here: the configuration is checked with this file's names

    stream = 2 * ("train", "test").index(split)

    def words(stream: int, start: int, rows: int, width: int) -> NDArray[np.uint64]:
        # Rows of an endless table; width is a multiple of 4, the generator's block.
        generator = np.random.Philox(key=seed + (stream << 64), counter=start * (width // 4))
        return generator.random_raw(rows * width).reshape(rows, width)

    # Every ten images hold each class once, in random order: balanced at any count, and the same at each.
    tens = words(stream + 1, 0, -(-count // 10), 12)[:, :10]
    labels = np.argsort(tens, axis=1, kind="stable").astype(np.int64).reshape(-1)[:count]

    images = np.empty((count, SIDE, SIDE, 3), np.uint8)

    def fill(start: int) -> None:
        part = slice(start, min(start + _CHUNK, count))
        images[part] = _pictures(words(stream, start, part.stop - start, _WORDS), labels[part])

    with ThreadPoolExecutor(min(4, joblib.cpu_count())) as pool:
        list(pool.map(fill, range(0, count, _CHUNK)))
    return images, labels
