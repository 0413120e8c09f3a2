"""An effect and how far it can be trusted: the mean over seeds with its 90 % confidence interval."""

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import stats

from onecycle.studies.effects import EFFECTS, axes_of, filters_of, metric_of
from onecycle.studies.responses import Runs
from onecycle.studies.rows import Filter, UnmeasurableError, levels

CONFIDENCE = 0.9  # of the two-sided interval
RESAMPLES = 400
RESAMPLED_EFFECTS, FEWEST_COPIES = 2_000, 20  # where there are many seeds
MEASURABLE_SHARE = 0.9  # of the resamples; with fewer, noise decides whether there is an effect at all


@dataclass(frozen=True)
class Estimate:
    """An effect, the half width of its interval (NaN if unknown), the number of seeds, and why a number is missing."""

    effect: float
    uncertainty: float
    seeds: int
    obstacle: str = ""


def estimate(
    frame: pd.DataFrame, effect: str, parameters: Mapping[str, Any], assumed_sd: float | None = None,
    exact: bool = False,
) -> Estimate:  # fmt: skip
    """The mean of an effect over the seeds that have every run it is about.

    With several seeds the interval is that of Student's test with a pooled variance: all points are taken to vary alike
    from seed to seed. With one seed `assumed_sd`, the standard deviation of the metric from run to run, stands for the
    spread; `exact` says that there is none.
    """
    metric, axes, filters = metric_of(effect, parameters), axes_of(effect, parameters), filters_of(parameters)
    seeds, measure = complete_seeds(frame, filters, axes), partial(EFFECTS[effect], **parameters)
    if not seeds:
        return Estimate(math.nan, math.nan, 0, "too few seeds: none has every run that the claim is about")
    effects, obstacles = [], []
    for runs in seeds:
        try:
            effects.append(_finite(measure(runs)))
        except UnmeasurableError as error:
            obstacles.append(str(error))
    if obstacles:
        share = f" ({len(obstacles)} of {len(seeds)} seeds)" if len(seeds) > 1 else ""
        return Estimate(math.nan, math.nan, len(seeds), f"cannot be measured: {obstacles[0]}{share}")
    average = math.fsum(effects) / len(effects)
    if len(effects) > 1:
        sd, freedom = pooled_sd(seeds, metric, filters, axes)
        # Without two finite numbers at any point (all of them diverged) the effects are all there is to go by.
        width = resampled_half_width(seeds, measure, metric, sd, freedom) if freedom else half_width(effects)
    elif exact:
        width = 0.0
    elif assumed_sd is None:
        return Estimate(average, math.nan, 1, "too few seeds: one run a point and no known spread")
    else:
        width = resampled_half_width(seeds, measure, metric, assumed_sd, math.inf)
    vague = f"too few seeds: with the {'measured' if len(effects) > 1 else 'assumed'} spread the effect often "
    return Estimate(average, width, len(effects), f"{vague}cannot be measured" if math.isnan(width) else "")


def complete_seeds(frame: pd.DataFrame, filters: Sequence[Filter], axes: Sequence[str]) -> list[Runs]:
    """The runs of each seed that has, for every filter, all the points that any seed has.

    A point is a combination of values of the filter's columns and of the axes, as often as it occurs. Rows without a
    seed are those of one.
    """
    runs = Runs(frame)
    seed = places(runs, ["seed"])[:, 0]
    complete = set(seed.tolist())
    for where in filters:
        grid = places(runs, [*axes, *(column for column in where if column not in axes)])
        there = runs.at(where) & (grid[:, : len(axes)] >= 0).all(axis=1)
        points = {one: Counter(map(tuple, grid[there & (seed == one)].tolist())) for one in set(seed.tolist())}
        needed: Counter[tuple[int, ...]] = Counter()
        for found in points.values():
            needed |= found
        complete &= {one for one, found in points.items() if needed <= found}
    return [Runs(frame[seed == one]) for one in dict.fromkeys(seed.tolist()) if one in complete]


def places(runs: Runs, columns: Sequence[str]) -> NDArray[np.intp]:
    """Which of its column's levels each run has, [run, column]; −1 where the value is missing."""
    found = np.full((len(runs), len(columns)), -1)
    for number, column in enumerate(columns):
        for place, level in enumerate(levels(runs.frame, column)):
            found[runs.at({column: [level]}), number] = place
    return found


def pooled_sd(seeds: Sequence[Runs], metric: str, filters: Sequence[Filter], axes: Sequence[str]) -> tuple[float, int]:
    """The standard deviation of a column between runs at the same point, over all points, and its degrees of freedom.

    (NaN, 0) where no point has two finite numbers.
    """
    runs = Runs(pd.concat([one.frame for one in seeds]))
    numbers = runs.numbers(metric)
    there = np.isfinite(numbers) & np.any([runs.at(where) for where in filters], axis=0)
    points = places(runs, list(dict.fromkeys([*(column for where in filters for column in where), *axes])))
    _, group = np.unique(points[there], axis=0, return_inverse=True)
    groups = pd.Series(numbers[there]).groupby(group.ravel())
    freedom = int((groups.count() - 1).sum())
    squares = float(((groups.count() - 1) * groups.var()).sum())
    return (math.sqrt(squares / freedom) if freedom else math.nan), freedom


def _finite(effect: float) -> float:
    if not math.isfinite(effect):
        raise UnmeasurableError(f"the effect is {effect}")
    return float(effect)


def quantile(freedom: float) -> float:
    """How many standard errors half of the interval is: Student's t; infinite degrees are those of a known spread."""
    return float(stats.t.ppf((1 + CONFIDENCE) / 2, freedom))


def half_width(effects: Sequence[float]) -> float:
    """Half the confidence interval of the mean of at least two values."""
    return quantile(len(effects) - 1) * float(np.std(effects, ddof=1)) / math.sqrt(len(effects))


def resampled_half_width(
    seeds: Sequence[Runs], effect: Callable[[Runs], float], column: str, sd: float, freedom: float
) -> float:
    """Half the interval of the mean effect over seeds whose runs vary by `sd` in a column: from 400 noisy copies.

    Of more than five seeds as many copies are made as give 2,000 effects, at least 20: the time stays bounded.
    freedom: the degrees of freedom of `sd`. NaN where fewer than 90 % of the copies have an effect. The noise is the
    same at every call.
    """
    generator = np.random.default_rng(0)
    copies = min(RESAMPLES, max(FEWEST_COPIES, RESAMPLED_EFFECTS // len(seeds)))
    effects = []
    for _ in range(copies):
        noisy = [one.replaced(column, one.numbers(column) + generator.normal(0.0, sd, len(one))) for one in seeds]
        try:
            effects.append([_finite(effect(one)) for one in noisy])
        except UnmeasurableError:
            continue
    if len(effects) < MEASURABLE_SHARE * copies:
        return math.nan
    if copies == RESAMPLES:
        spread = float(np.std(np.mean(effects, axis=1), ddof=1))
    else:  # the seeds' noise is independent: each of many seeds tells of the same variance, so fewer copies will do
        spread = math.sqrt(float(np.var(effects, axis=0, ddof=1).sum())) / len(seeds)
    return quantile(freedom) * spread
