"""The words of a command line, checked before anything runs: all errors at once, a line each.

Hydra's own messages name one wrong word at a time. Here the options of groups and the keys are compared with what there
is, the configuration is composed, and each value of a sweep's axes is validated.
"""

from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import ChoiceSweep, IntervalSweep, Override, RangeSweep
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from onecycle.config import hyperparameters
from onecycle.config.validate import did_you_mean, shown
from onecycle.errors import ConfigError

CONF = Path(__file__).parents[3] / "conf"
SWEEP_FLAGS = ("-m", "--multirun")
FLAGS = (
    *SWEEP_FLAGS, "-r", "--run", "-h", "--help", "--hydra-help", "--version", "-c", "--cfg", "--resolve", "-p",
    "--package", "-sc", "--shell-completion", "-cp", "--config-path", "-cn", "--config-name", "-cd", "--config-dir",
    "--experimental-rerun", "-i", "--info",
)  # fmt: skip
NULL_GROUPS = ("experiment", "study", "data")  # groups that null leaves out
SHARED = "base"  # what the options of a group have in common: no option itself
VALUES_PER_AXIS = 64  # values of an axis that are looked at before a sweep: more would keep it waiting

# The errors of a composed configuration, given whether it is that of a sweep.
Validate = Callable[[DictConfig, bool], list[str]]


def register_resolvers() -> None:
    """Make the interpolations of conf/ known to OmegaConf; calling it again changes nothing."""
    for function in (
        hyperparameters.peak_lr_from_effective_decay,
        hyperparameters.peak_lr_from_per_example,
        hyperparameters.steps_for_examples,
    ):
        OmegaConf.register_new_resolver(function.__name__, function, replace=True)


def plain(config: DictConfig) -> dict[str, Any]:
    """The resolved values of a configuration as dicts, lists, texts and numbers."""
    values = OmegaConf.to_container(config, resolve=True)
    assert isinstance(values, dict)
    return {str(key): value for key, value in values.items()}


def check_words(words: Sequence[str], name: str, validate: Validate) -> None:
    """Raise ConfigError with every error in the words of a command line.

    words: the command line without the program. name: the main configuration. validate: the errors of a composed one.
    Each value of a sweep's axes is validated with the first values of the other axes. Hydra's own options (--help,
    --cfg, …) and configurations from elsewhere are left to Hydra.
    """
    flags = [word for word in words if word.startswith("-")]
    lines = [
        f"{word}: must be an option of Hydra; write key=value without dashes" for word in flags if not _is_flag(word)
    ]
    if (not lines and set(flags) - set(SWEEP_FLAGS)) or any("hydra.searchpath=" in word for word in words):
        return
    sweeping = any(word in SWEEP_FLAGS for word in words)
    overrides: list[Override] = []
    for word in words:
        if word not in flags:
            try:
                overrides.append(_parsed(word))
            except (HydraException, ValueError):
                lines.append(f"{word[:100]!r}: must be key=value; quote values with special characters")
    with initialize_config_dir(version_base="1.3", config_dir=str(CONF)):
        lines += _errors(overrides, name, sweeping, validate)
    if lines:
        raise ConfigError(list(dict.fromkeys(lines)))


def _is_flag(word: str) -> bool:
    option = word.partition("=")[0]
    return option in FLAGS or (len(option) > 3 and any(flag.startswith(option) for flag in FLAGS))


def _parsed(word: str) -> Override:
    if word.startswith("="):
        raise ValueError("no key")
    override = OverridesParser.create().parse_override(word)
    override.value()  # a whole number of thousands of digits fails only here
    return override


def _errors(overrides: list[Override], name: str, sweeping: bool, validate: Validate) -> list[str]:
    wrong = {id(override): line for override in overrides if (line := _option_error(override))}
    whole = "" if wrong else _composed(name, [_first(override) for override in overrides])
    if isinstance(whole, str):  # only now the words are looked at one by one
        reason, groups = whole, [one for one in overrides if _options(one) is not None and id(one) not in wrong]
        base = _composed(name, [_first(override) for override in groups])
        known = {} if isinstance(base, str) else OmegaConf.to_container(base, resolve=False)
        for override in overrides if known else ():
            if _options(override) is None and (line := _key_error(override, known)):
                wrong[id(override)] = line
        rest = [override for override in overrides if id(override) not in wrong]
        whole = base if rest == groups else _composed(name, [_first(override) for override in rest])
        if isinstance(whole, str) or not wrong:
            return list(wrong.values()) or [reason]
    good = [override for override in overrides if id(override) not in wrong]
    sweeping = sweeping or OmegaConf.select(whole, "hydra.mode", throw_on_resolution_failure=False) is not None
    if not sweeping:
        wrong |= {id(override): _sweep_error(override) for override in good if override.is_sweep_override()}
    found = validate(without_hydra(whole), sweeping)
    for override in good if sweeping else ():
        for changed in _along(override, good, whole, name):
            found += [changed] if isinstance(changed, str) else validate(without_hydra(changed), sweeping)
    # Where a word is left out, only what is said of the others is certain: the rest may result from its absence.
    keys = tuple(f"{override.get_key_element().lstrip('+~')}=" for override in good)
    return [*wrong.values(), *(line for line in found if not wrong or line.startswith(keys))]


