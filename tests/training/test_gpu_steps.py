"""The GPU's way of taking steps, on a CPU: what a GPU would record is called again instead."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import lightning.pytorch as pl
import pytest
import torch
from lightning.pytorch.plugins.precision import Precision

from helpers import composed_of, only_folder, rows, same, weights
from onecycle import build
from onecycle.config.hyperparameters import Hyperparameters
from onecycle.config.validate import validated
from onecycle.models.resnet9 import ResNet9
from onecycle.training import classifier, gpu
from onecycle.training.muon import Muon
from onecycle.training.schedule import Constant, Schedule
from onecycle.training.tasks import Classification
from onecycle.training_run import train


def test_a_warm_up_takes_steps_of_every_size_and_leaves_nothing_behind() -> None:
    small = ["data=synthetic", "data.source.train_size=64", "data.source.test_size=32", "batch_size=16"]
    config = validated(composed_of("experiment=speedrun", *small, "model.channels=[8,8,8,8]"))
    _, dataset = build.load_dataset(config)
    datamodule = build.build_datamodule(config, dataset)
    module = build.build_classifier(config, datamodule, steps=10)
    module.is_compiled = True  # else a CPU has nothing to warm up
    optimizer = module.configure_optimizers()
    trainer: Any = SimpleNamespace(
        datamodule=datamodule, limit_val_batches=1.0, optimizers=[optimizer], precision_plugin=Precision()
    )
    seen: list[tuple[bool, tuple[int, ...]]] = []
    module.network.register_forward_pre_hook(lambda net, inputs: seen.append((net.training, tuple(inputs[0].shape))))
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    random = torch.get_rng_state()
    gpu.warm_up(module, trainer)
    assert seen == [(True, (16, 3, side, side)) for side in (20, 26, 32) for _ in range(3)] + [(False, (32, 3, 32, 32))]
    assert all(torch.equal(before[name], tensor) for name, tensor in module.state_dict().items())
    assert torch.equal(random, torch.get_rng_state())
    assert not optimizer.state
    assert all(parameter.grad is None for parameter in module.parameters())
    fresh = datamodule.loader("train", torch.device("cpu"))
    assert all(
        torch.equal(*pair) for pair in zip(next(iter(datamodule.train_dataloader())), next(iter(fresh)), strict=True)
    )


PARTS = {
    "sgd": ["optimizer.fused=true", "ema={decay_per_step:0.9,every_n_steps:2}"],
    "muon": ["optimizer=muon", "schedule.peak_lr=0.2", "resizing=[[0,0.5],[0.5,1.0]]"],
}


@pytest.fixture
def graphed(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    recorded: list[Any] = []

    def record(work: Any, pool: Any) -> tuple[Any, Any]:
        recorded.append(work)
        return work, "pool"

    monkeypatch.setattr(gpu, "record", record)
    monkeypatch.setattr(classifier, "can_be_graphed", lambda *_: True)
    return recorded


@pytest.mark.parametrize("part", PARTS)
def test_graphed_steps_are_those_of_lightning(
    tiny: Any, tmp_path: Path, graphed: list[Any], part: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tiny(*PARTS[part], "trainer.max_steps=12")
    train(config, [], sweep=tmp_path / "graphed", progress=False)
    assert len(graphed) == (2 if part == "muon" else 1)  # one for each side of the images
    monkeypatch.setattr(classifier, "can_be_graphed", lambda *_: False)
    train(config, [], sweep=tmp_path / "plain", progress=False)
    one, other = only_folder(tmp_path / "graphed"), only_folder(tmp_path / "plain")
    assert rows(one) == rows(other)
    assert same(weights(one), weights(other))


class ReadsGradients(pl.Callback):
    def on_before_optimizer_step(self, *event: Any) -> None:
        pass


class Cycled(Constant):
    def momentum(self, t: float, base: float) -> float:
        return base * t


def muon(parameters: Any) -> torch.optim.Optimizer:
    return Muon(parameters, lr=0.1, momentum=0.6, iterations=3)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, True),
        ({"optimizer": muon}, True),
        ({"trainer": {"precision": "bf16-mixed"}}, True),
        ({"device": "cpu"}, False),
        ({"network": torch.nn.Linear(2, 2)}, False),
        ({"schedule": Cycled(peak_lr=0.1)}, False),
        ({"optimizer": lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9)}, False),
        ({"optimizer": lambda p: torch.optim.AdamW(p, fused=True)}, False),
        ({"trainer": {"precision": "64-true"}}, False),
        ({"trainer": {"strategy": "ddp"}}, False),
        ({"trainer": {"gradient_clip_val": 1.0}}, False),
        ({"trainer": {"detect_anomaly": True}}, False),
        ({"trainer": {"callbacks": [ReadsGradients()]}}, False),
    ],
)
def test_a_step_is_graphed_only_where_nothing_in_it_needs_the_host(changes: dict[str, Any], expected: bool) -> None:
    config = validated(composed_of("model=resnet9_w4"))
    network = changes.get("network") or build.instantiate(config.model, ResNet9, "model", classes=10)
    schedule: Schedule = changes.get("schedule") or Constant(peak_lr=0.1)
    options = {"accelerator": "cpu", "devices": 1, "logger": False, "enable_checkpointing": False}
    trainer = pl.Trainer(**(options | changes.get("trainer", {})))
    optimizer = changes.get("optimizer") or (lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, fused=True))
    trainer.strategy.optimizers = [optimizer(network.parameters())]
    module = SimpleNamespace(
        device=torch.device(changes.get("device", "cuda")), network=network, schedule=schedule,
        task=Classification(), point=Hyperparameters(0.1, 0.9, 5e-4, 8),
    )  # fmt: skip
    assert gpu.can_be_graphed(module, trainer) == expected
