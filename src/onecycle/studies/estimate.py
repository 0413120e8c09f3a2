"""An effect and how far it can be trusted: the mean over seeds with its 90 % confidence interval."""

import math
from collections import Counter
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass

import numpy as np

from onecycle.studies.selection import Filter, Row, Rows, UnmeasurableError, finite, has, levels, matches, same, select

# Student's t at 95 % (two-sided 90 %) for 1 to 30 degrees of freedom.
T_QUANTILES = (
    6.314, 2.920, 2.353, 2.132, 2.015, 1.943, 1.895, 1.860, 1.833, 1.812,
    1.796, 1.782, 1.771, 1.761, 1.753, 1.746, 1.740, 1.734, 1.729, 1.725,
    1.721, 1.717, 1.714, 1.711, 1.708, 1.706, 1.703, 1.701, 1.699, 1.697,
)  # fmt: skip
NORMAL_QUANTILE = 1.645
RESAMPLES = 400
RESAMPLED_EFFECTS, FEWEST_COPIES = 2_000, 20  # where there are many seeds
MEASURABLE_SHARE = 0.9  # of the resamples; with fewer, noise decides whether there is an effect at all


@dataclass(frozen=True)
class Estimate:
    """An effect, the half width of its interval (NaN if unknown), the seeds behind it, and why a number is missing."""

    effect: float
    uncertainty: float
    seeds: int
    obstacle: str = ""


@dataclass(frozen=True)
class Noise:
    """What a claim says of the spread from run to run.

    column: what was measured. filters, axes: the claim's; a point is a combination of values of their columns.
    assumed_sd: the standard deviation of the column where there is one run a point. exact: that there is no spread.
    """

    column: str
    filters: Sequence[Filter] = ({},)
    axes: Sequence[str] = ()
    assumed_sd: float | None = None
    exact: bool = False


def complete_seeds(rows: Rows, filters: Sequence[Filter], axes: Sequence[str]) -> dict[Hashable, list[Row]]:
    """The rows of each seed that has, for every filter, all the points that any seed has.

    A point is a combination of values of the filter's columns and of the axes, as often as it occurs.
    """
    seeds: dict[Hashable, list[Row]] = {}
    for row in rows:
        seeds.setdefault(row.get("seed"), []).append(row)
    complete = set(seeds)
    for where in filters:
        columns = list(dict.fromkeys([*where, *axes]))
        grid = {column: levels(rows, column) for column in columns}
        points = {
            seed: Counter(
                tuple(_place(row, column, grid[column]) for column in columns)
                for row in select(members, where)
                if all(has(row, axis) for axis in axes)
            )
            for seed, members in seeds.items()
        }
        needed: Counter[tuple[int | None, ...]] = Counter()
        for found in points.values():
            needed |= found
        complete &= {seed for seed, found in points.items() if needed <= found}
    return {seed: members for seed, members in seeds.items() if seed in complete}


def _place(row: Row, column: str, grid: Sequence[object]) -> int | None:
    return next((place for place, level in enumerate(grid) if same(level, row.get(column))), None)


def estimate(seeds: Sequence[Rows], effect: Callable[[Rows], float], noise: Noise) -> Estimate:
    """The mean of an effect over seeds, each given by its rows.

    With several seeds the interval is that of Student's test with a pooled variance: all points of the claim are taken
    to vary alike from seed to seed. With one seed `assumed_sd` stands for the spread; it is 0 for an exact effect.
    """
    if not seeds:
        return Estimate(math.nan, math.nan, 0, "too few seeds: none has every run that the claim is about")
    effects, obstacles = [], []
    for rows in seeds:
        try:
            effects.append(_number(effect(rows)))
        except UnmeasurableError as error:
            obstacles.append(str(error))
    if obstacles:
        share = f" ({len(obstacles)} of {len(seeds)} seeds)" if len(seeds) > 1 else ""
        return Estimate(math.nan, math.nan, len(seeds), f"cannot be measured: {obstacles[0]}{share}")
    average = math.fsum(effects) / len(effects)
    if len(effects) > 1:
        sd, freedom = pooled_sd(seeds, noise)
        # Without two finite numbers at any point (all of them diverged) the effects are all there is to go by.
        width = resampled_half_width(seeds, effect, noise.column, sd, freedom) if freedom else half_width(effects)
    elif noise.exact:
        width = 0.0
    elif noise.assumed_sd is None:
        return Estimate(average, math.nan, 1, "too few seeds: one run a point and no known spread")
    else:
        width = resampled_half_width(seeds, effect, noise.column, noise.assumed_sd)
    vague = f"too few seeds: with the {'measured' if len(effects) > 1 else 'assumed'} spread the effect often "
    return Estimate(average, width, len(effects), f"{vague}cannot be measured" if math.isnan(width) else "")


