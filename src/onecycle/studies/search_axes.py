"""What a search varies, from the command line of its sweeper."""

from collections.abc import Sequence
from typing import Any

import yaml
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import IntervalSweep, RangeSweep
from omegaconf import DictConfig, OmegaConf

from onecycle.faults import ConfigError


def coordinates_of(given: Sequence[Any], config: DictConfig) -> dict[str, dict[str, Any]]:
    """The coordinates by key. A mapping on the command line would be merged with the default one: hence a list."""
    for entry in given:
        if not isinstance(entry, dict) or not isinstance(entry.get("key"), str):
            raise ConfigError([f"hydra.sweeper.coordinates: {entry} has no key, the name of a configuration value"])
    return {
        entry["key"]: {"start": OmegaConf.select(config, entry["key"])}
        | {name: value for name, value in entry.items() if name != "key" and value is not None}
        for entry in given
    }


def space_of(arguments: Sequence[str]) -> tuple[dict[str, dict[str, Any]], list[str]]:
    """The axes that a command line gives as intervals, ranges and choices, and its other overrides.

    Ranges end below their stop, as Python's do. Raises ConfigError for a range that has no whole numbers.
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
    return space, rest