def _option_error(override: Override) -> str | None:
    """Why an override chooses no option of its group; None where it does, or sets a value."""
    known = _options(override)
    if known is None or override.is_delete() or isinstance(override.value(), dict):
        return None
    group = str(override.key_or_group).partition("@")[0]
    value = override.value()
    values = list(value.list) if isinstance(value, ChoiceSweep) else [] if override.is_sweep_override() else [value]
    for option in [one for value in values for one in (value if isinstance(value, list) else [value])]:
        if str(option) not in known and not (option is None and group in NULL_GROUPS):
            return f"{group}={shown(option)}: must be one of {', '.join(known)}{did_you_mean(str(option), known)}"
    return None


def _options(override: Override) -> list[str] | None:
    """The options of the group that an override chooses from; None where it sets a value."""
    group = str(override.key_or_group).partition("@")[0]
    if group.startswith("hydra/"):
        return sorted(GlobalHydra.instance().config_loader().get_group_options(group))
    if not (CONF / group).is_dir():
        return None
    return sorted(path.stem for path in (CONF / group).glob("*.yaml") if path.stem != SHARED)


def _key_error(override: Override, known: Any) -> str | None:
    """Why an override sets no key that there is, or adds one that there is; None where it is right."""
    key = override.get_key_element().lstrip("+~")
    node, walked = known, []
    for name in key.split("."):
        if isinstance(node, str):  # an interpolation: Hydra resolves it
            return None
        if not isinstance(node, dict) or name not in node:
            break
        node = node[name]
        walked.append(name)
    found = len(walked) == len(key.split("."))
    if override.is_force_add() or (override.is_add() and not found):
        _add(known, key)
        return None
    if override.is_add() and not isinstance(override.value(), dict):  # a group is merged with the one there
        return f"{override.input_line}: the key is there already; write {key}=…"
    if found or override.is_add():
        return None
    names = list(map(str, node)) if isinstance(node, dict) else []
    where = f" in {'.'.join(walked)}" if walked else ""
    return f"{override.input_line}: there is no key {key}{where}{did_you_mean(key.split('.')[len(walked)], names)}"


def _add(node: Any, key: str) -> None:
    """Note a key that an override adds: a later override may set it."""
    for name in key.split("."):
        if not isinstance(node, dict):
            return
        node = node.setdefault(name, {})


def _composed(name: str, words: list[str]) -> DictConfig | str:
    """The configuration with these overrides, Hydra's part included, or a line on why there is none."""
    try:
        return compose(name, overrides=words, return_hydra_config=True)
    except (HydraException, OmegaConfBaseException) as error:
        said = " ".join(str(error).strip().split("\n\n")[0].split())
        merging = "Error merging override "
        wrong_kind = f"{said.removeprefix(merging)}: must be of the kind that stands there"
        return wrong_kind if said.startswith(merging) else said


def _along(override: Override, others: list[Override], first: DictConfig, name: str) -> Iterator[DictConfig | str]:
    """The configurations of an axis's values after the first; a line where one cannot be composed."""
    for word in list(_words(override))[1:]:
        if _options(override) is not None:
            yield _composed(name, [word if other is override else _first(other) for other in others])
        else:
            changed = first.copy()
            OmegaConf.update(changed, override.get_key_element().lstrip("+"), _parsed(word).value(), merge=True)
            yield changed


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


def _sweep_error(override: Override) -> str:
    key, _, value = str(override.input_line).partition("=")
    return f"{key}={value}: must be one value; for a run of each add -m, for a list write {key}=[{value}]"


def without_hydra(config: DictConfig) -> DictConfig:
    """A composed configuration without Hydra's part."""
    own = config.copy()
    OmegaConf.set_struct(own, False)
    OmegaConf.set_readonly(own, False)
    own.pop("hydra", None)
    OmegaConf.set_struct(own, True)
    return own
