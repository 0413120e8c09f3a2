"""The verdicts of measurements on claims of the literature. See `claim_form` for what a claim is."""

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

from onecycle.studies.claim_form import (
    BOUNDS,
    Claim,
    ClaimError,
    NoRunError,
    axes,
    check,
    check_rows,
    filters,
    metric,
    parameters,
)
from onecycle.studies.effects import EFFECTS
from onecycle.studies.estimate import Estimate, Noise, complete_seeds, estimate
from onecycle.studies.selection import Rows, is_number

__all__ = ["Claim", "ClaimError", "NoRunError", "Verdict", "check", "judge", "unmeasured"]

HOLDS, FAILS, UNDECIDED = "holds", "does not hold", "undecided"
SLACK = 1e-9  # relative to a bound: what rounding may do to an effect that lies on it
SHARE_OF_RUNS = "of the runs"  # a unit: the effect is said in words
NEGLIGIBLE = 1e-6  # relative to an effect: an uncertainty below that is not shown


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


def judge(rows: Rows, claim: Claim) -> Verdict:
    """The verdict of the runs on a claim: it holds, or does not, where the whole interval of the effect says so.

    The effect is taken for each seed that has every run the claim is about; see `estimate` for its interval. Raises
    ClaimError for a claim that is wrong in itself (see `check`) or names a column or a value that no run has.
    """
    check(claim)
    check_rows(rows, claim)
    noise = Noise(metric(claim), filters(claim), axes(claim), claim.get("assumed_sd"), bool(claim.get("exact")))
    seeds = complete_seeds(rows, noise.filters, noise.axes)
    effect = partial(EFFECTS[claim["effect"]], **parameters(claim))
    result = estimate(list(seeds.values()), effect, noise)
    verdict = _decide(result, claim)
    return _verdict(claim, verdict, result, _reason(result, claim, verdict))


def unmeasured(claim: Claim, reason: str) -> Verdict:
    """The verdict on a claim whose runs are not there."""
    return _verdict(claim, UNDECIDED, Estimate(math.nan, math.nan, 0), reason)


def _verdict(claim: Claim, verdict: str, result: Estimate, reason: str) -> Verdict:
    return Verdict(
        id=claim["id"],
        text=claim["text"],
        source=claim.get("source") or "",
        verdict=verdict,
        effect=result.effect,
        uncertainty=result.uncertainty,
        at_least=claim.get("at_least"),
        at_most=claim.get("at_most"),
        unit=claim["unit"],
        seeds=result.seeds,
        reason=reason,
        margin_from=claim.get("margin_from") or "",
        if_not=(claim.get("if_not") or "") if verdict == FAILS else "",
    )


def _bounds(claim: Claim) -> tuple[float, float]:
    """The least and the largest effect of which the claim is true, with room for rounding."""
    least, most = (claim.get(key) for key in BOUNDS)
    return (
        -math.inf if least is None else least - SLACK * max(1.0, abs(least)),
        math.inf if most is None else most + SLACK * max(1.0, abs(most)),
    )


def _decide(result: Estimate, claim: Claim) -> str:
    low, high = result.effect - result.uncertainty, result.effect + result.uncertainty
    least, most = _bounds(claim)
    if math.isnan(low):
        return UNDECIDED
    if least <= low and high <= most:
        return HOLDS
    return FAILS if high < least or most < low else UNDECIDED


def _reason(result: Estimate, claim: Claim, verdict: str) -> str:
    if result.obstacle:
        return result.obstacle
    unit = f" {claim['unit']}".rstrip()
    decimals = _decimals(result)
    if verdict == UNDECIDED:
        low, high = result.effect - result.uncertainty, result.effect + result.uncertainty
        least, most = _bounds(claim)
        inside = [str(claim[key]) for key, bound in zip(BOUNDS, (least, most), strict=True) if low <= bound <= high]
        interval = f"{_text(low, decimals + 1)} to {_text(high, decimals + 1)}{unit}"
        bounds = " ".join(["bound" if len(inside) == 1 else "bounds", " and ".join(inside)])
        return f"the interval {interval} contains the {bounds}"
    if claim["unit"].startswith(SHARE_OF_RUNS) and not _matters(result):
        return f"{_share(result.effect)} {claim['unit']}, {_claimed(claim, _share)}"
    amount = _text(result.effect, decimals)
    if _matters(result):
        amount += f" ± {_text(result.uncertainty, decimals)}"
    elif "." in amount:
        amount = amount.rstrip("0").rstrip(".")
    return f"{amount}{unit}, {_claimed(claim)}"


def _claimed(claim: Claim, word: Callable[[Any], str] = str) -> str:
    """What the bounds say. A share that can be no larger, or no smaller, is claimed without "at least" or "at most"."""
    least, most = (claim.get(key) for key in BOUNDS)
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
