"""Checks of a composed configuration, its resolvers, and the one place where a `_target_` becomes an object.

Nothing here imports torch: a rejected configuration answers at once.
"""

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from hydra.errors import CompactHydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from onecycle import hyperparameters
from onecycle.models import options

# What a configuration may name in `_target_`. Add your own package here.
ALLOWED_TARGETS = ("onecycle", "torch.optim", "torch.nn", "lightning.pytorch")

CONF = Path(__file__).parents[2] / "conf"

RESNET9 = "onecycle.models.resnet9.ResNet9"
PRECISIONS = ("auto", "16-mixed", "bf16-mixed", "32-true")


class ConfigError(CompactHydraException, ValueError):
    """A configuration that cannot be run; one line for each problem. Hydra shows it without a traceback."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems

    def __reduce__(self) -> tuple[type["ConfigError"], tuple[list[str]]]:
        """Pickle by the problems, so that it comes back whole from another process."""
        return type(self), (self.problems,)


class DiskFullError(CompactHydraException):
    """No room for what a run has to write; nobody's mistake, but no traceback's worth either."""


def register_resolvers() -> None:
    """Make the interpolations of conf/ known to OmegaConf; calling it again changes nothing."""
    for function in (
        hyperparameters.peak_lr_from_product,
        hyperparameters.peak_lr_from_per_example,
        hyperparameters.steps_for_examples,
    ):
        OmegaConf.register_new_resolver(function.__name__, function, replace=True)


def instantiate(config: DictConfig | Mapping[str, Any], **arguments: Any) -> Any:
    """The object that `config._target_` names, called with the config's other keys and `arguments`.

    Raises `ConfigError` for a target outside `ALLOWED_TARGETS` and for arguments that it does not take.
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
    try:
        return component(**settings, **arguments)
    except TypeError as error:
        if "argument" not in str(error):
            raise
        raise ConfigError([f"{target}: {error}"]) from error


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


def _whole(low: int, high: float = math.inf) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, int) and not isinstance(value, bool) and low <= value <= high


def _number(low: float, high: float = math.inf, *, above: bool = False, below: bool = False) -> Callable[[Any], bool]:
    def holds(value: Any) -> bool:
        if not hyperparameters.is_finite_number(value):
            return False
        return (low < value if above else low <= value) and (value < high if below else value <= high)

    return holds


def _one_of(*choices: Any) -> Callable[[Any], bool]:
    return lambda value: any(value == choice and type(value) is type(choice) for choice in choices)


