from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from hydra import compose, initialize_config_dir

from onecycle.config.compose import CONF, register_resolvers
from onecycle.config.schema import TrainOptions
from onecycle.config.validate import validated

Compose = Callable[..., Any]
register_resolvers()


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> Iterator[None]:
    # Tiny tensors: a second thread costs more than it brings, above all on a busy machine.
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Overrides for a tiny run on the embedded data set, its cache shared by all tests."""
    cache = tmp_path_factory.mktemp("cache")
    return [
        "experiment=debug", f"data.cache={cache}", "data.source.train_size=320", "trainer.detect_anomaly=false",
        "callbacks.figures=null", "callbacks.progress=null",
    ]  # fmt: skip


@pytest.fixture
def tiny(tmp_path: Path, drawn: list[str]) -> Compose:
    """A validated configuration that trains in a second: tiny("seed=1")."""

    def composed(*overrides: str) -> TrainOptions:
        with initialize_config_dir(version_base="1.3", config_dir=str(CONF)):
            return validated(compose("train", overrides=[*drawn, f"output={tmp_path}", *overrides]))

    return composed
