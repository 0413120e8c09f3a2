"""Networks in plain torch, chosen by `conf/model`."""

from onecycle.models.norms import GhostBatchNorm2d, make_norm
from onecycle.models.resnet9 import ResNet9, parameter_groups
from onecycle.models.whitening import PatchWhitening, patch_whitening

__all__ = [
    "GhostBatchNorm2d",
    "PatchWhitening",
    "ResNet9",
    "make_norm",
    "parameter_groups",
    "patch_whitening",
]
