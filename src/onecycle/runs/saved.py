"""The configuration in a run's folder, which may be a stranger's: read as plain values and validated before any use."""

import stat
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml
from omegaconf import DictConfig, OmegaConf

from onecycle.config.schema import TrainOptions
from onecycle.config.validate import flat, training_errors, validated
from onecycle.errors import ConfigError, one_line, reason_of
from onecycle.runs.identity import has_no_effect, override_key, with_moved_targets
from onecycle.runs.record import CONFIG, LARGEST


def read_saved(folder: Path) -> dict[str, Any]:
    """The plain values of the configuration in a run's folder, with today's paths of classes.

    Raises ConfigError where there is none, where it is no run's, and where a link in the folder leads out of it.
    """
    check_links(folder)
    path = folder / CONFIG
    try:
        if path.stat().st_size > LARGEST:
            raise ValueError(f"it has more than {LARGEST:,} bytes")
        values = yaml.load(path.read_text(encoding="utf-8"), Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
        if not isinstance(values, dict):
            raise ValueError("it holds no configuration")
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
        raise ConfigError([one_line(f"{folder}: is not a run's folder ({CONFIG}: {reason_of(error)})")]) from None
    match values.get("ema"):
        case {"decay": int() | float() as kept, "every_n_steps": int(steps), **others} if kept > 0 and steps > 0:
            # version 0.1: the share that an update keeps
            values["ema"] = {**others, "decay_per_step": kept ** (1 / steps), "every_n_steps": steps}
    return with_moved_targets(values)


def saved_config(folder: Path) -> TrainOptions:
    """The validated configuration in a run's folder, which downloads nothing; raises ConfigError with every error."""
    values = read_saved(folder)
    # A run's own configuration is resolved: an interpolation would read this machine's environment.
    errors = [f"{key}={value}: must be a value" for key, value in flat(values).items() if "${" in str(value)]
    errors = errors or training_errors(values)
    if errors:
        raise ConfigError([one_line(f"{folder / CONFIG}: {line}") for line in errors])
    # Its owner chose the place: nothing is downloaded into it by others.
    if "download" in values["data"]["source"]:
        values["data"]["source"]["download"] = False
    return TrainOptions.model_validate(values)


def saved_errors(folder: Path) -> list[str]:
    """Why a folder is not that of a run, or its configuration cannot be used; a line each."""
    try:
        saved_config(folder)
    except ConfigError as error:
        return error.problems
    return []


def resumed_config(config: DictConfig, words: Sequence[str]) -> TrainOptions:
    """The configuration of the run in `config.resume`, with those overrides that cannot change its result.

    config: composed from the command line. Raises ConfigError for any other override, and for an unusable folder.
    """
    folder = Path(config.resume)
    merged = OmegaConf.create(saved_config(folder).model_dump(exclude_unset=True))
    refused = [word for word in words if not has_no_effect(override_key(word))]
    if refused:
        raise ConfigError([f"{word}: cannot be changed in a run that is resumed" for word in refused])
    keys = [override_key(word) for word in words]
    for key in keys:
        OmegaConf.update(merged, key, OmegaConf.select(config, key), force_add=True)
    if "data.root" in keys and "root" in merged.data.source:
        merged.data.source.root = config.data.root
        if "download" in merged.data.source:
            merged.data.source.download = read_saved(folder)["data"]["source"]["download"]
    return validated(merged)


def check_links(folder: Path) -> None:
    """Raise ConfigError where a link in a run's folder would lead reading or writing out of it, or a file is none."""
    found = []
    for path in sorted(folder.rglob("*")):
        mode = path.lstat().st_mode
        if stat.S_ISLNK(mode) and not path.resolve().is_relative_to(folder.resolve()):
            found.append(f"{path}: is a symbolic link out of the run's folder; remove it")
        elif not (stat.S_ISLNK(mode) or stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
            found.append(f"{path}: is neither a file nor a folder; remove it")
    if found:
        raise ConfigError(found)
