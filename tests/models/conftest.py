from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from onecycle.models.resnet9 import ResNet9

CONF = Path(__file__).parents[2] / "conf" / "model"


@cache
def arguments_of(name: str) -> dict[str, Any]:
    with initialize_config_dir(str(CONF), version_base="1.3"):
        arguments = OmegaConf.to_container(compose(name))
    assert isinstance(arguments, dict)
    assert arguments.pop("_target_") == "onecycle.models.resnet9.ResNet9"
    return {str(key): value for key, value in arguments.items()}


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)


@pytest.fixture
def arguments() -> dict[str, Any]:
    """The options of conf/model/resnet9.yaml."""
    return arguments_of("resnet9")


@pytest.fixture
def network() -> Callable[..., ResNet9]:
    """Return a factory: the network of conf/model/<name>.yaml with ten classes and the given changes."""

    def build(name: str = "resnet9", **changes: Any) -> ResNet9:
        torch.manual_seed(0)
        return ResNet9(**{"classes": 10, **arguments_of(name), **changes})

    return build
