"""What a command line changes of a study, refused before anything is written where no run could be made of it."""

from collections.abc import Sequence
from typing import Any

import yaml
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from onecycle.config.compose import plain
from onecycle.config.validate import training_errors
from onecycle.errors import ConfigError
from onecycle.studies import plan

EMPTY: tuple[Any, ...] = ([], "")  # what the parser makes of a key without a value


def changes(arguments: Sequence[str], study: dict[str, Any]) -> plan.Changes:
    """What the command line changes: values of axes, and overrides that every run gets.

    Raises ConfigError for an axis without a value.
    """
    axes: dict[str, list[Any]] = {}
    common, problems = [], []
    known = {"seed", *(key for block in study.get("runs") or [] for key in block.get("axes") or {})}
    for override in OverridesParser.create().parse_overrides(list(arguments)):
        key = override.get_key_element().lstrip("+~")
        line = override.input_line or ""
        if key == "study" or key.startswith(("study.", "hydra.", "hydra/")):
            continue
        if override.is_sweep_override():
            axes[key] = [yaml.safe_load(value) for value in override.sweep_string_iterator()]
        elif key in known:
            axes[key] = [override.value()]
        else:
            common.append(line)
        if key in axes and (not axes[key] or any(value in EMPTY for value in axes[key])):
            problems.append(f"{line}: must be at least one value")
    if problems:
        raise ConfigError(problems)
    return plan.Changes(axes, tuple(common))


def refuse(changed: plan.Changes, config: DictConfig) -> None:
    """Raise ConfigError for changes that every run would refuse, one line each; see `refusals`."""
    values = {key: list(values) for key, values in changed.axes.items()}
    for line in changed.common:
        override = OverridesParser.create().parse_override(line)
        if not override.is_delete():
            values.setdefault(override.get_key_element().lstrip("+"), []).append(override.value())
    problems = [line for key, wanted in values.items() for value in wanted for line in refusals(key, value, config)]
    if problems:
        raise ConfigError(problems)


def refusals(key: str, value: Any, config: DictConfig) -> list[str]:
    """What the rules of a configuration say against a value of one of its keys, a line each.

    A key that the configuration has not may belong to a group that the runs choose: nothing is said of it, nor of the
    choice of a group.
    """
    if OmegaConf.is_dict(OmegaConf.select(config, key, throw_on_resolution_failure=False)) and isinstance(value, str):
        return []
    own = config.copy()
    OmegaConf.set_readonly(own, False)
    OmegaConf.set_struct(own, False)
    own.pop("hydra", None)
    try:
        OmegaConf.set_struct(own, True)
        OmegaConf.update(own, key, value)
        found = training_errors(plain(own))
    except (OmegaConfBaseException, ValueError):
        return []
    return [line for line in found if line.startswith(f"{key}=")]
