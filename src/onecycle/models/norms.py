"""Normalisation layers: batch, ghost batch and group norm, each with a trainable or a frozen scale."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from onecycle.models.options import ResNet9Options


class GhostBatchNorm2d(nn.BatchNorm2d):
    """Batch norm over groups of `ghost_size` images, whatever the size of the batch.

    A batch of n images makes k = n // ghost_size full groups. They are interleaved, as in cifar10-fast: image
    i belongs to group i mod k. The remaining images form a smaller group; a single remaining image forms a
    group with the last `ghost_size` images before it. A batch that makes one group is plain batch norm.

    The running statistics move by the mean over the groups: new = (1 − momentum)·old + momentum·mean(group
    statistics). Evaluation, state and parameters are those of `nn.BatchNorm2d`, so a checkpoint of the one
    loads into the other. `ghost_size` is at least 2.

    Sources: Hoffer, Hubara and Soudry 2017, "Train longer, generalize better"; Page 2019, "How to Train Your
    ResNet 8".
    """

    # nn.BatchNorm2d declares these as possibly absent; here they always exist.
    running_mean: Tensor
    running_var: Tensor
    num_batches_tracked: Tensor
    momentum: float

    def __init__(self, channels: int, ghost_size: int, *, momentum: float, eps: float) -> None:
        assert ghost_size >= 2
        super().__init__(channels, eps=eps, momentum=momentum)
        self.ghost_size = ghost_size

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 (the name in nn.BatchNorm2d)
        """Normalise [n, channels, height, width] group by group; keeps the memory format."""
        groups, remainder = divmod(len(input), self.ghost_size)
        if remainder == 1:
            groups -= 1
        grouped_images = groups * self.ghost_size
        has_tail = grouped_images < len(input)
        if not self.training or groups + has_tail <= 1:
            return super().forward(input)
        # With a momentum of 1, batch_norm stores the statistics of the batch itself.
        means = self.running_mean.new_zeros(groups + has_tail, self.num_features)
        variances = torch.zeros_like(means)
        output = self._normalize_groups(input[:grouped_images], means[:groups], variances[:groups])
        if has_tail:
            tail = self._normalize_groups(input[grouped_images:], means[groups:], variances[groups:])
            output = torch.cat((output, tail))
        with torch.no_grad():
            self.running_mean.lerp_(means.mean(0), self.momentum)
            self.running_var.lerp_(variances.mean(0), self.momentum)
            self.num_batches_tracked.add_(1)
        return output

    def _normalize_groups(self, images: Tensor, means: Tensor, variances: Tensor) -> Tensor:
        """Normalise `len(means)` interleaved groups in one kernel, as that many times more channels."""
        groups = len(means)
        # Interleaved groups lie beside the channels in memory, so the contiguous format needs no copy.
        # Channels last needs two: far cheaper than a loop over the groups or a change of format.
        channels_first = images.is_contiguous()
        if channels_first:
            merged = images.view(-1, groups * self.num_features, *images.shape[2:])
        else:
            pixels = images.permute(0, 2, 3, 1).unflatten(0, (-1, groups))
            merged = pixels.permute(0, 2, 3, 1, 4).flatten(3).permute(0, 3, 1, 2)
        normalized = F.batch_norm(
            merged,
            means.view(-1),
            variances.view(-1),
            self.weight.repeat(groups),
            self.bias.repeat(groups),
            training=True,
            momentum=1.0,
            eps=self.eps,
        )
        if channels_first:
            return normalized.view(images.shape)
        pixels = normalized.permute(0, 2, 3, 1).unflatten(3, (groups, self.num_features))
        return pixels.permute(0, 3, 1, 2, 4).flatten(0, 1).permute(0, 3, 1, 2)

    def extra_repr(self) -> str:
        """Name the ghost size beside the arguments of batch norm."""
        return f"{super().extra_repr()}, ghost_size={self.ghost_size}"


def make_norm(channels: int, options: ResNet9Options) -> nn.Module | None:
    """Return the norm of `channels` feature maps, or None for norm=none.

    γ starts at 1 and β at 0. Where `train_scale` is false γ stays 1: it is in the state but takes no gradient
    (Page 2019, "How to Train Your ResNet 8", frozen batch norm scales).
    """
    eps, momentum = options.norm_eps, options.norm_momentum
    layer: nn.Module
    match options.norm:
        case "none":
            return None
        case "group":
            layer = nn.GroupNorm(options.norm_groups, channels, eps=eps)
        case "ghost":
            layer = GhostBatchNorm2d(channels, options.ghost_size, momentum=momentum, eps=eps)
        case "batch":
            layer = nn.BatchNorm2d(channels, momentum=momentum, eps=eps)
    layer.weight.requires_grad_(options.train_scale)
    return layer
