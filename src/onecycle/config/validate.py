"""From a configuration to a line for each of its errors: key, value and what is allowed."""

import difflib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cache
from typing import Any, TypeVar

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from pydantic import ValidationError

from onecycle.callbacks.options import CALLBACKS_NOT_TAKEN
from onecycle.config.schema import ALLOWED_TARGETS, COMPONENTS, NO_TARGET, EvaluateOptions, TrainerOptions, TrainOptions
from onecycle.config.types import Options
from onecycle.errors import ConfigError

Made = TypeVar("Made", bound=Options)
# Names of pydantic's bounds in a JSON schema, where it leaves them beside a union, and of JSON Schema itself.
NUMBERS = {"gt": "exclusiveMinimum", "ge": "minimum", "lt": "exclusiveMaximum", "le": "maximum"}


def validated(config: DictConfig | Mapping[str, Any]) -> TrainOptions:
    """A composed training configuration as a typed object, which keeps every value as it was written.

    Raises ConfigError with a line for each error.
    """
    values, lines = resolved(config) if isinstance(config, DictConfig) else (dict(config), [])
    # A value that cannot be resolved has its line.
    found = _without([line.partition(":")[0] for line in lines], training_errors(values))
    if isinstance(config, DictConfig):
        # One that is interpolated is wrong because the one that it comes from is.
        texts = flat(OmegaConf.to_container(config, resolve=False))
        own = _without([key for key, text in texts.items() if "${" in str(text)], found)
        found = own if own or lines else found
    if lines or found:
        raise ConfigError(lines + found)
    return TrainOptions.model_validate(values)


def _without(keys: list[str], lines: list[str]) -> list[str]:
    return [line for line in lines if line.partition("=")[0] not in keys]


def training_errors(values: Mapping[str, Any]) -> list[str]:
    """The errors of a resolved training configuration."""
    given = values.get("trainer")
    lines = [
        f"trainer.{key}={shown(value)}: cannot be set; {TrainerOptions.NOT_TAKEN[key]}"
        for key, value in (given.items() if isinstance(given, Mapping) else ())
        if key in TrainerOptions.NOT_TAKEN
    ]
    for key, part, _ in components(values):
        package, _, name = str(part.get("_target_")).rpartition(".")
        if package.startswith(("lightning.pytorch.", "pytorch_lightning.")) and name in CALLBACKS_NOT_TAKEN:
            lines.append(f"{key}._target_={name}: cannot be used; {CALLBACKS_NOT_TAKEN[name]}")
    return _errors(TrainOptions, values) + lines


def evaluation_errors(config: DictConfig) -> list[str]:
    """The errors of a composed evaluation configuration."""
    if OmegaConf.is_missing(config, "run"):
        return ["run is missing: name a run's folder, as in onecycle-evaluate run=logs/runs/…"]
    values, lines = resolved(config)
    return lines or _errors(EvaluateOptions, values)


def _errors(options: type[Options], values: Mapping[str, Any]) -> list[str]:
    """The errors of a configuration, of the targets in it, and in the options of this package's own components."""
    found = errors_of(options, values) + target_errors(values)
    for key, part, own in components(values):
        if own:
            found += errors_of(own, {name: value for name, value in part.items() if name != "_target_"}, key)
    return found


def resolved(config: DictConfig) -> tuple[dict[str, Any], list[str]]:
    """The plain values of a configuration, None for those that cannot be resolved, and a line for each of these."""
    lines: dict[str, str] = {}
    known = config.copy()
    OmegaConf.set_readonly(known, False)
    for key, text in flat(OmegaConf.to_container(config, resolve=False)).items():
        if "${" in str(text) or text == "???":
            try:
                value = OmegaConf.select(config, key, throw_on_missing=True)
                if OmegaConf.is_config(value):
                    OmegaConf.to_container(value, resolve=True)
            except (OmegaConfBaseException, ValueError) as error:
                # Other values may depend on the same one: each reason is told once, at the first.
                lines.setdefault(str(error).strip().splitlines()[0].rpartition("interpolation: ")[2], key)
                OmegaConf.update(known, key, None)
    values = OmegaConf.to_container(known, resolve=True)
    assert isinstance(values, dict)
    return {str(key): value for key, value in values.items()}, [f"{key}: {reason}" for reason, key in lines.items()]


def flat(node: Any, prefix: str = "") -> dict[str, Any]:
    """Nested groups as one: {"schedule": {"peak_lr": 0.4}} → {"schedule.peak_lr": 0.4}."""
    if isinstance(node, Mapping) and node:
        return {key: value for name, child in node.items() for key, value in flat(child, f"{prefix}{name}.").items()}
    return {prefix.rstrip("."): node}


def errors_of(options: type[Options], values: Any, prefix: str = "") -> list[str]:
    """A line for each key of a group that is wrong, missing or unknown. prefix: the group's own key."""
    lines: dict[tuple[str, ...], str] = {}
    try:
        options.model_validate(values)
    except ValidationError as error:
        for one in error.errors():
            path, value = _place(one, values)
            lines.setdefault(path, _line(options, one, ".".join([*filter(None, [prefix]), *path]), path, value))
    return list(lines.values())


def options_of(kind: type[Made], words: Iterable[str]) -> Made:
    """The words key=value of a command line as options; raises ConfigError with a line for each that is wrong."""
    values = dict(word.partition("=")[::2] for word in words)
    if errors := errors_of(kind, values):
        raise ConfigError(errors)
    return kind.model_validate(values)


