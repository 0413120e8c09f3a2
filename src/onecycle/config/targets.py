"""The one place where a `_target_` becomes an object."""

import importlib
import inspect
from collections.abc import Mapping, Sequence
from typing import Any

from onecycle.config.schema import TrainOptions
from onecycle.config.validate import components, did_you_mean, not_allowed, shown
from onecycle.errors import ConfigError, reason_of


def instantiate(
    component: Mapping[str, Any], kind: type | tuple[str, ...] = (), key: str = "",
    allow: Sequence[str] = (), /, **arguments: Any,
) -> Any:  # fmt: skip
    """The object of the class that `component["_target_"]` names, built with the other keys and `arguments`.

    kind: what the class must be derived from, or the names of methods that it must have. key: the component's key, for
    errors. allow: packages beside those of `ALLOWED_TARGETS`. Raises ConfigError for a target outside them or of
    another kind, and with whatever the class itself raises.
    """
    errors = class_errors(component, kind, key, allow)
    if errors:
        raise ConfigError(errors)
    settings = {name: value for name, value in component.items() if name != "_target_"}
    try:
        return _class_of(component)(**settings, **arguments)
    except ConfigError:
        raise
    except Exception as error:
        raise ConfigError([f"{key}._target_={component['_target_']}: {reason_of(error)}".lstrip(".")]) from error


def check_classes(config: TrainOptions) -> None:
    """Raise ConfigError with every component whose class does not exist, or does not take the keys beside it.

    This imports the classes and builds none.
    """
    parts = {key: part for key, part, _ in components(config.model_dump())} | {"trainer": config.trainer.arguments()}
    errors = [line for key, part in parts.items() for line in class_errors(part, (), key)]
    if errors:
        raise ConfigError(errors)


def class_errors(
    component: Mapping[str, Any], kind: type | Sequence[str], key: str, allow: Sequence[str] = ()
) -> list[str]:
    """Why a component's class cannot be built with the keys that stand beside its `_target_`, a line each."""
    target = component.get("_target_")
    named = f"{key}._target_={target}".lstrip(".")
    if reason := not_allowed(str(target), allow):
        return [f"{named}: {reason}"]
    try:
        made = _class_of(component)
    except (ImportError, ValueError, AttributeError) as error:
        return [f"{named}: does not exist ({error})"]
    # A dotted path may walk through one module into another: what it ends at must be allowed as well.
    if not isinstance(made, type) or not_allowed(made.__module__, allow) or inspect.isabstract(made):
        return [f"{named}: must be a class of an allowed package that can be built"]
    if isinstance(kind, type) and not issubclass(made, kind):
        return [f"{named}: must be a class derived from {kind.__module__}.{kind.__qualname__}"]
    if not isinstance(kind, type) and not all(callable(getattr(made, name, None)) for name in kind):
        return [f"{named}: must be a class with {' and '.join(kind)}"]
    known = inspect.signature(made).parameters
    return [
        f"{key}.{name}={shown(value)}: is no argument of {made.__name__}{did_you_mean(str(name), known)}".lstrip(".")
        for name, value in component.items()
        if name != "_target_" and not takes(component, name)
    ]


def takes(component: Mapping[str, Any], name: str) -> bool:
    """Whether a component's class, which is one that may be built, takes an argument of this name."""
    known = inspect.signature(_class_of(component)).parameters
    return name in known or any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in known.values())


def _class_of(component: Mapping[str, Any]) -> Any:
    module, _, name = str(component["_target_"]).rpartition(".")
    return getattr(importlib.import_module(module), name)
