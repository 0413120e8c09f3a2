from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from onecycle.models.options import ResNet9Options
from onecycle.models.resnet9 import ResNet9, parameter_groups

Factory = Callable[..., ResNet9]


@pytest.mark.parametrize(
    "changes",
    [
        {"norm": "ghost", "activation": "celu", "train_scale": False, "pool": "before", "ghost_size": 8},
        {"norm": "group", "activation": "gelu", "norm_groups": 2, "head_pool": "concat"},
        {"norm": "none", "activation": "relu", "extra": [1, 2], "logit_scale": 1.0},
        {"norm": "ghost", "activation": "relu", "ghost_size": 8, "downsample": "conv3x3_stride2"},
    ],
)
def test_training_lowers_the_loss_of_a_fixed_batch_in_bf16(network: Factory, changes: dict[str, Any]) -> None:
    net = network(width=4, **changes).to(memory_format=torch.channels_last)
    labels = torch.arange(16) % 4
    # The brightness tells the class, so that even a network without norm learns it in a few steps.
    images = torch.randn(16, 3, 32, 32) + labels.view(-1, 1, 1, 1) - 1.5
    optimizer = torch.optim.Adam((p for p in net.parameters() if p.requires_grad), 0.01)
    losses = []
    for _ in range(12):
        with torch.autocast("cpu", torch.bfloat16):
            loss = F.cross_entropy(net(images.contiguous(memory_format=torch.channels_last)), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.9 * losses[0]


@pytest.mark.parametrize(
    ("changes", "weights", "scales"),
    [
        ({"norm": "ghost"}, 8, 8), ({"train_scale": False}, 8, 0), ({"norm": "none"}, 8, 0),
        ({"norm": "group", "norm_groups": 2}, 8, 8), ({"prep": "whitening", "extra": [2]}, 9, 9),
    ],
)  # fmt: skip
def test_parameter_groups_partition_the_trainable_parameters(
    network: Factory, changes: dict[str, Any], weights: int, scales: int
) -> None:
    net = network(width=4, **changes)
    groups = parameter_groups(net)
    grouped = [id(parameter) for group in groups.values() for parameter in group]
    assert sorted(grouped) == sorted(id(p) for p in net.parameters() if p.requires_grad)
    sizes = {name: len(group) for name, group in groups.items()}
    assert sizes == {"weights": weights, "bias": weights, "norm_scale": scales, "head": 1}
    assert {p.ndim for p in groups["weights"]} == {4}
    assert groups["head"][0] is net.head.weight


REFUSED: dict[str, list[Any]] = {
    "width": [0, 1025, True, 4.0], "in_channels": [1], "logit_scale": [0.0, "1"], "norm_momentum": [1.1],
    "norm_eps": [float("nan")], "celu_alpha": [1001], "channels": [[8, 8], [8, 8, 0, 8]], "prep_padding": [2, True],
    "train_scale": [1], "residual": [[0, 1], "12", [True]], "extra": [[2, 2]], "activation": ["selu"], "pool": ["none"],
    "downsample": ["blur"], "head_pool": ["sum"], "prep": ["pca"], "norm": ["layer"], "init": [None], "depth": [3],
}  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "key"),
    [
        *(({key: value}, key) for key, values in REFUSED.items() for value in values),
        ({"norm": "group", "norm_groups": 8}, "norm_groups=8"), ({"norm": "ghost", "ghost_size": 1}, "ghost_size=1"),
        ({"norm": "group", "channels": [8, 12, 16, 24]}, "norm_groups=8"),
        ({"pool": "before", "downsample": "conv3x3_stride2"}, "pool=before"),
        ({"norm": "none", "train_scale": False}, "train_scale=false"),
    ],
)  # fmt: skip
def test_unfit_options_are_refused_by_their_key(network: Factory, changes: dict[str, Any], key: str) -> None:
    with pytest.raises(ValueError, match=rf"\b{key}\b"):
        network(**{"width": 4, **changes})


def test_every_option_is_in_the_configuration_and_has_a_description(arguments: dict[str, Any]) -> None:
    fields = ResNet9Options.model_fields
    assert fields.keys() == arguments.keys()
    assert all(field.description and field.is_required() for field in fields.values())
    with pytest.raises(ValueError, match="head_pool"):
        ResNet9(classes=10, **{name: value for name, value in arguments.items() if name != "head_pool"})


@pytest.mark.parametrize("prep", ["conv", "whitening"])
@pytest.mark.parametrize(("padding", "sides"), [(1, [32, 16, 8, 4]), (0, [30, 15, 7, 3])])
def test_without_padding_the_image_loses_its_border(
    network: Factory, prep: str, padding: int, sides: list[int]
) -> None:
    net = network(width=4, prep=prep, prep_padding=padding)
    if net.needs_whitening:
        net.fit_whitening(torch.randn(50, 3, 32, 32))
    features, seen = torch.randn(2, 3, 32, 32), []
    for part in (net.prep, net.layer1, net.layer2, net.layer3):
        features = part(features)
        seen.append(features.shape[-1])
    assert seen == sides


def test_with_dirac_the_first_filters_pass_their_inputs_on_and_the_others_stay_as_they_were(network: Factory) -> None:
    usual, identity = (dict(network(width=4, init=init).named_parameters()) for init in ("default", "dirac"))
    x, y = torch.randn(2, 4, 8, 8), torch.randn(2, 8, 8, 8)
    first, second = identity["layer1.conv.weight"], identity["layer1.residual.second.conv.weight"]
    assert torch.equal(torch.conv2d(x, first, padding=1)[:, :4], x)
    assert torch.equal(torch.conv2d(y, second, padding=1), y)
    assert torch.equal(first[4:], usual["layer1.conv.weight"][4:])
    for name in ("prep.conv.weight", "head.weight"):
        assert torch.equal(identity[name], usual[name])


def test_channels_stand_in_place_of_the_multiples_of_the_width(network: Factory) -> None:
    net = network(channels=[6, 16, 24, 20], residual=[], extra=[1, 2, 3])
    convolutions = [tuple(m.weight.shape[:2]) for m in net.modules() if isinstance(m, torch.nn.Conv2d)]
    assert convolutions == [(6, 3), (16, 6), (16, 16), (24, 16), (24, 24), (20, 24), (20, 20)]
    assert net.head.weight.shape == (10, 20)
