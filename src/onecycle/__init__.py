"""ResNet-9 on CIFAR subsets in one learning-rate cycle: a template and a laboratory."""

from typing import Any


def __getattr__(name: str) -> Any:
    """`load`, imported only when it is asked for: it needs torch."""
    if name == "load":
        from onecycle.runs.network import load_network

        return load_network
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
