"""Mutations of what a JSON or YAML file says: nodes are replaced, swapped, renamed, doubled, nested, left out."""

import copy
import json
import random
from collections.abc import Sequence
from typing import Any


class Raw(str):
    """A text that stands in the file as it is, without quotes: NaN, 1e999, *alias."""


class Doubled(dict[str, Any]):
    """A group whose last key is written twice."""


def deep(levels: int) -> list[Any]:
    """A list in a list in a list …"""
    node: list[Any] = []
    for _ in range(levels):
        node = [node]
    return node


VALUES: tuple[Any, ...] = (
    None, True, False, 0, -1, 1, 2, 10, 2**31, 2**63 - 1, 2**63, 2**64, -(2**63) - 1, 10**30, 0.0, -0.0, 0.5, 1.0, 1.5,
    -1e-9, 1e-320, 1e308, -1e308, "", " ", "a", "0.5", "null", "true", "NaN", "inf", "a\0b", "a\nb", "a/b", "..",
    "\x1b[31m", "é", "\u202e", "𝄞", "\ud800", "finished", "running", "x" * 300, [], {}, [None], ["a", "a"], [1, "b"],
    {"a": None}, {"": 1}, {"_target_": "os.system"}, Raw("[" * 60 + "]" * 60), deep(45), deep(70),
)  # fmt: skip


def _places(node: Any, found: list[tuple[Any, Any]]) -> list[tuple[Any, Any]]:
    """Every (parent, key or index) in a tree."""
    if isinstance(node, dict | list):
        for key, child in node.items() if isinstance(node, dict) else enumerate(node):
            found.append((node, key))
            _places(child, found)
    return found


def _close(rng: random.Random, value: Any) -> Any:
    """Another value of the same type, near the old one."""
    if isinstance(value, bool) or value is None:
        return not value
    if isinstance(value, int):
        return rng.choice((value + 1, value - 1, -value, value * 2**32, float(value), str(value)))
    if isinstance(value, float):
        return rng.choice((-value, value + 1, value * 1e300, 1 / (value or 1), int(value), str(value)))
    if isinstance(value, str) and value:
        place = rng.randrange(len(value))
        return rng.choice((value[:place], value + value, value[:place] + rng.choice(" .$\0é/'\"") + value[place:]))
    return value


def mutated(rng: random.Random, tree: Any, values: Sequence[Any]) -> Any:
    """A copy of a tree with one to three changes; `values` are what a node may become, beside VALUES."""
    tree = {"": copy.deepcopy(tree)}
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        places = _places(tree, [])
        if not places:  # the root itself was left out
            break
        parent, key = rng.choice(places)
        change = rng.choice(("value", "value", "close", "close", "swap", "drop", "rename", "wrap", "double", "add"))
        if change == "value":
            parent[key] = copy.deepcopy(rng.choice((*VALUES, *values)))
        elif change == "close":
            parent[key] = _close(rng, parent[key])
        elif change == "swap":
            other, name = rng.choice(places)
            parent[key], other[name] = copy.deepcopy(other[name]), copy.deepcopy(parent[key])
        elif change == "drop":
            del parent[key]
        elif change == "wrap":
            parent[key] = rng.choice(([parent[key]], {"a": parent[key]}))
        elif isinstance(parent, dict):
            _change_keys(rng, change, parent, key, places)
    return tree.get("")


def _change_keys(rng: random.Random, change: str, parent: dict[str, Any], key: str, places: list[Any]) -> None:
    other = rng.choice([str(name) for _, name in places] + ["", "_target_", "_partial_", "_args_", "a.b", "${x}", "\0"])
    if change == "rename":
        parent[other] = parent.pop(key)
    elif change == "add":
        parent[other] = copy.deepcopy(rng.choice(VALUES))
    elif isinstance(parent.get(key), dict):
        parent[key] = Doubled(parent[key])


def as_json(node: Any) -> str:
    """JSON, with what `json` itself would not write: raw texts and doubled keys. YAML reads it as well."""
    if isinstance(node, Raw):
        return str(node)
    if isinstance(node, dict):
        pairs = [f"{json.dumps(str(key))}: {as_json(value)}" for key, value in node.items()]
        return "{" + ", ".join(pairs + (pairs[-1:] if isinstance(node, Doubled) else [])) + "}"
    if isinstance(node, list):
        return "[" + ", ".join(map(as_json, node)) + "]"
    return json.dumps(node)
