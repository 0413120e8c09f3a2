"""Cyclic coordinate search: one hyperparameter after the other is multiplied by its factor until that makes it worse.

The algorithm alone, whoever trains, and the file path.csv that tells what it decided. Sources: D. Page, "How to Train
Your ResNet 5: Hyperparameters" (2018), which doubles or halves λα/(1−ρ), 1−ρ and α in this order; for steps that shrink
where none is better, T. G. Kolda, R. M. Lewis, V. Torczon, "Optimization by Direct Search" (SIAM Review 45, 2003).
"""

import contextlib
import csv
import io
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from onecycle.errors import storage_errors_named
from onecycle.runs.record import write_atomically
from onecycle.studies.plan import column
from onecycle.studies.search.options import CoordinateSearch, RandomSearch

Values = dict[str, Any]
Exponents = tuple[int, ...]  # in fractions of a step
# The score of a point, more is better: NaN where the run diverged, None where it failed.
Score = float | None
# Returns the scores of points, in their order.
Evaluate = Callable[[list[Values]], Sequence[Score]]

START, BETTER, WORSE = "start", "better", "worse"
SETTLED, SPENT = "no step is better", "the budget is spent"
DECISIONS = "path.csv"  # in the study's folder


class FailedRunError(Exception):
    """A run failed without which the search does not know where to go."""


class _BudgetSpentError(Exception):
    pass


@dataclass(frozen=True)
class Step:
    """One point that was tried: its place in the path, its values, its score, and what was decided.

    coordinate: the one it is a step along, empty for a draw. beside: the score that it was compared with, NaN for the
    first point. min_gain: by how much it had to be better.
    """

    number: int
    values: Values
    score: float
    coordinate: str
    decision: str
    beside: float = math.nan
    min_gain: float = 0.0


@dataclass
class SearchPath:
    """Every point in the order in which it was tried, and why the search ended.

    on_step: is called with each step when it is decided.
    """

    on_step: Callable[[Step], None] = lambda step: None
    steps: list[Step] = field(default_factory=list)
    end: str = SPENT

    @property
    def best(self) -> Step:
        """The point with the highest score; the first of equals."""
        return max(self.steps, key=lambda step: step.score)

    def add(self, step: Step) -> None:
        """Append a step."""
        self.steps.append(step)
        self.on_step(step)

    def add_draw(self, values: Values, score: float) -> None:
        """Append a point that no other one led to: it is better where it beats all before it."""
        best = self.best.score if self.steps else math.nan
        decision = START if not self.steps else BETTER if score > best else WORSE
        self.add(Step(len(self.steps), values, score, "", decision, beside=best))


def rank(score: Score) -> float:
    """A score to compare by: a diverged run is the worst; raises FailedRunError for one that failed."""
    if score is None:
        raise FailedRunError
    return -math.inf if math.isnan(score) else float(score)


def random_search(options: RandomSearch, evaluate: Evaluate, path: SearchPath) -> None:
    """Independent draws, one after the other; equal seeds draw the same points."""
    generator = np.random.default_rng(options.seed)
    for _ in range(options.budget):
        values = {key: interval.at(float(generator.random())) for key, interval in options.space.items()}
        path.add_draw(values, rank(evaluate([values])[0]))


def coordinate_search(options: CoordinateSearch, evaluate: Evaluate, path: SearchPath, *, pairs: bool = False) -> None:
    """Look for the highest score; a score that is NaN is the worst there is.

    Along each coordinate in turn it steps up until that is no better, and down where the first step up was not, and
    goes round until no coordinate moves. Each point is evaluated once. pairs: evaluate both neighbours at once, for two
    to be trained at the same time, and go the better way first. Raises FailedRunError.
    """
    with contextlib.suppress(_BudgetSpentError):
        _CoordinateSearch(options, evaluate, path, pairs).run()
        path.end = SETTLED


