"""Response curves and grids in log coordinates: a measurement's best point, blow-up and ridge."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from onecycle.studies import rows
from onecycle.studies.rows import Array, DivergedError, Filter, UnmeasurableError, filter_text

if TYPE_CHECKING:
    import pandas as pd

T = TypeVar("T")
ROUNDS = 50  # of a fit with bounds


class Runs:
    """The rows of a table for arithmetic: columns are arrays, and what a filter means is looked up once.

    In one column every row may have many numbers, `draws` of them, of which the first are the measured ones.
    """

    def __init__(self, frame: "pd.DataFrame") -> None:
        self.frame = frame
        self._numbers: dict[str, Array] = {}
        self._found: dict[tuple[str, ...], Any] = {}
        self._blurred: np.random.Generator | None = None
        self._draws = 0

    def __len__(self) -> int:
        return len(self.frame)

    def replaced(self, column: str, numbers: Array, generator: np.random.Generator | None = None) -> "Runs":
        """The same runs with other numbers in a column, [..., run]; filters on other columns need no second look.

        generator: draws what a grid leaves open; see `blur`.
        """
        other = Runs(self.frame)
        other._numbers, other._found = {**self._numbers, column: numbers}, self._found
        other._blurred, other._draws = generator, len(numbers)
        return other

    def blur(self, count: int) -> Array:
        """Where places on a grid lie within their step, from −½ to ½, [..., count]: 0 for what was measured."""
        if self._blurred is None:
            return np.zeros(count)
        return self._blurred.uniform(-0.5, 0.5, (self._draws, count)) * (np.arange(self._draws) > 0)[:, None]

    def numbers(self, column: str) -> Array:
        """A column, [run]: infinite where a run has no finite number because it diverged, NaN where it has none."""
        if column not in self._numbers:
            found = rows.cells(self.frame, column)
            values = np.array([value if rows.is_number(value) else math.nan for value in found], float)
            lost = np.array([status == "diverged" for status in rows.cells(self.frame, "status")], bool)
            self._numbers[column] = np.where(np.isinf(values) | (lost & np.isnan(values)), math.inf, values)
        return self._numbers[column]

    def at(self, where: Filter | None) -> NDArray[np.bool_]:
        """Whether a filter means each run, [run]."""
        mask = np.ones(len(self), bool)
        for column, wanted in (where or {}).items():
            mask &= self._once((column, repr(wanted)), lambda one={column: wanted}: rows.chosen(self.frame, one))  # type: ignore[misc]
        return mask

    def levels(self, column: str, where: Filter | None = None) -> list[Any]:
        """The different values of a column at a filter; see `rows.levels`."""
        return self._once((column, "levels", repr(where)), lambda: rows.levels(self.frame[self.at(where)], column))

    def places(self, columns: Sequence[str], where: Filter | None = None) -> NDArray[np.intp]:
        """Which of its column's levels at a filter each run has, [run, column]; −1 where it has none of them."""
        found = np.full((len(self), len(columns)), -1)
        for number, column in enumerate(columns):
            for place, level in enumerate(self.levels(column, where)):
                found[self.at({column: [level]}), number] = place
        return found

    def means(
        self, column: str, axes: Sequence[str], where: Filter | None = None, diverged: float = math.inf
    ) -> tuple[list[Array], Array]:
        """The levels of each axis at a filter, and the mean of a column in each cell of their grid, [..., *axes].

        It is NaN without a run. Runs without a number are left out; `diverged` stands for one that diverged.
        """
        grids = [above_zero(self.levels(axis, where), axis) for axis in axes]
        places = self._once(("places", *axes, repr(where)), lambda: self.places(axes, where))
        shape, values = [len(grid) for grid in grids], self.numbers(column)
        there = self.at(where) & (places >= 0).all(axis=1) & ~np.isnan(values.reshape(-1, len(self))[0])
        cell, values = np.full(len(self), -1), np.where(np.isinf(values), diverged, values)
        cell[there] = np.ravel_multi_index(tuple(places[there].T), shape)
        void = np.full(values.shape[:-1], math.nan)
        found = [values[..., cell == one].mean(-1) if one in cell else void for one in range(math.prod(shape))]
        return grids, np.stack(found, axis=-1).reshape(*values.shape[:-1], *shape)

    def measured(self, column: str, where: Filter | None) -> Array:
        """The numbers of a column at a filter, [..., run]; raises where a run diverged or one is missing."""
        found = self.numbers(column)[..., self.at(where)]
        if not found.size:
            raise UnmeasurableError(f"no run at {filter_text(where)}")
        if np.isinf(found).any():
            raise DivergedError(f"a run at {filter_text(where)} diverged")
        if np.isnan(found).any():
            raise UnmeasurableError(f"{column} was not measured in every run at {filter_text(where)}")
        return found

    def mean(self, column: str, where: Filter | None) -> Array:
        """The mean of `measured`, [..., 1]; raises as that does."""
        return self.measured(column, where).mean(axis=-1, keepdims=True)

    def _once(self, key: tuple[str, ...], find: Callable[[], T]) -> T:
        if key not in self._found:
            self._found[key] = find()
        found: T = self._found[key]
        return found


