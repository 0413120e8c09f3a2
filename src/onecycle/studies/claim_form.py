"""The form of a claim: what a study's configuration must say for `claims.judge` to be able to judge it.

A claim is a mapping: `id`, `text` and `unit`; optionally `source`, `margin_from` (where the margin comes from) and
`if_not` (the likely reason where the claim does not hold); an `effect` with its parameters (see `effects`); a bound
`at_least`, `at_most` or both. Where there is one seed alone, `assumed_sd`, the standard deviation of the metric from
run to run, stands for the spread over seeds, and `exact: true` says that there is none.
"""

import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, get_type_hints

from onecycle.studies.effects import EFFECTS, Better, Filters, Pair, Transform
from onecycle.studies.selection import Filter, Rows, choices, is_number, levels, same, select, words

Claim = Mapping[str, Any]

REQUIRED_TEXTS = ("id", "text", "unit")
OPTIONAL_TEXTS = ("source", "margin_from", "if_not")
BOUNDS = ("at_least", "at_most")
KEYS = frozenset((*REQUIRED_TEXTS, *OPTIONAL_TEXTS, *BOUNDS, "effect", "assumed_sd", "exact"))
METRIC_PARAMETERS = ("metric", "z", "y")  # the first that an effect takes is what was measured; the others are axes
MEASURED_PARAMETERS = ("selected_by",)  # columns that were measured beside the metric
SHOWN_VALUES = 12


class ClaimError(ValueError):
    """A claim that cannot be judged; one line names the claim, the mistake and what there is instead."""


class NoRunError(ClaimError):
    """A claim about runs that are not there: a mistake in a complete study, to be expected in a part of one."""


def check(claim: Claim) -> None:
    """Refuse a claim that no runs could decide; needs none, so that a study can be refused before it runs.

    Raises ClaimError for a missing text or bound, an unknown effect, a parameter that is missing, unknown or unfit.
    """
    if not isinstance(claim, Mapping) or not claim.get("id") or not isinstance(claim["id"], str):
        raise ClaimError(f"a claim is a mapping with an id; got {claim!r}")
    for key in REQUIRED_TEXTS:
        if key not in claim:
            raise _error(claim, f"no {key}; every claim has {', '.join(REQUIRED_TEXTS)}")
    for key in (*REQUIRED_TEXTS, *OPTIONAL_TEXTS):
        absent = key in OPTIONAL_TEXTS and claim.get(key) is None
        if not absent and not isinstance(claim[key], str):
            raise _error(claim, f"{key} must be a text, not {claim[key]!r}")
    _check_bounds(claim)
    _check_parameters(claim)


def _error(claim: Claim, problem: str) -> ClaimError:
    return ClaimError(f"claim {claim['id']}: {problem}")


def _check_bounds(claim: Claim) -> None:
    bounds = {key: claim[key] for key in BOUNDS if claim.get(key) is not None}
    if not bounds:
        raise _error(claim, "no bound; give at_least, at_most or both")
    for key, bound in bounds.items():
        if not _is_finite(bound):
            raise _error(claim, f"{key} must be a number, not {bound!r}")
    if len(bounds) == 2 and bounds["at_least"] > bounds["at_most"]:
        raise _error(claim, f"at_least {bounds['at_least']} is above at_most {bounds['at_most']}")
    sd = claim.get("assumed_sd")
    if sd is not None and not (_is_finite(sd) and sd > 0):
        raise _error(claim, f"assumed_sd must be a number above 0, not {sd!r}")
    if claim.get("exact") not in (None, True, False):
        raise _error(claim, f"exact must be true or false, not {claim['exact']!r}")


def _is_finite(value: object) -> bool:
    return is_number(value) and math.isfinite(value)


def _is_filter(value: object) -> bool:
    return isinstance(value, Mapping) and all(isinstance(key, str) and choices(wanted) for key, wanted in value.items())


def _are_filters(value: object) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, str) and len(value) > 0 and all(map(_is_filter, value))


