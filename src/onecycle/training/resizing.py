"""Smaller images at the beginning of training, where coarse features are learnt: a step on them costs less."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True)
class Resizing:
    """Changes the side of training images with the progress of a run; images to be tested keep their own.

    `sides`: pairs of progress and side in pixels, the first at progress 0; each side holds from its progress on.

    Source: Howard 2018, "Training Imagenet in 3 hours for 25 minutes" (fast.ai): progressive resizing.
    """

    sides: Sequence[Sequence[float]]

    @torch.no_grad()
    def __call__(self, images: Tensor, t: float) -> Tensor:
        """Float [n, c, h, w] at progress t in [0, 1] → [n, c, side, side], bilinear with antialiasing."""
        side = int([side for start, side in self.sides if start <= t][-1])
        if images.shape[-2:] == (side, side):
            return images
        smaller = F.interpolate(images, (side, side), mode="bilinear", antialias=True)
        return smaller.contiguous(memory_format=torch.channels_last)
