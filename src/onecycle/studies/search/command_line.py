"""What a search of its own varies, from the command line of its sweeper."""

from collections.abc import Mapping, Sequence
from typing import Any

import yaml
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import IntervalSweep, RangeSweep
from omegaconf import DictConfig, OmegaConf

from onecycle.config.validate import did_you_mean
from onecycle.errors import ConfigError
from onecycle.studies.changes import refusals

PARAMETRISED = {"hyperparameters.effective_decay": "effective", "hyperparameters.per_example_lr": "per_example"}


def coordinates_of(given: Sequence[Any], config: DictConfig) -> dict[str, dict[str, Any]]:
    """The coordinates by key; a coordinate without a start begins at the configuration's own value.

    A mapping on the command line would be merged with the default one: hence a list. Raises ConfigError, one line each,
    for an entry without a key, and a key that the configuration has not.
    """
    problems, found = [], {}
    for entry in given:
        if not isinstance(entry, dict) or not isinstance(entry.get("key"), str):
            problems.append(f"{entry} has no key, the name of a configuration value")
        elif line := _missing_key(entry["key"], config):
            problems.append(line)
        else:
            own = {name: value for name, value in entry.items() if name != "key" and value is not None}
            found[entry["key"]] = {"start": OmegaConf.select(config, entry["key"]), **own}
    if problems:
        raise ConfigError([f"hydra.sweeper.coordinates: {line}" for line in problems])
    refuse_values({key: [entry["start"]] for key, entry in found.items()}, config)
    return found


def _missing_key(key: str, config: DictConfig) -> str:
    """A line for a key that the configuration has not: the nearest one, or the parametrisation that has it."""
    parent, _, last = key.rpartition(".")
    node: Any = OmegaConf.select(config, parent) if parent else config
    if OmegaConf.is_dict(node) and last in node:
        return ""
    parametrisation = PARAMETRISED.get(key)
    hint = f"; set hyperparameters={parametrisation}" if parametrisation else did_you_mean(last, map(str, node or ()))
    return f"there is no key {key}{hint}"


def space_of(arguments: Sequence[str], config: DictConfig) -> tuple[dict[str, dict[str, Any]], list[str]]:
    """The axes that a command line gives as intervals, ranges and choices, and its other overrides.

    Ranges end below their stop, as Python's do. Raises ConfigError for a range that has no whole numbers, and an axis
    of whose ends or choices the configuration refuses one.
    """
    space: dict[str, dict[str, Any]] = {}
    rest = []
    for override in OverridesParser.create().parse_overrides(list(arguments)):
        key, value = override.get_key_element(), override.value()
        if isinstance(value, IntervalSweep):
            space[key] = {"low": float(value.start), "high": float(value.end), "log": "log" in value.tags}  # type: ignore[arg-type]
        elif isinstance(value, RangeSweep):
            numbers = list(value.range())
            if not numbers or not all(isinstance(number, int) for number in numbers):
                raise ConfigError([f"{override.input_line}: must have whole numbers; an interval has others"])
            step = abs(int(value.step))
            space[key] = {"low": min(numbers), "high": max(numbers), "integer": True, "log": "log" in value.tags}
            space[key] |= {"step": step} if step != 1 else {}
        elif override.is_sweep_override():
            space[key] = {"choices": [yaml.safe_load(choice) for choice in override.sweep_string_iterator()]}
        else:
            rest.append(override.input_line or "")
    refuse_values({key: axis.get("choices") or [axis["low"], axis["high"]] for key, axis in space.items()}, config)
    return space, rest


def refuse_values(values: Mapping[str, Sequence[Any]], config: DictConfig) -> None:
    """Raise ConfigError, one line each, for values of keys that the configuration's own rules refuse."""
    problems = [line for key, given in values.items() for value in given for line in refusals(key, value, config)]
    if problems:
        raise ConfigError(list(dict.fromkeys(problems)))
