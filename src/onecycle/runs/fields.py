"""What a run's files may hold. They are read strictly: a file may be cut off, altered, or somebody else's."""

import io
import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

import yaml
from omegaconf import OmegaConf

from onecycle.config.rules import number, one_of, or_null, whole
from onecycle.errors import ConfigError, one_line

SCHEMA = 1
DONE = ("finished", "diverged", "pruned")
STATES = ("running", "failed", *DONE)
MAX_DEPTH = 50
COUNT = 2**63 - 1


def _string(value: Any) -> bool:
    return isinstance(value, str)


def _strings(value: Any) -> bool:
    return isinstance(value, list) and all(map(_string, value))


def _numbers(value: Any) -> bool:
    return isinstance(value, dict) and all(map(or_null(number(-math.inf)), value.values()))


def _group(value: Any) -> bool:
    return isinstance(value, dict)


# key, what must hold where it is there, how that is said, and whether a run that came to its end must have it.
FIELDS = (
    ("status", one_of(*STATES), "one of " + ", ".join(STATES), True),
    ("identity", _string, "a text", False),
    ("name", _string, "a text", True),
    ("overrides", _strings, "a list of texts", True),
    ("started", _string, "a text", False),
    ("error", _string, "a text", False),
    ("test", or_null(_numbers), "null or a group of numbers", True),
    ("train", or_null(_numbers), "null or a group of numbers", True),
    ("val", or_null(_numbers), "null or a group of numbers", True),
    ("seconds", _numbers, "a group of numbers", True),
    ("epochs", number(0), "a number of at least 0", True),
    ("steps", whole(0, COUNT), "a whole number of at least 0", True),
    ("parameters", whole(0, COUNT), "a whole number of at least 0", True),
    ("images_per_second", number(0), "a number of at least 0", True),
    ("peak_memory_bytes", or_null(_numbers), "null or a group of numbers", False),
    ("hyperparameters", _numbers, "a group of numbers", True),
    ("hyperparameters.peak_lr", number(0), "a number of at least 0", True),
    ("hyperparameters.momentum", number(0), "a number of at least 0", True),
    ("hyperparameters.batch_size", whole(1, COUNT), "a whole number of at least 1", True),
    ("data", _group, "a group", True),
    ("data.name", _string, "a text", True),
    ("data.classes", _strings, "a list of texts", False),
    ("data.train_size", whole(0, COUNT), "a whole number of at least 0", True),
    ("data.val_size", whole(0, COUNT), "a whole number of at least 0", False),
    ("data.test_size", whole(0, COUNT), "a whole number of at least 0", False),
    ("measures", _group, "a group", False),
    ("device", _string, "a text", True),
    ("precision", _string, "a text", True),
    ("environment", _group, "a group", True),
    ("environment.threads", whole(1, COUNT), "a whole number of at least 1", True),
    ("environment.processor", _string, "a text", False),
)
# What is said of every run that came to its end: never null, unlike the losses of one that diverged.
ACCURACY = "test.accuracy"


class DamagedRecordError(ConfigError):
    """A result.json that is no record, as after a full disk; unlike that of another schema, it is worth nothing."""


def finite(node: Any) -> Any:
    """The same record with NaN and infinity, which JSON does not know, as null."""
    if isinstance(node, Mapping):
        return {key: finite(value) for key, value in node.items()}
    if isinstance(node, list | tuple):
        return [finite(value) for value in node]
    return None if isinstance(node, float) and not math.isfinite(node) else node


def record(text: str) -> dict[str, Any]:
    """The record in a result.json; raises ValueError with the reason where it is none, whatever its schema."""
    try:
        entries = json.loads(text, parse_constant=_no_constant, object_pairs_hook=_no_duplicates)
        _check_plain(entries)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    if not isinstance(entries, dict) or type(entries.get("schema")) is not int:
        raise ValueError(f"it is not a record of schema {SCHEMA}")
    if entries["schema"] == SCHEMA:
        _check_fields(entries)
    return entries


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is no number of JSON")


def _no_duplicates(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    entries = dict(pairs)
    if len(entries) < len(pairs):
        raise ValueError("a key stands in it twice")
    return entries


def _check_plain(node: Any, depth: int = 0) -> None:
    """Raise ValueError for what could be neither shown nor written again."""
    if depth > MAX_DEPTH:
        raise ValueError("it is nested too deeply")
    if isinstance(node, float) and not math.isfinite(node):
        raise ValueError("a number in it is too large")
    if isinstance(node, str):
        node.encode()  # a half of a surrogate pair raises UnicodeEncodeError, which is a ValueError
    children: Sequence[Any] = ()
    if isinstance(node, Mapping):
        children = [*node, *node.values()]
    elif isinstance(node, list):
        children = node
    for child in children:
        _check_plain(child, depth + 1)


def _check_fields(entries: Mapping[str, Any]) -> None:
    done = entries.get("status") in DONE
    for key, holds, allowed, needed in FIELDS:
        group, _, name = key.rpartition(".")
        node = entries.get(group, {}) if group else entries
        if name in node and not holds(node[name]):
            raise ValueError(f"{key}={ascii(node[name])[:60]}: must be {allowed}")
        if name not in node and (done and needed):
            raise ValueError(f"{key} is missing")
    if done and not number(0, 1)((entries["test"] or {}).get("accuracy")):
        raise ValueError(f"{ACCURACY}: must be a number from 0 to 1")


def config(text: str) -> dict[str, Any]:
    """The configuration in a config.yaml; raises ValueError with the reason where it holds other than plain values.

    A few aliases could name each other until they fill the memory: a run's file has none.
    """
    try:
        depth = 0
        for event in yaml.parse(text, Loader=yaml.SafeLoader):
            depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
            if isinstance(event, yaml.AliasEvent):
                raise ValueError("it has aliases")
            if depth > MAX_DEPTH:
                raise ValueError("it is nested too deeply")
        entries = OmegaConf.to_container(OmegaConf.load(io.StringIO(text)))
    except Exception as error:  # whatever garbage makes two parsers raise
        raise ValueError(one_line(" ".join(str(error).split())[:300]) or type(error).__name__) from None
    if not isinstance(entries, dict) or not entries:
        raise ValueError("it holds no configuration")
    if not all(isinstance(key, str) for key in entries):
        raise ValueError("a key in it is no text")
    _check_strings(entries)
    return {str(key): value for key, value in entries.items()}


def _check_strings(node: Any) -> None:
    if isinstance(node, str):
        node.encode()
    for child in [*node, *node.values()] if isinstance(node, dict) else node if isinstance(node, list) else ():
        _check_strings(child)
