"""Cyclic coordinate search: one hyperparameter after the other is multiplied by its factor until that makes it worse.

The algorithm alone: it asks for scores of points and is told them, whoever trains. Source: D. Page, "How to Train Your
ResNet 5: Hyperparameters" (2018), which doubles or halves λα/(1−ρ), 1−ρ and α in this order.
"""

import math
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from onecycle.faults import ConfigError

Values = dict[str, Any]
Exponents = tuple[int, ...]
# The score of a point, more is better: NaN where the run diverged, None where it failed.
Score = float | None
# Asks for the scores of points, is told them in the same order, and returns what it did.
Search = Generator[list[Values], Sequence[Score], "Path"]


class FailedRunError(Exception):
    """A run failed without which the search does not know where to go."""


@dataclass(frozen=True)
class Coordinate:
    """A hyperparameter to search along.

    name: its configuration key. start: its first value, above 0. factor: above 1; a step multiplies or divides by it.
    complement: the factor acts on 1 − value, as for a momentum, whose effect goes with 1/(1−ρ). low, high: the values
    allowed, ends included.
    """

    name: str
    start: float
    factor: float = 2.0
    complement: bool = False
    low: float = 0.0
    high: float = math.inf

    def at(self, exponent: int) -> float | None:
        """The value `exponent` steps from the start; None outside of what is allowed.

        Upwards is towards the larger value: for a complement, towards the smaller 1 − value.
        """
        if self.complement:
            value = 1 - (1 - self.start) * self.factor**-exponent
        else:
            value = self.start * self.factor**exponent
        # What the search writes into commands and tables should read like what a person would type.
        value = float(f"{value:.12g}")
        return value if self.low <= value <= self.high and 0 <= value < (1 if self.complement else math.inf) else None


@dataclass(frozen=True)
class Step:
    """One point that was tried: its place in the path, its values, its score, and what followed from it."""

    number: int
    values: Values
    score: float
    coordinate: str
    decision: str


@dataclass(frozen=True)
class Path:
    """Every point in the order in which it was tried, and why the search ended."""

    steps: list[Step]
    end: str

    @property
    def best(self) -> Step:
        """The point with the highest score; the first of equals."""
        return max(self.steps, key=lambda step: step.score)


START, BETTER, WORSE = "start", "better", "worse"
SETTLED, SPENT = "no step is better", "the budget is spent"


def coordinates(settings: Mapping[str, Any], current: Mapping[str, Any]) -> list[Coordinate]:
    """Coordinates from a configuration, {key: {start, factor, complement, low, high}}, in its order.

    current: the value of each key as it is composed, the start where none is given. Raises ConfigError with every
    mistake, one line each.
    """
    problems: list[str] = []
    found = [_coordinate(key, entry, current.get(key), problems) for key, entry in settings.items()]
    if not settings:
        problems.append("coordinates: is empty; name at least one key, such as hyperparameters.effective_decay")
    if problems:
        raise ConfigError(problems)
    return found


def _coordinate(key: str, entry: Any, current: Any, problems: list[str]) -> Coordinate:
    given = dict(entry or {})
    before = len(problems)
    unknown = [name for name in given if name not in ("start", "factor", "complement", "low", "high")]
    problems += [f"{key}.{name}: is unknown; there are start, factor, complement, low, high" for name in unknown]
    if given.get("start") is None:
        given["start"] = current
    for name in ("start", "factor", "low", "high"):
        value = given.get(name)
        if value is None and name != "start":
            given.pop(name, None)
        elif not _is_number(value):
            problems.append(f"{key}.{name}={value!r}: must be a number" + _unset(name, current))
    if given.get("complement") not in (None, True, False):
        problems.append(f"{key}.complement={given['complement']!r}: must be true or false")
    if len(problems) > before:
        return Coordinate(key, 1.0)
    coordinate = Coordinate(key, **{name: value for name, value in given.items() if value is not None})
    if coordinate.factor <= 1:
        problems.append(f"{key}.factor={coordinate.factor}: must be above 1")
    if coordinate.start <= 0 and not coordinate.complement:
        problems.append(f"{key}.start={coordinate.start}: must be above 0, because steps multiply it")
    elif len(problems) == before and coordinate.at(0) is None:
        problems.append(f"{key}.start={coordinate.start}: must be a value that is allowed")
    return coordinate


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _unset(name: str, current: Any) -> str:
    return "; the configuration has no such key" if name == "start" and current is None else ""


def search(axes: Sequence[Coordinate], *, budget: int, pairs: bool = False, min_gain: float = 0.0) -> Search:
    """Look for the highest score; a score that is NaN is the worst there is.

    Along each coordinate in turn it steps up until that is no better, and down where the first step up was not, and
    goes round until no coordinate moves. Each point is asked for once. budget: points to ask for at most. pairs: ask
    for both neighbours at once, for two to be trained at the same time, and go the better way first. min_gain: by how
    much a step must be better, such as the noise of a score.
    """
    state = _State(axes, budget, min_gain)
    here: Exponents = (0,) * len(axes)
    yield from state.ask([here], START)
    end = SETTLED
    try:
        moved = True
        while moved:
            moved = False
            for place in range(len(axes)):
                there = yield from _line(state, here, place, pairs)
                moved, here = moved or there != here, there
    except _SpentError:
        end = SPENT
    return Path(state.steps, end)


