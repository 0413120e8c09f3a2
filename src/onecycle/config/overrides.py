"""The words of a command line, looked through before Hydra composes them: all mistakes at once, a line each."""

import difflib
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from onecycle.config import axes
from onecycle.errors import ConfigError

# Hydra's own options. Beside -m they show something, or bring another folder of configurations: Hydra reports on them.
SWEEPING = ("-m", "--multirun")
FLAGS = (
    *SWEEPING, "-r", "--run", "-h", "--help", "--hydra-help", "--version", "-c", "--cfg", "--resolve", "-p",
    "--package", "-sc", "--shell-completion", "-cp", "--config-path", "-cn", "--config-name", "-cd", "--config-dir",
    "--experimental-rerun", "-i", "--info",
)  # fmt: skip
MAY_BE_LEFT_OUT = ("experiment", "study", "data")  # groups that null leaves out
SHOWN = 100  # signs of a word that is no override
SHARED = "base"  # what the options of a group have in common: no option itself

# How Hydra begins to refuse an override that is well written, and what is to be said of it.
REASONS = {
    "Error merging override ": "must be of the kind that stands there: a value, a list or a group of keys",
    "Could not override '": "must be a key or a group that this command has",
}

Values = Callable[[DictConfig, bool], list[str]]


def check(words: Sequence[str], conf: Path, name: str, values: Values = lambda config, sweeping: []) -> None:
    """Raise ConfigError with every mistake in the words of a command line.

    words: the command line without the program. conf: the folder of the configurations; name: the main one. values:
    the problems of a composed configuration, given whether it is swept. Of a sweep each value of each axis is looked
    at, the other axes at their first one: what only a combination gets wrong is for its own run to say.
    """
    problems = [_unknown_flag(word) for word in words if word.startswith("-") and not _is_flag(word)]
    own = [word for word in words if _is_flag(word) and word not in SWEEPING]
    if own and not problems:
        return
    if any(word.lstrip("+").startswith("hydra.searchpath=") for word in words):
        return  # it brings options from elsewhere
    overrides = []
    for word in words:
        if word.startswith("-") or own:
            continue
        try:
            overrides.append(_parsed(word))
        except (HydraException, ValueError):
            must = "must be key=value; a value with other signs than letters and digits in quotes"
            problems.append(f"{word[:SHOWN] + '…' * (len(word) > SHOWN)!r}: {must}")
    with initialize_config_dir(version_base="1.3", config_dir=str(conf)):
        problems += _mistakes(overrides, conf, name, any(word in SWEEPING for word in words), values)
    if problems:
        raise ConfigError(list(dict.fromkeys(problems)))


def near(name: str, known: Iterable[str]) -> str:
    """The question whether the known name nearest to a mistyped one was meant, or nothing where none is near."""
    found = difflib.get_close_matches(name, list(known), n=1, cutoff=0.6)
    return f"; did you mean {found[0]}?" if found else ""


def _is_flag(word: str) -> bool:
    option = word.partition("=")[0]
    shortened = option.startswith("--") and len(option) > 2 and any(flag.startswith(option) for flag in FLAGS)
    return word.startswith("-") and (option in FLAGS or shortened)


def _unknown_flag(word: str) -> str:
    key, is_set, value = word.lstrip("-").partition("=")
    meant = f"write {key}={value}" if is_set else f"settings are key=value{near(word, FLAGS)}"
    return f"{word}: must be an option of Hydra; {meant}"


def _parsed(word: str) -> Override:
    if word.startswith("="):
        raise ValueError("no key")
    override = OverridesParser.create().parse_override(word)
    override.value()  # a whole number of thousands of digits fails only here
    return override


def _mistakes(overrides: list[Override], conf: Path, name: str, sweeping: bool, values: Values) -> list[str]:
    groups = [override for override in overrides if _options(override, conf) is not None]
    wrong = {id(override): lines for override in groups if (lines := _option_problems(override, conf))}
    whole = "" if wrong else _composed(name, [axes.first(override) for override in overrides])
    if isinstance(whole, str):
        chosen = [axes.first(override) for override in groups if id(override) not in wrong]
        base = _composed(name, chosen)
        if isinstance(base, str):
            return [*(line for lines in wrong.values() for line in lines), *([base] if not wrong else [])]
        wrong |= _key_problems([override for override in overrides if override not in groups], base)
        good = [axes.first(override) for override in overrides if id(override) not in wrong]
        whole, reason = (base, whole) if len(good) == len(overrides) else (_composed(name, good), "")
        if isinstance(whole, str) or reason:
            return [*(line for lines in wrong.values() for line in lines), reason or str(whole)]
    sweeping = sweeping or OmegaConf.select(whole, "hydra.mode", throw_on_resolution_failure=False) is not None
    if not sweeping:
        wrong |= {id(override): [_sweep_problem(override)] for override in overrides if override.is_sweep_override()}
    good_ones = [override for override in overrides if id(override) not in wrong]
    found = values(_own(whole), sweeping)
    for override in good_ones if sweeping else ():
        for changed in _along(override, good_ones, whole, name, is_group=override in groups):
            found += [changed] if isinstance(changed, str) else values(_own(changed), sweeping)
    # Where a word is left out, only what is said of the others is certain: the rest may follow from its absence.
    keys = tuple(f"{override.get_key_element().lstrip('+~')}=" for override in good_ones)
    told = [line for override in overrides for line in wrong.get(id(override), ())]
    return told + (found if not wrong else [line for line in found if line.startswith(keys)])


