"""ResNet-9, the network of cifar10-fast, with the options that its studies vary."""

from collections import OrderedDict
from collections.abc import Callable, Collection, Sequence
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from onecycle.models.norms import make_norm
from onecycle.models.options import layer_channels, problems
from onecycle.models.whitening import PatchWhitening

# Activations that never fall: the largest of a window is the same before them and after. Pooled first, they and their
# gradients have a quarter of the values to go through.
RISING = (nn.ReLU, nn.CELU)
NORM_LAYERS = (nn.modules.batchnorm._NormBase, nn.GroupNorm, nn.LayerNorm)


class ResNet9(nn.Module):
    """A prep convolution of `width` channels, three downsampling layers of 2, 4 and 8 times that, and a linear head.

    Images [n, in_channels, height, width], at least 8 pixels a side, become logits [n, classes]. Norm and
    activation follow every convolution; only without norm it has a bias.

    - `channels`: those of prep and of layers 1, 2, 3, in place of the multiples of `width`; None for these.
    - `residual`: the layers that end in x + block(block(x)), where the activation comes before the sum.
    - `extra`: the layers that end in one more plain block. In a layer named twice the residual comes first.
    - `norm`, `train_scale`, `ghost_size` (images), `norm_groups`: see `make_norm`.
    - `pool`: "after" is conv, norm, activation, pool (computed as norm, pool, activation where that is the same);
      "before" is conv, pool, norm, activation.
    - `downsample`: "pool" halves by max pooling after a 3×3 convolution, the others by their stride.
    - `head_pool`: global pooling before the head; "concat" is [max, average], and doubles the head's input.
    - `prep`: "whitening" puts fixed whitening filters, set by `fit_whitening`, before a 1×1 convolution.
    - `init`: "default" is PyTorch's own; "dirac" makes the convolutions of the layers pass their input on.
    - `prep_padding`: pixels around the image for its 3×3 convolution; 0 makes 32×32 images 30, 15, 7 and 3 wide.

    Raises `ValueError` for values out of range and for options that do not fit together.

    Source: Page 2018–19, "How to Train Your ResNet" 4 (the network, its backbone, `extra`) and 8 (`pool`,
    CELU, ghost norm, frozen scales, whitening), and the repository davidcpage/cifar10-fast. `init`: Jordan 2024,
    "94% on CIFAR-10 in 3.29 Seconds on a Single GPU", section 3.3.
    """

    def __init__(
        self,
        *,
        classes: int,
        in_channels: int,
        width: int,
        channels: Sequence[int] | None,
        residual: Collection[int],
        extra: Collection[int],
        norm: str,
        train_scale: bool,
        ghost_size: int,
        norm_groups: int,
        norm_momentum: float,
        norm_eps: float,
        activation: str,
        celu_alpha: float,
        pool: str,
        downsample: str,
        head_pool: str,
        logit_scale: float,
        prep: str,
        prep_padding: int,
        init: str,
    ) -> None:
        options = {name: value for name, value in locals().items() if name not in ("self", "__class__")}
        found = problems(options)
        if found:
            raise ValueError("\n".join(found))
        super().__init__()
        self.head_pool, self.logit_scale = head_pool, logit_scale
        new_norm = partial(make_norm, norm=norm, train_scale=train_scale, ghost_size=ghost_size)
        new_norm = partial(new_norm, norm_groups=norm_groups, momentum=norm_momentum, eps=norm_eps)
        new_activation = partial(_activation, activation, celu_alpha, inplace=norm != "ghost")
        block = partial(_block, norm=new_norm, activation=new_activation)
        c0, c1, c2, c3 = layer_channels(width, channels)
        self.prep = _prep(block, in_channels, c0, prep, prep_padding)
        layer = partial(_layer, block, pool=pool, downsample=downsample)
        self.layer1 = layer(c0, c1, residual=1 in residual, extra=1 in extra)
        self.layer2 = layer(c1, c2, residual=2 in residual, extra=2 in extra)
        self.layer3 = layer(c2, c3, residual=3 in residual, extra=3 in extra)
        if init == "dirac":
            for part in (self.layer1, self.layer2, self.layer3):
                part.apply(_start_as_identity)
        self.head = nn.Linear(c3 * (2 if head_pool == "concat" else 1), classes, bias=False)

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits [n, classes], already multiplied by `logit_scale`."""
        features = self.layer3(self.layer2(self.layer1(self.prep(images))))
        pooled = [pool(features) for pool in GLOBAL_POOLS[self.head_pool]]
        return self.head(torch.cat(pooled, dim=1) if len(pooled) > 1 else pooled[0]) * self.logit_scale

    @property
    def needs_whitening(self) -> bool:
        """Whether `fit_whitening` must come before the first step."""
        return any(isinstance(module, PatchWhitening) and not module.fitted for module in self.prep)

    def fit_whitening(self, images: Tensor) -> None:
        """Set the whitening filters from normalised training images [n, in_channels, height, width].

        Some thousand images are enough. Raises `ValueError` for a network without whitening.
        """
        whiten = self.prep[0]
        if not isinstance(whiten, PatchWhitening):
            raise ValueError("prep='conv': this network has no whitening filters to fit; set prep='whitening'")
        whiten.fit(images)


class Residual(nn.Module):
    """x + second(first(x))."""

    def __init__(self, first: nn.Module, second: nn.Module) -> None:
        super().__init__()
        self.first = first
        self.second = second

    def forward(self, x: Tensor) -> Tensor:
        """Add the branch to its input [n, c, height, width]."""
        return x + self.second(self.first(x))


def parameter_groups(network: nn.Module) -> dict[str, list[nn.Parameter]]:
    """Sort the trainable parameters of any network into "weights", "bias", "norm_scale" and "head".

    "bias" holds the biases of convolutions and norms (β), "norm_scale" the norms' scales (γ), "head" the
    weights of `network.head`, and "weights" the rest: here, the convolutions. All four keys are always there.
    Frozen parameters are in no group.
    """
    groups: dict[str, list[nn.Parameter]] = {"weights": [], "bias": [], "norm_scale": [], "head": []}
    norms = tuple(name for name, module in network.named_modules() if isinstance(module, NORM_LAYERS))
    for name, parameter in network.named_parameters():
        owner, _, kind = name.rpartition(".")
        if not parameter.requires_grad:
            continue
        if kind == "bias":
            groups["bias"].append(parameter)
        elif owner in norms:
            groups["norm_scale"].append(parameter)
        elif name.startswith("head."):
            groups["head"].append(parameter)
        else:
            groups["weights"].append(parameter)
    return groups


def _prep(block: Callable[..., nn.Sequential], c_in: int, width: int, prep: str, padding: int) -> nn.Sequential:
    """Return the first block, behind whitening filters if `prep` says so."""
    if prep == "conv":
        return block(c_in, width, padding=padding)
    whiten = PatchWhitening(c_in, padding)
    modules = block(whiten.out_channels, width, kernel_size=1).named_children()
    return nn.Sequential(OrderedDict([("whiten", whiten), *modules]))


def _layer(
    block: Callable[..., nn.Sequential],
    c_in: int,
    c_out: int,
    *,
    pool: str,
    downsample: str,
    residual: bool,
    extra: bool,
) -> nn.Sequential:
    """Return a block that halves the image, with what follows it."""
    if downsample == "pool":
        layer = block(c_in, c_out, pool=pool)
    else:
        layer = block(c_in, c_out, kernel_size=3 if downsample == "conv3x3_stride2" else 1, stride=2)
    if residual:
        layer.add_module("residual", Residual(block(c_out, c_out), block(c_out, c_out)))
    if extra:
        layer.add_module("extra", block(c_out, c_out))
    return layer


def _block(
    c_in: int,
    c_out: int,
    *,
    norm: Callable[[int], nn.Module | None],
    activation: Callable[[], nn.Module],
    kernel_size: int = 3,
    stride: int = 1,
    padding: int | None = None,
    pool: str | None = None,
) -> nn.Sequential:
    """Return convolution, norm and activation, with a 2×2 max pooling before or after the last two."""
    norm_layer = norm(c_out)
    padding = kernel_size // 2 if padding is None else padding
    conv = nn.Conv2d(c_in, c_out, kernel_size, stride, padding=padding, bias=norm_layer is None)
    modules: OrderedDict[str, nn.Module] = OrderedDict(conv=conv)
    if pool == "before":
        modules["pool"] = nn.MaxPool2d(2)
    if norm_layer is not None:
        modules["norm"] = norm_layer
    act = activation()
    if pool == "after" and isinstance(act, RISING):
        modules["pool"] = nn.MaxPool2d(2)
    modules["act"] = act
    if pool == "after" and not isinstance(act, RISING):
        modules["pool"] = nn.MaxPool2d(2)
    return nn.Sequential(modules)


@torch.no_grad()
def _start_as_identity(module: nn.Module) -> None:
    """Let the first filters of a convolution, as many as it has inputs, each pass one input on; the others stay."""
    if isinstance(module, nn.Conv2d):
        nn.init.dirac_(module.weight[: module.in_channels])


def _activation(name: str, celu_alpha: float, *, inplace: bool) -> nn.Module:
    # Not in place after ghost norm: it returns a view, and autograd copies the gradient of a changed view.
    if name == "relu":
        return nn.ReLU(inplace)
    if name == "celu":
        return nn.CELU(celu_alpha, inplace)
    return nn.GELU()


def _global_max(features: Tensor) -> Tensor:
    return F.max_pool2d(features, features.shape[-2:]).flatten(1)


def _global_average(features: Tensor) -> Tensor:
    return features.mean((2, 3))


GLOBAL_POOLS = {
    "max": (_global_max,),
    "average": (_global_average,),
    "concat": (_global_max, _global_average),
}
