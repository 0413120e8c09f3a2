"""What makes two runs the same run, and how the folder of a sweep's run is called."""

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from onecycle.config.schema import MOVED, NO_EFFECT, TrainOptions
from onecycle.config.types import Options
from onecycle.config.validate import components, flat
from onecycle.training.options import CLASSIFICATION

BY_CONTENT = "init_from"  # counts as init_sha256, the hash of what lies there: it may have been moved


def identity(config: TrainOptions, data_key: Mapping[str, Any]) -> str:
    """12 hex digits over everything that can change a run's result.

    config: with its precision chosen. data_key: what tells the data set from others. Keys in `NO_EFFECT` are left out,
    and so are options that have their default: a configuration that was written before an option existed, and one that
    leaves it at its default, are the same run.
    """
    return _digest([_effective(config), data_key])


def comparable(config: TrainOptions, data_key: Mapping[str, Any]) -> dict[str, Any]:
    """What `identity` is made of, key by key; those of the data set begin with "data set:"."""
    return _effective(config) | {f"data set: {key}": value for key, value in flat(data_key).items()}


def identity_of_version_1(config: TrainOptions, data_key: Mapping[str, Any]) -> str:
    """The identity that version 0.1 gave the same run: a hash over all keys, with the paths of its classes."""
    earlier = {new: old for old, new in MOVED.items()}
    entries = {key: _with_prefix(value, earlier) for key, value in flat(config.model_dump(exclude_unset=True)).items()}
    entries = {key: value for key, value in entries.items() if not _is_left_out(key)}
    if entries.get("task._target_") == CLASSIFICATION:  # the only one of that version
        del entries["task._target_"]
    return _digest([entries, data_key])


def with_moved_targets(node: Any) -> Any:
    """A plain configuration of an earlier version with today's paths of its classes."""
    if isinstance(node, Mapping):
        return {name: with_moved_targets(child) for name, child in node.items()}
    return _with_prefix(node, MOVED)


def _with_prefix(value: Any, prefixes: Mapping[str, str]) -> Any:
    for before, after in prefixes.items():
        if isinstance(value, str) and value.startswith(before):
            return after + value.removeprefix(before)
    return value


def _digest(parts: Sequence[Any]) -> str:
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:12]


def _effective(config: TrainOptions) -> dict[str, Any]:
    """Flat keys and values that can change a result, without options at their defaults."""
    values = config.model_dump(exclude_unset=True)
    defaults = _defaults(TrainOptions)
    for key, _, options in components(values):
        defaults |= _defaults(options, f"{key}.") if options else {}

    def at_default(key: str, value: Any) -> bool:  # true is no default that is 1
        default = defaults.get(key, ...)
        return bool(value == default) and isinstance(value, bool) == isinstance(default, bool)

    return {key: value for key, value in flat(values).items() if not (_is_left_out(key) or at_default(key, value))}


def _defaults(options: type[Options], prefix: str = "") -> dict[str, Any]:
    """The defaults of the options that a configuration may leave out, by flat key."""
    found: dict[str, Any] = {}
    for name, field in options.model_fields.items():
        if not field.is_required():
            found |= flat({f"{prefix}{name}": field.default})
        elif isinstance(field.annotation, type) and issubclass(field.annotation, Options):
            found |= _defaults(field.annotation, f"{prefix}{name}.")
    return found


def _is_left_out(key: str) -> bool:
    return has_no_effect(key) or key == BY_CONTENT


def has_no_effect(key: str) -> bool:
    """Whether a key cannot change a result."""
    return f"{key}.".startswith(tuple(f"{neutral}." for neutral in NO_EFFECT))


def relevant(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """The part of a configuration that can change a run's result, as nested as it was."""
    kept: dict[str, Any] = {}
    for name, value in config.items():
        if not has_no_effect(f"{prefix}{name}"):
            kept[name] = relevant(value, f"{prefix}{name}.") if isinstance(value, Mapping) and value else value
    return kept


def settings(overrides: Sequence[str]) -> tuple[str, ...]:
    """The overrides that can change a result, in their order."""
    return tuple(override for override in overrides if not has_no_effect(override_key(override)))


def override_key(override: str) -> str:
    """The key of an override: "+trainer.x=1" → "trainer.x"."""
    return override.lstrip("+~").partition("=")[0]


def short_name(overrides: Sequence[str]) -> str:
    """A readable folder name from a sweep's overrides: ["schedule.peak_lr=0.1", "seed=0"] → "peak_lr=0.1,seed=0"."""
    shown = [override for override in settings(overrides) if override_key(override) not in ("experiment", BY_CONTENT)]
    parts = [f"{override_key(one).rpartition('.')[2]}={one.partition('=')[2]}" for one in shown]
    return folder_name(",".join(parts)) or "run"


def folder_name(text: str) -> str:
    """A text as a folder's name: at most 100 letters, digits and signs that no shell or file system minds."""
    return re.sub(r"[^\w=.,+-]+", "_", text)[:100]
