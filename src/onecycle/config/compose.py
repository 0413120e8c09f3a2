"""The words of a command line, checked before anything runs: all errors at once, a line each.

Hydra composes the configuration and stops at the first word that it refuses. That word is noted and left out, until the
rest can be composed and each value of a sweep's axes can be validated.
"""

import contextlib
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, Literal

import joblib
from hydra import compose, initialize_config_dir
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import ChoiceSweep, IntervalSweep, Override, RangeSweep
from hydra.errors import HydraException, MissingConfigException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from pydantic import ConfigDict

from onecycle.config import hyperparameters
from onecycle.config.types import Count, Options
from onecycle.config.validate import did_you_mean, errors_of, flat
from onecycle.errors import ConfigError

CONF = (Path(__file__).parents[1] / "conf").resolve()  # in the source tree a link to conf/ at its top
SWEEP_FLAGS = ("-m", "--multirun")
FLAGS = (
    *SWEEP_FLAGS, "-r", "--run", "-h", "--help", "--hydra-help", "--version", "-c", "--cfg", "--resolve", "-p",
    "--package", "-sc", "--shell-completion", "-cp", "--config-path", "-cn", "--config-name", "-cd", "--config-dir",
    "--experimental-rerun", "-i", "--info",
)  # fmt: skip
SHARED = "base"  # what the options of a group have in common: no option itself
# What other programs call some keys.
USUAL = {
    "lr": "schedule.peak_lr", "learning_rate": "schedule.peak_lr", "max_lr": "schedule.peak_lr",
    "momentum": "hyperparameters.momentum", "wd": "hyperparameters.weight_decay", "epochs": "trainer.max_epochs",
    "steps": "trainer.max_steps", "device": "trainer.accelerator",
}  # fmt: skip
MOST_AT_ONCE = 8  # runs of a study, of which each takes more than a gigabyte
VALUES_PER_AXIS = 64  # values of an axis that are looked at before a sweep: more would keep it waiting

PATHS = ("run", "checkpoint", "resume", "init_from", "output", "data.root", "data.cache", "hydra.sweep.dir")


class LauncherOptions(Options):
    """Those options of Hydra's launchers that are refused only when they run."""

    model_config = ConfigDict(extra="allow")

    n_jobs: Literal[-1] | Count | None = None
    timeout_min: Count | None = None
    cpus_per_task: Count | None = None
    nodes: Count | None = None
    tasks_per_node: Count | None = None
    array_parallelism: Count | None = None


# The errors of a composed configuration, given whether it is that of a sweep.
Validate = Callable[[DictConfig, bool], list[str]]


def register_resolvers() -> None:
    """Make the interpolations of conf/ known to OmegaConf; calling it again changes nothing."""
    for function in (
        hyperparameters.peak_lr_from_effective_decay,
        hyperparameters.peak_lr_from_per_example,
        hyperparameters.steps_for_examples,
        runs_at_once,
    ):
        OmegaConf.register_new_resolver(function.__name__, function, replace=True)


def runs_at_once(wanted: int | None, scale: str, accelerator: str, devices: Any) -> int:
    """How many runs a study makes at a time: as many as `wanted`, else one a core, up to 8, at scale cpu without a GPU.

    Two runs of small networks with one thread each share two cores better than one run with two; a GPU is filled by
    one. accelerator, devices: the trainer's.
    """
    if wanted is not None or scale != "cpu" or accelerator not in ("auto", "cpu") or devices not in ("auto", 1):
        return wanted or 1
    has_gpu = sys.platform == "darwin" or any(Path("/dev").glob("nvidia[0-9]*"))
    return 1 if accelerator == "auto" and has_gpu else min(joblib.cpu_count(), MOST_AT_ONCE)


def plain(config: DictConfig) -> dict[str, Any]:
    """The resolved values of a configuration as dicts, lists, texts and numbers."""
    values = OmegaConf.to_container(config, resolve=True)
    assert isinstance(values, dict)
    return {str(key): value for key, value in values.items()}


