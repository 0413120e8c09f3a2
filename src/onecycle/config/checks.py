"""Checks of a composed configuration, its resolvers, and the one place where a `_target_` becomes an object.

Nothing here imports torch: a rejected configuration answers at once.
"""

import inspect
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from pydantic import ValidationError

from onecycle.config import hyperparameters, resolution, signatures
from onecycle.config.overrides import near
from onecycle.config.rules import (
    GIVEN,
    OTHER_KEYS,
    OWN_KEYS,
    PARTS,
    PRECISIONS,
    RULES,
    folder,
    one_of,
    or_null,
    text,
    whole,
)
from onecycle.errors import ConfigError
from onecycle.models.options import ResNet9Options
from onecycle.training.schedule import Schedule

# What a configuration may name in `_target_`. Add your own package here.
ALLOWED_TARGETS = ("onecycle", "torch.optim", "torch.nn", "lightning.pytorch")

CONF = Path(__file__).parents[3] / "conf"

RESNET9 = "onecycle.models.resnet9.ResNet9"


def register_resolvers() -> None:
    """Make the interpolations of conf/ known to OmegaConf; calling it again changes nothing."""
    for function in (
        hyperparameters.peak_lr_from_effective_decay,
        hyperparameters.peak_lr_from_per_example,
        hyperparameters.steps_for_examples,
    ):
        OmegaConf.register_new_resolver(function.__name__, function, replace=True)


def instantiate(config: DictConfig | Mapping[str, Any], kind: type | tuple[str, ...] = (), /, **arguments: Any) -> Any:
    """The object of the class that `config._target_` names, built with the config's other keys and `arguments`.

    kind: what the class must be derived from, or the names of methods that it must have: a constructor that happens to
    lie in an allowed package may open files. Raises `ConfigError` for a target outside
    `ALLOWED_TARGETS` or of another kind, and for arguments that it does not take.
    """
    from hydra.utils import get_object

    settings: dict[str, Any] = (
        plain(config) if isinstance(config, DictConfig) else {str(key): value for key, value in config.items()}
    )
    target = settings.pop("_target_", None)
    problems = target_problems({"_target_": target})
    if problems:
        raise ConfigError(problems)
    try:
        component = get_object(target)
    except (ImportError, ValueError, AttributeError) as error:
        raise ConfigError([f"_target_={target}: does not exist ({error})"]) from None
    # A dotted path may walk through one module into another: what it ends at must be allowed as well.
    module = str(getattr(component, "__module__", None) or type(component).__module__)
    if not callable(component) or not _is_allowed(module):
        raise ConfigError([f"_target_={target}: leads to {module}, outside {', '.join(ALLOWED_TARGETS)}"])
    if not _is_of(component, kind):
        of = f" with {' and '.join(kind)}" * bool(kind) if isinstance(kind, tuple) else _derived(kind)
        raise ConfigError([f"_target_={target}: must be a class{of}"])
    if inspect.isabstract(component):
        raise ConfigError([f"_target_={target}: is only the base of others; name one of them"])
    try:
        return component(**settings, **arguments)
    except TypeError as error:
        if "argument" not in str(error):
            raise
        raise ConfigError([f"{target}: {error}"]) from error


def _derived(kind: type) -> str:
    return f" derived from {kind.__module__}.{kind.__qualname__}"


def _is_of(component: Any, kind: type | tuple[str, ...]) -> bool:
    if not isinstance(component, type):
        return False
    if isinstance(kind, tuple):
        return all(callable(getattr(component, name, None)) for name in kind)
    return issubclass(component, kind)


def target_problems(node: Any, key: str = "") -> list[str]:
    """One line for every `_target_` in a plain config that names something outside `ALLOWED_TARGETS`."""
    problems = []
    if isinstance(node, Mapping):
        target = node.get("_target_")
        if "_target_" in node and not (isinstance(target, str) and _is_allowed(target)):
            where = f"{key}._target_".lstrip(".")
            problems.append(f"{where}={_shown(target)}: must be in {', '.join(ALLOWED_TARGETS)}")
        for name, child in node.items():
            problems += target_problems(child, f"{key}.{name}".lstrip("."))
    elif isinstance(node, list):
        for index, child in enumerate(node):
            problems += target_problems(child, f"{key}[{index}]")
    return problems


