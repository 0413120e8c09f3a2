"""The methods that a study's search may have, and the search that a block of `searches` describes."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from onecycle.config.hyperparameters import is_finite_number
from onecycle.errors import ConfigError
from onecycle.studies.search import coordinate as search
from onecycle.studies.search import space as search_space

REFINEMENTS = 8  # at most: the 256th root of a factor is finer than any noise


def walk(
    block: Mapping[str, Any], width: int = 1, folder: Path | None = None, told: search.Told = search.untold
) -> search.Search:
    """The search that a block of `searches` describes; raises ConfigError with every mistake.

    width: points to ask for at once. folder: where the runs and what the search itself remembers are kept; None where
    it is only checked. told: called with each step when it is decided.
    """
    return METHODS[block["method"]](block, width, folder, told)


def _coordinate(block: Mapping[str, Any], width: int, folder: Path | None, told: search.Told) -> search.Search:
    gain, refinements = block.get("min_gain", 0.0), block.get("refinements", 0)
    problems = []
    if not is_finite_number(gain) or gain < 0:
        problems.append(f"min_gain={gain}: must be a number of at least 0")
    if not isinstance(refinements, int) or isinstance(refinements, bool) or not 0 <= refinements <= REFINEMENTS:
        problems.append(f"refinements={refinements}: must be a whole number from 0 to {REFINEMENTS}")
    if problems:
        raise ConfigError(problems)
    axes = search_space.coordinates(block.get("coordinates") or {})
    pairs, budget = width > 1, block["budget"]
    return search.search(axes, budget=budget, pairs=pairs, min_gain=gain, refinements=refinements, told=told)


def _random(block: Mapping[str, Any], width: int, folder: Path | None, told: search.Told) -> search.Search:
    space = search_space.intervals(block.get("space") or {})
    return search.random_search(space, budget=block["budget"], seed=block.get("seed") or 0, told=told)


def _optuna(block: Mapping[str, Any], width: int, folder: Path | None, told: search.Told) -> search.Search:
    from onecycle.studies.search import trials  # Optuna is optional, and slow to import

    return trials.search(block, width, folder, told)


METHODS: dict[str, Callable[[Mapping[str, Any], int, Path | None, search.Told], search.Search]] = {
    "coordinate": _coordinate, "random": _random, "optuna": _optuna,
}  # fmt: skip
