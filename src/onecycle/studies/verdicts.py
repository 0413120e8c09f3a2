"""The verdicts of measurements on claims, `study.ClaimOptions`: an effect, its 90 % interval over seeds, the bounds."""

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from onecycle.config.validate import did_you_mean
from onecycle.errors import ConfigError
from onecycle.studies import rows as table
from onecycle.studies.effects import EFFECTS, columns_named, columns_of, filters_of
from onecycle.studies.responses import Runs
from onecycle.studies.rows import Filter, UnmeasurableError, filter_text, levels, value_text
from onecycle.studies.study import CLAIMS, ClaimOptions, block_errors

HOLDS, FAILS, UNDECIDED = "holds", "does not hold", "undecided"
SLACK = 1e-9  # relative to a bound: what rounding may do to an effect that lies on it
SHARE_OF_RUNS = "of the runs"  # a unit: the effect is said in words
NEGLIGIBLE = 1e-6  # relative to an effect: an uncertainty below that is not shown
SHOWN_VALUES = 12
UNKNOWN_SPREAD = "too few seeds: one run a point and no known spread"
CONFIDENCE = 0.9  # of the two-sided interval
RESAMPLES = 400
RESAMPLED_EFFECTS, FEWEST_COPIES = 2_000, 20  # where there are many seeds
MEASURABLE_SHARE = 0.9  # of the resamples; with fewer, noise decides whether there is an effect at all


@dataclass(frozen=True)
class Estimate:
    """An effect, half the width of its interval (NaN if unknown), the number of seeds, and why a number is missing."""

    effect: float = math.nan
    uncertainty: float = math.nan
    seeds: int = 0
    obstacle: str = ""


def estimate(
    frame: pd.DataFrame, effect: str, parameters: Mapping[str, Any], assumed_sd: float | None = None
) -> Estimate:
    """The mean of an effect over the seeds that have every run it is about.

    With several seeds the interval is that of Student's test with a pooled variance: all points vary alike. With one
    seed `assumed_sd`, the metric's standard deviation from run to run, is the spread.
    """
    columns, filters = columns_of(effect, parameters), filters_of(parameters)
    metric = next(columns[name] for name in ("metric", "z", "y") if name in columns)
    axes = [columns[name] for name in ("x", "y", "by") if name in columns and columns[name] != metric]

    def measure(runs: Runs) -> float:
        found = float(EFFECTS[effect](runs, **parameters))
        if not math.isfinite(found):
            raise UnmeasurableError(f"the effect is {found}")
        return found

    seeds = complete_seeds(frame, filters, axes)
    if not seeds:
        return Estimate(obstacle="too few seeds: none has every run that the claim is about")
    effects, obstacles = [], []
    for runs in seeds:
        try:
            effects.append(measure(runs))
        except UnmeasurableError as error:
            obstacles.append(str(error))
    count = len(seeds)
    if obstacles:
        share = f" ({len(obstacles)} of {count} seeds)" if count > 1 else ""
        return Estimate(seeds=count, obstacle=f"cannot be measured: {obstacles[0]}{share}")
    average = math.fsum(effects) / count
    if count == 1 and assumed_sd is None:
        return Estimate(average, seeds=1, obstacle=UNKNOWN_SPREAD)
    sd, freedom = pooled_sd(seeds, metric, filters, axes) if count > 1 else (assumed_sd or 0.0, math.inf)
    width = resampled_half_width(seeds, measure, metric, sd, freedom)
    source = "measured" if count > 1 else "assumed"
    vague = f"too few seeds: with the {source} spread the effect often cannot be measured"
    return Estimate(average, width, count, vague if math.isnan(width) else "")