def _is_allowed(path: str) -> bool:
    return any(path == root or path.startswith(f"{root}.") for root in ALLOWED_TARGETS)


def check(config: DictConfig) -> None:
    """Raise `ConfigError` with every problem of a composed training configuration, before any data is read."""
    found = problems(config)
    if found:
        raise ConfigError(found)


def problems(config: DictConfig) -> list[str]:
    """Every problem of a composed training configuration, a line each."""
    try:
        return problems_of(plain(config, throw_on_missing=True))
    except (OmegaConfBaseException, ValueError) as error:
        failed = resolution.failures(config, error)
    lines = resolution.lines(failed)
    with_nulls = config.copy()
    OmegaConf.set_struct(with_nulls, False)
    for key in failed:
        OmegaConf.update(with_nulls, key, None, merge=False)
    # A resolver may have given the same reason; what is said of a key that has no value follows from that.
    others = [] if "" in failed else problems_of(plain(with_nulls))
    told = tuple(f"{key}=" for key in failed)
    return lines + [
        line for line in others if not line.startswith(told) and not any(line.split(".")[-1] in one for one in lines)
    ]


def problems_of(resolved: Mapping[str, Any]) -> list[str]:
    """Every problem of a resolved training configuration, a line each."""
    return [
        *_rule_problems(resolved), *target_problems(resolved), *_key_problems(resolved),
        *_component_problems(resolved), *_part_problems(resolved),
    ]  # fmt: skip


def _rule_problems(resolved: Mapping[str, Any]) -> list[str]:
    problems = []
    for key, holds, allowed in RULES:
        found, value = _select(resolved, key)
        if found and not holds(value):
            problems.append(f"{key}={_shown(value)}: must be {allowed}")
    return problems


def _select(resolved: Any, key: str) -> tuple[bool, Any]:
    """Whether the key stands in the config, and its value; a missing or null parent counts as not there."""
    node: Any = resolved
    for name in key.split("."):
        if not isinstance(node, Mapping) or name not in node:
            return False, None
        node = node[name]
    return True, node


def _shown(value: Any) -> str:
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def _key_problems(resolved: Mapping[str, Any]) -> list[str]:
    """Keys that no group of a training configuration has."""
    problems = []
    keys = [*PARTS, *(key for key, _, _ in RULES)]
    for group, others in OTHER_KEYS.items():
        found, node = _select(resolved, group) if group else (True, resolved)
        known = [*(key.rpartition(".")[2] for key in keys if key.rpartition(".")[0] == group), *others]
        for name in node if found and isinstance(node, Mapping) else ():
            if name not in known:
                problems.append(_unknown(f"{group}.{name}".lstrip("."), node[name], known))
    return problems


def _unknown(key: str, value: Any, known: Sequence[str]) -> str:
    return f"{key}={_shown(value)}: is unknown; the keys are {', '.join(known)}{near(key.rpartition('.')[2], known)}"


def _component_problems(resolved: Mapping[str, Any]) -> list[str]:
    """Targets that are no class, and keys that their constructors do not take."""
    problems = []
    data = resolved.get("data")
    parts = {name: resolved.get(name) for name in ("model", "optimizer", "trainer", "schedule")}
    parts["data.source"] = data.get("source") if isinstance(data, Mapping) else None
    for group in ("callbacks", "logger"):
        members = resolved.get(group)
        for name, part in members.items() if isinstance(members, Mapping) else ():
            key = f"{group}.{name}"
            parts[key] = part
            if part is not None and key not in PARTS and not (isinstance(part, Mapping) and "_target_" in part):
                problems.append(f"{key}={_shown(part)}: must be null or a group of keys with a _target_")
    for key, part in parts.items():
        if isinstance(part, Mapping) and isinstance(part.get("_target_"), str) and _is_allowed(part["_target_"]):
            problems += _signature_problems(key, part)
    return problems


def _signature_problems(key: str, part: Mapping[str, Any]) -> list[str]:
    try:
        signature = signatures.of(part["_target_"])
    except signatures.NotFoundError as error:
        return [f"{key}._target_={part['_target_']}: must be a class in {', '.join(ALLOWED_TARGETS)}; {error}"]
    if not _is_allowed(signature.path):
        outside = f"leads to {signature.path}, outside {', '.join(ALLOWED_TARGETS)}"
        return [f"{key}._target_={part['_target_']}: {outside}"]
    given = GIVEN.get(key.partition(".")[0], ())
    if signature.names is None or key == "schedule":  # a curve is built, and says so itself
        return [f"{key}.{name}={_shown(part[name])}: is set by the program" for name in given if name in part]
    known = [*(name for name in signature.names if name not in given), *OWN_KEYS.get(key, ())]
    return [_unknown(f"{key}.{name}", value, known) for name, value in part.items() if name not in ("_target_", *known)]


