"""The ridge of a heat map: where the best value of one hyperparameter lies for each value of another."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onecycle.studies.figures.points import (
    Direction,
    Point,
    Rows,
    direction_of,
    key,
    point,
    positive,
    require,
    same_setting,
    values_of,
)

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Grid:
    """Cells of a heat map: distinct x and y by size, and the runs of each cell as cells[y, x]; None without a run."""

    xs: list[float]
    ys: list[float]
    cells: list[list[Point | None]]
    better: Direction

    def value(self, row: int, column: int) -> float:
        """The mean of a cell whose runs all finished; NaN for others."""
        cell = self.cells[row][column]
        return math.nan if cell is None or cell.diverged else cell.mean

    def means(self) -> Array:
        """All values, [y, x]."""
        return np.array([[self.value(row, column) for column in range(len(self.xs))] for row in range(len(self.ys))])


def grid_of(rows: Rows, x: str, y: str, z: str, direction: Direction | None = None) -> Grid:
    """The grid of a heat map. Raises ValueError for columns that no row has, and for x and y that are not positive."""
    require("heat_map_pair", rows, x, y, z)
    xs, ys = values_of(rows, x), values_of(rows, y)
    for column, values in ((x, xs), (y, ys)):
        positive(values, column, "choose other rows with `where`")
    runs: dict[tuple[Any, Any], list[Mapping[str, Any]]] = {}
    for row in rows:
        runs.setdefault((key(row.get(x)), key(row.get(y))), []).append(row)
    cells = [[_cell(runs.get((wide, high), ()), wide, z, f"{x}={wide:g}, {y}={high:g}") for wide in xs] for high in ys]
    return Grid(xs, ys, cells, direction_of(z, direction))


def _cell(runs: Rows, x: float, z: str, where: str) -> Point | None:
    same_setting(runs, where)
    found = point(runs, x, z)
    return found if found.values or found.diverged else None


def ridge(rows: Rows, x: str, y: str, z: str, direction: Direction | None = None) -> list[tuple[float, float]]:
    """For each y the x of the best z, by a parabola in log x through the best cell and its neighbours.

    A y is left out where its best is at the edge of its runs, or no better than there: the optimum may lie beyond.
    Beside a diverged cell the best cell's own x is taken. direction: whether the best is the lowest or the highest z;
    by default z's name says so.
    """
    grid = grid_of(rows, x, y, z, direction)
    found = ((_best(grid, row), value) for row, value in enumerate(grid.ys))
    return [(best, value) for best, value in found if best is not None]


def _best(grid: Grid, row: int) -> float | None:
    sign = 1.0 if grid.better == "accuracy" else -1.0
    values = [sign * grid.value(row, column) for column in range(len(grid.xs))]
    run = [column for column in range(len(grid.xs)) if grid.cells[row][column] is not None]
    sound = [column for column in run if math.isfinite(values[column])]
    if not sound:
        return None
    top = max(values[column] for column in sound)
    ties = [column for column in sound if values[column] == top]
    if run[0] in ties or run[-1] in ties:
        return None
    best = ties[0]
    around = run[run.index(best) - 1 : run.index(best) + 2]
    heights = [values[column] for column in around]
    if not all(math.isfinite(height) for height in heights):
        return grid.xs[best]
    return math.exp(vertex([math.log(grid.xs[column]) for column in around], heights))


def vertex(places: Sequence[float], heights: Sequence[float]) -> float:
    """Where the parabola through three points has its extremum; the middle place where they lie on a line."""
    (a, b, c), (fa, fb, fc) = places, heights
    left, right = (fb - fa) / (b - a), (fc - fb) / (c - b)
    if right == left:
        return b
    return (a + b) / 2 - left * (c - a) / (2 * (right - left))


def ridge_power(points: Sequence[tuple[float, float]]) -> float:
    """The power p of "the best x goes as y to the power of p": least squares of log x on log y over a ridge.

    It stays finite where the best x does not depend on y. NaN for fewer than two points.
    """
    if len(points) < 2:
        return math.nan
    best, heights = np.log(np.asarray(points, float)).T
    return float(np.polyfit(heights, best, 1)[0])