def _line(
    state: "_State", here: Exponents, place: int, pairs: bool
) -> Generator[list[Values], Sequence[Score], Exponents]:
    """The best point along one coordinate, as far as steps one way make it better."""
    name = state.axes[place].name
    up, down = _moved(here, place, 1), _moved(here, place, -1)
    if pairs:
        yield from state.ask([up, down], name, state.scores[here])
    for direction in (-1, 1) if pairs and state.scores.get(down, -math.inf) > state.scores[up] else (1, -1):
        start = here
        while True:
            there = _moved(here, place, direction)
            yield from state.ask([there], name, state.scores[here])
            if not state.better(there, here):
                break
            here = there
        if here != start:
            break
    return here


def _moved(point: Exponents, place: int, by: int) -> Exponents:
    return (*point[:place], point[place] + by, *point[place + 1 :])


@dataclass(frozen=True)
class Interval:
    """A hyperparameter to draw between `low` and `high`, evenly or, with `log`, evenly in its logarithm.

    complement: 1 − value is what is drawn, as for a momentum.
    """

    name: str
    low: float
    high: float
    log: bool = True
    complement: bool = False

    def at(self, share: float) -> float:
        """The value at a share of the way from `low` to `high`, in [0, 1]."""
        if self.log:
            drawn = math.exp(math.log(self.low) + share * (math.log(self.high) - math.log(self.low)))
        else:
            drawn = self.low + share * (self.high - self.low)
        return float(f"{1 - drawn if self.complement else drawn:.6g}")


def intervals(settings: Mapping[str, Any]) -> list[Interval]:
    """Intervals from a configuration, {key: {low, high, log, complement}}.

    Of a complement low and high are those of 1 − value. Raises ConfigError with every mistake, one line each.
    """
    problems: list[str] = []
    found = []
    for key, entry in settings.items():
        given = dict(entry or {})
        problems += [
            f"{key}.{name}: is unknown; there are low, high, log, complement"
            for name in given
            if name not in ("low", "high", "log", "complement")
        ]
        problems += [f"{key}.{name}={given.get(name)!r}: must be a number" for name in ("low", "high")
                     if not _is_number(given.get(name))]  # fmt: skip
        problems += [f"{key}.{name}={given[name]!r}: must be true or false" for name in ("log", "complement")
                     if given.get(name) not in (None, True, False)]  # fmt: skip
        if not problems:
            interval = Interval(key, **given)
            if not interval.low < interval.high:
                problems.append(f"{key}.low={interval.low}: must be below high, {interval.high}")
            elif interval.log and interval.low <= 0:
                problems.append(f"{key}.low={interval.low}: must be above 0 for a logarithm; or set log: false")
            found.append(interval)
    if not settings:
        problems.append("space: is empty; name at least one key, such as schedule.peak_lr")
    if problems:
        raise ConfigError(problems)
    return found


def random_search(space: Sequence[Interval], *, budget: int, seed: int) -> Search:
    """Independent draws; equal seeds draw the same points."""
    generator = np.random.default_rng(seed)
    steps: list[Step] = []
    for number in range(budget):
        values = {axis.name: axis.at(float(generator.random())) for axis in space}
        (told,) = yield [values]
        score = rank(told)
        best = max((step.score for step in steps), default=-math.inf)
        decision = START if not steps else BETTER if score > best else WORSE
        steps.append(Step(number, values, score, "", decision))
    return Path(steps, SPENT)


def rank(score: Score) -> float:
    """A score to compare by: a diverged run is the worst; raises FailedRunError for one that failed."""
    if score is None:
        raise FailedRunError
    return -math.inf if math.isnan(score) else float(score)


def words(values: Values) -> str:
    """A point as a person reads it: "hyperparameters.momentum=0.75, batch_size=128"."""
    shown = ((key, f"{value:g}" if isinstance(value, float) else str(value)) for key, value in values.items())
    return ", ".join(f"{key}={value}" for key, value in shown if not key.startswith("+"))


def follow(walk: Search, score: Callable[[list[Values]], Sequence[Score]]) -> Path:
    """Answer a search until it ends; returns its path."""
    try:
        points = next(walk)
        while True:
            points = walk.send(score(points))
    except StopIteration as end:
        found = end.value
        assert isinstance(found, Path)
        return found


class _SpentError(Exception):
    """No budget is left for a point that is needed."""


class _State:
    """What is known of each point."""

    def __init__(self, axes: Sequence[Coordinate], budget: int, min_gain: float) -> None:
        self.axes, self.budget, self.min_gain = axes, budget, min_gain
        self.scores: dict[Exponents, float] = {}
        self.steps: list[Step] = []

    def ask(
        self, points: Sequence[Exponents], coordinate: str, beside: float | None = None
    ) -> Generator[list[Values], Sequence[Score], None]:
        """Get the scores of points that are not known yet; those outside of what is allowed are the worst there are."""
        wanted: dict[Exponents, Values] = {}
        for point in points:
            values = {axis.name: axis.at(step) for axis, step in zip(self.axes, point, strict=True)}
            allowed = {name: value for name, value in values.items() if value is not None}
            if point in self.scores:
                continue
            if len(allowed) < len(values):
                self.scores[point] = -math.inf
            elif len(self.steps) + len(wanted) < self.budget:
                wanted[point] = allowed
        if wanted:
            for point, score in zip(wanted, (yield list(wanted.values())), strict=True):
                self.scores[point] = rank(score)
                decision = START if beside is None else BETTER if self._gains(self.scores[point], beside) else WORSE
                self.steps.append(Step(len(self.steps), wanted[point], self.scores[point], coordinate, decision))
        if points[0] not in self.scores:
            raise _SpentError

    def better(self, point: Exponents, than: Exponents) -> bool:
        return self._gains(self.scores[point], self.scores[than])

    def _gains(self, score: float, beside: float) -> bool:
        return score > beside + self.min_gain
