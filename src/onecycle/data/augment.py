"""Random crop, flip, shift, cutout and normalisation of a whole batch at once, with a separate draw for each image.

The images lie on a canvas with as much reflected border as they are ever moved over, beside their mirror images if they
are ever mirrored. Every row of a batch is then one run of bytes, and crop, flip and shift only say where it begins:
they cost nothing beyond the copying that a batch needs anyway.
"""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

PORTION = 1 << 20  # pixels that are laid out at a time: in caches, and without much memory of their own


@dataclass(frozen=True)
class Augmentation:
    """What is drawn for each image; 0 and "none" switch a part off.

    crop: pixels of reflected border of which a random window of the image's size is cut. flip: "none", "random"
    (mirror with probability ½ in every epoch) or "alternating" (drawn once, then mirrored in every other epoch:
    Jordan, airbench). shift: pixels that the image moves at most, the uncovered border set to 0 after normalising.
    cutout: side of a square set to 0 after normalising, always inside the image (Page, cifar10-fast).
    """

    crop: int
    flip: str
    shift: int
    cutout: int


NO_AUGMENTATION = Augmentation(crop=0, flip="none", shift=0, cutout=0)


class Draws(NamedTuple):
    """Random choices for n images, int64 [n] each; `flip` is 0 or 1, the others are pixels (rows, columns)."""

    crop_y: Tensor
    crop_x: Tensor
    flip: Tensor
    shift_y: Tensor
    shift_x: Tensor
    cut_y: Tensor
    cut_x: Tensor


def draw(augmentation: Augmentation, count: int, height: int, width: int, generator: torch.Generator) -> Draws:
    """Draws for `count` images. Every part is drawn even if it is off, so one part never changes another's draws."""

    def integers(choices: int) -> Tensor:
        return torch.randint(0, choices, (count,), generator=generator)

    a = augmentation
    return Draws(
        crop_y=integers(2 * a.crop + 1) - a.crop,
        crop_x=integers(2 * a.crop + 1) - a.crop,
        flip=integers(2) if a.flip != "none" else integers(1),
        shift_y=integers(2 * a.shift + 1) - a.shift,
        shift_x=integers(2 * a.shift + 1) - a.shift,
        cut_y=integers(height - a.cutout + 1),
        cut_x=integers(width - a.cutout + 1),
    )


