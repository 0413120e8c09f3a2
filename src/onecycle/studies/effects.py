"""The effects that claims are about: pure functions from a table of means, one row a point, to [..., component].

The effect is the largest component, or the smallest, see `SMALLEST`; each has its sign. Draws of the means come first.

Their parameters are what a claim may say, checked by their types: names of columns (`metric`, `x`, `y`, `z`, `by`),
filters and numbers. Each raises UnmeasurableError, with the reason, where the runs cannot give the effect. Grid steps
are the median spacing of log x along the curves in question; a loss above `level` has blown up.
"""

import contextlib
import inspect
import math
from collections.abc import Callable, Mapping
from typing import Annotated, Any, Literal, get_type_hints

import numpy as np
from pydantic import AfterValidator, Field

from onecycle.config.types import Number, Text
from onecycle.studies import responses
from onecycle.studies.responses import Curve, Runs, above_zero, curve, curve_family, lower_is_better, slope
from onecycle.studies.rows import Array, DivergedError, UnmeasurableError, filter_text


def _some_values(where: dict[str, Any]) -> dict[str, Any]:
    if empty := [column for column, wanted in where.items() if wanted == []]:
        raise ValueError(f"{empty[0]} must have at least one value")
    return where


Column = Text
Where = Annotated[dict[str, Any], AfterValidator(_some_values)]  # a filter, see `rows.Filter`
Pair = Annotated[list[Where], Field(min_length=2, max_length=2)]
Several = Annotated[list[Where], Field(min_length=2)]
Rivals = Where | Annotated[list[Where], Field(min_length=1)]
Better = Literal["higher", "lower"]


def value(runs: Runs, metric: Column, of: Where) -> Array:
    """The mean of the metric at `of`."""
    return runs.mean(metric, of)


def difference(runs: Runs, metric: Column, of: Where, against: Rivals, better: Better = "higher") -> Array:
    """By how much the mean at `of` beats the best mean of `against`: positive is better, also where lower is better.

    A filter of `against` at which a run diverged is the worst of them.
    """
    rivals = against if isinstance(against, list) else [against]
    sign, own, steps = (1 if better == "higher" else -1), runs.mean(metric, of), []
    for rival in rivals:
        with contextlib.suppress(DivergedError):
            steps.append(sign * (own - runs.mean(metric, rival)))
    if not steps:
        raise DivergedError(f"runs at {' and at '.join(map(filter_text, rivals))} diverged")
    return np.concatenate(steps, axis=-1)


def gap(runs: Runs, metric: Column, of: Where, against: Where) -> Array:
    """How far apart the means at `of` and `against` are, without a sign."""
    return _apart(np.concatenate([runs.mean(metric, of), runs.mean(metric, against)], axis=-1))


def ratio(runs: Runs, metric: Column, of: Where, against: Where) -> Array:
    """The mean at `of` divided by the mean at `against`."""
    return _quotient(runs.mean(metric, of), runs.mean(metric, against), f"{metric} at {filter_text(against)}")


def spread(runs: Runs, metric: Column, of: Where) -> Array:
    """The largest minus the smallest mean of the points at `of`."""
    if (points := runs.measured(metric, of)).shape[-1] < 2:
        raise UnmeasurableError(f"only one point at {filter_text(of)}")
    return _apart(points)


def gap_ratio(runs: Runs, metric: Column, wide: Pair, narrow: Pair) -> Array:
    """The difference between two filters, `wide`, as a share of that between two others, `narrow`, without a sign."""
    above, below = (runs.mean(metric, one) - runs.mean(metric, other) for one, other in (wide, narrow))
    share = _quotient(above, below, f"the gap in {metric} between {' and '.join(map(filter_text, narrow))}")
    return np.concatenate([share, -share], axis=-1)


def order(runs: Runs, metric: Column, groups: Several) -> Array:
    """The smallest step from one group's mean to the next: at least 0 where they are in ascending order."""
    return np.diff(np.concatenate([runs.mean(metric, group) for group in groups], axis=-1))


def _quotient(above: Array, below: Array, name: str) -> Array:
    """The quotient; NaN in a draw whose divisor has not the sign of the measured one."""
    if below.flat[0] == 0:
        raise UnmeasurableError(f"{name} is 0")
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(below * below.flat[0] > 0, above / below, math.nan)


def _apart(places: Array) -> Array:
    """Every difference between two of the last axis, with both signs."""
    one, other = np.nonzero(~np.eye(places.shape[-1], dtype=bool))
    return places[..., one] - places[..., other]


def blow_up_spread(runs: Runs, x: Column, y: Column, by: Column, level: Number, where: Where | None = None) -> Array:
    """How far the blow-ups for the values of `by` lie apart: largest minus smallest log x, in grid steps."""
    family = list(curve_family(runs, x, y, by, where).values())
    return _apart(np.stack([member.blow_up(level) for member in family], axis=-1)) / _step(*family)


def blow_up_slope(runs: Runs, x: Column, y: Column, by: Column, level: Number, where: Where | None = None) -> Array:
    """The least-squares slope of log(x at the blow-up) against log(by)."""
    family = curve_family(runs, x, y, by, where)
    heights = np.log(above_zero(list(family), by))
    return slope(heights, np.stack([member.blow_up(level) for member in family.values()], axis=-1))[..., None]