def without_hydra(config: DictConfig) -> DictConfig:
    """A composed configuration without Hydra's part."""
    own = OmegaConf.masked_copy(config, [str(key) for key in config if key != "hydra"])
    OmegaConf.set_struct(own, True)
    return own


def as_hydra_takes_it(word: str) -> str:
    """A word of the command line: a path that Hydra's grammar would take for more is quoted, a group's null is none."""
    key, _, value = word.partition("=")
    if key in ("logger", "callbacks") and value == "null":
        return f"{key}=none"
    if key not in PATHS or value in ("", "null") or value.startswith(("choice(", "null,")):
        return word
    with contextlib.suppress(HydraException, ValueError):
        if _parsed(word).value() == value or value.startswith(("'", '"')):
            return word
    # A quotation mark is escaped by a backslash, and so are the backslashes before one.
    escaped = re.sub(r"(\\*)('|$)", lambda found: found[1] * 2 + found[2].replace("'", r"\'"), value)
    return f"{key}='{escaped}'"


def check_words(words: Sequence[str], name: str, validate: Validate) -> None:
    """Raise ConfigError with every error in the words of a command line.

    words: the command line without the program. name: the main configuration. validate: the errors of a composed one.
    Each value of a sweep's axes is validated with the first values of the other axes. Hydra's own options (--help,
    --cfg, …) and configurations from elsewhere are left to Hydra.
    """
    flags = [word for word in words if word.startswith("-")]
    bare = {word: word.strip("-").partition("=")[0].replace("-", "_") for word in flags}
    wrong = {
        word: f"{word}: must be an option of Hydra; write {USUAL.get(bare[word], 'key')}=value without dashes"
        for word in flags
        if not any(flag == word.partition("=")[0] or (len(word) > 3 and flag.startswith(word)) for flag in FLAGS)
    }
    if (not wrong and set(flags) - set(SWEEP_FLAGS)) or any("hydra.searchpath=" in word for word in words):
        return
    overrides: list[Override] = []
    for word in words:
        group, _, option = word.partition("=")
        if option == SHARED and (CONF / group / f"{SHARED}.yaml").exists():
            wrong[word] = f"{word}: must be an option; this is what the options of {group} have in common"
        elif word not in flags:
            try:
                overrides.append(_parsed(word))
            except (HydraException, ValueError):
                wrong[word] = f"{word[:100]!r}: must be key=value; quote values with special characters"
    with initialize_config_dir(version_base="1.3", config_dir=str(CONF)):
        found = _errors(overrides, name, any(flag in SWEEP_FLAGS for flag in flags), validate, wrong)
    lines = [wrong[word] for word in sorted(wrong, key=lambda word: words.index(word) if word in words else len(words))]
    if lines + found:
        raise ConfigError(list(dict.fromkeys(lines + found)))


def _parsed(word: str) -> Override:
    if word.startswith("="):
        raise ValueError("no key")
    override = OverridesParser.create().parse_override(word)
    override.value()  # a whole number of thousands of digits fails only here
    return override


def _errors(
    overrides: list[Override], name: str, sweeping: bool, validate: Validate, wrong: dict[str, str]
) -> list[str]:
    """The errors of the configuration that the words make; those of the words themselves are put into `wrong`."""
    config = _composed(overrides, name, wrong)
    sweeping = sweeping or OmegaConf.select(config, "hydra.mode", throw_on_resolution_failure=False) is not None
    for override in [] if sweeping else overrides:
        if override.is_sweep_override():
            line = str(override.input_line)
            key, _, value = line.partition("=")
            wrong[line] = f"{line}: must be one value; for a run of each add -m, for a list write {key}=[{value}]"
    found = _hydra_errors(config) + validate(without_hydra(config), sweeping)
    for place, override in enumerate(overrides if sweeping else ()):
        for word in list(_words(override))[1:]:
            other, changed = _parsed(word), config.copy()
            if _group(other):
                changed = _composed([*overrides[:place], other, *overrides[place + 1 :]], name, wrong)
            else:
                OmegaConf.update(changed, other.get_key_element().lstrip("+"), other.value(), merge=True)
            found += validate(without_hydra(changed), sweeping)
    # Where a word is left out, only what is said of the others is certain: the rest may result from its absence.
    keys = tuple(f"{override.get_key_element().lstrip('+~')}=" for override in overrides)
    return [line for line in found if not wrong or line.startswith(keys)]