# What a parameter may be, by its type in the effect's signature, and that in words.
FITS: dict[Any, tuple[Callable[[Any], bool], str]] = {
    str: (lambda value: isinstance(value, str), "the name of a column"),
    float: (_is_finite, "a number"),
    float | None: (lambda value: value is None or _is_finite(value), "a number"),
    Filter: (_is_filter, "a filter, {column: value}"),
    Filter | None: (lambda value: value is None or _is_filter(value), "a filter, {column: value}"),
    Pair: (lambda value: _are_filters(value) and len(value) == 2, "a list of two filters, {column: value}"),
    Filters: (lambda value: _are_filters(value) and len(value) > 1, "a list of at least two filters, {column: value}"),
    Filter | Filters: (lambda value: _is_filter(value) or _are_filters(value), "a filter, {column: value}, or a list"),
    Better: (lambda value: value in ("higher", "lower"), "higher or lower"),
    Transform: (lambda value: value in ("ratio", "product"), "ratio or product"),
}


def _check_parameters(claim: Claim) -> None:
    effect, given = claim.get("effect"), parameters(claim)
    if not isinstance(effect, str) or effect not in EFFECTS:
        raise _error(claim, f"no effect {effect!r}; there are {', '.join(EFFECTS)}")
    takes = dict(list(inspect.signature(EFFECTS[effect]).parameters.items())[1:])  # behind the rows
    missing = [name for name, parameter in takes.items() if parameter.default is parameter.empty and name not in given]
    unknown = [name for name in given if name not in takes]
    if unknown:
        raise _error(claim, f"effect {effect} takes no {', '.join(unknown)}; it takes {', '.join(takes)}")
    if missing:
        raise _error(claim, f"effect {effect} needs {', '.join(missing)}; it takes {', '.join(takes)}")
    hints = get_type_hints(EFFECTS[effect])
    for name, value in given.items():
        fits, allowed = FITS[hints[name]]
        if not fits(value):
            raise _error(claim, f"{name} must be {allowed}, not {value!r}")


def parameters(claim: Claim) -> dict[str, Any]:
    """What a claim hands to its effect."""
    return {key: value for key, value in claim.items() if key not in KEYS}


def columns(claim: Claim) -> dict[str, str]:
    """The columns that a claim names, by parameter."""
    hints = get_type_hints(EFFECTS[claim["effect"]])
    return {name: value for name, value in parameters(claim).items() if hints[name] is str}


def metric(claim: Claim) -> str:
    """The column that was measured."""
    named = columns(claim)
    return next(named[name] for name in METRIC_PARAMETERS if name in named)


def axes(claim: Claim) -> list[str]:
    """The columns of the grid on which the metric was measured, beside those of filters."""
    named = columns(claim).items()
    return [column for name, column in named if column != metric(claim) and name not in MEASURED_PARAMETERS]


def filters(claim: Claim) -> list[Filter]:
    """The filters of a claim; one that means every row where it has none."""
    found: list[Filter] = []
    for value in parameters(claim).values():
        if isinstance(value, Mapping):
            found.append(value)
        elif isinstance(value, Sequence) and not isinstance(value, str):
            found += value
    return found or [{}]


def check_rows(rows: Rows, claim: Claim) -> None:
    """Refuse a claim about columns or values that no row has; raises ClaimError with those that there are."""
    if not rows:
        raise _error(claim, "there are no runs to judge it by")
    present = list(dict.fromkeys(column for row in rows for column in row))
    for column in [*columns(claim).values(), *(column for where in filters(claim) for column in where)]:
        if column not in present:
            raise _error(claim, f"no column {column!r}; there are {', '.join(present)}")
    for where in filters(claim):
        for column, wanted in where.items():
            absent = [value for value in choices(wanted) if not any(same(row.get(column), value) for row in rows)]
            if absent:
                text = f"no run has {words({column: absent})}; {column} is {_values(rows, column)}"
                raise NoRunError(f"claim {claim['id']}: {text}")
        if not select(rows, where):
            there = "; ".join(f"{column} is {_values(rows, column)}" for column in where)
            raise NoRunError(f"claim {claim['id']}: no run has {words(where)} together; {there}")


def _values(rows: Rows, column: str) -> str:
    found = levels(rows, column)
    shown = [words({column: value}).removeprefix(f"{column} ") for value in found[:SHOWN_VALUES]]
    return " or ".join(shown) + (" or …" if len(found) > SHOWN_VALUES else "")