def above_zero(levels: Sequence[Any], column: str) -> Array:
    """The values of a column as numbers; raises UnmeasurableError for one that is not above 0."""
    for level in levels:
        if not rows.is_number(level) or level <= 0:
            raise UnmeasurableError(f"{column} {rows.value_text(level)} is no number above 0")
    return np.array(levels, float)


@dataclass(frozen=True)
class Curve:
    """A loss over the coordinate `axis`: `x` ascending and above 0, `y` [..., x] infinite where a run diverged.

    Its places are logarithms of x, [...], NaN where the grid does not show them. blur: what the grid leaves open of
    the best and of the blow-up, in steps, [..., 2]; see `Runs.blur`.
    """

    name: str
    axis: str
    x: Array
    y: Array
    blur: Array

    @property
    def step(self) -> float:
        """The median spacing of log x."""
        return float(np.median(np.diff(np.log(self.x))))

    def best(self) -> tuple[Array, Array]:
        """Where the loss is lowest, and whether that is at an end of the grid (−1 or 1), so that it may lie beyond.

        By a parabola through the lowest point and its neighbours; beside a diverged one it is the point's own x. A
        loss that is as low at both ends has no lowest.
        """
        logs, lowest = np.log(self.x), self.y.min(axis=-1)
        first, last = self.y[..., 0] == lowest, self.y[..., -1] == lowest
        middle = np.clip(self.y.argmin(axis=-1), 1, len(logs) - 2)[..., None]
        (a, b, c), (low, mid, high) = (
            np.stack([np.take_along_axis(values, middle + by, -1)[..., 0] for by in (-1, 0, 1)])
            for values in (np.broadcast_to(logs, self.y.shape), self.y)
        )
        with np.errstate(invalid="ignore", divide="ignore"):
            left, right = (mid - low) / (b - a), (high - mid) / (c - b)
            vertex = (a + b) / 2 - left * (c - a) / (2 * (right - left))
        vertex = np.where(np.isfinite(vertex + left + right), vertex, b)
        place = np.where(first, logs[0], np.where(last, logs[-1], vertex)) + self.blur[..., 0] * self.step
        return np.where(first & last, math.nan, place), last.astype(int) - first

    def optimum(self) -> Array:
        """The place of the lowest loss; raises where it may lie beyond the grid, and is NaN where a draw's may."""
        place, side = self.best()
        return self._known(np.where(side == 0, place, math.nan), "the best of {} lies at an end of the grid")

    def blow_up(self, level: float) -> Array:
        """The middle of the first step above the optimum to a loss above `level` and no lower at the next x."""
        falls = np.concatenate([self.y[..., 1:] < self.y[..., :-1], np.zeros_like(self.y[..., :1], bool)], axis=-1)
        beyond = (self.y > level) & ~falls & (np.arange(len(self.x)) > self.y.argmin(axis=-1)[..., None])
        logs, first = np.log(self.x), np.maximum(beyond.argmax(axis=-1), 1)
        place = (logs[first] + logs[first - 1]) / 2 + self.blur[..., 1] * (logs[first] - logs[first - 1])
        place = np.where(beyond.any(axis=-1), place, math.nan)
        return self._known(place, f"no blow-up at {{}} up to {self.axis} {self.x[-1]:.6g}")

    def headroom(self, level: float) -> Array:
        """How far the blow-up lies above the optimum, in log x."""
        return self.blow_up(level) - self.optimum()

    def _known(self, places: Array, otherwise: str) -> Array:
        if np.isinf(self.y.reshape(-1, len(self.x))[0]).all():
            raise UnmeasurableError(f"every run at {self.name} diverged")
        if np.isnan(places.flat[0]):
            raise UnmeasurableError(otherwise.format(self.name))
        return places


