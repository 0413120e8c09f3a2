"""The words of a command line, looked through before Hydra composes them: all mistakes at once, a line each."""

import difflib
from collections.abc import Iterable, Sequence
from pathlib import Path

from hydra import compose, initialize_config_dir
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from onecycle.faults import ConfigError

SHARED = "base"  # what the options of a group have in common: no option itself


def check(words: Sequence[str], conf: Path, name: str) -> None:
    """Raise ConfigError for words that are no override, options that a group has not, and keys that are unknown.

    words: the command line without the program. conf: the folder of the configurations; name: the main one.
    """
    # Hydra's own flags may take a value, and may bring another folder of configurations: those are Hydra's to report.
    if any(word.startswith("-") and word not in ("-m", "--multirun") for word in words):
        return
    if any(word.lstrip("+").startswith("hydra.searchpath=") for word in words):
        return  # it brings options from elsewhere
    overrides, problems = [], []
    for word in words:
        if word.startswith("-"):
            continue
        try:
            overrides.append(_parsed(word))
        except (HydraException, ValueError):
            problems.append(f"{word!r}: must be key=value; a value with other signs than letters and digits in quotes")
    # Hydra's own groups have options elsewhere as well.
    overrides = [override for override in overrides if not _group(override).startswith("hydra/")]
    groups = [override for override in overrides if (conf / _group(override)).is_dir()]
    problems += [line for override in groups for line in _option_problems(override, conf)]
    if not problems:
        base = _composed(conf, name, [str(override.input_line) for override in groups if not _is_swept(override)])
        if base is not None:
            problems = _key_problems([override for override in overrides if override not in groups], base)
    if problems:
        raise ConfigError(problems)


def near(name: str, known: Iterable[str]) -> str:
    """The question whether the known name nearest to a mistyped one was meant, or nothing where none is near."""
    found = difflib.get_close_matches(name, list(known), n=1, cutoff=0.6)
    return f"; did you mean {found[0]}?" if found else ""


def _parsed(word: str) -> Override:
    if word.startswith("="):
        raise ValueError("no key")
    override = OverridesParser.create().parse_override(word)
    override.value()  # a whole number of thousands of digits fails only here
    return override


def _group(override: Override) -> str:
    return str(override.key_or_group).partition("@")[0]


def _is_swept(override: Override) -> bool:
    return bool(override.is_sweep_override())


def _option_problems(override: Override, conf: Path) -> list[str]:
    group, folder = _group(override), conf / _group(override)
    known = sorted(path.stem for path in folder.glob("*.yaml") if path.stem != SHARED)
    if override.is_delete() or _is_swept(override) or isinstance(override.value(), dict):
        return []
    value = override.value()
    chosen = value if isinstance(value, list) else [value]
    return [
        f"{group}={option}: must be one of {', '.join(known)}{near(str(option), known)}"
        for option in chosen
        if option is not None and str(option) not in known
    ]


def _composed(conf: Path, name: str, groups: list[str]) -> DictConfig | None:
    """The configuration with these options, or None where Hydra has something to say about them."""
    try:
        with initialize_config_dir(version_base="1.3", config_dir=str(conf)):
            return compose(name, overrides=groups)
    except (HydraException, OmegaConfBaseException):
        return None


def _key_problems(overrides: Sequence[Override], base: DictConfig) -> list[str]:
    known = OmegaConf.to_container(base, resolve=False)
    problems = []
    for override in overrides:
        key = override.get_key_element().lstrip("+~")
        if key.startswith(("hydra.", "hydra/")) or override.is_add() or override.is_force_add():
            _add(known, key)
            continue
        found, place, names = _find(known, key)
        if not found:
            inside = f" in {place}" if place else ""
            problems.append(f"{override.input_line}: there is no key {key}{inside}{near(key.split('.')[-1], names)}")
    return problems


def _add(node: object, key: str) -> None:
    """Make a key known that an override adds: a later one may set it."""
    *parents, last = key.split(".")
    for name in parents:
        if not isinstance(node, dict):
            return
        node = node.setdefault(name, {})
    if isinstance(node, dict):
        node.setdefault(last, {})


def _find(node: object, key: str) -> tuple[bool, str, list[str]]:
    """Whether a dotted key is there; else the group in which its next name is missing and the names in that group."""
    walked: list[str] = []
    for name in key.split("."):
        if isinstance(node, str):
            return True, "", []  # an interpolation: Hydra resolves it
        if not isinstance(node, dict) or name not in node:
            return False, ".".join(walked), [str(known) for known in node] if isinstance(node, dict) else []
        node = node[name]
        walked.append(name)
    return True, "", []
