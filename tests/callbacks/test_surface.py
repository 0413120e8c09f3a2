import copy
from collections.abc import Callable

import lightning.pytorch as pl
import pytest
import torch
import torch.nn.functional as F

from onecycle.callbacks.probes import FinalLoss, layers
from onecycle.callbacks.surface import LossSurface, filter_normalized
from onecycle.training.classifier import Classifier

Fit = Callable[..., pl.Trainer]


@pytest.mark.parametrize("shape", [(6, 3, 3, 3), (10, 32)])
def test_a_direction_has_the_norms_of_the_filters(shape: tuple[int, ...]) -> None:
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(shape, generator=generator) * torch.arange(shape[0]).view(-1, *[1] * (len(shape) - 1))
    direction = filter_normalized(weight, generator)
    torch.testing.assert_close(direction.flatten(1).norm(dim=1), weight.flatten(1).norm(dim=1))
    assert not direction[0].any()  # a filter of zeros does not move
    cosine = F.cosine_similarity(direction.flatten(), weight.flatten(), dim=0)
    assert abs(cosine) < 0.3


def test_the_center_is_the_network_s_own_loss_and_the_rest_that_of_moved_convolutions_and_head(fit: Fit) -> None:
    surface, own = LossSurface(images=128, points=5, extent=0.8, seed=7), FinalLoss(images=128)
    trainer = fit(surface, own)
    grid = surface.measures["surface"]
    assert grid["a"] == grid["b"] == pytest.approx([-0.8, -0.4, 0.0, 0.4, 0.8])
    assert surface.measures["surface_center"] == grid["loss"][2][2] == own.measures["final_loss"]
    module, data = trainer.lightning_module, trainer.datamodule  # type: ignore[attr-defined]
    assert isinstance(module, Classifier)
    network, generator = copy.deepcopy(module.network).train(), torch.Generator().manual_seed(7)
    directions = [
        [filter_normalized(weight.detach(), generator) for weight in layers(network).values()] for _ in range(2)
    ]
    with torch.no_grad():
        for weight, first, second in zip(layers(network).values(), *directions, strict=True):
            weight += 0.4 * first - 0.8 * second
        logits = torch.cat([network(part) for part in data.normalized(128).split(64)])
    expected = F.cross_entropy(logits, data.sample(128).labels).item()
    assert grid["loss"][3][0] == pytest.approx(expected, rel=1e-5)
    assert abs(grid["loss"][3][0] - grid["loss"][2][2]) > 1e-3


def test_rise_and_width_describe_the_grid(fit: Fit) -> None:
    probe = LossSurface(images=64, points=3, extent=3.0, seed=0)
    # Logits sixteen times as large as those of the experiment: the moved network is wrong by more than 1.
    fit(probe, overrides=("model.logit_scale=2.0",))
    losses = [loss for row in probe.measures["surface"]["loss"] for loss in row]
    center = losses.pop(4)
    assert probe.measures["surface_rise"] == pytest.approx(sum(losses) / 8 - center)
    inside = 1 + sum(loss < center + 1 for loss in losses)
    assert probe.measures["surface_width"] == pytest.approx(inside / 9)
    assert inside < 9
