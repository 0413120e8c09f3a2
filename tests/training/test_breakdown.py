from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from onecycle.data.datamodule import Batch
from onecycle.training import breakdown


@pytest.mark.parametrize(
    ("names", "part"),
    [
        (["aten::mkldnn_convolution", "aten::conv2d"], "convolution"),
        (["aten::native_batch_norm_backward"], "norm"),
        (["aten::threshold_backward", "ReluBackward0"], "activation"),
        (["aten::fill_", "aten::zero_", "aten::max_pool2d_with_indices_backward"], "pooling"),
        (["aten::mm", "aten::addmm", "aten::linear"], "head and loss"),
        (["aten::copy_", "aten::_to_copy", "aten::to"], "casts"),
        (["aten::mm", "aten::matmul", "onecycle.optimizer"], "optimizer"),
        (["aten::index_select", "onecycle.data"], "data"),
        (["aten::add_"], "other"),
    ],
)
def test_an_operator_belongs_to_its_own_component_or_to_that_of_its_caller(names: list[str], part: str) -> None:
    event: Any = None
    for name in reversed(names):  # each is called by the next one
        event = SimpleNamespace(name=name, cpu_parent=event)
    assert breakdown.component(event) == part


def test_the_parts_of_a_step_are_found_and_sorted() -> None:
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.LazyLinear(10)
    )
    batches = [Batch(torch.randn(16, 3, 16, 16), torch.randint(0, 10, (16,))) for _ in range(3)]
    network(batches[0].images)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
    seconds = breakdown.of_steps(network, optimizer, batches, steps=4)
    assert set(seconds) == {*breakdown.WORDS, breakdown.OTHER}
    assert list(seconds.values()) == sorted(seconds.values(), reverse=True)
    assert all(seconds[part] > 0 for part in ("convolution", "norm", "activation", "pooling", "optimizer", "data"))
    assert seconds["convolution"] > seconds["data"]
