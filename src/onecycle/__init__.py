"""ResNet-9 on CIFAR subsets in one learning-rate cycle: a template and a laboratory."""

from typing import Any


def __getattr__(name: str) -> Any:
    """The Python API, imported only when it is asked for: `load` needs torch, `train` needs Hydra, `records` pandas."""
    if name == "load":
        from onecycle.runs.trained import load_network

        return load_network
    if name == "train":
        from onecycle.cli import train_by_words

        return train_by_words
    if name == "records":
        from onecycle.runs.table import records

        return records
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
