"""The verdicts of measurements on claims, `study.ClaimOptions`: an effect, its 90 % interval over seeds, the bounds."""

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
from numpy.random import Generator
from numpy.typing import NDArray
from scipy import stats

from onecycle.config.validate import did_you_mean
from onecycle.errors import ConfigError
from onecycle.studies import rows as table
from onecycle.studies.effects import EFFECTS, SMALLEST, UNSIGNED, columns_named, columns_of, filters_of
from onecycle.studies.responses import Runs
from onecycle.studies.rows import Array, Filter, UnmeasurableError, filter_text, levels, value_text
from onecycle.studies.study import CLAIMS, ClaimOptions, block_errors

HOLDS, FAILS, UNDECIDED = "holds", "does not hold", "undecided"
SLACK = 1e-9  # relative to a bound: what rounding may do to an effect that lies on it
SHARE = "has_diverged"  # the column whose mean is a share of the runs, said in percent
NEGLIGIBLE = 1e-6  # relative to an effect: an interval below that is not shown
SHOWN_VALUES = 12
UNKNOWN_SPREAD = "too few seeds: one run a point and no known spread"
DRAWS = 10_000
ALPHA = 0.05  # how often an end of an interval is wrong, and a verdict
LEVELS = np.sort([ALPHA, *np.geomspace(1 / DRAWS, 0.5, 150)])
AT_ALPHA = int(np.searchsorted(LEVELS, ALPHA))


@dataclass(frozen=True)
class Estimate:
    """An effect, the fewest runs of a point, why a number is missing, and the ends of its interval by `LEVELS`."""

    effect: float = math.nan
    seeds: int = 0
    obstacle: str = ""
    lows: Array = field(default_factory=lambda: np.full(len(LEVELS), -math.inf))
    highs: Array = field(default_factory=lambda: np.full(len(LEVELS), math.inf))

    @property
    def interval(self) -> tuple[float, float]:
        """The 90 % interval; infinite where it has no end."""
        return float(self.lows[AT_ALPHA]), float(self.highs[AT_ALPHA])

    def decisions(self, bounds: tuple[float, float]) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
        """Whether the whole interval of each level lies within bounds, and whether it lies beyond one of them."""
        # Infinite for a bound that is none.
        least, most = (bound + sign * SLACK * max(1.0, abs(bound)) for bound, sign in zip(bounds, (-1, 1), strict=True))
        return (least <= self.lows) & (self.highs <= most), (self.highs < least) | (self.lows > most)


def estimate(
    frame: pd.DataFrame, effect: str, parameters: Mapping[str, Any], assumed_sd: float | None = None
) -> Estimate:
    """The effect of the mean over seeds, see `of_means`; of a share of runs with Clopper and Pearson's interval.

    Where every point has one run, `assumed_sd` is the metric's standard deviation from run to run.
    """
    metric = metric_of(columns_of(effect, parameters))
    points, sd, count = measured(frame, effect, parameters, assumed_sd)
    if effect == "value" and metric == SHARE and len(points):
        lost, runs = round(points[metric] @ count), count.sum()
        low, high = stats.beta.ppf(LEVELS, lost, runs - lost + 1), stats.beta.ppf(1 - LEVELS, lost + 1, runs - lost)
        return Estimate(lost / runs, int(min(count)), "", np.nan_to_num(low, nan=0.0), np.nan_to_num(high, nan=1.0))
    return of_means(Runs(points), sd, count, effect, parameters)


def measured(
    frame: pd.DataFrame, effect: str, parameters: Mapping[str, Any], assumed_sd: float | None = None
) -> tuple[pd.DataFrame, Array, Array]:
    """The points that an effect is about with their means, the standard deviation over the runs of each, their count.

    A point with a single run has the standard deviation of the others; NaN where it is unknown.
    """
    columns = columns_of(effect, parameters)
    metric = metric_of(columns)
    axes = [columns[name] for name in ("x", "y", "by") if name in columns and columns[name] != metric]
    metrics = [*([columns["selected_by"]] if "selected_by" in columns else []), metric]
    points = point_means(frame, metrics, filters_of(parameters), axes, parameters.get("floor", math.inf))
    sd, count = points.pop("sd").to_numpy(float), points.pop("count").to_numpy(int)
    if (count > 1).any():
        alone = math.sqrt(np.average(np.nan_to_num(sd) ** 2, weights=count - 1))  # of a point with a single run
        sd = np.where(count > 1, np.nan_to_num(sd), alone)
    else:
        sd = np.full(len(count), math.nan if assumed_sd is None else assumed_sd)
    return points, sd, count


