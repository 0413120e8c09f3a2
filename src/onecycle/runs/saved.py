"""The configuration in a run's folder: read as plain values, and validated before any use."""

import shlex
import stat
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import yaml
from omegaconf import DictConfig, OmegaConf
from pydantic import ConfigDict, Field

from onecycle.config.schema import Component, EvaluationOptions, TrainOptions
from onecycle.config.types import Options
from onecycle.config.validate import components, errors_of, training_errors, validated
from onecycle.errors import ConfigError, one_line, reason_of
from onecycle.runs.identity import BY_CONTENT, has_no_effect, override_key, with_moved_targets
from onecycle.runs.record import CONFIG, LARGEST, read_result
from onecycle.training.options import CLASSIFICATION


def read_saved(folder: Path) -> dict[str, Any]:
    """The plain values of the configuration in a run's folder, with today's paths of classes.

    Raises ConfigError where there is none, and where it is no run's.
    """
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
    """The validated configuration in the folder of a run of one's own; raises ConfigError with every error."""
    check_links(folder)
    values = read_saved(folder)
    errors = training_errors(values)
    if errors:
        raise ConfigError([one_line(f"{folder / CONFIG}: {line}") for line in errors])
    return TrainOptions.model_validate(values)


class Description(Options):
    """What an evaluation reads of a configuration: plain values that describe the network and its test, and no place.

    The configuration may be a stranger's. Callbacks, loggers, paths and options of the Trainer are not among them.
    """

    model_config = ConfigDict(extra="ignore")

    model: Component
    task: Component = Field({"_target_": CLASSIFICATION})
    evaluation: EvaluationOptions
    source: Component
    side: Annotated[int, Field(ge=12)] | None


def description(folder: Path) -> Description:
    """The description of a run, whoever made it; raises ConfigError for a folder that is none, or that has links."""
    check_links(folder)
    values = read_saved(folder)
    data = values.get("data")
    values |= {name: data.get(name) if isinstance(data, Mapping) else None for name in ("source", "side")}
    errors = errors_of(Description, values)
    for key, part, own in components({**values, "data": {"source": values["source"]}}):
        if key in ("model", "task", "data.source") and own:
            errors += errors_of(own, {name: value for name, value in part.items() if name != "_target_"}, key)
    if errors:
        raise ConfigError([one_line(f"{folder / CONFIG}: {line}") for line in errors])
    return Description.model_validate(values)


def finished_run(folder: Path) -> tuple[Description, Mapping[str, Any]]:
    """Description and record of a finished run, whoever made it; raises ConfigError for any other folder."""
    described, record = description(folder), read_result(folder)
    if record is None or not (record.get("data") or {}).get("classes"):
        again = f"onecycle-train {shlex.quote(f'resume={folder}')}"
        raise ConfigError([f"{folder}: the run has not been finished; {again} does"])
    return described, record


def origin_of(given: str) -> tuple[Path, str | None]:
    """The run's folder that a path names, or in which it names a checkpoint; that checkpoint's file name, or None."""
    path = Path(given)
    is_checkpoint = path.is_file() and path.parent.name == "checkpoints"
    return (path.parents[1], path.name) if is_checkpoint else (path, None)


def with_run_folders(words: Sequence[str]) -> list[str]:
    """The words of a command line, with a run's folder where run= or resume= names a checkpoint in it.

    "last", also of init_from=, is the newest run in logs/runs, or below output=. Raises ConfigError where there is
    none.
    """
    given, found = dict(word.partition("=")[::2] for word in words), []
    for word in words:
        key, _, value = word.partition("=")
        if key in ("run", "resume", "init_from") and value == "last" and not Path(value).exists():
            runs = sorted(Path(given.get("output", "logs"), "runs").glob(f"*/{CONFIG}"))  # they begin with the time
            if not runs:
                raise ConfigError([f"{word}: there is no run in {given.get('output', 'logs')}/runs"])
            word = f"{key}={runs[-1].parent}"
        elif key in ("run", "resume") and (place := origin_of(value))[1]:
            word = f"{key}={place[0]}"
            found += [f"checkpoint={place[1]}"] * (key == "run" and "checkpoint" not in given)
        found.append(word)
    return found


def resumed_config(config: DictConfig, words: Sequence[str]) -> TrainOptions:
    """The configuration of the run in `config.resume`, with those overrides that cannot change its result.

    config: composed from the command line. Raises ConfigError for any other override, and for an unusable folder.
    """
    folder = Path(config.resume)
    merged = OmegaConf.create(saved_config(folder).model_dump(exclude_unset=True))
    refused = [word for word in words if not (has_no_effect(key := override_key(word)) or key == BY_CONTENT)]
    if refused:
        raise ConfigError([f"{word}: cannot be changed in a run that is resumed" for word in refused])
    keys = [override_key(word) for word in words]
    for key in keys:
        OmegaConf.update(merged, key, OmegaConf.select(config, key), force_add=True)
    if "data.root" in keys and "root" in merged.data.source:
        merged.data.source.root = config.data.root
    return validated(merged)


def check_links(folder: Path) -> None:
    """Raise ConfigError where a link in a run's folder would lead reading or writing out of it, or a file is none.

    A second name of a file (a hard link) may be anywhere, and what is appended to the one is appended to the other.
    """
    found = []
    for path in sorted(folder.rglob("*")):
        try:
            status = path.lstat()
        except FileNotFoundError:  # replaced just now by a process that trains the run, which the lock will tell
            continue
        mode, names = status.st_mode, status.st_nlink
        if stat.S_ISLNK(mode) and not path.resolve().is_relative_to(folder.resolve()):
            found.append(f"{path}: is a symbolic link out of the run's folder; remove it")
        elif not (stat.S_ISLNK(mode) or stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
            found.append(f"{path}: is neither a file nor a folder; remove it")
        elif stat.S_ISREG(mode) and names > 1:
            found.append(f"{path}: is a hard link, with {names} names; copy the folder without them (cp -r)")
    if found:
        raise ConfigError(found)