def pooled_sd(seeds: Sequence[Rows], noise: Noise) -> tuple[float, int]:
    """The standard deviation of a column between runs at the same point, over all points, and its degrees of freedom.

    (NaN, 0) where no point has two finite numbers.
    """
    rows = [row for members in seeds for row in members]
    columns = list(dict.fromkeys([*(column for where in noise.filters for column in where), *noise.axes]))
    grid = {column: levels(rows, column) for column in columns}
    points: dict[tuple[int | None, ...], list[float]] = {}
    for row in rows:
        number = finite(row, noise.column)
        if number is not None and any(matches(row, where) for where in noise.filters):
            points.setdefault(tuple(_place(row, column, grid[column]) for column in columns), []).append(number)
    freedom = sum(len(numbers) - 1 for numbers in points.values())
    squares = math.fsum(
        (len(numbers) - 1) * float(np.var(numbers, ddof=1)) for numbers in points.values() if numbers[1:]
    )
    return (math.sqrt(squares / freedom) if freedom else math.nan), freedom


def _number(effect: float) -> float:
    if not math.isfinite(effect):
        raise UnmeasurableError(f"the effect is {effect}")
    return float(effect)


def t_quantile(freedom: int) -> float:
    """Student's t at 95 %: from a table up to 30 degrees of freedom, from its expansion about the normal's beyond."""
    if freedom <= len(T_QUANTILES):
        return T_QUANTILES[freedom - 1]
    return NORMAL_QUANTILE + (NORMAL_QUANTILE**3 + NORMAL_QUANTILE) / (4 * freedom)


def half_width(effects: Sequence[float]) -> float:
    """Half the 90 % confidence interval of the mean of at least two values."""
    return t_quantile(len(effects) - 1) * float(np.std(effects, ddof=1)) / math.sqrt(len(effects))


def resampled_half_width(
    seeds: Sequence[Rows], effect: Callable[[Rows], float], column: str, sd: float, freedom: int | None = None
) -> float:
    """Half the 90 % interval of the mean effect over seeds whose runs vary by `sd` in a column: from 400 noisy copies.

    Of more than five seeds as many copies are made as give 2,000 effects, at least 20: the time stays bounded.
    freedom: the degrees of freedom behind `sd`; None for a known one. NaN where fewer than 90 % of the copies have an
    effect. The noise is the same at every call.
    """
    generator = np.random.default_rng(0)
    copies = min(RESAMPLES, max(FEWEST_COPIES, RESAMPLED_EFFECTS // len(seeds)))
    effects = []
    for _ in range(copies):
        noisy = [_shaken(rows, column, sd, generator) for rows in seeds]
        try:
            effects.append([_number(effect(rows)) for rows in noisy])
        except UnmeasurableError:
            continue
    if len(effects) < MEASURABLE_SHARE * copies:
        return math.nan
    if copies == RESAMPLES:
        spread = float(np.std([math.fsum(row) / len(seeds) for row in effects], ddof=1))
    else:  # the seeds' noise is independent: each of many seeds tells of the same variance, so fewer copies will do
        spread = math.sqrt(float(np.var(effects, axis=0, ddof=1).sum())) / len(seeds)
    quantile = NORMAL_QUANTILE if freedom is None else t_quantile(freedom)
    return quantile * spread


def _shaken(rows: Rows, column: str, sd: float, generator: np.random.Generator) -> list[Row]:
    noise = generator.normal(0.0, sd, len(rows))
    values = [finite(row, column) for row in rows]
    return [
        row if value is None else {**row, column: value + float(shift)}
        for row, value, shift in zip(rows, values, noise, strict=True)
    ]
