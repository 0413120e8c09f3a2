"""What several tests need: configurations, and what a run leaves in its folder."""

import csv
import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig

from onecycle.config.compose import CONF


class CrashError(RuntimeError):
    pass


def composed_of(*words: str, name: str = "train") -> DictConfig:
    """The configuration that a command line makes."""
    with initialize_config_dir(version_base="1.3", config_dir=str(CONF)):
        return compose(name, overrides=list(words))


def only_folder(parent: Path) -> Path:
    (folder,) = (path for path in parent.iterdir() if path.is_dir())
    return folder


def record_of(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "result.json").read_text())


def rows(folder: Path) -> list[dict[str, str]]:
    """The rows of metrics.csv, without the speed, which no two runs share."""
    with (folder / "metrics.csv").open() as file:
        return [{k: v for k, v in row.items() if k != "images_per_second"} for row in csv.DictReader(file)]


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]


def same(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def plain_values(node: Any) -> Any:
    """Nested values that can be compared: tensors as their types and numbers."""
    if isinstance(node, torch.Tensor):
        return str(node.dtype), node.tolist()
    if isinstance(node, dict):
        return {key: plain_values(child) for key, child in node.items()}
    return type(node)(map(plain_values, node)) if isinstance(node, list | tuple) else node


def warnings_of(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.message for record in caplog.records if record.levelno >= logging.WARNING]


def noise(seed: int, *shape: int) -> np.ndarray:
    """Random bytes, as the pixels of images."""
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)
