"""Checks that need a CUDA GPU: skipped, with the reason, where there is none. `make accept` runs them, with a table."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from helpers import composed_of
from onecycle.config.schema import TrainOptions
from onecycle.config.validate import validated

HERE = Path(__file__).parent
MEASURED: list[str] = []


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.gpu)
            if not torch.cuda.is_available():
                item.add_marker(pytest.mark.skip(reason="torch finds no CUDA GPU"))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if MEASURED:
        terminalreporter.section(f"measured on {torch.cuda.get_device_name()}, torch {torch.__version__}")
        for line in MEASURED:
            terminalreporter.write_line(line)


@pytest.fixture
def measured(request: pytest.FixtureRequest) -> Callable[..., None]:
    """measured("text", value) adds a line to the table that stands after the tests."""
    return lambda *words: MEASURED.append(f"{request.node.name}: {' '.join(map(str, words))}")


@pytest.fixture
def on_gpu(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., TrainOptions]:
    """A validated configuration of an experiment on drawn images: on_gpu("dawnbench", "batch_size=256")."""
    quiet: list[Any] = ["callbacks.progress=null", "callbacks.figures=null", f"output={tmp_path}"]
    cache = tmp_path_factory.getbasetemp() / "cache"
    drawn = ["data=synthetic", "data.source.train_size=12800", "data.source.test_size=1000", f"data.cache={cache}"]

    def made(experiment: str, *overrides: str) -> TrainOptions:
        return validated(composed_of(f"experiment={experiment}", *drawn, *quiet, *overrides))

    return made