def complete_seeds(frame: pd.DataFrame, filters: Sequence[Filter], axes: Sequence[str]) -> list[Runs]:
    """The runs of each seed that has, for every filter, all the points that any seed has.

    A point is a combination of values of the filter's columns and of the axes, as often as it occurs. Rows without a
    seed are those of one.
    """
    runs = Runs(frame)
    seed = runs.places(["seed"])[:, 0]
    complete = set(seed.tolist())
    for where in filters:
        grid = runs.places([*axes, *(column for column in where if column not in axes)])
        there = runs.at(where) & (grid[:, : len(axes)] >= 0).all(axis=1)
        points = {one: Counter(map(tuple, grid[there & (seed == one)].tolist())) for one in set(seed.tolist())}
        needed: Counter[tuple[int, ...]] = Counter()
        for found in points.values():
            needed |= found
        complete &= {one for one, found in points.items() if needed <= found}
    return [Runs(frame[seed == one]) for one in dict.fromkeys(seed.tolist()) if one in complete]


def pooled_sd(seeds: Sequence[Runs], metric: str, filters: Sequence[Filter], axes: Sequence[str]) -> tuple[float, int]:
    """The standard deviation of a column between runs of the same point, with its degrees of freedom (NaN, 0: none)."""
    runs = Runs(pd.concat([one.frame for one in seeds]))
    there = np.isfinite(runs.numbers(metric)) & np.any([runs.at(where) for where in filters], axis=0)
    points = runs.places(list(dict.fromkeys([*(column for where in filters for column in where), *axes])))
    _, group = np.unique(points[there], axis=0, return_inverse=True)
    groups = pd.Series(runs.numbers(metric)[there]).groupby(group.ravel())
    freedom = int((groups.count() - 1).sum())
    squares = float(((groups.count() - 1) * groups.var()).sum())
    return (math.sqrt(squares / freedom) if freedom else math.nan), freedom


