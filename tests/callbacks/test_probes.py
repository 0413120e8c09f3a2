import copy
import json
import math
import random
from collections.abc import Callable
from typing import Any

import lightning.pytorch as pl
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from lightning.pytorch.plugins import MixedPrecision
from torch import Tensor

from foreign import Crash, CrashError
from onecycle.callbacks.probes import FinalLoss, GradientNorms, Probe, Recency, StepBreakdown, last_batches, layers
from onecycle.callbacks.surface import LossSurface
from onecycle.callbacks.twin import Twin
from onecycle.data.augment import Normalizer
from onecycle.data.datamodule import Batch
from onecycle.models.resnet9 import ResNet9
from onecycle.training import breakdown
from onecycle.training.classifier import Classifier

Fit = Callable[..., pl.Trainer]


def probes() -> list[Probe]:
    return [
        FinalLoss(images=100, test_images=50), Recency(average=2), GradientNorms(at=[0, 0.5, 1.0]),
        LossSurface(images=64, points=3, extent=0.5, seed=0), Twin(lr=4, weight_decay=0.25, weight_scale=2),
        StepBreakdown(steps=1),
    ]  # fmt: skip


LAYERS = [
    "prep", "layer1", "layer1.residual.first", "layer1.residual.second", "layer2", "layer3",
    "layer3.residual.first", "layer3.residual.second", "head",
]  # fmt: skip


class Witness(pl.Callback):
    """Keeps the sums of the batches' images and labels as they come to be trained on."""

    def __init__(self) -> None:
        self.seen: list[tuple[float, int]] = []
        self.first: Batch | None = None

    def on_train_batch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, index: int) -> None:
        self.first = self.first or batch
        self.seen.append(checksum(batch))


def checksum(batch: Batch) -> tuple[float, int]:
    # Positions count: the same images in another order, or mirrored, have another sum.
    weights = torch.arange(batch.images.numel(), dtype=torch.float64).view(batch.images.shape)
    order = torch.arange(len(batch.labels))
    return (batch.images.double() * weights).sum().item(), int((batch.labels * order).sum())


def network_of(trainer: pl.Trainer) -> torch.nn.Module:
    module = trainer.lightning_module
    assert isinstance(module, Classifier)
    return module.network


def everything(trainer: pl.Trainer) -> list[Tensor]:
    """All that a run leaves behind, as tensors."""
    module, data = trainer.lightning_module, trainer.datamodule  # type: ignore[attr-defined]
    assert isinstance(module, Classifier)
    momenta = [state["momentum_buffer"] for state in trainer.optimizers[0].state.values()]
    loader = data.train_dataloader().state_dict()
    numpy_state: Any = np.random.get_state(legacy=False)  # noqa: NPY002 (the state that others may draw from)
    return [
        *module.network.state_dict().values(), *momenta, module.epoch_sums, module.window_sums,
        torch.tensor([loader[name] for name in ("epoch", "batch", "seed")]), torch.get_rng_state(),
        torch.from_numpy(numpy_state["state"]["key"].astype(np.int64)), torch.tensor(random.getstate()[1]),
        torch.tensor([part.training for part in module.modules()]),
    ]  # fmt: skip


@pytest.mark.parametrize(
    "recipe", [(), ("ema={decay_per_step:0.9,every_n_steps:2}", "model.norm=ghost", "trainer.max_epochs=1.4")]
)
def test_probes_change_no_bit_of_a_run(recipe: tuple[str, ...], fit: Fit) -> None:
    left = []
    for callbacks in ([], probes()):
        torch.manual_seed(1)
        np.random.seed(1)  # noqa: NPY002
        random.seed(1)
        left.append(everything(fit(*callbacks, overrides=recipe)))
    assert all(torch.equal(plain, probed) for plain, probed in zip(*left, strict=True))


def test_probes_measure_a_diverged_run_as_json(fit: Fit) -> None:
    measuring = probes()
    trainer = fit(*measuring, overrides=("schedule.peak_lr=1e30", "callbacks.divergence.every_n_steps=1"))
    assert trainer.global_step < 10
    assert trainer.lightning_module.diverged
    for probe in measuring:
        assert probe.measures
        assert json.loads(json.dumps(probe.measures)).keys() == probe.measures.keys()
    surface = measuring[3].measures
    assert all(math.isnan(surface[f"surface_{name}"]) for name in ("center", "rise", "width"))