def _or_null(test: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: value is None or test(value)


def _text(value: Any) -> bool:
    return isinstance(value, str) and bool(value.strip())


def _folder_name(value: Any) -> bool:
    return _text(value) and not set(value) & set("/\\\0") and value not in (".", "..") and len(value) <= 100


def _subset_size(value: Any) -> bool:
    return _number(0, 1, above=True)(value) if isinstance(value, float) else _whole(1)(value)


def _names(value: Any) -> bool:
    return isinstance(value, list) and len(value) >= 2 and all(map(_text, value)) and len(set(value)) == len(value)


def _devices(value: Any) -> bool:
    return (
        value == "auto" or _whole(1)(value) or (isinstance(value, list) and bool(value) and all(map(_whole(0), value)))
    )


# What must be a group of keys: always, always with a _target_, or unless it is null.
PARTS = {
    "data": "group", "data.source": "component", "data.augment": "group", "evaluation": "group",
    "model": "component", "schedule": "component", "hyperparameters": "group", "optimizer": "component",
    "trainer": "component", "callbacks": "optional", "logger": "optional", "ema": "optional",
    "callbacks.progress": "optional", "callbacks.training_log": "optional", "callbacks.checkpoint": "optional",
    "callbacks.divergence": "optional", "callbacks.figures": "optional",
}  # fmt: skip

# key, what must hold, and how it is said. A key of a part that is set to null is passed over.
RULES: tuple[tuple[str, Callable[[Any], bool], str], ...] = (
    ("name", _folder_name, "a name for a folder, up to 100 characters without / or \\"),
    ("seed", _whole(0, 2**32 - 1), "a whole number from 0 to 4294967295"),
    ("batch_size", _whole(1), "a whole number of at least 1"),
    ("label_smoothing", _number(0, 1, below=True), "a number in [0, 1)"),
    ("ema.decay", _number(0, 1, below=True), "a number in [0, 1)"),
    ("ema.every_n_steps", _whole(1), "a whole number of at least 1"),
    ("optimizer.nesterov", _one_of(True, False), "true or false"),
    ("optimizer.fused", _one_of(True, False, None), "true, false or null"),
    ("evaluation.batch_size", _whole(1), "a whole number of at least 1"),
    ("evaluation.tta", _one_of("flip", "none"), "flip or none"),
    ("evaluation.every_n_epochs", _whole(0), "a whole number of at least 0"),
    ("output", _text, "a folder"),
    ("resume", _or_null(_text), "null or a run's folder"),
    ("data.root", _text, "a folder"),
    ("data.cache", _text, "a folder"),
    ("data.fallback", _one_of(None, "synthetic"), "null or synthetic"),
    ("data.classes", _or_null(_names), "null or a list of at least two different class names"),
    ("data.subset_size", _or_null(_subset_size), "null, a count of at least 1, or a fraction above 0.0 up to 1.0"),
    ("data.subset_seed", _whole(0), "a whole number of at least 0"),
    ("data.val_size", _whole(0), "a whole number of at least 0"),
    ("data.augment.crop", _whole(0, 31), "a whole number from 0 to 31"),
    ("data.augment.flip", _one_of("none", "random", "alternating"), "none, random or alternating"),
    ("data.augment.shift", _whole(0, 31), "a whole number from 0 to 31"),
    ("data.augment.cutout", _whole(0, 32), "a whole number from 0 to 32"),
    ("data.source.train_size", _whole(10), "a whole number of at least 10"),
    ("data.source.test_size", _whole(10), "a whole number of at least 10"),
    ("data.source.seed", _whole(0), "a whole number of at least 0"),
    ("data.source.image_size", lambda v: _whole(32, 512)(v) and v % 8 == 0, "a multiple of 8 from 32 to 512"),
    ("data.source.download", _one_of(True, False), "true or false"),
    ("trainer.accelerator", _one_of("auto", "cpu", "gpu", "cuda", "mps"), "auto, cpu, gpu, cuda or mps"),
    ("trainer.devices", _devices, "auto, a count of at least 1 or a list of numbers"),
    ("trainer.num_nodes", _one_of(1), "1"),
    ("trainer.strategy", _text, "auto, or a strategy of Lightning such as ddp"),
    ("trainer.deterministic", _one_of(True, False, "warn"), "true, false or warn"),
    ("trainer.benchmark", _one_of(True, False), "true or false"),
    ("trainer.detect_anomaly", _one_of(True, False), "true or false"),
    ("trainer.precision", _one_of(*PRECISIONS), ", ".join(PRECISIONS)),
    ("trainer.max_epochs", _number(0, above=True), "a number above 0"),
    ("trainer.max_steps", _or_null(_whole(1)), "null or a whole number of at least 1"),
    ("trainer.log_every_n_steps", _whole(1), "a whole number of at least 1"),
    ("trainer.gradient_clip_val", _or_null(_number(0, above=True)), "null or a number above 0"),
    ("trainer.compile", _one_of(True, False), "true or false"),
    ("trainer.threads", _or_null(_whole(1)), "null or a whole number of at least 1"),
    ("callbacks.checkpoint.every_n_minutes", _number(0, above=True), "a number above 0"),
    ("callbacks.divergence.max_loss", _number(0, above=True), "a number above 0"),
    ("callbacks.divergence.every_n_steps", _whole(1), "a whole number of at least 1"),
    ("callbacks.progress.refresh_per_second", _number(0, above=True), "a number above 0"),
    ("callbacks.figures.mistakes", _whole(1), "a whole number of at least 1"),
)  # fmt: skip


def check(config: DictConfig) -> None:
    """Raise `ConfigError` with every problem of a composed training configuration, before any data is read."""
    try:
        resolved: dict[str, Any] = plain(config, throw_on_missing=True)
    except (OmegaConfBaseException, ValueError) as error:
        raise ConfigError([_interpolation_problem(error)]) from None
    problems = _rule_problems(resolved) + target_problems(resolved) + _part_problems(resolved)
    if problems:
        raise ConfigError(problems)


def _interpolation_problem(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    key = getattr(error, "full_key", None)
    return f"{key}: {lines[0]}" if key else lines[0]


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


def _part_problems(resolved: Mapping[str, Any]) -> list[str]:
    """Problems that the parts know of themselves: curve, hyperparameters, network."""
    problems = _structure_problems(resolved)
    if problems:
        return problems
    if resolved["model"].get("_target_") == RESNET9:
        problems += [f"model.{line}" for line in options.problems(resolved["model"])]
        if resolved["model"].get("in_channels") != 3:
            problems.append(f"model.in_channels={resolved['model'].get('in_channels')}: must be 3, all images are RGB")
    schedule = resolved["schedule"]
    if _is_allowed(str(schedule.get("_target_"))):
        try:
            instantiate(schedule)
        except ConfigError as error:
            problems += [f"schedule: {line}" for line in error.problems]
        except ValueError as error:
            problems += [f"schedule.{line}" for line in str(error).splitlines()]
    peak_lr, batch_size = schedule.get("peak_lr"), resolved["batch_size"]
    if _whole(1)(batch_size):
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


def evaluation_problems(config: DictConfig, saved: DictConfig) -> list[str]:
    """Problems of a composed evaluation configuration for the run configuration `saved`."""
    problems = []
    for key, holds, allowed in (
        ("precision", _or_null(_one_of(*PRECISIONS)), "null, " + ", ".join(PRECISIONS)),
        ("accelerator", _one_of("auto", "cpu", "gpu", "cuda", "mps"), "auto, cpu, gpu, cuda or mps"),
        ("figures", _one_of(True, False), "true or false"),
        ("checkpoint", _text, "a file name"),
    ):
        if not holds(config[key]):
            problems.append(f"{key}={_shown(config[key])}: must be {allowed}")
    if config.data:
        data = plain(config.data)
        problems += _rule_problems({"data": data}) + target_problems({"data": data})
    return problems + target_problems(plain(saved))


def plain(config: DictConfig | Mapping[str, Any], throw_on_missing: bool = False) -> dict[str, Any]:
    """The resolved config as dicts, lists, strings and numbers."""
    if not isinstance(config, DictConfig):
        return dict(config)
    container = OmegaConf.to_container(config, resolve=True, throw_on_missing=throw_on_missing)
    assert isinstance(container, dict)
    return {str(key): value for key, value in container.items()}
