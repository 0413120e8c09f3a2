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


class Runs:
    """The rows of a table for arithmetic: columns are arrays, and what a filter means is looked up once."""

    def __init__(self, frame: "pd.DataFrame") -> None:
        self.frame = frame
        self._numbers: dict[str, Array] = {}
        self._found: dict[tuple[str, ...], Any] = {}

    def __len__(self) -> int:
        return len(self.frame)

    def replaced(self, column: str, numbers: Array) -> "Runs":
        """The same runs with other numbers in a column; filters on other columns need no second look."""
        other = Runs(self.frame)
        other._numbers, other._found = {**self._numbers, column: numbers}, self._found
        return other

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
        """The levels of each axis at a filter, and the mean of a column in each cell of their grid, NaN without a run.

        Runs without a number are left out; `diverged` stands for one that diverged.
        """
        grids = [above_zero(self.levels(axis, where), axis) for axis in axes]
        places = self._once(("places", *axes, repr(where)), lambda: self.places(axes, where))
        shape, values = [len(grid) for grid in grids], self.numbers(column)
        there = self.at(where) & (places >= 0).all(axis=1) & ~np.isnan(values)
        cell = np.ravel_multi_index(tuple(places[there].T), shape)
        count = np.bincount(cell, minlength=math.prod(shape))
        sums = np.bincount(cell, np.where(np.isinf(values), diverged, values)[there], len(count))
        with np.errstate(invalid="ignore"):
            return grids, (sums / count).reshape(shape)

    def measured(self, column: str, where: Filter | None) -> Array:
        """The numbers of a column at a filter; raises for a diverged run, and where a run or a number is missing."""
        found = self.numbers(column)[self.at(where)]
        if not len(found):
            raise UnmeasurableError(f"no run at {filter_text(where)}")
        if (lost := np.isinf(found)).any():
            raise DivergedError(f"{'every run' if lost.all() else 'a run'} at {filter_text(where)} diverged")
        if np.isnan(found).any():
            raise UnmeasurableError(f"{column} was not measured in every run at {filter_text(where)}")
        return found

    def mean(self, column: str, where: Filter | None) -> float:
        """The mean of `measured`; raises as that does."""
        return float(self.measured(column, where).mean())

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
    """A loss over the coordinate `axis`: `x` ascending and above 0, `y` infinite where a run diverged."""

    name: str
    axis: str
    x: Array
    y: Array

    @property
    def best(self) -> int:
        """The place of the lowest loss; raises UnmeasurableError where every run diverged."""
        if not np.isfinite(self.y).any():
            raise UnmeasurableError(f"every run at {self.name} diverged")
        return int(np.argmin(self.y))

    @property
    def optimum(self) -> float:
        """The x of the lowest loss."""
        return float(self.x[self.best])

    def blow_up(self, level: float) -> float:
        """The first x above the optimum whose loss is above `level` and no lower at the next x, if there is one."""
        falls = np.append(self.y[1:] < self.y[:-1], False)
        beyond = np.flatnonzero((self.y > level) & ~falls & (np.arange(len(self.x)) > self.best))
        if not len(beyond):
            raise UnmeasurableError(f"no blow-up at {self.name} up to {self.axis} {self.x[-1]:.6g}")
        return float(self.x[beyond[0]])


def curve(runs: Runs, x: str, y: str, where: Filter | None = None) -> Curve:
    """The mean of y at each x, over the runs that a filter means; y is infinite where a run diverged."""
    (xs,), losses = runs.means(y, [x], where)
    if len(xs) < 2:
        raise UnmeasurableError(f"fewer than two values of {x} at {filter_text(where)}")
    if np.isnan(runs.numbers(y)[runs.at(where) & ~np.isnan(runs.numbers(x))]).any():
        raise UnmeasurableError(f"{y} was not measured in every run at {filter_text(where)}")
    return Curve(filter_text(where), x, xs, losses)


def curve_family(runs: Runs, x: str, y: str, by: str, where: Filter | None = None) -> dict[Any, Curve]:
    """The curve at each value of `by`, ascending; raises UnmeasurableError for fewer than two."""
    found = {level: curve(runs, x, y, {**(where or {}), by: level}) for level in runs.levels(by, where)}
    if len(found) < 2:
        raise UnmeasurableError(f"fewer than two values of {by} at {filter_text(where)}")
    return found


def grid_step(family: Sequence[Curve]) -> float:
    """The median spacing of log x along curves."""
    return float(np.median(np.concatenate([np.diff(np.log(member.x)) for member in family])))


@dataclass(frozen=True)
class Grid:
    """z[j, i] over ascending x[i] and y[j], both above 0: NaN without a run, infinite where a run diverged."""

    x: Array
    y: Array
    z: Array

    def diagonal_sd(self, rising: bool) -> float:
        """The mean of the sample sd of z over the diagonals on which y rises with x, or falls.

        Diagonals go by grid index and count from two cells on; raises UnmeasurableError without one.
        """
        z = self.z if rising else self.z[:, ::-1]
        diagonals = (np.diagonal(z, offset) for offset in range(1 - len(self.y), len(self.x)))
        known = (line[np.isfinite(line)] for line in diagonals)
        spreads = [np.std(line, ddof=1) for line in known if len(line) > 1]
        if not spreads:
            raise UnmeasurableError("no diagonal of the grid has two cells")
        return float(np.mean(spreads))


def grid(runs: Runs, x: str, y: str, z: str, where: Filter | None = None, diverged: float = math.inf) -> Grid:
    """The mean of z in each cell over the runs that have it; `diverged` stands for a run that diverged."""
    (ys, xs), means = runs.means(z, [y, x], where, diverged)
    return Grid(xs, ys, means)


def lower_is_better(column: str) -> bool:
    """Whether the best value of a column is its lowest, as its name says."""
    return any(word in column for word in ("loss", "error", "seconds", "time"))


def ridge(grid: Grid, lower: bool) -> list[tuple[float, float]]:
    """For each y the x of the best z, by a parabola in log x through the best cell and its neighbours, as (x, y).

    A y is left out where its best is at the edge of its runs, or no better than there: the optimum may lie beyond.
    Beside a diverged cell the best cell's own x is taken. lower: whether the best is the lowest z.
    """
    found = []
    for y, line in zip(grid.y.tolist(), -grid.z if lower else grid.z, strict=True):
        xs, heights = grid.x[~np.isnan(line)], line[~np.isnan(line)]
        if not np.isfinite(heights).any():
            continue
        ties = np.flatnonzero(heights == heights[np.isfinite(heights)].max())
        if ties[0] == 0 or ties[-1] == len(xs) - 1:
            continue
        three = slice(ties[0] - 1, ties[0] + 2)
        vertex = float(xs[ties[0]])
        (a, b, c), slopes = np.log(xs[three]), np.diff(heights[three]) / np.diff(np.log(xs[three]))
        if np.isfinite(heights[three]).all() and slopes[0] != slopes[1]:
            vertex = math.exp((a + b) / 2 - slopes[0] * (c - a) / (2 * (slopes[1] - slopes[0])))
        found.append((vertex, y))
    return found


def ridge_exponent(points: Sequence[tuple[float, float]]) -> float:
    """The power p of "the best x goes as y to the power of p": least squares of log x on log y; NaN for one point."""
    if len(points) < 2:
        return math.nan
    best, heights = np.log(np.asarray(points, float)).T
    return float(np.polyfit(heights, best, 1)[0])
