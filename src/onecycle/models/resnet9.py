"""ResNet-9, the network of cifar10-fast, with the options that its studies vary."""

from collections import OrderedDict
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from onecycle.models.layers import PatchWhitening, make_norm, patch_whitening
from onecycle.models.options import ResNet9Options

NORM_LAYERS = (nn.modules.batchnorm._NormBase, nn.GroupNorm, nn.LayerNorm)


class ResNet9(nn.Module):
    """A prep convolution of `width` channels, three downsampling layers of 2, 4 and 8 times that, and a linear head.

    Images [n, 3, height, width], at least 8 pixels a side, become logits [n, classes]. Norm and activation follow
    every convolution; only without norm it has a bias. `ResNet9Options` describes the options and names the sources.
    Raises `ValueError` for options that are unknown, missing, out of range or exclude each other.
    """

    def __init__(self, classes: int, **options: Any) -> None:
        super().__init__()
        o = ResNet9Options(**options)
        self.head_pool, self.logit_scale = o.head_pool, o.logit_scale
        c0, c1, c2, c3 = o.layer_channels
        if o.prep == "conv":
            self.prep = _block(o, o.in_channels, c0, padding=o.prep_padding)
        else:
            whiten = PatchWhitening(o.in_channels, o.prep_padding)
            block = _block(o, len(whiten.weight), c0, kernel_size=1)
            self.prep = nn.Sequential(OrderedDict([("whiten", whiten), *block.named_children()]))
        self.layer1 = _layer(o, 1, c0, c1)
        self.layer2 = _layer(o, 2, c1, c2)
        self.layer3 = _layer(o, 3, c2, c3)
        if o.init == "dirac":
            # The first filters of a convolution, one for each input channel, pass that channel on unchanged.
            for conv in nn.ModuleList((self.layer1, self.layer2, self.layer3)).modules():
                if isinstance(conv, nn.Conv2d):
                    nn.init.dirac_(conv.weight.data[: conv.in_channels])
        self.head = nn.Linear(2 * c3 if o.head_pool == "concat" else c3, classes, bias=False)

    def forward(self, images: Tensor) -> Tensor:
        """The logits [n, classes], already multiplied by `logit_scale`."""
        features = self.layer3(self.layer2(self.layer1(self.prep(images))))
        pooled = []
        if self.head_pool != "average":
            pooled.append(F.max_pool2d(features, features.shape[-2:]).flatten(1))
        if self.head_pool != "max":
            pooled.append(features.mean((2, 3)))
        return self.head(torch.cat(pooled, dim=1) if len(pooled) > 1 else pooled[0]) * self.logit_scale

    @property
    def needs_whitening(self) -> bool:
        """Whether `fit_whitening` must be called before the first step."""
        return any(isinstance(module, PatchWhitening) and not module.weight.any() for module in self.prep)

    def fit_whitening(self, images: Tensor) -> None:
        """Set the whitening filters from some thousand normalised training images [n, 3, height, width]."""
        whiten = self.prep[0]
        assert isinstance(whiten, PatchWhitening), "only a network with prep=whitening has them"
        whiten.weight.copy_(patch_whitening(images))


class Residual(nn.Module):
    """x + second(first(x))."""

    def __init__(self, first: nn.Module, second: nn.Module) -> None:
        super().__init__()
        self.first, self.second = first, second

    def forward(self, x: Tensor) -> Tensor:
        """Add the branch to its input [n, c, height, width]."""
        return x + self.second(self.first(x))


def parameter_groups(network: nn.Module) -> dict[str, list[nn.Parameter]]:
    """The trainable parameters of any network, by kind; all four keys are always there.

    "bias": of convolutions and norms (β). "norm_scale": of norms (γ). "head": the weights of `network.head`, or of the
    last linear layer. "weights": the rest, here the convolutions.
    """
    groups: dict[str, list[nn.Parameter]] = {"weights": [], "bias": [], "norm_scale": [], "head": []}
    norms = {name for name, module in network.named_modules() if isinstance(module, NORM_LAYERS)}
    head = head_of(network)
    for name, parameter in network.named_parameters():
        owner, _, kind = name.rpartition(".")
        if kind != "bias":
            kind = "norm_scale" if owner in norms else "head" if f"{owner}.".startswith(f"{head}.") else "weights"
        if parameter.requires_grad:
            groups[kind].append(parameter)
    return groups


def head_of(network: nn.Module) -> str:
    """The name of the layer that makes the logits: `head`, or the last linear layer."""
    linear = [name for name, module in network.named_modules() if isinstance(module, nn.Linear)]
    return "head" if hasattr(network, "head") or not linear else linear[-1]


def _layer(o: ResNet9Options, number: int, c_in: int, c_out: int) -> nn.Sequential:
    """A block that halves the image, then the residual branch and the extra block that layer `number` has."""
    if o.downsample == "pool":
        layer = _block(o, c_in, c_out, pool=o.pool)
    else:
        layer = _block(o, c_in, c_out, kernel_size=3 if o.downsample == "conv3x3_stride2" else 1, stride=2)
    if number in o.residual:
        layer.add_module("residual", Residual(_block(o, c_out, c_out), _block(o, c_out, c_out)))
    if number in o.extra:
        layer.add_module("extra", _block(o, c_out, c_out))
    return layer


def _block(
    o: ResNet9Options, c_in: int, c_out: int, *, kernel_size: int = 3, stride: int = 1, padding: int | None = None,
    pool: str | None = None,
) -> nn.Sequential:  # fmt: skip
    """Convolution, norm and activation, with a 2×2 max pooling before or after the last two."""
    norm = make_norm(c_out, o)
    padding = kernel_size // 2 if padding is None else padding
    # Not in place after ghost norm: it returns a view, and autograd copies the gradient of a changed view.
    inplace = o.norm != "ghost"
    act = {"relu": nn.ReLU(inplace), "celu": nn.CELU(o.celu_alpha, inplace), "gelu": nn.GELU()}[o.activation]
    conv = nn.Conv2d(c_in, c_out, kernel_size, stride, padding=padding, bias=norm is None)
    modules: list[tuple[str, nn.Module]] = [("conv", conv), *([("norm", norm)] if norm else []), ("act", act)]
    if pool is not None:
        # An increasing function commutes with the maximum: pooled first, it has a quarter of the values to compute.
        last = len(modules) if o.activation == "gelu" else len(modules) - 1
        modules.insert(1 if pool == "before" else last, ("pool", nn.MaxPool2d(2)))
    return nn.Sequential(OrderedDict(modules))