def point_means(
    frame: pd.DataFrame, metrics: Sequence[str], filters: Sequence[Filter], axes: Sequence[str], diverged: float
) -> pd.DataFrame:
    """A row for each point that the filters mean: the means of metrics over its runs, sd and count of the last.

    A point is what one run of each seed has in common: the columns of the filters, the axes and the label. Rates are
    averaged by their logarithms. diverged: the number of a run that diverged.
    """
    runs = Runs(frame)
    here = np.any([runs.at(where) for where in filters], axis=0)
    keys = pd.DataFrame(runs.places(list(dict.fromkeys([*axes, *(column for one in filters for column in one)])))[here])
    for name in ("label", "study", "seed"):
        keys[name] = [re.sub(r",?seed=[^,]*", "", str(cell)) for cell in table.cells(frame[here], name)]
    keys["copy"] = keys.groupby(list(keys)).cumcount()
    point = keys.groupby([name for name in keys if name != "seed"], sort=False).ngroup()
    found = frame[here][~point.duplicated().to_numpy()].reset_index(drop=True)
    for metric in metrics:  # the last is the one of sd and count
        numbers = np.where(np.isinf(runs.numbers(metric)), diverged, runs.numbers(metric))[here]
        runs_of = pd.Series(np.log(numbers) if is_rate(metric) else numbers).groupby(point)
        found[metric] = runs_of.agg(lambda one: one.to_numpy().mean())
        found[metric] = np.exp(found[metric]) if is_rate(metric) else found[metric]
    return found.assign(sd=runs_of.std(), count=runs_of.size())


def metric_of(columns: Mapping[str, str]) -> str:
    """The column that an effect measures, of those that it reads."""
    return next(columns[name] for name in ("metric", "z", "y") if name in columns)


def is_rate(column: str) -> bool:
    """Whether a column holds learning rates, which vary by factors."""
    return "lr" in column.split("_") and not column.endswith("log2")


def of_means(
    runs: Runs, sd: Array, count: Array, effect: str, parameters: Mapping[str, Any], draws: int = DRAWS,
    generator: Generator | None = None,
) -> Estimate:  # fmt: skip
    """The effect of a table of means, with limits from draws of them. sd, count: over the runs of each point.

    Each mean varies by its own standard error. The noise has Welch's degrees of freedom: those of the points that the
    effect depends on; where all points have one run, `sd` is known. NaN for one that is not.
    """
    metric, seeds = metric_of(columns_of(effect, parameters)), int(min(count, default=0))
    generator, means, half = generator or np.random.default_rng(0), runs.numbers(metric), draws // 2
    # First the measured means, then draws with exact covariances and either sign.
    drawn = np.linalg.qr(generator.standard_normal((half, len(count))))[0] * math.sqrt(half)
    noise = np.vstack([np.zeros(len(count)), drawn, -drawn]) * np.nan_to_num(sd) / np.sqrt(count)
    sign = -1 if effect in SMALLEST else 1

    def measure(noise: Array) -> Array:
        numbers = means * np.exp(noise) if is_rate(metric) else means + noise
        return sign * np.asarray(EFFECTS[effect](runs.replaced(metric, numbers, generator), **parameters))

    try:
        components = measure(noise)
        if not math.isfinite(largest := components[0].max()):
            raise UnmeasurableError(f"the effect is {largest}")
        if max(count) > 1:
            changes, freedom = components.max(axis=-1) - largest, np.maximum(count - 1, 1)
            # Of the variance, times that of noise.
            shares = (noise.T @ np.where(np.isfinite(changes), changes, 0.0)) ** 2
            shares = np.divide(shares, (noise**2).sum(axis=0), out=np.zeros_like(shares), where=sd > 0)
            welch = shares.sum() ** 2 / (shares**2 / freedom).sum() if shares.any() else min(freedom)
            chi2 = stats.chi2.ppf((generator.permutation(half)[:, None] + 0.5) / half, welch)
            components = measure(noise * np.vstack([[[0.0]], *[np.sqrt(welch / chi2)] * 2]))
    except UnmeasurableError as error:
        return Estimate(seeds=seeds, obstacle=f"cannot be measured: {error}")
    if np.isnan(sd).any():
        return Estimate(sign * float(largest), seeds, UNKNOWN_SPREAD)
    lows, highs = limits_of_largest(components)
    lows = np.maximum(lows, 0.0) if effect in UNSIGNED else lows
    return Estimate(sign * float(components[0].max()), seeds, "", *((lows, highs) if sign == 1 else (-highs, -lows)))


def limits_of_largest(components: Array) -> tuple[Array, Array]:
    """The limits [level] of the largest component, [draw, component], whose first draw is the measured one.

    It lies below the largest of their upper limits, and above the largest of lower ones that are all right at once:
    Bonferroni's, over those that may be the largest. A draw without a number is beyond both limits.
    """
    measured, draws, rivals = components[0], components[1:], np.array(components.shape[-1])
    highs = np.quantile(np.where(np.isnan(draws), math.inf, draws), 1 - LEVELS, axis=0, method="higher")
    draws = np.where(np.isnan(draws), -math.inf, draws)
    for _ in range(2):
        lows = np.quantile(draws, LEVELS / rivals, axis=0, method="lower").max(axis=-1)
        lows = np.where(LEVELS / rivals * len(draws) < 1, -math.inf, lows)  # too few draws
        rivals = np.maximum((2 * highs - measured >= lows[:, None]).sum(axis=-1), 1)  # by limits twice as far off
    return lows, highs.max(axis=-1)


