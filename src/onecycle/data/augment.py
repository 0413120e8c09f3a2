"""Random crop, flip, shift, cutout and normalisation of a whole batch at once, with a separate draw for each image.

A batch is gathered row by row, and then column by column within its rows: every augmentation of place only changes
from where a row or a pixel is read, so crop and flip cost nothing beyond the gather that a batch needs anyway.
"""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor


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


class Places(NamedTuple):
    """Where n images are read from: what `Draws` mean for the rows and columns of h × w pixels.

    `rows`, int64 [n, h], are rows of an image, `columns`, int64 [n, w], pixels of a row; `outside_…`, bool, says which
    of them a shift takes from beyond the image. `cut_y` and `cut_x`, int64 [n], are the corner of the square that is
    cut out.
    """

    rows: Tensor
    columns: Tensor
    outside_rows: Tensor
    outside_columns: Tensor
    cut_y: Tensor
    cut_x: Tensor


def places(draws: Draws, augmentation: Augmentation, height: int, width: int) -> Places:
    """Resolve draws, of a whole epoch at once: a step then only adds two small tensors."""
    rows = torch.arange(height, device=draws.shift_y.device) + draws.shift_y[:, None]
    columns = torch.arange(width, device=draws.shift_x.device) + draws.shift_x[:, None]
    outside = (rows < 0) | (rows >= height), (columns < 0) | (columns >= width)
    if augmentation.flip != "none":
        columns = torch.where(draws.flip[:, None].bool(), width - 1 - columns, columns)
    # Reflection also folds rows that a shift moved out of the image; those pixels are overwritten in the end.
    rows = _reflect(rows + draws.crop_y[:, None], height)
    columns = _reflect(columns + draws.crop_x[:, None], width)
    return Places(rows, columns, *outside, draws.cut_y, draws.cut_x)


class Normalizer:
    """Turns packed pixels into normalised float batches: (value − mean) / std per channel, on the scale 0–255."""

    def __init__(self, mean: tuple[float, ...], std: tuple[float, ...], device: torch.device) -> None:
        self.scale = [1.0 / s for s in std]
        self.offset = [-m / s for m, s in zip(mean, std, strict=True)]
        self._scale = torch.tensor(self.scale, dtype=torch.float32, device=device)
        self._offset = torch.tensor(self.offset, dtype=torch.float32, device=device)

    def __call__(self, pixels: Tensor) -> Tensor:
        """Packed int32 [n, h, w] → float32 [n, 3, h, w] in channels_last."""
        n, height, width = pixels.shape
        if len(self._offset) != width * 3:
            # Rows of width × 3 numbers fill the vector units; rows of one pixel's 3 channels would not.
            self._offset, self._scale = self._offset[:3].repeat(width), self._scale[:3].repeat(width)
        # The fourth byte of a pixel is padding. It is dropped while values are bytes, a quarter of the later traffic.
        packed = pixels.view(torch.uint8).view(-1, 4)
        values = torch.empty((len(packed), 3), dtype=torch.uint8, device=pixels.device)
        for channel in range(3):
            values[:, channel] = packed[:, channel]
        batch = torch.addcmul(self._offset, values.view(-1, width * 3), self._scale)
        return batch.view(n, height, width, 3).permute(0, 3, 1, 2)


def augment(
    pixels: Tensor, indices: Tensor, places: Places, augmentation: Augmentation, normalizer: Normalizer
) -> Tensor:
    """The batch of the images `indices`: crop, flip, shift, normalise, cutout, in this order.

    pixels: packed int32 [N, h, w]. indices: int64 [n]; places: n of each. Returns float32 [n, 3, h, w], channels_last.
    """
    count, height, width = len(indices), *pixels.shape[1:]
    # Whole rows first: copying 32 pixels costs what looking up one of them does.
    rows = (indices[:, None] * height + places.rows).view(-1)
    gathered = pixels.reshape(-1, width).index_select(0, rows).view(count, height, width)
    batch = normalizer(gathered.gather(2, places.columns[:, None].expand(-1, height, -1)))
    if augmentation.shift:
        batch.masked_fill_((places.outside_rows[:, :, None] | places.outside_columns[:, None, :])[:, None], 0.0)
    if augmentation.cutout:
        _cut(batch, places, augmentation.cutout)
    return batch


def _reflect(positions: Tensor, size: int) -> Tensor:
    """Positions beyond the border mirrored back inside, without repeating the border itself."""
    return (size - 1) - ((size - 1) - positions.abs()).abs()


def _cut(batch: Tensor, places: Places, size: int) -> None:
    """Set one size × size square of every image to 0, in place."""
    count, _, height, width = batch.shape
    side = torch.arange(size, device=batch.device)
    images = torch.arange(count, device=batch.device) * height
    rows = (images[:, None] + places.cut_y[:, None] + side) * width
    flat = rows[:, :, None] + (places.cut_x[:, None] + side)[:, None, :]
    batch.permute(0, 2, 3, 1).view(-1, 3).index_fill_(0, flat.view(-1), 0.0)