def _hydra_errors(config: DictConfig) -> list[str]:
    """What Hydra and its launchers refuse only when they have begun, or what would break relative paths."""
    lines, hydra = [], OmegaConf.to_container(config.hydra, resolve=False)
    assert isinstance(hydra, dict)
    if hydra["job"]["chdir"]:
        lines.append("hydra.job.chdir=true: must be false; each run has a folder of its own, and paths stay relative")
    if not isinstance(hydra["verbose"], bool | str | list):
        lines.append(f"hydra.verbose={hydra['verbose']}: must be true, false, or the names of loggers")
    given = {key: value for key, value in hydra["launcher"].items() if "${" not in str(value)}
    return lines + errors_of(LauncherOptions, given, "hydra.launcher")


def _composed(overrides: list[Override], name: str, wrong: dict[str, str]) -> DictConfig:
    """The configuration, Hydra's part included, of those overrides that Hydra takes.

    The others are taken out of the list, and explained in `wrong` by their words.
    """
    refused: list[tuple[Override, Exception]] = []
    while True:
        try:
            config = compose(name, overrides=[_first(override) for override in overrides], return_hydra_config=True)
            break
        except (HydraException, OmegaConfBaseException, ValueError) as error:
            blamed = next((override for override in overrides if _is_blamed(override, error)), None)
            if blamed is None:
                raise ConfigError([" ".join(str(error).split())]) from None
            overrides.remove(blamed)
            refused.append((blamed, error))
    wrong |= {str(override.input_line): _line(override, reason, config) for override, reason in refused}
    return config


def _is_blamed(override: Override, error: Exception) -> bool:
    """Whether Hydra, which stops at the first override that it refuses, speaks of this one."""
    if isinstance(error, MissingConfigException):
        return str(error.missing_cfg_file).rpartition("/")[0] == _group(override)
    if override.is_delete():
        return f"'{override.key_or_group}'" in str(error)
    return _first(override).lstrip("+") in str(error) or (override.value() is None and _group(override) != "")


def _line(override: Override, error: Exception, config: DictConfig) -> str:
    word, key, said = str(override.input_line), str(override.key_or_group), str(error)
    if isinstance(error, MissingConfigException) and error.options:
        option = str(error.missing_cfg_file).rpartition("/")[2]
        options = [one for one in error.options if one != SHARED]
        return f"{key}={option}: must be one of {', '.join(options)}{did_you_mean(option, options)}"
    if said.startswith("Could not") and OmegaConf.select(config, key, throw_on_resolution_failure=False) is None:
        known = flat(OmegaConf.to_container(config, resolve=False))
        return f"{word}: there is no key {key}{did_you_mean(USUAL.get(key, key), known)}"
    return f"{word}: {' '.join(said.split())}"


def _group(override: Override) -> str:
    """The group from which an override chooses; empty where it sets a value."""
    group = str(override.key_or_group).partition("@")[0]
    return group if group.startswith("hydra/") or (CONF / group).is_dir() else ""


def _words(override: Override) -> Iterator[str]:
    """The override with each of its values; of ranges and intervals with the first and the last only."""
    value, start = override.value(), str(override.input_line).partition("=")[0]
    if isinstance(value, ChoiceSweep):
        yield from (f"{start}={text}" for text in islice(override.sweep_string_iterator(), VALUES_PER_AXIS))
    elif isinstance(value, RangeSweep):
        texts = list(islice(override.sweep_string_iterator(), 10**6))
        yield from (f"{start}={text}" for text in dict.fromkeys([*texts[:1], *texts[-1:]]))
    elif isinstance(value, IntervalSweep):
        yield from (f"{start}={end}" for end in (value.start, value.end))
    elif not override.is_sweep_override():
        yield str(override.input_line)


def _first(override: Override) -> str:
    """The override with its first value; one that has none, such as a pattern of names, as it is."""
    return next(_words(override), str(override.input_line))
