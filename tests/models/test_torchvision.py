import pytest
import torch

from onecycle.models.resnet9 import parameter_groups
from onecycle.models.torchvision import Torchvision


def test_a_small_stem_keeps_the_images_size_and_every_kind_of_parameter_has_its_group() -> None:
    network = Torchvision(10, "resnet18", small_stem=True)
    sizes = {kind: sum(one.numel() for one in parameters) for kind, parameters in parameter_groups(network).items()}
    assert sizes == {"weights": 11_159_232, "bias": 4_810, "norm_scale": 4_800, "head": 5_120}
    with torch.no_grad():
        assert network(torch.zeros(2, 3, 32, 32)).shape == (2, 10)
        assert network.network.layer1(network.network.conv1(torch.zeros(1, 3, 32, 32))).shape == (1, 64, 32, 32)
    assert network.network.conv1.weight.std().item() == pytest.approx((2 / (64 * 9)) ** 0.5, rel=0.1)


def test_other_networks_of_torchvision_have_their_last_linear_layer_as_the_head() -> None:
    network = Torchvision(7, "mobilenet_v3_small", small_stem=False, dropout=0.1)
    assert [tuple(one.shape) for one in parameter_groups(network)["head"]] == [(7, 1024)]
