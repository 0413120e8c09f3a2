from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from omegaconf import DictConfig

from helpers import composed_of
from onecycle.config.compose import register_resolvers
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
def composed(tmp_path: Path, drawn: list[str]) -> Compose:
    """A composed configuration that trains in a second: composed("seed=1")."""

    def made(*overrides: str) -> DictConfig:
        return composed_of(*drawn, f"output={tmp_path}", *overrides)

    return made


@pytest.fixture
def tiny(composed: Compose) -> Compose:
    """The same, validated: tiny("seed=1")."""
    return lambda *overrides: validated(composed(*overrides))