def test_probes_measure_in_the_precision_of_the_trainer_and_outside_its_clock(
    fit: Fit, monkeypatch: pytest.MonkeyPatch
) -> None:
    original, mixed, clock = ResNet9.forward, [], []

    class Clock(Probe):
        def measured(self, trainer: pl.Trainer, module: Classifier) -> dict[str, Any]:
            clock.append(module.elapsed())
            return {}

    def forward(self: ResNet9, images: Tensor) -> Tensor:
        mixed.append(torch.is_autocast_enabled("cpu"))
        return original(self, images)

    monkeypatch.setattr(ResNet9, "forward", forward)
    measuring = probes()
    trainer = fit(Clock(), *measuring, Clock(), overrides=("trainer.precision=bf16-mixed", "trainer.max_epochs=0.4"))
    # Two steps of the run and of the twin; two batches of training images; the last two; 3 × 3 points; three profiled.
    assert len(mixed) >= 2 + 2 + 2 + 2 + 9 + 3
    assert all(mixed)
    assert "NaN" not in json.dumps([probe.measures for probe in measuring])
    assert clock == [trainer.lightning_module.fit_seconds] * 2


def test_a_run_resumed_after_its_last_step_is_measured_again(fit: Fit) -> None:
    first, again = probes()[:-1], probes()[:-1]
    overrides = ("ema={decay_per_step:0.9,every_n_steps:2}",)
    fit(*first, overrides=overrides, folder="run")
    assert fit(*again, overrides=overrides, folder="run").global_step == 10
    assert [probe.measures for probe in again] == [probe.measures for probe in first]


@pytest.mark.parametrize(("images", "used"), [(150, (128, 128)), (40, (40, 40)), (10**6, (320, 192))])
def test_the_final_loss_is_that_of_the_averaged_weights_on_plain_images_in_train_mode(
    images: int, used: tuple[int, int], fit: Fit
) -> None:
    probe = FinalLoss(images, test_images=images)
    trainer = fit(probe, overrides=("label_smoothing=0.2", "ema={decay_per_step:0.9,every_n_steps:2}"))
    network = copy.deepcopy(network_of(trainer)).train()
    data = trainer.datamodule  # type: ignore[attr-defined]
    mean, std = data.normalization
    for split, prefix, count in zip(("train", "test"), ("final", "final_test"), used, strict=True):
        sample = data.sample(images, split)
        normalized = Normalizer(mean, std, torch.device("cpu"))(sample.pixels[:count])
        labels = sample.labels[:count]
        logits = torch.cat([network(part) for part in normalized.split(64)])
        assert probe.measures[f"{prefix}_loss"] == pytest.approx(F.cross_entropy(logits, labels).item(), rel=1e-5)
        right = (logits.argmax(1) == labels).sum().item()
        assert probe.measures[f"{prefix}_accuracy"] == pytest.approx(100 * right / count)


@pytest.mark.parametrize(("epochs", "steps"), [(0.6, 3), (1.4, 5), (2, 5)])
def test_the_rebuilt_batches_are_the_last_that_were_trained_on(epochs: float, steps: int, fit: Fit) -> None:
    witness = Witness()
    overrides = (f"trainer.max_epochs={epochs}", "data.augment.flip=alternating", "data.augment.shift=2")
    trainer = fit(witness, overrides=overrides)
    assert len(set(witness.seen)) == len(witness.seen) == round(5 * epochs)
    assert [checksum(batch) for batch in last_batches(trainer)] == witness.seen[-steps:]


def test_recency_is_the_loss_of_the_frozen_network_by_batch_oldest_first(fit: Fit) -> None:
    probe = Recency(average=8)
    trainer = fit(probe, overrides=("batch_size=16", "trainer.max_epochs=1.5", "label_smoothing=0.1"))
    network = copy.deepcopy(network_of(trainer)).train()
    with torch.no_grad():
        losses = [F.cross_entropy(network(batch.images), batch.labels).item() for batch in last_batches(trainer)]
    means = [np.mean(losses[:8]), np.mean(losses[8:16]), np.mean(losses[16:])]
    oldest, newest = losses[:2], losses[-2:]
    error = math.sqrt((np.var(oldest, ddof=1) + np.var(newest, ddof=1)) / 2)
    assert probe.measures["recency_batches"] == 20
    assert probe.measures["recency"] == pytest.approx(means, rel=1e-5)
    assert probe.measures["recency_gap"] == pytest.approx(np.mean(oldest) - np.mean(newest), rel=1e-3)
    assert probe.measures["recency_gap_error"] == pytest.approx(error, rel=1e-3)
    one = Recency(average=1)  # batch: no gap, and no spread
    fit(one, overrides=("batch_size=320",))
    assert one.measures["recency_gap"] == 0
    assert math.isnan(one.measures["recency_gap_error"])


