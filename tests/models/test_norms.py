from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from onecycle.models.layers import GhostBatchNorm2d
from onecycle.models.resnet9 import ResNet9

FORMATS = [torch.contiguous_format, torch.channels_last]


def random_images(count: int, memory_format: torch.memory_format = torch.contiguous_format) -> Tensor:
    generator = torch.Generator().manual_seed(count)
    # Each image has its own mean and scale, so that statistics over the wrong images give other numbers.
    images = torch.randn(count, 6, 5, 4, generator=generator) * torch.rand(count, 6, 1, 1, generator=generator)
    images += torch.randn(count, 6, 1, 1, generator=generator)
    return images.contiguous(memory_format=memory_format)


def ghost_norm(ghost_size: int) -> GhostBatchNorm2d:
    norm = GhostBatchNorm2d(6, ghost_size, momentum=0.3, eps=1e-3)
    with torch.no_grad():
        norm.weight.copy_(torch.linspace(0.5, 2, 6))
        norm.bias.copy_(torch.linspace(-1, 1, 6))
    return norm


def batch_norm_of_each_group(norm: GhostBatchNorm2d, images: Tensor, groups: list[Tensor]) -> dict[str, Tensor]:
    """Apply nn.BatchNorm2d to each group of indices on its own."""
    output, means, variances = torch.empty_like(images), [], []
    for indices in groups:
        plain = nn.BatchNorm2d(6, momentum=norm.momentum, eps=norm.eps)
        plain.load_state_dict(norm.state_dict())
        plain.weight, plain.bias = norm.weight, norm.bias
        output[indices] = plain(images[indices])
        assert plain.running_mean is not None
        assert plain.running_var is not None
        means.append(plain.running_mean)
        variances.append(plain.running_var)
    return {"output": output, "mean": torch.stack(means).mean(0), "var": torch.stack(variances).mean(0)}


# Twelve images in groups of 4 are 3 interleaved groups; what is left over follows them.
GROUPS = {
    (12, 4): [[0, 3, 6, 9], [1, 4, 7, 10], [2, 5, 8, 11]],
    (14, 4): [[0, 3, 6, 9], [1, 4, 7, 10], [2, 5, 8, 11], [12, 13]],
    (13, 4): [[0, 2, 4, 6], [1, 3, 5, 7], [8, 9, 10, 11, 12]],
    (7, 4): [[0, 1, 2, 3], [4, 5, 6]],
}


@pytest.mark.parametrize("memory_format", FORMATS)
@pytest.mark.parametrize(("count", "ghost_size"), GROUPS)
def test_ghost_norm_is_batch_norm_of_each_group(
    count: int, ghost_size: int, memory_format: torch.memory_format
) -> None:
    norm = ghost_norm(ghost_size)
    images = random_images(count, memory_format).requires_grad_()
    groups = [torch.tensor(group) for group in GROUPS[count, ghost_size]]
    expected = batch_norm_of_each_group(norm, images, groups)
    output = norm(images)
    assert torch.allclose(output, expected["output"], atol=1e-6)
    assert output.is_contiguous(memory_format=memory_format)
    assert torch.allclose(norm.running_mean, expected["mean"], atol=1e-7)
    assert torch.allclose(norm.running_var, expected["var"], atol=1e-7)
    assert norm.num_batches_tracked == 1
    upstream = torch.randn(images.shape, generator=torch.Generator().manual_seed(0))
    sources = (images, norm.weight, norm.bias)
    wanted = torch.autograd.grad(expected["output"], sources, upstream)
    found = torch.autograd.grad(output, sources, upstream)
    for want, find in zip(wanted, found, strict=True):
        assert torch.allclose(want, find, atol=1e-5)


@pytest.mark.parametrize(("count", "ghost_size"), [(4, 4), (3, 4), (5, 4), (1, 4)])
def test_one_group_equals_batch_norm_exactly(count: int, ghost_size: int) -> None:
    norm = ghost_norm(ghost_size)
    plain = nn.BatchNorm2d(6, momentum=0.3, eps=1e-3)
    plain.load_state_dict(norm.state_dict())
    images = random_images(count)
    assert torch.equal(norm(images), plain(images))
    for name, value in plain.state_dict().items():
        assert torch.equal(norm.state_dict()[name], value)


@pytest.mark.parametrize("memory_format", FORMATS)
def test_bf16_images_keep_float32_statistics(memory_format: torch.memory_format) -> None:
    norm, reference = ghost_norm(4), ghost_norm(4)
    images = random_images(14, memory_format).bfloat16()
    expected = reference(images.float())
    with torch.autocast("cpu", torch.bfloat16):
        output = norm(images)
    assert output.dtype == torch.bfloat16
    # bf16 has 8 bits of precision: half a unit in the last place of values up to 8.
    assert torch.allclose(output.float(), expected, atol=2**-5)
    assert norm.running_mean.dtype == torch.float32
    assert torch.allclose(norm.running_mean, reference.running_mean, atol=1e-6)
    assert torch.allclose(norm.running_var, reference.running_var, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "kind"), [("batch", nn.BatchNorm2d), ("ghost", GhostBatchNorm2d), ("group", nn.GroupNorm)]
)
def test_the_options_of_a_norm_reach_its_layer_and_a_frozen_scale_takes_no_gradient(
    name: str, kind: type[nn.Module], network: Callable[..., ResNet9]
) -> None:
    options = {"ghost_size": 16, "norm_groups": 4, "norm_momentum": 0.3, "norm_eps": 1e-3, "train_scale": False}
    norm = network(width=8, norm=name, **options).get_submodule("prep.norm")
    assert type(norm) is kind
    assert norm.eps == 1e-3
    assert getattr(norm, "momentum", 0.3) == 0.3
    assert getattr(norm, "ghost_size", 16) == 16
    assert getattr(norm, "num_groups", 4) == 4
    norm(torch.randn(4, 8, 3, 3)).sum().backward()
    assert torch.equal(norm.state_dict()["weight"], torch.ones(8))
    assert norm.get_parameter("weight").grad is None
    assert norm.get_parameter("bias").grad.tolist() == [4.0 * 3 * 3] * 8  # type: ignore[union-attr]
