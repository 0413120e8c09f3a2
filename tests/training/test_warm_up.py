from types import SimpleNamespace
from typing import Any

import torch
from lightning.pytorch.plugins.precision import Precision

from helpers import composed_of
from onecycle import build
from onecycle.config.validate import validated
from onecycle.training.warm_up import warm_up


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
    warm_up(module, trainer)
    assert seen == [(True, (16, 3, side, side)) for side in (20, 26, 32) for _ in range(3)] + [(False, (32, 3, 32, 32))]
    assert all(torch.equal(before[name], tensor) for name, tensor in module.state_dict().items())
    assert torch.equal(random, torch.get_rng_state())
    assert not optimizer.state
    assert all(parameter.grad is None for parameter in module.parameters())
    fresh = datamodule.loader("train", torch.device("cpu"))
    assert all(
        torch.equal(*pair) for pair in zip(next(iter(datamodule.train_dataloader())), next(iter(fresh)), strict=True)
    )
