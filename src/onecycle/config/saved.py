"""What a run left in its folder, which may come from a stranger: looked through before anything of it is used."""

import os
import re
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from onecycle.config import checks as config
from onecycle.errors import ConfigError, one_line

# Instructions to Hydra's own `instantiate`. No configuration of this program has them.
INSTRUCTIONS = ("_partial_", "_args_", "_recursive_", "_convert_", "_mode_")

# Where a run found its data, and where its folder was made: nothing is written there when it is resumed or evaluated.
NOT_WRITTEN = ("output", "resume", "data.root", "data.cache", "data.source.root")


def problems(saved: Mapping[str, Any]) -> list[str]:
    """Why a saved configuration cannot be one that this program wrote, or cannot be run; a line each."""
    found = unresolved(saved) or [*config.problems_of(saved), *outward(saved)]
    return [one_line(problem) for problem in found]


def unresolved(node: Any, key: str = "") -> list[str]:
    """One line for every interpolation, missing value and instruction in a plain config."""
    found: list[str] = []
    if isinstance(node, Mapping):
        for name, child in node.items():
            where = f"{key}.{name}".lstrip(".")
            if name in INSTRUCTIONS or "${" in str(name):
                found.append(f"{where}: is not allowed in a run's config.yaml")
            found += unresolved(child, where)
    elif isinstance(node, list):
        for index, child in enumerate(node):
            found += unresolved(child, f"{key}[{index}]")
    elif isinstance(node, str) and ("${" in node or node == "???"):
        found.append(f"{key}={node}: must be a value; a run's config.yaml is resolved")
    elif not isinstance(node, str | int | float | None):
        found.append(f"{key}: must be a text, a number, true, false or null, not {type(node).__name__}")
    return found


def outward(node: Any, key: str = "") -> list[str]:
    """One line for every text that names a place outside of the run's folder, but for those that are not written to."""
    found: list[str] = []
    if isinstance(node, Mapping):
        for name, child in node.items():
            found += outward(child, f"{key}.{name}".lstrip("."))
    elif isinstance(node, list):
        for index, child in enumerate(node):
            found += outward(child, f"{key}[{index}]")
    elif isinstance(node, str) and key not in NOT_WRITTEN:
        leads_out = node.startswith(("/", "~", "\\")) or ".." in re.split(r"[/\\]", node) or "://" in node
        found += [f"{key}={node}: must not lead out of the run's folder"] * leads_out
    return found


def check_folder(folder: Path) -> None:
    """Raise ConfigError where something in a run's folder would lead writing, or reading, elsewhere or nowhere."""
    root = folder.resolve()
    found = []
    for parent, folders, files in os.walk(folder):
        for name in sorted([*folders, *files]):
            path = Path(parent) / name
            mode = path.lstat().st_mode
            if stat.S_ISLNK(mode) and not path.resolve().is_relative_to(root):
                found.append(f"{path}: is a symbolic link out of the run's folder; remove it")
            elif not (stat.S_ISLNK(mode) or stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
                found.append(f"{path}: is neither a file nor a folder; remove it")
    if found:
        raise ConfigError(found)


def without_its_places(saved: DictConfig) -> DictConfig:
    """The same configuration, by which nothing is downloaded into the folder that it names: its owner chose that."""
    kept = saved.copy()
    if "download" in kept.data.source:
        kept.data.source.download = False
    return kept
