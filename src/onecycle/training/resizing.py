"""Smaller images at the beginning of training, where coarse shapes are learnt: a step on them costs less."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True)
class Resizing:
    """The side of the training images, in pixels, by the progress of a run; images to be tested keep their own.

    `sides`: pairs of progress and side, the first at progress 0, in the order of progress; each side holds from its
    progress on. Only convolutions and pooling see the difference, and a network whose head pools over whole images
    takes any side that they leave something of.

    Source: Howard 2018, "Training Imagenet in 3 hours for 25 minutes" (fast.ai): progressive resizing.
    """

    sides: Sequence[Sequence[float]]

    def side(self, t: float) -> int:
        """Pixels at progress t in [0, 1]."""
        return int([side for start, side in self.sides if start <= t][-1])

    @torch.no_grad()
    def __call__(self, images: Tensor, t: float) -> Tensor:
        """Float [n, c, h, w] → [n, c, side, side]: bilinear, each new pixel from all that it covers."""
        side = self.side(t)
        if images.shape[-2:] == (side, side):
            return images
        smaller = F.interpolate(images, (side, side), mode="bilinear", antialias=True)
        return smaller.contiguous(memory_format=torch.channels_last)
