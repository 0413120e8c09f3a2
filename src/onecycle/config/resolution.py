"""Which values of a composed configuration cannot be resolved, and why."""

import re
from collections.abc import Mapping
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

Failures = dict[str, str]  # key → reason


def failures(config: DictConfig, error: Exception) -> Failures:
    """Every key whose value cannot be resolved; where none is found, `error`, by which that was noticed, under ""."""
    failed: Failures = {}
    for key in _leaves(OmegaConf.to_container(config, resolve=False)):
        try:
            OmegaConf.select(config, key, throw_on_missing=True)
        except (OmegaConfBaseException, ValueError) as reason:
            failed[key] = _first_line(reason)
    return failed or {"": _first_line(error)}


def lines(failed: Mapping[str, str]) -> list[str]:
    """A line for each reason, at the first key that has it: other keys may follow from that one."""
    first = {reason: key for key, reason in reversed(list(failed.items()))}
    return [f"{key}: {reason}".removeprefix(": ") for key, reason in failed.items() if first[reason] == key]


def _first_line(error: Exception) -> str:
    said = [line.strip() for line in str(error).splitlines() if line.strip()]
    return re.sub(r"^\w+ raised while resolving interpolation: ", "", said[0]) if said else type(error).__name__


def _leaves(node: Any, key: str = "") -> list[str]:
    """The dotted keys of what has to be resolved."""
    if isinstance(node, Mapping):
        return [leaf for name, child in node.items() for leaf in _leaves(child, f"{key}.{name}".lstrip("."))]
    return [key] if isinstance(node, str) and ("${" in node or node == "???") else []