def optimum_order(runs: Runs, x: Column, y: Column, by: Column, where: Where | None = None) -> Array:
    """The largest upward move of the best log x from one value of `by` to the next larger one, in grid steps."""
    family = curve_family(runs, x, y, by, where)
    above_zero(list(family), by)
    return np.diff(np.stack([member.optimum() for member in family.values()], axis=-1)) / _step(*family.values())


def optimum_distance(runs: Runs, x: Column, y: Column, where: Where, than: Where, level: Number) -> Array:
    """By how many grid steps more the best x lies below the blow-up at `where` than it does at `than`."""
    here, there = curve(runs, x, y, where), curve(runs, x, y, than)
    return (here.headroom(level) - there.headroom(level))[..., None] / _step(here, there)


def optimum_to_blow_up(runs: Runs, x: Column, y: Column, of: Where, against: Where, level: Number) -> Array:
    """The best x as a share of the blow-up at `of`, divided by the same at `against`: below 1 where `of` wants less."""
    here, there = curve(runs, x, y, of), curve(runs, x, y, against)
    return np.exp(there.headroom(level) - here.headroom(level))[..., None]


def _step(*family: Curve) -> float:
    return float(np.median([member.step for member in family]))


def ridge_power(runs: Runs, x: Column, y: Column, z: Column, where: Where | None = None) -> Array:
    """The power p of "the best x goes as y to the power of p", along the ridge of a grid; see `responses.ridge`."""
    power = responses.ridge_exponent(*responses.ridge(runs, x, y, z, where))[..., None]
    if math.isnan(power.flat[0]):
        raise UnmeasurableError("fewer than two rows of the grid have their best inside it")
    return power


def ridge_contrast(
    runs: Runs, x: Column, y: Column, z: Column, transform: Literal["ratio", "product"], where: Where | None = None,
    floor: Number = 10.0,
) -> Array:  # fmt: skip
    """How much z varies along the ridge that a theory predicts, as a share of how much it varies across.

    Along a "ratio" ridge x and y rise together, along a "product" ridge one rises as the other falls. Both are roots
    of the mean, over the diagonals of the grid with at least two cells, of the sample variance of z; a diverged run has
    z = `floor`. What noise adds to the quotient's square is taken off, as far as the draws, which have it twice, tell.
    """
    surface = responses.grid(runs, x, y, z, where, diverged=floor)
    along, across = (surface.diagonal_variance(rising) for rising in (transform == "ratio", transform == "product"))
    squares = _quotient(along, across, f"the sd of {z} across the ridge")
    if squares.ndim > 1:
        twice = squares[1:].mean()
        squares = np.vstack([squares[:1] * 0, twice - squares[1:]]) + max(2 * squares[0, 0] - twice, 0.0)
    return np.sqrt(np.maximum(squares, 0.0))


def selected_difference(runs: Runs, metric: Column, of: Where, against: Where, selected_by: Column) -> Array:
    """The metric of the point that `selected_by` finds best at `of`, minus that of the best at `against`.

    Selecting on held-out images and comparing on others keeps a search's result honest. Diverged runs are not selected.
    """
    chosen = []
    for where in (of, against):
        here = runs.at(where)
        scores = runs.numbers(selected_by)[here] * (-1 if lower_is_better(selected_by) else 1)
        if not np.isfinite(scores).any():
            raise UnmeasurableError(f"no run at {filter_text(where)} has {selected_by}")
        chosen.append(runs.numbers(metric)[..., here][..., np.argmax(np.where(np.isfinite(scores), scores, -np.inf))])
    return (chosen[0] - chosen[1])[..., None]


EFFECTS: dict[str, Callable[..., Array]] = {
    function.__name__: function
    for function in (
        value, difference, gap, ratio, spread, gap_ratio, order,
        blow_up_spread, blow_up_slope, optimum_order, optimum_distance, optimum_to_blow_up,
        ridge_power, ridge_contrast, selected_difference,
    )
}  # fmt: skip

SMALLEST = {"difference", "order"}  # are their smallest component; the other effects are their largest
UNSIGNED = {"gap", "spread", "gap_ratio", "blow_up_spread"}  # have every component with both signs


def parameters_of(effect: str) -> dict[str, tuple[Any, Any]]:
    """What an effect takes, {name: (type, default)}; the default is ... for what a claim must say."""
    hints = get_type_hints(EFFECTS[effect], include_extras=True)
    takes = list(inspect.signature(EFFECTS[effect]).parameters.values())[1:]  # after the runs
    return {one.name: (hints[one.name], ... if one.default is one.empty else one.default) for one in takes}


def columns_of(effect: str, parameters: Mapping[str, Any]) -> dict[str, str]:
    """The columns that an effect reads, by parameter; the one that it measures is `metric`, `z` or `y`."""
    kinds = {name: kind for name, (kind, _) in parameters_of(effect).items() if name in parameters}
    return {name: parameters[name] for name, kind in kinds.items() if kind == Column}


def filters_of(parameters: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The filters of an effect; one that means every run where it has none."""
    found = [one for value in parameters.values() for one in (value if isinstance(value, list) else [value])]
    return [one for one in found if isinstance(one, dict)] or [{}]


def columns_named(effect: str, parameters: Mapping[str, Any]) -> list[str]:
    """Every column that an effect reads or a filter of it names."""
    return [*columns_of(effect, parameters).values(), *(name for where in filters_of(parameters) for name in where)]
