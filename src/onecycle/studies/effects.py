"""The effects that claims are about: pure functions from the rows of one seed to a number.

Each takes the rows and keyword parameters: names of columns (`metric`, `x`, `y`, `z`, `by`), filters (see
`selection`) and numbers; their types are what a claim is checked against. Each raises UnmeasurableError, with the
reason, where the rows cannot give the effect. `diverged` is the metric that counts for a diverged run, such as 10 for
chance accuracy in percent; without it such a run has none. Grid steps are the median spacing of log x along
the curves in question. `factor` and `level` say where a loss has blown up; see `shapes.Curve.blow_up`.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Literal

import numpy as np

from onecycle.studies import ridges
from onecycle.studies.selection import (
    DivergedError,
    Filter,
    Rows,
    UnmeasurableError,
    finite,
    is_number,
    mean,
    measured,
    select,
    words,
)
from onecycle.studies.shapes import BLOW_UP, Curve, Surface, curve, curves, grid_step

Filters = Sequence[Filter]
Pair = tuple[Filter, Filter]
Better = Literal["higher", "lower"]
Transform = Literal["ratio", "product"]


def value(rows: Rows, metric: str, of: Filter, diverged: float | None = None) -> float:
    """The mean of the metric at `of`."""
    return mean(rows, metric, of, diverged)


def difference(
    rows: Rows,
    metric: str,
    of: Filter,
    against: Filter | Filters,
    better: Better = "higher",
    diverged: float | None = None,
) -> float:
    """By how much the mean at `of` beats the best mean of `against`: positive is better, also where lower is better.

    A filter of `against` at which a run diverged is the worst of them.
    """
    rivals = [against] if isinstance(against, Mapping) else against
    sign = 1 if better == "higher" else -1
    best = -math.inf
    for rival in rivals:
        try:
            best = max(best, sign * mean(rows, metric, rival, diverged))
        except DivergedError:
            continue
    if best == -math.inf:
        raise DivergedError(f"runs at {' and at '.join(map(words, rivals))} diverged")
    return sign * mean(rows, metric, of, diverged) - best


def gap(rows: Rows, metric: str, of: Filter, against: Filter, diverged: float | None = None) -> float:
    """How far apart the means at `of` and `against` are, without a sign."""
    return abs(mean(rows, metric, of, diverged) - mean(rows, metric, against, diverged))


def ratio(rows: Rows, metric: str, of: Filter, against: Filter, diverged: float | None = None) -> float:
    """The mean at `of` divided by the mean at `against`."""
    return _quotient(
        mean(rows, metric, of, diverged), mean(rows, metric, against, diverged), f"{metric} at {words(against)}"
    )


def spread(rows: Rows, metric: str, of: Filter, diverged: float | None = None) -> float:
    """The largest minus the smallest metric of the runs at `of`."""
    numbers = measured(rows, metric, of, diverged)
    return max(numbers) - min(numbers)


def gap_ratio(rows: Rows, metric: str, wide: Pair, narrow: Pair, diverged: float | None = None) -> float:
    """The gap between two filters, `wide`, divided by the gap between two others, `narrow`.

    As in forgetting: the gap between half and full set at a high learning rate, over the gap at a low one.
    """
    above, below = (gap(rows, metric, *pair, diverged=diverged) for pair in (wide, narrow))
    return _quotient(above, below, f"the gap in {metric} between {words(narrow[0])} and {words(narrow[1])}")


def order(rows: Rows, metric: str, groups: Filters, diverged: float | None = None) -> float:
    """The smallest step from one group's mean to the next: at least 0 where they are in ascending order."""
    return float(np.min(np.diff([mean(rows, metric, group, diverged) for group in groups])))


def _quotient(above: float, below: float, name: str) -> float:
    if below == 0:
        raise UnmeasurableError(f"{name} is 0")
    return above / below


def blow_up_spread(
    rows: Rows,
    x: str,
    y: str,
    by: str,
    where: Filter | None = None,
    factor: float = BLOW_UP,
    level: float | None = None,
) -> float:
    """How far the blow-ups for the values of `by` lie apart: largest minus smallest log x, in grid steps."""
    family = list(curves(rows, x, y, by, where).values())
    return float(np.ptp([math.log(member.blow_up(factor, level)) for member in family])) / grid_step(family)


def blow_up_slope(
    rows: Rows,
    x: str,
    y: str,
    by: str,
    where: Filter | None = None,
    factor: float = BLOW_UP,
    level: float | None = None,
) -> float:
    """The least-squares slope of log(x at the blow-up) against log(by)."""
    family = curves(rows, x, y, by, where)
    heights = [math.log(member.blow_up(factor, level)) for member in family.values()]
    return float(np.polyfit([math.log(_positive(value, by)) for value in family], heights, 1)[0])