def curve(runs: Runs, x: str, y: str, where: Filter | None = None, sign: int = 1) -> Curve:
    """The mean of y, times `sign`, at each x over the runs that a filter means; infinite where a run diverged."""
    (xs,), losses = runs.means(y, [x], where)
    if len(xs) < 3:
        raise UnmeasurableError(f"fewer than three values of {x} at {filter_text(where)}")
    numbers = runs.numbers(y)[..., runs.at(where) & ~np.isnan(runs.numbers(x))]
    if np.isnan(numbers).any():
        raise UnmeasurableError(f"{y} was not measured in every run at {filter_text(where)}")
    return Curve(filter_text(where), x, xs, np.where(np.isinf(losses), losses, sign * losses), runs.blur(2))


def curve_family(runs: Runs, x: str, y: str, by: str, where: Filter | None = None) -> dict[Any, Curve]:
    """The curve at each value of `by`, ascending; raises UnmeasurableError for fewer than two."""
    found = {level: curve(runs, x, y, {**(where or {}), by: level}) for level in runs.levels(by, where)}
    if len(found) < 2:
        raise UnmeasurableError(f"fewer than two values of {by} at {filter_text(where)}")
    return found


@dataclass(frozen=True)
class Grid:
    """z[..., j, i] over ascending x[i] and y[j], both above 0: NaN without a run, infinite where a run diverged."""

    x: Array
    y: Array
    z: Array

    def diagonal_variance(self, rising: bool) -> Array:
        """The mean of the sample variance of z over the diagonals on which y rises with x, or falls, [..., 1].

        Diagonals go by grid index and count from two cells on; raises UnmeasurableError without one.
        """
        z = self.z if rising else self.z[..., ::-1]
        diagonals = (np.diagonal(z, offset, -2, -1) for offset in range(1 - len(self.y), len(self.x)))
        known = (line[..., np.isfinite(line.reshape(-1, line.shape[-1])[0])] for line in diagonals)
        spreads = [np.var(line, ddof=1, axis=-1, keepdims=True) for line in known if line.shape[-1] > 1]
        if not spreads:
            raise UnmeasurableError("no diagonal of the grid has two cells")
        return np.mean(spreads, axis=0)


def grid(runs: Runs, x: str, y: str, z: str, where: Filter | None = None, diverged: float = math.inf) -> Grid:
    """The mean of z in each cell over the runs that have it; `diverged` stands for a run that diverged."""
    (ys, xs), means = runs.means(z, [y, x], where, diverged)
    return Grid(xs, ys, means)


def lower_is_better(column: str) -> bool:
    """Whether the best value of a column is its lowest, as its name says."""
    return any(word in column for word in ("loss", "error", "seconds", "time"))


def ridge(runs: Runs, x: str, y: str, z: str, where: Filter | None = None) -> tuple[Array, Array, Array]:
    """The log y of each row of a grid, [row], and where in log x its z is best, at which end if any: `Curve.best`."""
    filters = {level: {**(where or {}), y: level} for level in runs.levels(y, where)}
    used, sign = [one for one in filters if len(runs.levels(x, filters[one])) > 2], 1 if lower_is_better(z) else -1
    found = [curve(runs, x, z, filters[level], sign).best() for level in used]
    places, sides = (np.stack([parts[one] for parts in found], axis=-1) if found else np.empty(0) for one in (0, 1))
    return np.log(above_zero(used, y)), places, sides


def slope(heights: Array, places: Array) -> Array:
    """The least-squares slope of places [..., row] over heights [row]."""
    centred = heights - heights.mean()
    return places @ (centred / (centred @ centred))


def ridge_exponent(heights: Array, places: Array, sides: Array) -> Array:
    """The power p of "the best x goes as y to the power of p": least squares of log x on log y, [...].

    A row whose best is at an end of the grid bounds the line: it counts where the line ends before it. NaN for fewer
    than two rows with their best inside. See `ridge`.
    """
    free, targets = np.isnan(places), np.nan_to_num(places)
    for _ in range(ROUNDS):
        line = slope(heights, targets)[..., None] * (heights - heights.mean()) + targets.mean(axis=-1, keepdims=True)
        beyond = free | ((line - places) * sides > 0)
        targets = np.where(beyond, line, places)
    return np.where(((sides == 0) & ~free).sum(axis=-1) > 1, slope(heights, targets), math.nan)
