"""Patch whitening: a fixed first convolution computed from the training images."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

KERNEL = 3
CHUNK = 256


def patch_whitening(images: Tensor, eps: float = 1e-2) -> Tensor:
    """Return the filters that decorrelate the 3×3 patches of `images`, largest eigenvalue first.

    `images` is [n, c, height, width]; the result is [9c, c, 3, 3], float32, on the same device. With
    eigenvalues Λ and unit eigenvectors V of the second moments of all patches (about zero, without padding),
    filter i is V_i / √(Λ_i + eps). Over these patches response i has the second moment Λ_i / (Λ_i + eps), and
    two responses are uncorrelated. Raises `ValueError` for images that are not a float batch.

    Source: Page 2019, "How to Train Your ResNet 8".
    """
    if images.ndim != 4 or not images.is_floating_point():
        raise ValueError(
            f"images={list(images.shape)} {images.dtype}: whitening takes float [n, c, height, width]; "
            "normalise the training images first"
        )
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
    """A 3×3 convolution whose fixed filters whiten image patches; `fit` computes them.

    The filters are a buffer: saved with the network, never trained. All-zero filters mean "not fitted", and
    `forward` then raises `RuntimeError`.
    """

    weight: Tensor

    def __init__(self, in_channels: int, padding: int = KERNEL // 2) -> None:
        super().__init__()
        self.padding = padding
        self.out_channels = in_channels * KERNEL**2
        self.register_buffer("weight", torch.zeros(self.out_channels, in_channels, KERNEL, KERNEL))
        # Kept in Python, because reading it from the device would make every step wait.
        self.fitted = False
        self.register_load_state_dict_post_hook(_find_out_whether_fitted)

    def fit(self, images: Tensor) -> None:
        """Compute the filters from normalised training images [n, c, height, width]."""
        self.weight.copy_(patch_whitening(images))
        self.fitted = True

    def forward(self, images: Tensor) -> Tensor:
        """Return [n, 9c, height, width] of images that are zero-padded by `padding` pixels."""
        if not self.fitted:
            raise RuntimeError(
                "prep=whitening: the filters are not computed yet; call fit_whitening(images) with normalised training "
                "images, or load a fitted state"
            )
        return F.conv2d(images, self.weight, padding=self.padding)


def _find_out_whether_fitted(module: PatchWhitening, _incompatible_keys: Any) -> None:
    module.fitted = bool(module.weight.any())