class _CoordinateSearch:
    """What is known of each point, and how far to step: `stride` of the `parts` of a coordinate's factor."""

    def __init__(self, options: CoordinateSearch, evaluate: Evaluate, path: SearchPath, pairs: bool) -> None:
        self.options, self.evaluate, self.path, self.pairs = options, evaluate, path, pairs
        self.names = list(options.coordinates)
        self.parts = self.stride = 2**options.refinements
        self.scores: dict[Exponents, float] = {}

    def run(self) -> None:
        """Go round the coordinates, at smaller strides where none of them moves, as often as there are refinements."""
        here: Exponents = (0,) * len(self.names)
        self._score([here])
        while self.stride:
            before = here
            for place in range(len(self.names)):
                here = self._best_along(place, here)
            if here == before:
                self.stride //= 2

    def _best_along(self, place: int, start: Exponents) -> Exponents:
        """The best point along one coordinate, as far as steps in one direction make it better."""
        name, here, directions = self.names[place], start, (1, -1)
        if self.pairs:
            up, down = (_moved(start, place, sign * self.stride) for sign in directions)
            self._score([up, down], name, start)
            if self.scores.get(down, -math.inf) > self.scores[up]:
                directions = (-1, 1)
        for direction in directions:
            there = _moved(here, place, direction * self.stride)
            while self._score([there], name, here) > self.scores[here] + self.options.min_gain:
                here, there = there, _moved(there, place, direction * self.stride)
            if here != start:
                break
        return here

    def _score(self, points: Sequence[Exponents], coordinate: str = "", origin: Exponents | None = None) -> float:
        """The score of the first of some points, after those that are not known were evaluated together.

        A point outside of what is allowed is the worst there is. Raises _BudgetSpentError.
        """
        wanted: dict[Exponents, Values] = {}
        for point in points:
            values = {name: self.options.coordinates[name].at(exponent / self.parts)
                      for name, exponent in zip(self.names, point, strict=True)}  # fmt: skip
            if point not in self.scores and None in values.values():
                self.scores[point] = -math.inf
            elif point not in self.scores and len(self.path.steps) + len(wanted) < self.options.budget:
                wanted[point] = values
        if wanted:
            ranks = [rank(score) for score in self.evaluate(list(wanted.values()))]
            self.scores |= dict(zip(wanted, ranks, strict=True))
            beside = math.nan if origin is None else self.scores[origin]
            for place, (values, score) in enumerate(zip(wanted.values(), ranks, strict=True)):
                # Of two neighbours that are both better, the search goes to one.
                is_gain = score > beside + self.options.min_gain and place == ranks.index(max(ranks))
                decision = START if origin is None else BETTER if is_gain else WORSE
                number = len(self.path.steps)
                self.path.add(Step(number, values, score, coordinate, decision, beside, self.options.min_gain))
        if points[0] not in self.scores:
            raise _BudgetSpentError
        return self.scores[points[0]]


def _moved(point: Exponents, place: int, by: int) -> Exponents:
    return (*point[:place], point[place] + by, *point[place + 1 :])


def point_text(values: Values) -> str:
    """A point as a person reads it: "hyperparameters.momentum=0.75, batch_size=128"."""
    shown = ((key, f"{value:g}" if isinstance(value, float) else str(value)) for key, value in values.items())
    return ", ".join(f"{key}={value}" for key, value in shown if not key.startswith("+"))


class Decisions:
    """The decisions of all searches of a study, in the order in which they are made, in `folder`/path.csv.

    mean_score: in [0, 1], empty where a run of the point diverged. seeds: how many runs it is the mean of.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.lines: list[dict[str, Any]] = []

    def add(self, arm: str, step: Step, seeds: int) -> None:
        """Append one and write them all; a search that goes on decides the same again."""
        self.lines.append({
            "arm": arm, "number": step.number,
            "coordinate": "" if step.decision == START else column(step.coordinate), "point": point_text(step.values),
            "mean_score": f"{step.score:.6g}" if math.isfinite(step.score) else "", "seeds": seeds,
            "decision": step.decision, "reason": reason(step),
        })  # fmt: skip
        text = io.StringIO(newline="")
        writer = csv.DictWriter(text, list(self.lines[0]))
        writer.writeheader()
        writer.writerows(self.lines)
        with storage_errors_named("run this again"):
            write_atomically(self.folder / DECISIONS, text.getvalue())


def reason(step: Step) -> str:
    """Why a search decided so: "52.10 % against 51.30 %"."""
    score = f"{100 * step.score:.2f} %"
    if step.decision == START:
        return "the first point"
    if not math.isfinite(step.score):
        return "it diverged"
    if not math.isfinite(step.beside):
        return f"{score}, every point before it diverged"
    text = f"{score} against {100 * step.beside:.2f} %"
    is_small = step.decision != BETTER and step.beside < step.score <= step.beside + step.min_gain
    return f"{text}, which is less than {100 * step.min_gain:.2f} % better" if is_small else text


def read_decisions(folder: Path) -> dict[tuple[Any, Any], dict[str, str]]:
    """Coordinate and decision by arm and number of a point; empty where no search was made."""
    try:
        with (folder / DECISIONS).open(newline="", encoding="utf-8") as file:
            return {
                (line["arm"], int(line["number"])): {name: line[name] for name in ("coordinate", "decision")}
                for line in csv.DictReader(file)
            }
    except (OSError, ValueError, KeyError, TypeError):
        return {}
