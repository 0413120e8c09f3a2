"""What makes two runs the same run, and how a run of a sweep is called."""

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

# What cannot change a result: names, places, what is shown, how often it is written down, which device computes.
NEUTRAL_KEYS = (
    "name", "output", "resume", "study",
    "data.root", "data.cache", "data.fallback", "data.stands_in_for",
    "data.source.root", "data.source.download",
    "logger", "callbacks.progress", "callbacks.training_log", "callbacks.checkpoint", "callbacks.figures",
    "evaluation.batch_size", "evaluation.every_n_epochs",
    "trainer.accelerator", "trainer.threads",
    "trainer.log_every_n_steps", "trainer.benchmark", "trainer.deterministic", "trainer.detect_anomaly",
)  # fmt: skip


def identity(config: Mapping[str, Any], data_key: Mapping[str, Any]) -> str:
    """12 hex digits over everything that can change a run's result.

    config: the resolved configuration, with its precision chosen. data_key: what tells the data set from others.
    """
    return hashlib.sha256(json.dumps([_relevant(config), data_key], sort_keys=True).encode()).hexdigest()[:12]


def comparable(config: Mapping[str, Any], data_key: Mapping[str, Any]) -> dict[str, Any]:
    """What `identity` is made of, key by key; those of the data set begin with "data set:"."""
    return _relevant(config) | {f"data set: {key}": value for key, value in _flat(data_key).items()}


def _relevant(config: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in _flat(config).items() if not is_neutral(key)}


def _flat(node: Any, prefix: str = "") -> dict[str, Any]:
    if isinstance(node, Mapping) and node:
        return {k: v for name, child in node.items() for k, v in _flat(child, f"{prefix}{name}.").items()}
    return {prefix.rstrip("."): node}


def is_neutral(key: str) -> bool:
    """Whether a key of the configuration cannot change a result."""
    return any(key == neutral or key.startswith(f"{neutral}.") for neutral in NEUTRAL_KEYS)


def relevant(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """The part of a configuration that can change a run's result, as nested as it was."""
    kept: dict[str, Any] = {}
    for name, value in config.items():
        if not is_neutral(f"{prefix}{name}"):
            kept[name] = relevant(value, f"{prefix}{name}.") if isinstance(value, Mapping) and value else value
    return kept


def settings(overrides: Sequence[str]) -> tuple[str, ...]:
    """The overrides that can change a result, in their order."""
    return tuple(override for override in overrides if not is_neutral(override.lstrip("+~").partition("=")[0]))


def short_name(overrides: Sequence[str]) -> str:
    """A readable folder name from a sweep's overrides: ["schedule.peak_lr=0.1", "seed=0"] → "peak_lr=0.1,seed=0"."""
    parts = []
    for override in overrides:
        key, _, value = override.lstrip("+~").partition("=")
        if not is_neutral(key) and key != "experiment":
            parts.append(f"{key.rsplit('.', 1)[-1]}={value}")
    return folder_name(",".join(parts)) or "run"


def folder_name(text: str) -> str:
    """A text as a folder's name: at most 100 letters, digits and signs that no shell or file system minds."""
    return re.sub(r"[^\w=.,+-]+", "_", text)[:100]