def resampled_half_width(
    seeds: Sequence[Runs], effect: Callable[[Runs], float], column: str, sd: float, freedom: float
) -> float:
    """Half the interval of the mean effect over seeds whose runs vary by `sd` in a column: from 400 noisy copies.

    Of more than five seeds as many copies are made as give 2,000 effects, at least 20: the time stays bounded. The
    noise is the same at every call. freedom: the degrees of freedom of `sd`, infinite for a known one. NaN where fewer
    than 90 % of the copies have an effect.
    """
    generator = np.random.default_rng(0)
    copies = min(RESAMPLES, max(FEWEST_COPIES, RESAMPLED_EFFECTS // len(seeds)))
    effects = []
    for _ in range(copies):
        noisy = [one.replaced(column, one.numbers(column) + generator.normal(0.0, sd, len(one))) for one in seeds]
        try:
            effects.append([effect(one) for one in noisy])
        except UnmeasurableError:
            continue
    if len(effects) < MEASURABLE_SHARE * copies:
        return math.nan
    if copies == RESAMPLES:
        spread = float(np.std(np.mean(effects, axis=1), ddof=1))
    else:  # the seeds' noise is independent: each of many seeds tells of the same variance, so fewer copies will do
        spread = math.sqrt(float(np.var(effects, axis=0, ddof=1).sum())) / len(seeds)
    return float(stats.t.ppf((1 + CONFIDENCE) / 2, freedom)) * spread


def judge(frame: pd.DataFrame, entry: Mapping[str, Any], *, whole: bool = True) -> dict[str, Any]:
    """The verdict of the runs on a claim, as verdicts.json has it, with None for a number that is unknown.

    A claim holds, or does not, where the whole interval of its effect says so; see `estimate`. whole: whether the rows
    are those of a whole study; in a part of one, a claim about other runs is undecided. Raises ConfigError for a claim
    that has an error, or names a column or, in a whole study, a value that no run has.
    """
    where = f"claim {entry.get('id')}"
    if lines := block_errors("claims", entry, where):
        raise ConfigError(lines)
    claim = CLAIMS[entry["effect"]].model_validate(entry)
    for column in columns_named(claim.effect, claim.parameters):
        if column not in frame:
            raise ConfigError([f"{where}: no column {column!r}{did_you_mean(column, frame.columns)}"])
    missing = next((text for one in filters_of(claim.parameters) if (text := _missing(frame, one))), "")
    if missing and whole:
        raise ConfigError([f"{where}: {missing}"])
    if missing:
        result = Estimate(obstacle=f"cannot be measured: {missing}")
    else:
        result = estimate(frame, claim.effect, claim.parameters, claim.assumed_sd)
    low, high = result.effect - result.uncertainty, result.effect + result.uncertainty
    # Infinite for a bound that is none.
    least, most = (
        bound + sign * SLACK * max(1.0, abs(bound)) for bound, sign in zip(claim.bounds, (-1, 1), strict=True)
    )
    verdict = HOLDS if least <= low and high <= most else FAILS if high < least or low > most else UNDECIDED
    return {
        "id": claim.id, "text": claim.text, "source": claim.source or "", "verdict": verdict,
        "effect": None if math.isnan(result.effect) else result.effect,
        "uncertainty": None if math.isnan(result.uncertainty) else result.uncertainty,
        "at_least": claim.at_least, "at_most": claim.at_most, "unit": claim.unit, "seeds": result.seeds,
        "reason": result.obstacle or _reason(result, claim, verdict), "margin_from": claim.margin_from or "",
        "if_not": (claim.if_not or "") if verdict == FAILS else "",
    }  # fmt: skip


def _missing(frame: pd.DataFrame, where: Mapping[str, Any]) -> str:
    """Which runs that a filter means are not there; empty where there are some for each of its values."""

    def there(column: str) -> str:
        found = list(map(value_text, levels(frame, column)))
        return f"{column} is {' or '.join(found[:SHOWN_VALUES])}" + " or …" * (len(found) > SHOWN_VALUES)

    for column, wanted in where.items():
        absent = [value for value in table.choices(wanted) if not table.chosen(frame, {column: [value]}).any()]
        if absent:
            return f"no run has {filter_text({column: absent})}; {there(column)}"
    if table.select(frame, where).empty:
        return f"no run has {filter_text(where)} together; {'; '.join(map(there, where))}"
    return ""


def _reason(result: Estimate, claim: ClaimOptions, verdict: str) -> str:
    unit = f" {claim.unit}".rstrip()
    is_exact = result.uncertainty <= NEGLIGIBLE * abs(result.effect)
    # One digit of the uncertainty, two where the first is a 1; four of an effect without one.
    size = abs(result.effect) if is_exact else result.uncertainty
    exponent = math.floor(math.log10(size)) if size else 0
    digits = 4 if is_exact else 2 if size < 2 * 10.0**exponent else 1
    decimals = max(0, digits - 1 - exponent) if size else 0
    if verdict == UNDECIDED:
        low, high = result.effect - result.uncertainty, result.effect + result.uncertainty
        inside = [str(bound) for bound in claim.bounds if low <= bound <= high]
        interval = " to ".join(f"{end:z.{decimals + 1}f}" for end in (low, high))
        return f"the interval {interval}{unit} contains the bound{'s' * (len(inside) > 1)} {' and '.join(inside)}"
    if claim.unit.startswith(SHARE_OF_RUNS) and is_exact:
        return f"{_share(result.effect)} {claim.unit}, {_claimed(claim, _share)}"
    amount = f"{result.effect:z.{decimals}f}"
    if not is_exact:
        amount += f" ± {result.uncertainty:.{decimals}f}"
    elif "." in amount:
        amount = amount.rstrip("0").rstrip(".")
    return f"{amount}{unit}, {_claimed(claim, str)}"


def _claimed(claim: ClaimOptions, word: Callable[[Any], str]) -> str:
    """What the bounds say. A share that can be no larger, or no smaller, is claimed without "at least" or "at most"."""
    least, most = claim.at_least, claim.at_most
    if word is _share and (least == 1 or most == 0):
        return f"{'all' if least == 1 else 'none'} of them were claimed"
    if least is None:
        return f"at most {word(most)} was claimed"
    return f"at least {word(least)} was claimed" if most is None else f"{word(least)} to {word(most)} was claimed"


def _share(part: float) -> str:
    """A share of runs in words, or in percent."""
    return {0.0: "none", 1.0: "all"}.get(part, f"{100 * part:.0f} %")