def _along(
    override: Override, others: list[Override], first: DictConfig, name: str, *, is_group: bool
) -> Iterable[DictConfig | str]:
    """The configurations of the further values of an axis; a line where one cannot be composed."""
    for word in axes.further(override):
        if is_group:
            yield _composed(name, [word if other is override else axes.first(other) for other in others])
            continue
        changed = first.copy()
        OmegaConf.update(changed, override.get_key_element().lstrip("+"), _parsed(word).value(), merge=True)
        yield changed


def _own(config: DictConfig) -> DictConfig:
    """A composed configuration without Hydra's part."""
    own = config.copy()
    OmegaConf.set_struct(own, False)
    OmegaConf.set_readonly(own, False)
    own.pop("hydra", None)
    OmegaConf.set_struct(own, True)
    return own


def _group(override: Override) -> str:
    return str(override.key_or_group).partition("@")[0]


def _options(override: Override, conf: Path) -> list[str] | None:
    """The options of the group that an override chooses from; None where it sets a value."""
    group = _group(override)
    if group.startswith("hydra/"):
        return sorted(GlobalHydra.instance().config_loader().get_group_options(group))
    if not (conf / group).is_dir():
        return None
    return sorted(path.stem for path in (conf / group).glob("*.yaml") if path.stem != SHARED)


def _option_problems(override: Override, conf: Path) -> list[str]:
    if override.is_delete() or isinstance(override.value(), dict):
        return []
    known = _options(override, conf) or []
    chosen = axes.values(override)
    return [
        f"{_group(override)}={'null' if option is None else option}: must be one of {', '.join(known)}"
        + near(str(option), known)
        for value in chosen
        for option in (value if isinstance(value, list) else [value])
        if str(option) not in known and not (option is None and _group(override) in MAY_BE_LEFT_OUT)
    ]


def _composed(name: str, words: list[str]) -> DictConfig | str:
    """The configuration with these overrides, Hydra's part included, or a line on why there is none."""
    try:
        return compose(name, overrides=words, return_hydra_config=True)
    except (HydraException, OmegaConfBaseException) as error:
        said = " ".join(str(error).strip().split("\n\n")[0].split())
    for start, must in REASONS.items():
        if said.startswith(start):
            given = said.removeprefix(start).split("'")[0]
            word = next((word for word in words if word.lstrip("+~").startswith(given)), given)
            return f"{word}: {must}"
    return said


def _sweep_problem(override: Override) -> str:
    key, _, value = str(override.input_line).partition("=")
    return f"{key}={value}: must be one value; for a run of each add -m, for a list write {key}=[{value}]"


def _key_problems(overrides: Sequence[Override], base: DictConfig) -> dict[int, list[str]]:
    """A line for each override of a key that is not there, or that adds one that is, by the override's identity."""
    known = OmegaConf.to_container(base, resolve=False)
    problems = {}
    for override in overrides:
        key = override.get_key_element().lstrip("+~")
        found, place, names = _find(known, key)
        if override.is_force_add() or (override.is_add() and not found):
            _add(known, key)
        elif override.is_add() and not isinstance(override.value(), dict):  # a group is merged with the one there
            problems[id(override)] = [f"{override.input_line}: the key is there already; write {key}=…"]
        elif not found:
            inside = f" in {place}" if place else ""
            meant = near(key.split(".")[-1], names)
            problems[id(override)] = [f"{override.input_line}: there is no key {key}{inside}{meant}"]
    return problems


def _add(node: object, key: str) -> None:
    """Make a key known that an override adds: a later one may set it."""
    *parents, last = key.split(".")
    for name in parents:
        if not isinstance(node, dict):
            return
        node = node.setdefault(name, {})
    if isinstance(node, dict):
        node.setdefault(last, {})


def _find(node: object, key: str) -> tuple[bool, str, list[str]]:
    """Whether a dotted key is there; else the group in which its next name is missing and the names in that group."""
    walked: list[str] = []
    for name in key.split("."):
        if isinstance(node, str):
            return True, "", []  # an interpolation: Hydra resolves it
        if not isinstance(node, dict) or name not in node:
            return False, ".".join(walked), [str(known) for known in node] if isinstance(node, dict) else []
        node = node[name]
        walked.append(name)
    return True, "", []
