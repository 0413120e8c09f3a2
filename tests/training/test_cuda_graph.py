"""The path of the graph on a CPU: what a GPU would record is called again instead."""

from pathlib import Path
from typing import Any

import pytest

from helpers import only_folder, rows, same, weights
from onecycle.training import classifier, cuda_graph
from onecycle.training_run import train

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

    monkeypatch.setattr(cuda_graph, "record", record)
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
