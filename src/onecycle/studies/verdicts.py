"""The verdicts of measurements on claims of the literature; see `study.ClaimOptions` for what a claim is."""

import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import pandas as pd

from onecycle.config.validate import did_you_mean
from onecycle.errors import ConfigError
from onecycle.studies.effects import columns_of, filters_of
from onecycle.studies.estimate import Estimate, estimate
from onecycle.studies.rows import cells, choices, filter_text, is_number, levels, same, select, value_text
from onecycle.studies.study import ClaimOptions, claim_errors, claim_options

HOLDS, FAILS, UNDECIDED = "holds", "does not hold", "undecided"
SLACK = 1e-9  # relative to a bound: what rounding may do to an effect that lies on it
SHARE_OF_RUNS = "of the runs"  # a unit: the effect is said in words
NEGLIGIBLE = 1e-6  # relative to an effect: an uncertainty below that is not shown
SHOWN_VALUES = 12


@dataclass(frozen=True)
class Verdict:
    """What measurements say of a claim.

    `uncertainty` is the half width of the effect's two-sided 90 % confidence interval. Effect and uncertainty are NaN
    where they are unknown. `if_not` is empty unless the claim does not hold.
    """

    id: str
    text: str
    source: str
    verdict: str
    effect: float
    uncertainty: float
    at_least: float | None
    at_most: float | None
    unit: str
    seeds: int
    reason: str
    margin_from: str = ""
    if_not: str = ""

    def as_dict(self) -> dict[str, Any]:
        """The fields as JSON has them: None for a number that is unknown."""
        return {key: None if is_number(value) and math.isnan(value) else value for key, value in asdict(self).items()}


def judge(frame: pd.DataFrame, entry: Mapping[str, Any], *, whole: bool = True) -> Verdict:
    """The verdict of the runs on a claim: it holds, or does not, where the whole interval of the effect says so.

    The effect is taken for each seed that has every run the claim is about; see `estimate` for its interval. whole:
    whether the rows are those of a whole study; in a part of one, a claim about other runs is undecided. Raises
    ConfigError for a claim that has an error, or names a column or, in a whole study, a value that no run has.
    """
    where = f"claim {entry.get('id')}"
    lines = claim_errors(entry, where)
    if lines:
        raise ConfigError(lines)
    claim = claim_options(entry["effect"]).model_validate(entry)
    filters = filters_of(claim.parameters)
    for column in [*columns_of(claim.effect, claim.parameters).values(), *(name for one in filters for name in one)]:
        if column not in frame:
            raise ConfigError([f"{where}: no column {column!r}{did_you_mean(column, frame.columns)}"])
    missing = next((text for one in filters if (text := _missing(frame, one))), "")
    if missing and whole:
        raise ConfigError([f"{where}: {missing}"])
    if missing:
        return _verdict(claim, Estimate(math.nan, math.nan, 0, f"cannot be measured: {missing}"))
    return _verdict(claim, estimate(frame, claim.effect, claim.parameters, claim.assumed_sd, claim.exact))


def _missing(frame: pd.DataFrame, where: Mapping[str, Any]) -> str:
    """Which runs that a filter means are not there; empty where there are some for each of its values."""
    for column, wanted in where.items():
        absent = [value for value in choices(wanted) if not any(same(cell, value) for cell in cells(frame, column))]
        if absent:
            return f"no run has {filter_text({column: absent})}; {_values(frame, column)}"
    there = "; ".join(_values(frame, column) for column in where)
    return f"no run has {filter_text(where)} together; {there}" if select(frame, where).empty else ""


def _values(frame: pd.DataFrame, column: str) -> str:
    found = list(map(value_text, levels(frame, column)))
    return f"{column} is {' or '.join(found[:SHOWN_VALUES])}" + " or …" * (len(found) > SHOWN_VALUES)


def _verdict(claim: ClaimOptions, result: Estimate) -> Verdict:
    low, high = result.effect - result.uncertainty, result.effect + result.uncertainty
    slack = [SLACK * max(1.0, abs(bound)) for bound in claim.bounds]  # infinite for a bound that is none
    least, most = claim.bounds[0] - slack[0], claim.bounds[1] + slack[1]
    verdict = HOLDS if least <= low and high <= most else FAILS if high < least or most < low else UNDECIDED
    return Verdict(
        id=claim.id, text=claim.text, source=claim.source or "", verdict=verdict, effect=result.effect,
        uncertainty=result.uncertainty, at_least=claim.at_least, at_most=claim.at_most, unit=claim.unit,
        seeds=result.seeds, reason=_reason(result, claim, verdict), margin_from=claim.margin_from or "",
        if_not=(claim.if_not or "") if verdict == FAILS else "",
    )  # fmt: skip


def _reason(result: Estimate, claim: ClaimOptions, verdict: str) -> str:
    if result.obstacle:
        return result.obstacle
    unit = f" {claim.unit}".rstrip()
    decimals = _decimals(result)
    if verdict == UNDECIDED:
        low, high = result.effect - result.uncertainty, result.effect + result.uncertainty
        inside = [str(bound) for bound in claim.bounds if low <= bound <= high]
        return (
            f"the interval {_text(low, decimals + 1)} to {_text(high, decimals + 1)}{unit} contains the "
            f"bound{'s' * (len(inside) > 1)} {' and '.join(inside)}"
        )
    if claim.unit.startswith(SHARE_OF_RUNS) and not _matters(result):
        return f"{_share(result.effect)} {claim.unit}, {_claimed(claim, _share)}"
    amount = _text(result.effect, decimals)
    if _matters(result):
        amount += f" ± {_text(result.uncertainty, decimals)}"
    elif "." in amount:
        amount = amount.rstrip("0").rstrip(".")
    return f"{amount}{unit}, {_claimed(claim)}"


def _claimed(claim: ClaimOptions, word: Callable[[Any], str] = str) -> str:
    """What the bounds say. A share that can be no larger, or no smaller, is claimed without "at least" or "at most"."""
    least, most = claim.at_least, claim.at_most
    if word is _share and (least == 1 or most == 0):
        return f"{_share(1.0 if least == 1 else 0.0)} of them were claimed"
    if least is None:
        return f"at most {word(most)} was claimed"
    return f"at least {word(least)} was claimed" if most is None else f"{word(least)} to {word(most)} was claimed"


def _share(part: float) -> str:
    """A share of runs in words, or in percent."""
    return {0.0: "none", 1.0: "all"}.get(part, f"{100 * part:.0f} %")


def _matters(result: Estimate) -> bool:
    return result.uncertainty > NEGLIGIBLE * abs(result.effect)


def _decimals(result: Estimate) -> int:
    """Decimals that show one digit of the uncertainty, two where the first is a 1; four of an effect without one."""
    size = result.uncertainty if _matters(result) else abs(result.effect)
    if size == 0:
        return 0
    exponent = math.floor(math.log10(size))
    digits = 4 if not _matters(result) else 2 if size < 2 * 10.0**exponent else 1
    return max(0, digits - 1 - exponent)


def _text(number: float, decimals: int) -> str:
    """A rounded number; "0" rather than "-0"."""
    return f"{round(number, decimals) + 0.0:.{decimals}f}"
