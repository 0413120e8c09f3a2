"""Cyclic coordinate search: one hyperparameter after the other is multiplied by its factor until that makes it worse.

The algorithm alone, whoever trains, and the file path.csv that tells what it decided. Sources: D. Page, "How to Train
Your ResNet 5: Hyperparameters" (2018), which doubles or halves λα/(1−ρ), 1−ρ and α in this order; for steps that shrink
where none is better, T. G. Kolda, R. M. Lewis, V. Torczon, "Optimization by Direct Search" (SIAM Review 45, 2003).
"""

import contextlib
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from onecycle.errors import storage_errors_named
from onecycle.runs.record import write_atomically
from onecycle.studies.plan import column
from onecycle.studies.search.options import CoordinateSearch

Values = dict[str, Any]
Exponents = tuple[int, ...]  # in fractions of a step
# The score of a point, more is better: NaN where the run diverged, None where it failed.
Score = float | None
# Returns the scores of points, in their order.
Evaluate = Callable[[list[Values]], Sequence[Score]]

START, BETTER, WORSE = "start", "better", "worse"
SETTLED, SPENT = "no step is better", "the budget is spent"
DECISIONS = "path.csv"  # in the study's folder
DECIDED = ("arm", "start", "number")  # what tells its lines apart


class FailedRunError(Exception):
    """A run failed without which the search does not know where to go."""


class _BudgetSpentError(Exception):
    pass


@dataclass(frozen=True)
class Step:
    """One point that was tried: its place in the path, its values, its score, what was decided, and why.

    coordinate: the one it is a step along, empty for a draw. score: minus infinity where the run has none.
    """

    number: int
    values: Values
    score: float
    coordinate: str
    decision: str
    reason: str = ""


@dataclass
class SearchPath:
    """Every point in the order in which it was tried, and why the search ended; on_step is called with each."""

    on_step: Callable[[Step], None] = lambda step: None
    steps: list[Step] = field(default_factory=list)
    end: str = SPENT

    @property
    def best(self) -> Step:
        """The point with the highest score; the first of equals."""
        return max(self.steps, key=lambda step: step.score)

    def add(
        self, values: Values, score: float, other: float, *, is_better: bool, coordinate: str = "",
        min_gain: float = 0.0, outcome: str = "diverged",
    ) -> None:  # fmt: skip
        """Append a point; other: the score that it was compared with. outcome: how a run without a score ended."""
        decision = START if not self.steps else BETTER if is_better else WORSE
        reason = f"{100 * score:.2f} %"
        if not self.steps:
            reason = "the first point"
        elif not math.isfinite(score):
            reason = f"it {outcome}"
        elif not math.isfinite(other):
            reason += ", no point before it has a score"
        else:
            reason += f" against {100 * other:.2f} %"
            if not is_better and other < score <= other + min_gain:
                reason += f", which is less than {100 * min_gain:.2f} % better"
        self.steps.append(Step(len(self.steps), values, score, coordinate, decision, reason))
        self.on_step(self.steps[-1])

    def add_draw(self, values: Values, score: float, outcome: str = "diverged") -> None:
        """Append a point that no other one led to: it is better where it beats all before it."""
        best = self.best.score if self.steps else math.nan
        self.add(values, score, best, is_better=score > best, outcome=outcome)


def rank(score: Score) -> float:
    """A score to compare by: a diverged run is the worst; raises FailedRunError for one that failed."""
    if score is None:
        raise FailedRunError
    return -math.inf if math.isnan(score) else float(score)


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

        def moved(point: Exponents, direction: int) -> Exponents:
            return (*point[:place], point[place] + direction * self.stride, *point[place + 1 :])

        name, here, directions = self.names[place], start, (1, -1)
        if self.pairs:
            up, down = (moved(start, direction) for direction in directions)
            self._score([up, down], name, start)
            if self.scores.get(down, -math.inf) > self.scores[up]:
                directions = (-1, 1)
        for direction in directions:
            there = moved(here, direction)
            while self._score([there], name, here) > self.scores[here] + self.options.min_gain:
                here, there = there, moved(there, direction)
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
            other, gain = math.nan if origin is None else self.scores[origin], self.options.min_gain
            for place, (values, score) in enumerate(zip(wanted.values(), ranks, strict=True)):
                # Of two neighbours that are both better, the search goes to one.
                is_better = score > other + gain and place == ranks.index(max(ranks))
                self.path.add(values, score, other, is_better=is_better, coordinate=coordinate, min_gain=gain)
        if points[0] not in self.scores:
            raise _BudgetSpentError
        return self.scores[points[0]]


def point_text(values: Values) -> str:
    """A point as a person reads it: "hyperparameters.momentum=0.75, batch_size=128"."""
    shown = ((key, f"{value:g}" if isinstance(value, float) else str(value)) for key, value in values.items())
    return ", ".join(f"{key}={value}" for key, value in shown if not key.startswith("+"))


class Decisions:
    """The decisions of all searches of a study, in the order in which they are made, in `folder`/path.csv.

    mean_score: in [0, 1], empty where a run of the point diverged. seeds: how many runs it is the mean of. start: the
    seed of a search of a study with `starts`, else empty.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.lines: list[dict[str, Any]] = []

    def add(self, arm: str, step: Step, seeds: int, start: int | None = None) -> None:
        """Append one and write them all; a search that goes on decides the same again."""
        import pandas as pd

        self.lines.append({
            "arm": arm, "start": "" if start is None else start, "number": step.number,
            "coordinate": "" if step.decision == START else column(step.coordinate), "point": point_text(step.values),
            "mean_score": f"{step.score:.6g}" if math.isfinite(step.score) else "", "seeds": seeds,
            "decision": step.decision, "reason": step.reason,
        })  # fmt: skip
        text = pd.DataFrame(self.lines).to_csv(index=False, lineterminator="\r\n")
        with storage_errors_named("run this again"):
            write_atomically(self.folder / DECISIONS, text)


def read_decisions(folder: Path) -> dict[tuple[Any, ...], dict[str, str]]:
    """Coordinate and decision of each point, by `DECIDED`; empty where no search was made."""
    import pandas as pd

    texts = dict.fromkeys(("arm", "coordinate", "decision"), str)
    try:
        lines = pd.read_csv(folder / DECISIONS, dtype=texts, keep_default_na=False).to_dict("records")
        return {
            # Files of an earlier version have no start.
            (line["arm"], int(line["start"]) if line.get("start", "") != "" else None, int(line["number"])): {
                "coordinate": line["coordinate"], "decision": line["decision"],
            }
            for line in lines
        }  # fmt: skip
    except (OSError, ValueError, KeyError):
        return {}
