"""The one place where a `_target_` becomes an object."""

import importlib
import inspect
from collections.abc import Mapping
from typing import Any

from onecycle.config.schema import ALLOWED_TARGETS
from onecycle.config.validate import did_you_mean, is_allowed, shown
from onecycle.errors import ConfigError


def instantiate(
    component: Mapping[str, Any], kind: type | tuple[str, ...] = (), key: str = "", /, **arguments: Any
) -> Any:
    """The object of the class that `component["_target_"]` names, built with the other keys and `arguments`.

    kind: what the class must be derived from, or the names of methods that it must have. key: the component's key, for
    errors. Raises ConfigError for a target outside `ALLOWED_TARGETS` or of another kind, and for arguments that the
    class does not take.
    """
    settings = {str(name): value for name, value in component.items() if name != "_target_"}
    target = str(component.get("_target_"))
    named = f"{key}._target_={target}".lstrip(".")
    if not is_allowed(target):
        raise ConfigError([f"{named}: must be in {', '.join(ALLOWED_TARGETS)}"])
    made = _class_of(target, named)
    # A dotted path may walk through one module into another: what it ends at must be allowed as well.
    if not isinstance(made, type) or not is_allowed(made.__module__) or inspect.isabstract(made):
        raise ConfigError([f"{named}: must be a class in {', '.join(ALLOWED_TARGETS)} that can be built"])
    if isinstance(kind, type) and not issubclass(made, kind):
        raise ConfigError([f"{named}: must be a class derived from {kind.__module__}.{kind.__qualname__}"])
    if isinstance(kind, tuple) and not all(callable(getattr(made, name, None)) for name in kind):
        raise ConfigError([f"{named}: must be a class with {' and '.join(kind)}"])
    try:
        return made(**settings, **arguments)
    except TypeError as error:
        known = list(inspect.signature(made).parameters)
        unknown = [name for name in settings if f"'{name}'" in str(error)]
        if "argument" not in str(error):
            raise
        if not unknown:
            raise ConfigError([f"{named}: {error}"]) from error
        where = f"{key}.{unknown[0]}={shown(settings[unknown[0]])}".lstrip(".")
        raise ConfigError([f"{where}: {error}{did_you_mean(unknown[0], known)}"]) from error


def _class_of(target: str, named: str) -> Any:
    module, _, name = target.rpartition(".")
    try:
        return getattr(importlib.import_module(module), name)
    except (ImportError, ValueError, AttributeError) as error:
        raise ConfigError([f"{named}: does not exist ({error})"]) from None