@pytest.mark.parametrize("clip", ["null", "1e-3"])
def test_gradient_norms_are_those_of_the_step_before_clipping(
    clip: str, fit: Fit, monkeypatch: pytest.MonkeyPatch
) -> None:
    probe, witness = GradientNorms(at=[0], every_n_steps=4), Witness()
    logged: list[tuple[int, dict[str, float]]] = []
    monkeypatch.setattr(
        Classifier, "log_now", lambda module, metrics: logged.append((module.global_step, dict(metrics)))
    )
    start: list[torch.nn.Module] = []

    class Start(pl.Callback):
        def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
            start.append(copy.deepcopy(network_of(trainer)))

    fit(probe, witness, Start(), overrides=("label_smoothing=0.1", f"trainer.gradient_clip_val={clip}"))
    assert witness.first is not None
    loss = F.cross_entropy(start[0](witness.first.images), witness.first.labels, label_smoothing=0.1)
    weights = layers(start[0])
    gradients = torch.autograd.grad(loss, list(weights.values()))
    table = probe.measures["gradient_norms"]["0"]
    assert table["layers"] == list(weights) == LAYERS
    assert table["values"] == pytest.approx([part.norm().item() for part in gradients], rel=1e-4)
    ratios = [(part.norm() / weight.norm()).item() for part, weight in zip(gradients, weights.values(), strict=True)]
    assert table["relative"] == pytest.approx(ratios, rel=1e-4)
    norms = [(step, row) for step, row in logged if "gradient_norm/prep" in row]
    assert [step for step, _ in norms] == [0, 4, 8]
    assert [norms[0][1][f"gradient_norm/{name}"] for name in LAYERS] == table["values"]
    assert norms[0][1]["weight_norm/head"] == pytest.approx(weights["head"].norm().item(), rel=1e-5)


@pytest.mark.parametrize("fused", ["true", "null"])
def test_gradient_norms_are_without_the_scale_of_16_mixed(fused: str, fit: Fit) -> None:
    exact, scaled = GradientNorms(at=[0]), GradientNorms(at=[0])
    plugin = MixedPrecision("16-mixed", "cpu", scaler=torch.amp.GradScaler("cpu", init_scale=1024.0))
    overrides = (f"optimizer.fused={fused}", "trainer.max_epochs=0.4")
    fit(exact, overrides=overrides)
    fit(scaled, overrides=overrides, plugin=plugin)
    expected = exact.measures["gradient_norms"]["0"]["values"]
    assert scaled.measures["gradient_norms"]["0"]["values"] == pytest.approx(expected, rel=0.05)


def test_gradient_norms_are_taken_at_the_named_fractions_and_kept_in_a_resumed_run(fit: Fit) -> None:
    whole, broken, resumed = (GradientNorms(at=[0, 0.35, 1.0]) for _ in range(3))
    fit(whole)
    with pytest.raises(CrashError):
        fit(broken, Crash(6), folder="run")
    fit(resumed, folder="run")
    assert list(whole.measures["gradient_norms"]) == ["0", "0.35", "1"]
    assert list(broken.measures["gradient_norms"]) == ["0", "0.35"]
    assert resumed.measures == whole.measures


def test_the_breakdown_is_that_of_the_run_s_own_steps(fit: Fit, monkeypatch: pytest.MonkeyPatch) -> None:
    called: dict[str, Any] = {}

    def of_steps(network: Any, optimizer: Any, loader: Any, **settings: Any) -> dict[str, float]:
        called.update(settings, optimizer=optimizer, loader=loader, network=network)
        return {"convolution": 0.002, "norm": 0.001}

    monkeypatch.setattr(breakdown, "of_steps", of_steps)
    probe = StepBreakdown(steps=3)
    trainer = fit(probe, overrides=("label_smoothing=0.1", "hyperparameters.groups.bias.lr=64"))
    assert probe.measures["breakdown_ms"] == pytest.approx({"convolution": 2.0, "norm": 1.0})
    assert probe.measures["step_ms"] == pytest.approx(3.0)
    assert (called["steps"], called["bf16"], called["loss"].__self__.label_smoothing) == (3, False, 0.1)
    own, main = called["optimizer"], trainer.optimizers[0]
    assert not own.state
    for copied, original in zip(own.param_groups, main.param_groups, strict=True):
        assert {k: v for k, v in copied.items() if k != "params"} == {
            k: v for k, v in original.items() if k != "params"
        }
    copies = [weight for group in own.param_groups for weight in group["params"]]
    assert set(map(id, copies)) == set(map(id, called["network"].parameters()))
    assert not set(map(id, copies)) & set(map(id, network_of(trainer).parameters()))
    assert (called["loader"].batch_size, called["loader"].epoch, called["loader"].batch) == (64, 0, 0)


@pytest.mark.parametrize("index", [-2, -1])
def test_scaled_gradients_are_refused_where_they_cannot_be_measured(index: int, fit: Fit) -> None:
    plugin = MixedPrecision("16-mixed", "cpu", scaler=torch.amp.GradScaler("cpu"))
    with pytest.raises(ValueError, match=r"trainer\.precision="):
        fit(probes()[index], plugin=plugin)
