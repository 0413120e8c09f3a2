"""ResNet-9 on CIFAR subsets in one learning-rate cycle: a template and a laboratory."""

from typing import Any


def __getattr__(name: str) -> Any:
    """The Python API, imported only when it is asked for: `load` needs torch, `train` and `records` need Hydra."""
    if name == "load":
        from onecycle.runs.network import load_network

        return load_network
    if name in ("train", "records"):
        from onecycle import api

        return api.train_by_words if name == "train" else api.records
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