def optimum_order(rows: Rows, x: str, y: str, by: str, where: Filter | None = None) -> float:
    """The largest upward move of the best log x from one value of `by` to the next larger one, in grid steps.

    At most 0 where the best x never rises with `by`.
    """
    family = curves(rows, x, y, by, where)
    if not all(map(is_number, family)):
        raise UnmeasurableError(f"{by} has values that are no numbers")
    best = [math.log(member.optimum) for member in family.values()]
    return float(np.max(np.diff(best))) / grid_step(list(family.values()))


def optimum_distance(
    rows: Rows, x: str, y: str, where: Filter, than: Filter, factor: float = BLOW_UP, level: float | None = None
) -> float:
    """By how many grid steps more the best x lies below the blow-up at `where` than it does at `than`."""
    here, there = curve(rows, x, y, where), curve(rows, x, y, than)
    return (_headroom(here, factor, level) - _headroom(there, factor, level)) / grid_step([here, there])


def optimum_to_blow_up(
    rows: Rows, x: str, y: str, of: Filter, against: Filter, factor: float = BLOW_UP, level: float | None = None
) -> float:
    """The best x as a share of the blow-up at `of`, divided by the same at `against`: below 1 where `of` wants less."""
    here, there = curve(rows, x, y, of), curve(rows, x, y, against)
    return math.exp(_headroom(there, factor, level) - _headroom(here, factor, level))


def _headroom(line: Curve, factor: float, level: float | None) -> float:
    return math.log(line.blow_up(factor, level) / line.optimum)


def _positive(level: object, column: str) -> float:
    if not is_number(level) or level <= 0:
        raise UnmeasurableError(f"{column} {level} is no number above 0")
    return float(level)


def ridge_power(rows: Rows, x: str, y: str, z: str, where: Filter | None = None) -> float:
    """The power p of "the best x goes as y to the power of p", along the ridge that the heat map draws.

    Rows of the grid whose best lies at its edge do not count; see `ridges`.
    """
    power = ridges.ridge_power(ridges.ridge(select(rows, where), x, y, z))
    if math.isnan(power):
        raise UnmeasurableError("fewer than two rows of the grid have their best inside it")
    return power


def ridge_contrast(
    rows: Rows, x: str, y: str, z: str, transform: Transform, where: Filter | None = None, floor: float = 10.0
) -> float:
    """How much z varies along the ridge that a theory predicts, as a share of how much it varies across.

    Along a "ratio" ridge x and y rise together, along a "product" ridge one rises as the other falls. Both are means,
    over the diagonals of the grid with at least two cells, of the sample sd of z; a diverged cell has z = `floor`.
    """
    surface = Surface.of(rows, x, y, z, floor, where)
    rising, falling = surface.diagonal_sd(rising=True), surface.diagonal_sd(rising=False)
    along, across = (rising, falling) if transform == "ratio" else (falling, rising)
    return _quotient(along, across, f"the sd of {z} across the ridge")


def selected_difference(
    rows: Rows, metric: str, of: Filter, against: Filter, selected_by: str, better: Better = "higher"
) -> float:
    """The metric of the run that `selected_by` finds best at `of`, minus that of the best at `against`.

    Selecting by one column, as the accuracy on held-out images, and comparing by another, as that on test images,
    is what keeps a search's result honest. Diverged runs are not selected.
    """
    chosen, rival = (_selected(rows, metric, where, selected_by, better) for where in (of, against))
    return chosen - rival


def _selected(rows: Rows, metric: str, where: Filter, by: str, better: Better) -> float:
    sign = 1 if better == "higher" else -1
    sound = [(sign * score, row) for row in select(rows, where) if (score := finite(row, by)) is not None]
    if not sound:
        raise UnmeasurableError(f"no run at {words(where)} has {by}")
    found = finite(max(sound, key=lambda one: one[0])[1], metric)
    if found is None:
        raise UnmeasurableError(f"{metric} was not measured in the best run at {words(where)}")
    return found


EFFECTS: dict[str, Callable[..., float]] = {
    function.__name__: function
    for function in (
        value, difference, gap, ratio, spread, gap_ratio, order,
        blow_up_spread, blow_up_slope, optimum_order, optimum_distance, optimum_to_blow_up,
        ridge_power, ridge_contrast, selected_difference,
    )
}  # fmt: skip
