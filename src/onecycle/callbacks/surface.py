"""The loss around the final weights, on a plane through them."""

import math
from typing import Any

import lightning.pytorch as pl
import torch
from torch import Tensor

from onecycle.callbacks.probes import Probe, answers, final_network, layers, plain_batches
from onecycle.training.classifier import Classifier

WIDE = 1.0  # a loss that far above the center's still counts as inside the basin


class LossSurface(Probe):
    """Loss over a grid of `points` × `points` around the final weights, along two filter-normalised random directions.

    Both coordinates go from −`extent` to `extent`: 1 moves every filter by its own norm. The loss is that
    of the task without label smoothing, of `images` evenly spaced training images, not augmented, in train mode:
    running statistics would not fit weights that were moved.

    surface: "a" and "b", the coordinates, and "loss", a row for each a. surface_center: the loss of the weights
    themselves. surface_rise: mean over the grid's border minus that. surface_width: share of the grid whose loss is
    below surface_center + 1. The cost is that of points² · images images, forward.

    Source: Li et al. 2018, "Visualizing the Loss Landscape of Neural Nets", section 4.
    """

    def __init__(self, images: int, points: int, extent: float, seed: int) -> None:
        super().__init__()
        self.images, self.points, self.extent, self.seed = images, points, extent, seed

    @torch.no_grad()
    def measured(self, trainer: pl.Trainer, module: Classifier) -> dict[str, Any]:
        """The grid, and three numbers that describe it."""
        network, batches = final_network(trainer, module), plain_batches(trainer, self.images)
        weights = list(layers(network).values())
        origin = [weight.clone() for weight in weights]
        # Drawn on the CPU: equal seeds give equal directions on every device.
        generator = torch.Generator().manual_seed(self.seed)
        directions = [[filter_normalized(weight, generator) for weight in origin] for _ in range(2)]

        def loss(a: float, b: float) -> float:
            for weight, start, first, second in zip(weights, origin, *directions, strict=True):
                weight.copy_(start).add_(first, alpha=a).add_(second, alpha=b)  # from the origin: nothing drifts
            return module.task.metrics(*answers(trainer, network, batches))["loss"]

        # Not a sum of steps: the middle one is 0 exactly.
        axis = [self.extent * (2 * index / (self.points - 1) - 1) for index in range(self.points)]
        rows = [[loss(a, b) for b in axis] for a in axis]
        losses = torch.tensor(rows, dtype=torch.float64)
        center = rows[self.points // 2][self.points // 2]
        border = torch.cat([losses[0], losses[-1], losses[1:-1, 0], losses[1:-1, -1]])
        width = (losses < center + WIDE).double().mean().item() if math.isfinite(center) else math.nan
        return {
            "surface": {"a": axis, "b": axis, "loss": rows}, "surface_center": center,
            "surface_rise": border.mean().item() - center, "surface_width": width,
        }  # fmt: skip


def filter_normalized(weight: Tensor, generator: torch.Generator) -> Tensor:
    """A Gaussian direction for `weight` [out, …] whose every row (filter) has the norm of the weight's row."""
    direction = torch.randn(weight.shape, generator=generator).to(weight)
    norms, own = (part.flatten(1).norm(dim=1) for part in (weight, direction))
    return direction * (norms / own).view(-1, *[1] * (weight.dim() - 1))