def _part_problems(resolved: Mapping[str, Any]) -> list[str]:
    """Problems that the parts know of themselves: curve, hyperparameters, network."""
    problems = _structure_problems(resolved)
    if problems:
        return problems
    if resolved["model"].get("_target_") == RESNET9:
        try:
            ResNet9Options(**{name: value for name, value in resolved["model"].items() if name != "_target_"})
        except ValidationError as error:
            for found in error.errors():
                where = ".".join(["model", *map(str, found["loc"])]) + f"={_shown(found['input'])}: "
                problems.append((where if found["loc"] else "model.") + found["msg"].removeprefix("Value error, "))
    schedule = resolved["schedule"]
    if _is_allowed(str(schedule.get("_target_"))):
        try:
            instantiate(schedule, Schedule)
        except ConfigError as error:
            problems += [f"schedule: {line}" for line in error.problems]
        except ValidationError as error:
            for found in error.errors():
                message, key = found["msg"].removeprefix("Value error, "), ".".join(map(str, found["loc"]))
                problems.append(f"schedule.{key}={_shown(found['input'])}: {message}" if key else f"schedule.{message}")
    peak_lr, batch_size = schedule.get("peak_lr"), resolved["batch_size"]
    if whole(1)(batch_size):
        problems += hyperparameters.check(resolved["hyperparameters"], peak_lr, batch_size)
    return problems


def _structure_problems(resolved: Mapping[str, Any]) -> list[str]:
    """Groups that are none, and keys that are not there."""
    problems = []
    for key, kind in PARTS.items():
        found, value = _select(resolved, key)
        if value is None and kind == "optional":
            continue
        if not isinstance(value, Mapping):
            shown = f"{key}={_shown(value)}" if found else f"{key} is missing"
            problems.append(f"{shown}: must be a group of keys" + (" or null" if kind == "optional" else ""))
        elif kind == "component" and "_target_" not in value:
            problems.append(f"{key}._target_ is missing: it names the component")
    for key, _, allowed in RULES:
        parent, _, name = key.rpartition(".")
        group: Any = resolved
        if parent:
            _, group = _select(resolved, parent)
        # Other sources and optimizers have keys of their own.
        if parent not in ("data.source", "optimizer") and isinstance(group, Mapping) and name not in group:
            problems.append(f"{key} is missing: must be {allowed}")
    return problems


def evaluation_problems(config: DictConfig) -> list[str]:
    """Problems of a composed evaluation configuration."""
    try:
        values = plain(config)
    except (OmegaConfBaseException, ValueError) as error:
        failed = resolution.failures(config, error)
        return resolution.lines(failed)
    found = []
    if values["run"] == "???":
        found.append("run: name a run's folder: onecycle-evaluate run=logs/runs/…")
    for key, holds, allowed in (
        ("run", folder, "a run's folder"),
        ("precision", or_null(one_of(*PRECISIONS)), "null, " + ", ".join(PRECISIONS)),
        ("accelerator", one_of("auto", "cpu", "gpu", "cuda", "mps"), "auto, cpu, gpu, cuda or mps"),
        ("figures", one_of(True, False), "true or false"),
        ("checkpoint", text, "a file name"),
    ):
        if not holds(values[key]):
            found.append(f"{key}={_shown(values[key])}: must be {allowed}")
    if values["data"]:
        data = {"data": values["data"]}
        found += [*_rule_problems(data), *target_problems(data), *_component_problems(data)]
    return found


def plain(config: DictConfig | Mapping[str, Any], throw_on_missing: bool = False) -> dict[str, Any]:
    """The resolved config as dicts, lists, strings and numbers."""
    if not isinstance(config, DictConfig):
        return dict(config)
    container = OmegaConf.to_container(config, resolve=True, throw_on_missing=throw_on_missing)
    assert isinstance(container, dict)
    return {str(key): value for key, value in container.items()}