class Normalizer:
    """Makes normalised floats out of bytes: (value − mean) / std per channel, on the scale 0–255.

    dtype: that of the result; the arithmetic is that of float32, rounded once in the end.
    """

    def __init__(
        self,
        mean: tuple[float, ...],
        std: tuple[float, ...],
        device: torch.device,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        scale = [1.0 / s for s in std]
        offset = [-m / s for m, s in zip(mean, std, strict=True)]
        self.dtype = dtype
        self._scale = torch.tensor(scale, dtype=torch.float32, device=device)
        self._offset = torch.tensor(offset, dtype=torch.float32, device=device)
        self._floats: Tensor | None = None

    def __call__(self, values: Tensor) -> Tensor:
        """uint8 [n, h, w, 3] → [n, 3, h, w] in channels_last."""
        n, height, width, _ = values.shape
        if len(self._offset) != width * 3:
            # Rows of width × 3 numbers fill the vector units; rows of one pixel's 3 channels would not.
            self._offset, self._scale = self._offset[:3].repeat(width), self._scale[:3].repeat(width)
        floats = self._room(n * height, width * 3)
        # To floats first, and then in place: given bytes, addcmul makes floats of its own beside those that it returns.
        floats.copy_(values.view(-1, width * 3))
        torch.addcmul(self._offset, floats, self._scale, out=floats)
        return floats.to(self.dtype).view(n, height, width, 3).permute(0, 3, 1, 2)

    def _room(self, rows: int, columns: int) -> Tensor:
        """Memory for float32 [rows, columns]: the caller's, where that is the result, else what was just in use."""
        if self.dtype == torch.float32:
            return torch.empty((rows, columns), device=self._scale.device)
        if self._floats is None or self._floats.shape[0] < rows or self._floats.shape[1] != columns:
            self._floats = torch.empty((rows, columns), device=self._scale.device)
        return self._floats[:rows]


class Places(NamedTuple):
    """Where n images of a canvas begin, and what is not to be seen of them.

    starts: int64 [n, h], each row's first pixel. uncovered: bool [n, h, w], what a shift left open; cut: int64
    [n, size²], pixels of an image. What is switched off has no columns.
    """

    starts: Tensor
    uncovered: Tensor
    cut: Tensor


class Canvas:
    """Images as bytes on `device`, laid out for an augmentation: a border, and mirror images where it needs them.

    pixels: packed int32 [N, h, w]. The bytes are [copies, N, h, w + 2·border, 3], with a border of crop + shift.
    """

    def __init__(self, pixels: Tensor, augmentation: Augmentation, device: torch.device) -> None:
        self.augmentation = augmentation
        self.count, self.height, self.width = pixels.shape
        self.border = augmentation.crop + augmentation.shift
        columns = _reflect(torch.arange(-self.border, self.width + self.border, device=device), self.width)
        self.padded = len(columns)
        copies = 1 if augmentation.flip == "none" else 2
        values = torch.empty((copies, self.count, self.height, self.padded, 3), dtype=torch.uint8, device=device)
        portion = max(1, PORTION // (self.height * self.width))
        for first in range(0, self.count, portion):
            part = pixels[first : first + portion].to(device)
            part = part.gather(2, columns.expand(*part.shape[:2], -1))
            for copy in range(copies):
                values[copy, first : first + portion] = unpack(part.flip(2) if copy else part)
        # Every run of `width` pixels, from wherever it begins, as a row of one matrix: nothing is copied for it.
        self.runs = values.as_strided((max(0, values.numel() // 3 - self.width + 1), self.width * 3), (3, 1))

    def places(self, indices: Tensor, draws: Draws) -> Places:
        """Crop, flip, shift and cutout of the images `indices`, int64 [n]; draws: n of each."""
        a, device = self.augmentation, indices.device
        rows = torch.arange(self.height, device=device) + draws.shift_y[:, None]
        uncovered = cut = torch.empty((len(indices), 0), dtype=torch.int64, device=device)
        if a.shift:
            columns = torch.arange(self.width, device=device) + draws.shift_x[:, None]
            above, beside = (rows < 0) | (rows >= self.height), (columns < 0) | (columns >= self.width)
            uncovered = above[:, :, None] | beside[:, None, :]
        if a.cutout:
            side = torch.arange(a.cutout, device=device)
            corner = draws.cut_y * self.width + draws.cut_x
            cut = corner[:, None] + (side[:, None] * self.width + side).view(-1)
        # Reflection also folds rows that a shift moved out of the image; those pixels are overwritten in the end.
        rows = _reflect(rows + draws.crop_y[:, None], self.height)
        # The crop comes before the flip, and is mirrored with the image.
        left = self.border + draws.shift_x + torch.where(draws.flip.bool(), -draws.crop_x, draws.crop_x)
        images = draws.flip * self.count + indices
        return Places((images[:, None] * self.height + rows) * self.padded + left[:, None], uncovered, cut)

    def gather(self, where: Places, normalizer: Normalizer) -> Tensor:
        """The images at some places, as a batch [n, 3, h, w] in channels_last.

        Normalised, with 0 in what a shift left open and in what is cut out.
        """
        n, pixels = len(where.starts), self.height * self.width
        values = self.runs.index_select(0, where.starts.view(-1))
        batch = normalizer(values.view(n, self.height, self.width, 3))
        if where.uncovered.numel():
            batch.masked_fill_(where.uncovered[:, None], 0.0)
        if where.cut.numel():
            first = torch.arange(0, n * pixels, pixels, device=batch.device)
            batch.permute(0, 2, 3, 1).view(-1, 3).index_fill_(0, (where.cut + first[:, None]).view(-1), 0.0)
        return batch


def unpack(pixels: Tensor) -> Tensor:
    """Packed int32 [n, h, w] → uint8 [n, h, w, 3], without the fourth byte."""
    packed = pixels.contiguous().view(torch.uint8).view(*pixels.shape, 4)
    values = torch.empty((*pixels.shape, 3), dtype=torch.uint8, device=pixels.device)
    for channel in range(3):  # three passes with long rows, not one with rows of three bytes
        values[..., channel] = packed[..., channel]
    return values


def _reflect(positions: Tensor, size: int) -> Tensor:
    """Positions beyond the border mirrored back inside, without repeating the border itself."""
    return (size - 1) - ((size - 1) - positions.abs()).abs()