def simulated(
    expected: Runs, sd: Array | float, looks: Sequence[int], effect: str, parameters: Mapping[str, Any],
    generator: Generator,
) -> Iterator[Estimate]:  # fmt: skip
    """What a study may measure whose metric is as expected, one row a point, with `sd` from run to run.

    looks: after how many seeds, ascending, the same runs are looked at.
    """
    metric = metric_of(columns_of(effect, parameters))
    values = expected.numbers(metric) + sd * generator.standard_normal((looks[-1], len(expected)))
    for seeds in looks:
        own = values[:seeds]
        spread = own.std(axis=0, ddof=1) if seeds > 1 else np.broadcast_to(sd, len(expected))
        runs, count = expected.replaced(metric, own.mean(axis=0)), np.full(len(expected), seeds)
        yield of_means(runs, spread, count, effect, parameters, DRAWS // 10, generator)


def forecast(
    expected: pd.DataFrame, sd: Array | float, seeds: int, claim: ClaimOptions, alpha: float = ALPHA, times: int = 100
) -> tuple[float, float]:
    """The median of half the width of an effect's interval before any run, and how often the claim will be decided.

    See `simulated`; alpha: how often an end of the interval is wrong.
    """
    runs, generator, place = Runs(expected), np.random.default_rng(0), place_of(alpha)
    found = [next(simulated(runs, sd, [seeds], claim.effect, claim.parameters, generator)) for _ in range(times)]
    halves = [(one.highs[place] - one.lows[place]) / 2 for one in found]
    decided = [bool((holds | fails)[place]) for holds, fails in (one.decisions(claim.bounds) for one in found)]
    return float(np.median(halves)), float(np.mean(decided))


def place_of(alpha: float) -> int:
    """The place in LEVELS of the largest that is at most alpha; of the first one where all are larger."""
    return max(0, int(np.searchsorted(LEVELS, alpha * (1 + SLACK), side="right")) - 1)


def holm(ps: Sequence[float]) -> list[bool]:
    """Which of a family of verdicts survive Holm's correction, so that all of them are right in 95 of 100 families."""
    ranked = np.sort(ps)
    over = ranked[ranked * np.arange(len(ps), 0, -1) > ALPHA]
    return [bool(p < min(over, default=math.inf)) for p in ps]


def judge(frame: pd.DataFrame, entry: Mapping[str, Any], *, whole: bool = True, alpha: float = ALPHA) -> dict[str, Any]:
    """The verdict of the runs on a claim, as verdicts.json has it, with None for a number that is unknown.

    A claim holds, or does not, where the whole interval of its effect says so; see `estimate`. alpha: how often an end
    of the interval is wrong: less than ALPHA where runs are looked at several times. whole: whether the rows
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
    if missing := next((text for one in filters_of(claim.parameters) if (text := _missing(frame, one))), ""):
        if whole:
            raise ConfigError([f"{where}: {missing}"])
        result = Estimate(obstacle=f"cannot be measured: {missing}")
    else:
        result = estimate(frame, claim.effect, claim.parameters, claim.assumed_sd)
    holds, fails = result.decisions(claim.bounds)
    place = place_of(alpha)
    p = min(1.0, float(LEVELS[holds | fails].min(initial=1.0)) * ALPHA / alpha)
    is_decided = p <= ALPHA * (1 + SLACK)
    verdict = UNDECIDED if not is_decided else HOLDS if holds[place] else FAILS
    low, high = float(result.lows[place]), float(result.highs[place])
    return {
        "id": claim.id, "text": claim.text, "source": claim.source or "", "verdict": verdict,
        **{name: number if math.isfinite(number) else None for name, number in (
            ("effect", result.effect), ("low", low), ("high", high), ("uncertainty", (high - low) / 2),
        )},
        "p": p,
        "at_least": claim.at_least, "at_most": claim.at_most, "unit": claim.unit, "seeds": result.seeds,
        "reason": result.obstacle or _reason(result.effect, low, high, claim), "margin_from": claim.margin_from or "",
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


def _reason(effect: float, low: float, high: float, claim: ClaimOptions) -> str:
    """The effect, in brackets its interval, and what was claimed."""
    percent = " %" if claim.parameters.get("metric") == SHARE else ""
    scale, width = 100 if percent else 1, (high - low) / 2
    is_exact = width <= NEGLIGIBLE * abs(effect)
    # Two digits of half the width; four of an effect without one.
    size = scale * (abs(effect) if is_exact or math.isinf(width) else width)
    decimals = max(0, (3 if is_exact else 1) - math.floor(math.log10(size))) if size else 0
    amount, *ends = (f"{scale * number:z.{decimals}f}" for number in (effect, low, high))
    amount = amount.rstrip("0").rstrip(".") if is_exact and "." in amount else amount
    interval = "" if is_exact else f" ({ends[0]}{percent} to {ends[1]}{percent})"
    given = claim.at_least, claim.at_most
    least, most = (None if bound is None else f"{scale * bound:.12g}{percent}" for bound in given)
    bounds = f"at most {most}" if least is None else f"at least {least}" if most is None else f"{least} to {most}"
    return f"{amount}{percent}{interval} {claim.unit}".rstrip() + f", {bounds} was claimed"
