"""Curves and surfaces over a grid of runs: the best point, the blow-up behind it, the ridge.

Grids are read in log coordinates, since their axes go in factors.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from onecycle.studies.selection import (
    Filter,
    Row,
    Rows,
    UnmeasurableError,
    diverged,
    finite,
    is_number,
    levels,
    same,
    select,
    words,
)

BLOW_UP = 1.25  # a loss is blown up where it exceeds its minimum by a quarter and still rises


@dataclass(frozen=True)
class Curve:
    """A loss over the coordinate `axis`: `x` ascending and above 0, `y` infinite where a run diverged."""

    name: str
    axis: str
    x: NDArray[np.float64]
    y: NDArray[np.float64]

    @property
    def optimum(self) -> float:
        """The x of the lowest loss."""
        return float(self.x[self._best])

    @property
    def _best(self) -> int:
        if not np.isfinite(self.y).any():
            raise UnmeasurableError(f"every run at {self.name} diverged")
        return int(np.argmin(self.y))

    def blow_up(self, factor: float = BLOW_UP, level: float | None = None) -> float:
        """The first x above the optimum whose loss is too high and falls no more at the next x.

        Too high is above `level` where one is given, else above `factor` times the minimum. At the last x of the grid
        the excess is enough. Raises UnmeasurableError where the loss never blows up.
        """
        best, last = self._best, len(self.x) - 1
        if level is None and self.y[best] <= 0:
            raise UnmeasurableError(f"the lowest loss at {self.name} is not above 0: {self.y[best]:.3g}")
        limit = factor * self.y[best] if level is None else level
        for place in range(best + 1, last + 1):
            rising = place == last or self.y[place + 1] >= self.y[place]
            if self.y[place] > limit and rising:
                return float(self.x[place])
        raise UnmeasurableError(f"no blow-up at {self.name} up to {self.axis} {self.x[-1]:.6g}")


def curve(rows: Rows, x: str, y: str, where: Filter | None = None) -> Curve:
    """The mean of y at each x, over the rows that a filter means; y is infinite where a run diverged or y is NaN."""
    chosen = select(rows, where)
    grid = _grid(chosen, x, words(where))
    losses = [np.mean([_loss(row, y) for row in chosen if same(row.get(x), level)]) for level in grid]
    return Curve(words(where), x, np.array(grid), np.array(losses))


def curves(rows: Rows, x: str, y: str, by: str, where: Filter | None = None) -> dict[Any, Curve]:
    """The curve at each value of `by`, ascending; raises UnmeasurableError for fewer than two."""
    found = {level: curve(rows, x, y, {**(where or {}), by: level}) for level in levels(select(rows, where), by)}
    if len(found) < 2:
        raise UnmeasurableError(f"fewer than two values of {by} at {words(where)}")
    return found


def grid_step(family: Sequence[Curve]) -> float:
    """The median spacing of log x along curves."""
    return float(np.median(np.concatenate([np.diff(np.log(member.x)) for member in family])))


def _grid(rows: Rows, column: str, name: str) -> list[float]:
    found = levels(rows, column)
    if len(found) < 2:
        raise UnmeasurableError(f"fewer than two values of {column} at {name}")
    wrong = [level for level in found if not is_number(level) or level <= 0]
    if wrong:
        raise UnmeasurableError(f"{column} {wrong[0]} at {name} is no number above 0")
    return [float(level) for level in found]


def _loss(row: Row, column: str) -> float:
    number = finite(row, column)
    if number is not None:
        return number
    if diverged(row, column) or is_number(row.get(column)):
        return math.inf
    raise UnmeasurableError(f"{column} was not measured in every run")


@dataclass(frozen=True)
class Surface:
    """A metric, more is better, over a grid of two coordinates: `z[i, j]` at `x[i]` and `y[j]`, NaN without a run."""

    x: NDArray[np.float64]
    y: NDArray[np.float64]
    z: NDArray[np.float64]

    @classmethod
    def of(cls, rows: Rows, x: str, y: str, z: str, floor: float, where: Filter | None = None) -> Self:
        """The mean of column z in each cell, `floor` where a run diverged."""
        chosen = select(rows, where)
        grid = [_grid(chosen, column, words(where)) for column in (x, y)]
        cells = np.array([[_height(chosen, {x: across, y: up}, z, floor) for up in grid[1]] for across in grid[0]])
        return cls(np.array(grid[0]), np.array(grid[1]), cells)

    def diagonal_sd(self, rising: bool) -> float:
        """The mean of the sample sd of z over the diagonals on which y rises with x, or falls.

        Diagonals go by grid index and count from two cells on; raises UnmeasurableError without one.
        """
        z = self.z if rising else self.z[:, ::-1]
        diagonals = [np.diagonal(z, offset) for offset in range(1 - len(self.x), len(self.y))]
        known = [cells[np.isfinite(cells)] for cells in diagonals]
        spreads = [np.std(cells, ddof=1) for cells in known if len(cells) > 1]
        if not spreads:
            raise UnmeasurableError("no diagonal of the grid has two cells")
        return float(np.mean(spreads))


def _height(rows: Rows, cell: Filter, z: str, floor: float) -> float:
    found = select(rows, cell)
    heights = [floor if diverged(row, z) else finite(row, z) for row in found]
    known = [height for height in heights if height is not None]
    return math.fsum(known) / len(known) if known else math.nan
