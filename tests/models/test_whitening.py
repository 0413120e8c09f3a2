from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from onecycle.models.layers import patch_whitening
from onecycle.models.resnet9 import ResNet9

Factory = Callable[..., ResNet9]


def patches_of(images: Tensor) -> Tensor:
    """Cut every 3×3 patch out by hand: [count, 27], in double precision."""
    rows, columns = images.shape[2] - 2, images.shape[3] - 2
    cut = [images[:, :, i : i + 3, j : j + 3].flatten(1) for i in range(rows) for j in range(columns)]
    return torch.cat(cut).double()


def test_whitened_patches_have_the_second_moments_of_the_formula() -> None:
    # Smoothed noise has strong and weak directions, as photographs have.
    images = F.avg_pool2d(F.avg_pool2d(torch.randn(300, 3, 16, 16), 3, stride=1), 3, stride=1)
    patches = patches_of(images)
    eigenvalues = torch.linalg.eigvalsh(patches.T @ patches / len(patches)).flip(0)
    assert eigenvalues[0] > 0.1
    assert eigenvalues[-1] < 1e-3
    responses = patches @ patch_whitening(images, eps=1e-2).double().flatten(1).T
    moments = responses.T @ responses / len(responses)
    assert torch.allclose(moments, torch.diag(eigenvalues / (eigenvalues + 1e-2)), atol=1e-5)
    responses = patches @ patch_whitening(images, eps=1e-9).double().flatten(1).T
    moments = responses.T @ responses / len(responses)
    assert torch.allclose(moments, torch.eye(27, dtype=torch.float64), atol=1e-3)


def test_whitening_convolves_then_mixes_by_a_1x1_convolution(network: Factory) -> None:
    net = network(width=4, prep="whitening")
    images = torch.randn(20, 3, 32, 32)
    net.fit_whitening(images)
    whitened = F.conv2d(images, patch_whitening(images), padding=1)
    mix, norm = net.get_submodule("prep.conv"), net.get_submodule("prep.norm")
    assert net.get_parameter("prep.conv.weight").shape == (4, 27, 1, 1)
    expected = norm(mix(whitened)).relu()
    assert torch.allclose(net.prep(images), expected, atol=1e-5)


def test_fitted_whitening_travels_in_the_state_and_is_never_trained(network: Factory) -> None:
    fitted, fresh = network(width=4, prep="whitening"), network(width=4, prep="whitening")
    images = torch.randn(20, 3, 32, 32)
    assert fitted.needs_whitening
    fitted.fit_whitening(images)
    assert not fitted.needs_whitening
    fresh.load_state_dict(fitted.state_dict())
    assert not fresh.needs_whitening
    assert torch.equal(fresh(images), fitted(images))
    assert "prep.whiten.weight" not in dict(fitted.named_parameters())
    fresh.load_state_dict(network(width=4, prep="whitening").state_dict())
    assert fresh.needs_whitening
    assert not network(width=4).needs_whitening
