"""Cyclic coordinate search: one hyperparameter after the other is multiplied by its factor until that makes it worse.

The algorithm alone: it asks for scores of points and is told them, whoever trains. Sources: D. Page, "How to Train Your
ResNet 5: Hyperparameters" (2018), which doubles or halves λα/(1−ρ), 1−ρ and α in this order; for steps that shrink
where none is better, T. G. Kolda, R. M. Lewis, V. Torczon, "Optimization by Direct Search" (SIAM Review 45, 2003).
"""

import math
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from onecycle.studies.search.space import Coordinate, Interval

Values = dict[str, Any]
Exponents = tuple[int, ...]  # in parts of a step
# The score of a point, more is better: NaN where the run diverged, None where it failed.
Score = float | None
# Asks for the scores of points, is told them in the same order, and returns what it did.
Search = Generator[list[Values], Sequence[Score], "Path"]


class FailedRunError(Exception):
    """A run failed without which the search does not know where to go."""


@dataclass(frozen=True)
class Step:
    """One point that was tried: its place in the path, its values, its score, and what followed from it.

    coordinate: the one it is a step along, empty for a draw. beside: the score that it was held against, NaN for the
    first point. min_gain: by how much it had to be better.
    """

    number: int
    values: Values
    score: float
    coordinate: str
    decision: str
    beside: float = math.nan
    min_gain: float = 0.0


@dataclass(frozen=True)
class Path:
    """Every point in the order in which it was tried, and why the search ended."""

    steps: list[Step]
    end: str

    @property
    def best(self) -> Step:
        """The point with the highest score; the first of equals."""
        return max(self.steps, key=lambda step: step.score)


Told = Callable[[Step], None]


def untold(step: Step) -> None:
    """What is decided at a step is told to nobody."""


START, BETTER, WORSE = "start", "better", "worse"
SETTLED, SPENT = "no step is better", "the budget is spent"


def search(
    axes: Sequence[Coordinate], *, budget: int, pairs: bool = False, min_gain: float = 0.0, refinements: int = 0,
    told: Told = untold,
) -> Search:  # fmt: skip
    """Look for the highest score; a score that is NaN is the worst there is.

    Along each coordinate in turn it steps up until that is no better, and down where the first step up was not, and
    goes round until no coordinate moves. Each point is asked for once. budget: points to ask for at most. pairs: ask
    for both neighbours at once, for two to be trained at the same time, and go the better way first. min_gain: by how
    much a step must be better, such as the noise of a score. refinements: how often, where no coordinate moves, the
    factors become their square roots and it goes on. told: called with each step when it is decided.
    """
    state = _State(axes, budget, min_gain, parts=2**refinements, told=told)
    here: Exponents = (0,) * len(axes)
    yield from state.ask([here], START)
    end = SETTLED
    try:
        while state.stride:
            moved = False
            for place in range(len(axes)):
                there = yield from _line(state, here, place, pairs)
                moved, here = moved or there != here, there
            if not moved:
                state.stride //= 2
    except _SpentError:
        end = SPENT
    return Path(state.steps, end)


def _line(
    state: "_State", here: Exponents, place: int, pairs: bool
) -> Generator[list[Values], Sequence[Score], Exponents]:
    """The best point along one coordinate, as far as steps one way make it better."""
    name = state.axes[place].name
    up, down = _moved(here, place, state.stride), _moved(here, place, -state.stride)
    if pairs:
        yield from state.ask([up, down], name, state.scores[here])
    for direction in (-1, 1) if pairs and state.scores.get(down, -math.inf) > state.scores[up] else (1, -1):
        start = here
        while True:
            there = _moved(here, place, direction * state.stride)
            yield from state.ask([there], name, state.scores[here])
            if not state.better(there, here):
                break
            here = there
        if here != start:
            break
    return here


def _moved(point: Exponents, place: int, by: int) -> Exponents:
    return (*point[:place], point[place] + by, *point[place + 1 :])


def random_search(space: Sequence[Interval], *, budget: int, seed: int, told: Told = untold) -> Search:
    """Independent draws; equal seeds draw the same points. told: called with each step when it is decided."""
    generator = np.random.default_rng(seed)
    steps: list[Step] = []
    for number in range(budget):
        values = {axis.name: axis.at(float(generator.random())) for axis in space}
        (answer,) = yield [values]
        score = rank(answer)
        best = max((step.score for step in steps), default=-math.inf)
        decision = START if not steps else BETTER if score > best else WORSE
        steps.append(Step(number, values, score, "", decision, beside=best if steps else math.nan))
        told(steps[-1])
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
    """What is known of each point, and how far to step: `stride` of the `parts` of a coordinate's factor."""

    def __init__(self, axes: Sequence[Coordinate], budget: int, min_gain: float, parts: int, told: Told) -> None:
        self.axes, self.budget, self.min_gain, self.told = axes, budget, min_gain, told
        self.parts = self.stride = parts
        self.scores: dict[Exponents, float] = {}
        self.steps: list[Step] = []

    def ask(
        self, points: Sequence[Exponents], coordinate: str, beside: float | None = None
    ) -> Generator[list[Values], Sequence[Score], None]:
        """Get the scores of points that are not known yet; those outside of what is allowed are the worst there are."""
        wanted: dict[Exponents, Values] = {}
        for point in points:
            values = {axis.name: axis.at(step / self.parts) for axis, step in zip(self.axes, point, strict=True)}
            allowed = {name: value for name, value in values.items() if value is not None}
            if point in self.scores:
                continue
            if len(allowed) < len(values):
                self.scores[point] = -math.inf
            elif len(self.steps) + len(wanted) < self.budget:
                wanted[point] = allowed
        if wanted:
            scores = [rank(score) for score in (yield list(wanted.values()))]
            for place, (point, score) in enumerate(zip(wanted, scores, strict=True)):
                self.scores[point] = score
                # Of two neighbours that are both better, only one is gone to.
                is_best = place == scores.index(max(scores))
                decision = START if beside is None else BETTER if is_best and self._gains(score, beside) else WORSE
                against = {"beside": math.nan if beside is None else beside, "min_gain": self.min_gain}
                self.steps.append(Step(len(self.steps), wanted[point], score, coordinate, decision, **against))
                self.told(self.steps[-1])
        if points[0] not in self.scores:
            raise _SpentError

    def better(self, point: Exponents, than: Exponents) -> bool:
        return self._gains(self.scores[point], self.scores[than])

    def _gains(self, score: float, beside: float) -> bool:
        return score > beside + self.min_gain
