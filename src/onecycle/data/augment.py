"""Random crop, flip, shift, cutout and normalisation of a whole batch at once, with a separate draw for each image.

The images are stored with a reflected border as wide as they are ever moved. Every row of a batch is then one sequence
of bytes in memory, and crop and shift only choose where it starts: they cost nothing beyond the copy that makes the
batch. Flipped images are mirrored in that copy, while they are still bytes.
"""

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from onecycle.data.options import AugmentOptions

PORTION = 1 << 20  # pixels that are copied at a time, so that temporary arrays stay small
NO_AUGMENTATION = AugmentOptions(crop=0, flip="none", shift=0, cutout=0)


def random_draws(a: AugmentOptions, count: int, height: int, width: int, generator: torch.Generator) -> Tensor:
    """Random choices for `count` images, int64 [7, count]: crop y, x; flip (0 or 1); shift y, x; corner y, x of cutout.

    Parts that are off are drawn too, so that no part changes the draws of another.
    """
    crop, shift, flip = (-a.crop, a.crop + 1), (-a.shift, a.shift + 1), (0, 1 if a.flip == "none" else 2)
    ranges = (crop, crop, flip, shift, shift, (0, height - a.cutout + 1), (0, width - a.cutout + 1))
    return torch.stack([torch.randint(low, high, (count,), generator=generator) for low, high in ranges])


def channel_statistics(images: np.ndarray) -> tuple[list[float], list[float]]:
    """Per-channel mean and standard deviation of uint8 [n, h, w, 3], on 0–255, exact (from counts of the values).

    A constant channel gets the standard deviation 1, so that normalising makes it 0.
    """
    means, stds = [], []
    values = np.arange(256, dtype=np.float64)
    for channel in torch.from_numpy(images).reshape(-1, 3).unbind(1):
        counts = torch.bincount(channel, minlength=256).numpy()
        means.append(float(counts @ values / counts.sum()))
        stds.append(float(counts @ (values - means[-1]) ** 2 / counts.sum()) ** 0.5 or 1.0)
    return means, stds


class Normalizer:
    """Converts bytes to normalised floats: (value − mean) / std per channel, on the scale 0–255.

    The arithmetic is in float32 and rounded once to `dtype` at the end.
    """

    def __init__(
        self, mean: tuple[float, ...], std: tuple[float, ...], device: torch.device, dtype: torch.dtype = torch.float32
    ) -> None:
        self.dtype = dtype
        self._scale = torch.tensor([1.0 / s for s in std], device=device)
        self._offset = torch.tensor([-m / s for m, s in zip(mean, std, strict=True)], device=device)
        self._floats = torch.empty(0, device=device)  # reused from call to call

    def __call__(self, values: Tensor) -> Tensor:
        """uint8 [n, h, w, 3] → [n, 3, h, w] in channels_last."""
        _, _, width, _ = values.shape
        if len(self._offset) != width * 3:
            # Rows of width × 3 values are vectorised; rows of the 3 values of one pixel would not be.
            self._offset, self._scale = self._offset[:3].repeat(width), self._scale[:3].repeat(width)
        rows = values.view(-1, width * 3)
        is_result = self.dtype == torch.float32
        floats = torch.empty_like(rows, dtype=torch.float32) if is_result else self._floats.resize_(rows.shape)
        # Converted first and then changed in place: given bytes, addcmul would allocate a second float tensor.
        floats.copy_(rows)
        torch.addcmul(self._offset, floats, self._scale, out=floats)
        return floats.to(self.dtype).view(values.shape).permute(0, 3, 1, 2)


class Canvas:
    """Images as bytes on `device`, with the border that an augmentation needs.

    pixels: uint8 [N, h, w, 3] on the CPU, stored as [N, h, w + 2·border, 3] with border = crop + shift.
    """

    def __init__(self, pixels: Tensor, augmentation: AugmentOptions, device: torch.device) -> None:
        self.augmentation = augmentation
        count, self.height, self.width, _ = pixels.shape
        self.border = augmentation.crop + augmentation.shift
        columns = _reflect(torch.arange(-self.border, self.width + self.border), self.width).numpy()
        self.padded = len(columns)
        values = torch.empty((count, self.height, self.padded, 3), dtype=torch.uint8, device=device)
        portion = max(1, PORTION // (self.height * self.width))
        for first in range(0, count, portion):
            part = np.take(pixels[first : first + portion].numpy(), columns, axis=2)
            values[first : first + portion] = torch.from_numpy(part)
        # A view in which row i is the `width` pixels that start at pixel i of the memory.
        self.rows = values.as_strided((max(0, values.numel() // 3 - self.width + 1), self.width * 3), (3, 1))

    def batches(self, indices: Tensor, draws: Tensor, sizes: list[int], normalizer: Normalizer) -> Iterator[Tensor]:
        """Batches of these sizes, one after the other, out of the images `indices`, int64 [n]; draws: int64 [7, n].

        Each is cropped, flipped, shifted, cut out and normalised: [size, 3, h, w] in channels_last.
        """
        a, device = self.augmentation, indices.device
        crop_y, crop_x, flip, shift_y, shift_x, cut_y, cut_x = draws
        rows = torch.arange(self.height, device=device) + shift_y[:, None]
        # Where a part is switched off its tensor has no columns.
        uncovered = cut = torch.empty((len(indices), 0), dtype=torch.int64, device=device)
        if a.shift:
            columns = torch.arange(self.width, device=device) + shift_x[:, None]
            above, beside = (rows < 0) | (rows >= self.height), (columns < 0) | (columns >= self.width)
            uncovered = above[:, :, None] | beside[:, None, :]
        if a.cutout:
            square = torch.arange(a.cutout, device=device)
            corner = cut_y * self.width + cut_x
            cut = corner[:, None] + (square[:, None] * self.width + square).view(-1)
        # Rows that a shift moved out of the image are reflected too; their pixels are set to 0 at the end.
        rows = _reflect(rows + crop_y[:, None], self.height)
        # The shift comes after the flip: a flipped image is shifted the other way before.
        left = self.border + crop_x + torch.where(flip.bool(), -shift_x, shift_x)
        starts = (indices[:, None] * self.height + rows) * self.padded + left[:, None]
        parts = (part.split(sizes) for part in (starts, flip, uncovered, cut))
        for start, flipped, opened, hole in zip(*parts, strict=True):
            values = self.rows.index_select(0, start.view(-1)).view(len(start), self.height, self.width, 3)
            if a.flip != "none":
                # Both ways, of which whole images are copied: a quarter of the time of a choice byte by byte.
                both = torch.cat([values, values.flip(2)])
                values = both.index_select(0, flipped * len(start) + torch.arange(len(start), device=device))
            batch = normalizer(values)
            if a.shift:
                batch.masked_fill_(opened[:, None], 0.0)
            if a.cutout:
                pixels = self.height * self.width
                first = torch.arange(0, len(start) * pixels, pixels, device=device)
                batch.permute(0, 2, 3, 1).view(-1, 3).index_fill_(0, (hole + first[:, None]).view(-1), 0.0)
            yield batch


def _reflect(positions: Tensor, size: int) -> Tensor:
    """Positions outside 0 … size − 1 reflected back inside, without repeating the first and last position."""
    return (size - 1) - ((size - 1) - positions.abs()).abs()
