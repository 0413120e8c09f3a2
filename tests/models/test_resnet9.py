from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from onecycle.models.resnet9 import ResNet9

CONF = Path(__file__).parents[2] / "conf" / "model"
Factory = Callable[..., ResNet9]


def random_images(count: int, size: int = 32, channels: int = 3) -> Tensor:
    return torch.randn(count, channels, size, size, generator=torch.Generator().manual_seed(count))


def count_parameters(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


@pytest.mark.parametrize(
    ("name", "width", "expected"),
    [
        ("resnet9", 64, 6_573_120),
        ("resnet9", 16, 412_944),
        ("backbone", 64, 1_557_056),
        ("backbone_3x3", 64, 1_557_056),
        ("backbone_1x1", 64, 180_800),
        ("extra", 64, 4_655_424),
    ],
)
def test_parameter_counts_are_those_that_the_configs_state(
    network: Factory, name: str, width: int, expected: int
) -> None:
    assert count_parameters(network(name, width=width)) == expected
    if width == 64:
        comment = (CONF / f"{name}.yaml").read_text().splitlines()[0]
        assert comment.endswith(f"; {expected:,} parameters at width 64.")


def conv_norm_relu(state: Mapping[str, Tensor], name: str, images: Tensor) -> Tensor:
    images = F.conv2d(images, state[f"{name}.conv.weight"], padding=1)
    mean = images.mean((0, 2, 3), keepdim=True)
    var = images.var((0, 2, 3), keepdim=True, correction=0)
    scale, shift = (state[f"{name}.norm.{kind}"].view(1, -1, 1, 1) for kind in ("weight", "bias"))
    return ((images - mean) / (var + 1e-5).sqrt() * scale + shift).relu()


def reference_logits(state: Mapping[str, Tensor], images: Tensor) -> Tensor:
    """Write ResNet-9 out by hand: the default options, in training mode."""
    x = conv_norm_relu(state, "prep", images)
    x = F.max_pool2d(conv_norm_relu(state, "layer1", x), 2)
    branch = conv_norm_relu(state, "layer1.residual.first", x)
    x = x + conv_norm_relu(state, "layer1.residual.second", branch)
    x = F.max_pool2d(conv_norm_relu(state, "layer2", x), 2)
    x = F.max_pool2d(conv_norm_relu(state, "layer3", x), 2)
    branch = conv_norm_relu(state, "layer3.residual.first", x)
    x = x + conv_norm_relu(state, "layer3.residual.second", branch)
    x = F.max_pool2d(x, 4).flatten(1)
    return x @ state["head.weight"].T * 0.125


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_default_network_equals_the_one_written_out_by_hand(
    network: Factory, memory_format: torch.memory_format
) -> None:
    net = network(width=4).to(memory_format=memory_format)
    for name, parameter in net.named_parameters():
        if "norm" in name:
            nn.init.uniform_(parameter, 0.5, 1.5)
    images = random_images(6).contiguous(memory_format=memory_format)
    state = dict(net.named_parameters())
    logits, expected = net(images), reference_logits(state, images)
    assert torch.allclose(logits, expected, atol=1e-5)
    # The gradients would differ if an activation in place overwrote a tensor that the backward pass reads.
    found = torch.autograd.grad(logits.square().sum(), list(state.values()))
    wanted = torch.autograd.grad(expected.square().sum(), list(state.values()))
    for name, find, want in zip(state, found, wanted, strict=True):
        assert torch.allclose(find, want, rtol=1e-3, atol=1e-4), name


@pytest.mark.parametrize(
    ("changes", "layer_names"),
    [
        ({}, ["conv", "norm", "pool", "act"]),
        ({"activation": "celu"}, ["conv", "norm", "pool", "act"]),
        ({"activation": "gelu"}, ["conv", "norm", "act", "pool"]),
        ({"residual": [2]}, ["conv", "norm", "pool", "act", "residual"]),
        ({"extra": [2]}, ["conv", "norm", "pool", "act", "extra"]),
        ({"residual": [2], "extra": [2]}, ["conv", "norm", "pool", "act", "residual", "extra"]),
        ({"pool": "before"}, ["conv", "pool", "norm", "act"]),
        ({"norm": "none"}, ["conv", "pool", "act"]),
        ({"downsample": "conv3x3_stride2"}, ["conv", "norm", "act"]),
    ],
)
def test_options_order_the_modules_of_a_layer(
    network: Factory, changes: dict[str, Any], layer_names: list[str]
) -> None:
    net = network(width=4, **changes)
    assert [name for name, _ in net.layer2.named_children()] == layer_names
    assert list(dict(net.named_children())) == ["prep", "layer1", "layer2", "layer3", "head"]


@pytest.mark.parametrize("downsample", ["pool", "conv3x3_stride2", "conv1x1_stride2"])
@pytest.mark.parametrize("size", [32, 48])
def test_each_layer_halves_the_image_and_doubles_the_channels(network: Factory, downsample: str, size: int) -> None:
    net = network(width=4, downsample=downsample)
    x = net.prep(random_images(2, size))
    assert x.shape == (2, 4, size, size)
    for i, layer in enumerate((net.layer1, net.layer2, net.layer3), start=1):
        x = layer(x)
        assert x.shape == (2, 4 * 2**i, size // 2**i, size // 2**i)
    assert net(random_images(2, size)).shape == (2, 10)
    assert network(width=4, classes=7)(random_images(2, size)).shape == (2, 7)


@pytest.mark.parametrize("activation", ["relu", "celu"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_pooling_after_the_activation_is_the_same_before_it(
    network: Factory, activation: str, dtype: torch.dtype
) -> None:
    layer = network(width=4, activation=activation).layer2
    conv, norm, _, act = layer.children()
    x = torch.randn(6, 8, 16, 16).to(memory_format=torch.channels_last)
    weight = torch.randn(6, 16, 8, 8)
    gradients, outputs = [], []
    for function in (layer, lambda x: F.max_pool2d(act(norm(conv(x))), 2)):
        layer.zero_grad()
        with torch.autocast("cpu", dtype, enabled=dtype == torch.bfloat16):
            outputs.append(function(x))
        (outputs[-1] * weight).sum().backward()
        gradients.append([part.grad.clone() for part in layer.parameters() if part.grad is not None])
    assert torch.equal(outputs[0], outputs[1])
    assert getattr(act, "alpha", 0.075) == 0.075
    if activation == "relu" or dtype == torch.float32:  # celu rounds different bf16 values to the same one: a tie
        for first, second in zip(*gradients, strict=True):
            assert torch.equal(first, second)


@pytest.mark.parametrize(
    ("head_pool", "pool"),
    [
        ("max", lambda x: x.amax((2, 3))),
        ("average", lambda x: x.mean((2, 3))),
        ("concat", lambda x: torch.cat((x.amax((2, 3)), x.mean((2, 3))), dim=1)),
    ],
)
def test_head_pool_feeds_the_head(network: Factory, head_pool: str, pool: Callable[[Tensor], Tensor]) -> None:
    net = network(width=4, head_pool=head_pool).eval()
    images = random_images(2, 40)
    features = net.layer3(net.layer2(net.layer1(net.prep(images))))
    assert net.head.weight.shape == (10, 64 if head_pool == "concat" else 32)
    assert torch.allclose(net(images), pool(features) @ net.head.weight.T * 0.125, atol=1e-6)
