from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from onecycle.config.hyperparameters import Hyperparameters
from onecycle.data.datamodule import Batch
from onecycle.errors import ConfigError
from onecycle.training.classifier import Classifier, resized
from onecycle.training.schedule import Constant
from onecycle.training.tasks import Classification, accuracy

NO_FACTORS = {kind: {"lr": 1.0, "weight_decay": 1.0} for kind in ("bias", "norm_scale", "head")}


class Tiny(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.norm = nn.BatchNorm2d(4)
        self.head = nn.Linear(4, 5, bias=False)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.norm(self.conv(images)).mean((2, 3)))


def classifier(**changes: Any) -> Classifier:
    settings: dict[str, Any] = {
        "schedule": Constant(peak_lr=0.1), "hyperparameters": Hyperparameters(0.1, 0.9, 5e-4, 8), "groups": NO_FACTORS,
        "optimizer": {"_target_": "torch.optim.SGD", "nesterov": True}, "total_steps": 10, "task": Classification(),
        "resizing": None, "tta": "flip", "compile_network": False, "cuda_graph": False,
    }  # fmt: skip
    torch.manual_seed(0)
    return Classifier(Tiny(), **(settings | changes))


def batch() -> Batch:
    generator = torch.Generator().manual_seed(0)
    return Batch(torch.randn(8, 3, 8, 8, generator=generator), torch.randint(0, 5, (8,), generator=generator))


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_the_loss_is_cross_entropy_mixed_with_the_uniform_answer(smoothing: float) -> None:
    module, data = classifier(task=Classification(smoothing)), batch()
    log_p = module(data.images).log_softmax(1)
    hard = -log_p[torch.arange(8), data.labels].mean()
    expected = (1 - smoothing) * hard + smoothing * -log_p.mean()
    torch.testing.assert_close(module.training_step(data, 0), expected)
    right = (log_p.argmax(1) == data.labels).sum()
    torch.testing.assert_close(module.epoch_sums, torch.stack([expected.detach() * 8, right, torch.tensor(8.0)]))


def test_biases_can_have_64_times_the_rate_and_a_64th_of_the_decay() -> None:
    groups = NO_FACTORS | {"bias": {"lr": 64.0, "weight_decay": 1 / 64}}
    optimizer = classifier(groups=groups).configure_optimizers()
    shown = {g["kind"]: (g["lr_multiplier"], g["weight_decay"]) for g in optimizer.param_groups}
    assert shown == {
        "weights": (1.0, 5e-4), "bias": (64.0, 5e-4 / 64), "norm_scale": (1.0, 5e-4), "head": (1.0, 5e-4),
    }  # fmt: skip
    sizes = {g["kind"]: sum(p.numel() for p in g["params"]) for g in optimizer.param_groups}
    assert sizes == {"weights": 108, "bias": 8, "norm_scale": 4, "head": 20}


def test_test_time_augmentation_averages_the_logits_of_image_and_mirror_image() -> None:
    module, data = classifier().eval(), batch()
    module.trainer = SimpleNamespace(world_size=1)  # type: ignore[assignment]
    with torch.no_grad():
        module.test_step(data, 0)
        module.test_step(data, 1)
        module.on_test_epoch_end()
        plain, mirrored = module(data.images), module(data.images.flip(3))
    assert torch.equal(module.test_logits["plain"], torch.cat([plain, plain]))
    torch.testing.assert_close(module.test_logits["tta"], torch.cat([(plain + mirrored) / 2] * 2))
    metrics = module.test_metrics()
    assert metrics["accuracy"] == (plain.argmax(1) == data.labels).float().mean().item()
    assert metrics["loss"] == pytest.approx(nn.functional.cross_entropy(plain, data.labels).item())


def test_a_network_that_answers_nan_is_never_right() -> None:
    logits = torch.tensor([[float("nan"), 0.0], [2.0, 1.0], [0.0, float("inf")]])
    assert accuracy(logits, torch.tensor([0, 0, 1])) == pytest.approx(1 / 3)


def test_each_parameter_group_gets_its_multiple_of_the_learning_rate() -> None:
    module = classifier()
    groups = [{"lr": 9.0, "momentum": 0.0, "lr_multiplier": multiplier} for multiplier in (1.0, 64.0)]
    trainer = SimpleNamespace(optimizers=[SimpleNamespace(param_groups=groups)], global_step=0)
    module.trainer = trainer  # type: ignore[assignment]
    module.on_train_batch_start(batch(), 0)
    assert [(group["lr"], group["momentum"]) for group in groups] == [(0.1, 0.9), (6.4, 0.9)]


def test_an_optimizer_gets_momentum_if_it_takes_one_and_what_it_refuses_is_an_error_of_its_key() -> None:
    adam = classifier(optimizer={"_target_": "torch.optim.Adam"}).configure_optimizers()
    assert "momentum" not in adam.param_groups[0]
    assert adam.param_groups[0]["betas"] == (0.9, 0.999)
    with pytest.raises(ConfigError, match=r"^optimizer\._target_=torch\.optim\.SGD: .*momentum"):
        classifier(optimizer={"_target_": "torch.optim.SGD", "momentum": 0.5}).configure_optimizers()


SIDES: list[list[float]] = [[0, 8], [0.5, 12], [0.75, 16]]


@pytest.mark.parametrize(("t", "side"), [(0.0, 8), (0.49999, 8), (0.5, 12), (0.74, 12), (0.75, 16), (1.0, 16)])
def test_images_have_the_side_of_the_progress_and_stay_untouched_where_they_have_it(t: float, side: int) -> None:
    images = torch.zeros(2, 3, 16, 16)
    small = resized(images, SIDES, t)
    assert small.shape == (2, 3, side, side)
    assert (small is images) == (side == 16)


def test_half_the_side_weighs_the_pixels_around_each_new_one() -> None:
    # A triangle of width 2 over the old pixels around each new centre: 1, 3, 3, 1 eighths, less beyond the border.
    small = resized(torch.arange(8.0).expand(1, 1, 8, 8), [[0, 4]], 0.0)
    expected = torch.tensor([(0 * 3 + 1 * 3 + 2 * 1) / 7, 2.5, 4.5, (5 * 1 + 6 * 3 + 7 * 3) / 7])
    torch.testing.assert_close(small[0, 0], expected.expand(4, 4))
    assert small.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize(("side", "smaller"), [(32, 20), (96, 60)])
def test_a_fraction_of_the_side_is_that_many_pixels(side: int, smaller: int) -> None:
    images = torch.rand(2, 3, side, side, generator=torch.Generator().manual_seed(0))
    made = resized(images, [[0, 0.625], [0.5, 1.0]], 0.4)
    assert made.shape == (2, 3, smaller, smaller)
    assert torch.equal(made, resized(images, [[0, smaller]], 0.4))
    assert resized(images, [[0, 0.625], [0.5, 1.0]], 0.5) is images