def target_errors(node: Any, key: str = "") -> list[str]:
    """A line for each `_target_` in a plain configuration that names something outside `ALLOWED_TARGETS`."""
    children = node.items() if isinstance(node, Mapping) else enumerate(node) if isinstance(node, list) else ()
    lines = [line for name, child in children for line in target_errors(child, f"{key}.{name}".lstrip("."))]
    if isinstance(node, Mapping) and isinstance(node.get("_target_"), str) and not_allowed(node["_target_"]):
        lines.insert(0, f"{key}._target_={node['_target_']}: {not_allowed(node['_target_'])}")
    return lines


def not_allowed(path: str, allow: Sequence[str] = ()) -> str:
    """Why no object may be built of a dotted path outside `ALLOWED_TARGETS` and `allow`; empty where one may."""
    packages = (*ALLOWED_TARGETS, *allow)
    allowed = f"{path}.".startswith(tuple(f"{package}." for package in packages))
    return "" if allowed else f"must be in {', '.join(packages)}"


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """The question whether the known name nearest to a mistyped one was meant; empty where none is near."""
    found = difflib.get_close_matches(name, list(known), n=1, cutoff=0.6)
    return f"; did you mean {found[0]}?" if found else ""


def shown(value: Any) -> str:
    """A value as YAML writes it."""
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def components(values: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any], type[Options] | None]]:
    """Key, keys and values of each component of a plain configuration; its options, if it is one of this package."""
    for group, classes in COMPONENTS.items():
        node: Any = values
        for name in group.split("."):
            node = node.get(name) if isinstance(node, Mapping) else None
        parts = {group: node}
        if group in ("callbacks", "logger", "metrics"):
            parts = {f"{group}.{name}": part for name, part in node.items()} if isinstance(node, Mapping) else {}
        for key, part in parts.items():
            if isinstance(part, Mapping):
                yield key, part, classes.get(str(part.get("_target_")))


def _place(error: Any, values: Any) -> tuple[tuple[str, ...], Any]:
    """The keys that lead to an error in the configuration, and the value there.

    pydantic's place also names the members of unions and the elements of lists.
    """
    path: list[str] = []
    for part in error["loc"]:
        if isinstance(values, Mapping) and part in values:
            values = values[part]
        elif not (isinstance(values, Mapping) and error["type"] == "missing" and part == error["loc"][-1]):
            continue
        path.append(str(part))
    return tuple(path), values


def _line(options: type[Options], error: Any, key: str, path: Sequence[str], value: Any) -> str:
    message = error["msg"].removeprefix("Value error, ")
    if error["type"] == "extra_forbidden":
        known = _keys(options, _at(options, path[:-1]))
        return f"{key}={shown(value)}: is unknown; the keys are {', '.join(known)}{did_you_mean(path[-1], known)}"
    if error["type"] == "missing":
        return f"{key} is missing: must be {allowed_text(options, path)}"
    if message == NO_TARGET:
        return f"{key}._target_ is missing: it names the class of the component"
    if error["type"] == "value_error":
        if not path:  # of several keys of a group; it begins with one of them
            return f"{key}.{message}".removeprefix(".")
        if not message.startswith("must be a finite number"):
            return f"{key}={shown(value)}: {message}"
    return f"{key}={shown(value)}: must be {allowed_text(options, path)}"


@cache
def _schema(options: type[Options]) -> dict[str, Any]:
    return options.model_json_schema()


def _at(options: type[Options], path: Sequence[str]) -> dict[str, Any]:
    """The JSON schema of a key below a class of options; empty for keys that the class does not list."""
    node = _schema(options)
    for name in path:
        node = _keys(options, node).get(name, {})
    return node


def _keys(options: type[Options], node: Mapping[str, Any]) -> dict[str, Any]:
    """The keys of a group, which may be a member of a union, or be referred to."""
    for part in node.get("anyOf", [node]):
        group = _schema(options)["$defs"][part["$ref"].rpartition("/")[2]] if "$ref" in part else part
        if "properties" in group:
            return dict(group["properties"])
    return {}


def allowed_text(options: type[Options], path: Sequence[str]) -> str:
    """What a key may be, in words: "a whole number from 1 to 1000000000"."""
    return _described(_at(options, path))


def _described(node: Mapping[str, Any]) -> str:
    """What a JSON schema allows, in words."""
    if "allowed" in node:
        return str(node["allowed"])
    if "anyOf" in node:
        bounds = {NUMBERS[name]: node[name] for name in NUMBERS if name in node}
        parts = sorted(node["anyOf"], key=lambda part: part.get("type") != "null")
        if {"type": "number"} in parts:  # `Number`
            parts = [part for part in parts if part != {"type": "integer"}]
        return " or ".join(dict.fromkeys(_described(part | bounds) for part in parts))
    if "const" in node or "enum" in node:
        *first, last = [shown(value) for value in node.get("enum", [node.get("const")])]
        return f"{', '.join(first)} or {last}" if first else last
    kind = node.get("type")
    if kind in ("integer", "number"):
        return f"a {'whole ' if kind == 'integer' else ''}number{_range(node)}"
    if kind == "array":
        return f"a list, each {_described(node['items'])}" if node.get("items") else "a list"
    return {"boolean": "true or false", "string": "a text", "null": "null"}.get(str(kind), "a group of keys")


def _range(node: Mapping[str, Any]) -> str:
    low, high = node.get("minimum", node.get("exclusiveMinimum")), node.get("maximum", node.get("exclusiveMaximum"))
    if low is not None and high is not None:
        if node["type"] == "integer":
            return f" from {low} to {high}"
        return f" in {'[' if 'minimum' in node else '('}{low}, {high}{']' if 'maximum' in node else ')'}"
    if low is not None:
        return f" of at least {low:g}" if "minimum" in node else f" above {low:g}"
    return "" if high is None else f" of at most {high:g}" if "maximum" in node else f" below {high:g}"
