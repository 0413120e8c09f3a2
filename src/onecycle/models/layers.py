"""Layers of ResNet-9: norms with a trainable or a frozen scale, and fixed whitening filters."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from onecycle.models.options import ResNet9Options

KERNEL = 3  # of the whitening filters
CHUNK = 256


class GhostBatchNorm2d(nn.BatchNorm2d):
    """Batch norm over groups of `ghost_size` images, whatever the size of the batch.

    A batch of n images makes k = n // ghost_size full groups, interleaved as in cifar10-fast: image i belongs to group
    i mod k. The remaining images form a smaller group; a single one forms a group with the last `ghost_size` (at least
    2) images before it. A batch that makes one group is plain batch norm. The running statistics move by the mean over
    the groups. Evaluation, state and parameters are those of `nn.BatchNorm2d`: a checkpoint of one fits the other.

    Sources: Hoffer, Hubara and Soudry 2017, "Train longer, generalize better"; Page 2019, "How to Train Your ResNet" 8.
    """

    # nn.BatchNorm2d declares these as possibly absent; here they always exist.
    running_mean: Tensor
    running_var: Tensor
    num_batches_tracked: Tensor
    momentum: float

    def __init__(self, channels: int, ghost_size: int, *, momentum: float, eps: float) -> None:
        super().__init__(channels, eps=eps, momentum=momentum)
        self.ghost_size = ghost_size

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 (the name in nn.BatchNorm2d)
        """Normalise [n, channels, height, width] group by group; keeps the memory format."""
        groups, remainder = divmod(len(input), self.ghost_size)
        groups -= remainder == 1
        grouped = groups * self.ghost_size
        if not self.training or groups + (grouped < len(input)) <= 1:
            return super().forward(input)
        parts = [(input[:grouped], groups), *([(input[grouped:], 1)] if grouped < len(input) else [])]
        outputs, means, variances = zip(*(self._normalize_groups(*part) for part in parts), strict=True)
        with torch.no_grad():
            self.running_mean.lerp_(torch.cat(means).mean(0), self.momentum)
            self.running_var.lerp_(torch.cat(variances).mean(0), self.momentum)
            self.num_batches_tracked.add_(1)
        return torch.cat(outputs) if len(outputs) > 1 else outputs[0]

    def _normalize_groups(self, images: Tensor, groups: int) -> tuple[Tensor, Tensor, Tensor]:
        """Normalise interleaved groups in one kernel, as that many times more channels; their means and variances."""
        # Interleaved groups lie beside the channels in memory, so the contiguous format needs no copy.
        # Channels last needs two: far cheaper than a loop over the groups or a change of format.
        channels_first = images.is_contiguous()
        if channels_first:
            merged = images.view(-1, groups * self.num_features, *images.shape[2:])
        else:
            pixels = images.permute(0, 2, 3, 1).unflatten(0, (-1, groups))
            merged = pixels.permute(0, 2, 3, 1, 4).flatten(3).permute(0, 3, 1, 2)
        # With a momentum of 1, batch_norm stores the statistics of the batch itself.
        means, variances = self.running_mean.new_zeros(2, groups, self.num_features)
        normalized = F.batch_norm(
            merged, means.view(-1), variances.view(-1), self.weight.repeat(groups), self.bias.repeat(groups),
            training=True, momentum=1.0, eps=self.eps,
        )  # fmt: skip
        if channels_first:
            return normalized.view(images.shape), means, variances
        pixels = normalized.permute(0, 2, 3, 1).unflatten(3, (groups, self.num_features))
        return pixels.permute(0, 3, 1, 2, 4).flatten(0, 1).permute(0, 3, 1, 2), means, variances

    def extra_repr(self) -> str:
        """Arguments of batch norm, and the ghost size."""
        return f"{super().extra_repr()}, ghost_size={self.ghost_size}"


def make_norm(channels: int, options: ResNet9Options) -> nn.Module | None:
    """The norm of `channels` feature maps, or None for norm=none.

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


def patch_whitening(images: Tensor, eps: float = 1e-2) -> Tensor:
    """The filters that decorrelate the 3×3 patches of `images`, largest eigenvalue first.

    Float [n, c, height, width] → float32 [9c, c, 3, 3] on the same device. With eigenvalues Λ and unit eigenvectors V
    of the second moments of all patches (about zero, without padding), filter i is V_i / √(Λ_i + eps). Over these
    patches response i has the second moment Λ_i / (Λ_i + eps), and two responses are uncorrelated.

    Source: Page 2019, "How to Train Your ResNet" 8.
    """
    channels = images.shape[1]
    size = channels * KERNEL**2
    moments = torch.zeros(size, size, dtype=torch.float64, device=images.device)
    count = 0
    # All patches of 10,000 images at once would take 1 GB. Sums of a chunk lose nothing that matters in fp32.
    for chunk in images.split(CHUNK):
        patches = F.unfold(chunk, KERNEL).transpose(0, 1).reshape(size, -1)
        moments += (patches @ patches.T).double()
        count += patches.shape[1]
    # On the CPU the same images give the same eigenvectors, signs included, whatever device trains.
    eigenvalues, eigenvectors = torch.linalg.eigh(moments.cpu() / count)
    filters = (eigenvectors / (eigenvalues.clamp(min=0) + eps).sqrt()).T.flip(0)
    return filters.reshape(size, channels, KERNEL, KERNEL).to(images.device, torch.float32)


class PatchWhitening(nn.Module):
    """A 3×3 convolution whose fixed filters whiten patches: a buffer, all zero until `patch_whitening` fills it."""

    weight: Tensor

    def __init__(self, in_channels: int, padding: int = KERNEL // 2) -> None:
        super().__init__()
        self.padding = padding
        self.register_buffer("weight", torch.zeros(in_channels * KERNEL**2, in_channels, KERNEL, KERNEL))

    def forward(self, images: Tensor) -> Tensor:
        """[n, 9c, height, width] of images that are zero-padded by `padding` pixels."""
        return F.conv2d(images, self.weight, padding=self.padding)
