"""The searches of a study: their points become runs, their runs' scores decide where they go."""

import json
import logging
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra.core.utils import JobReturn, JobStatus

from onecycle.errors import storage_errors_named
from onecycle.runs import record as run
from onecycle.studies import plan
from onecycle.studies.progress import Progress
from onecycle.studies.search import best, decisions
from onecycle.studies.search import coordinate as search
from onecycle.studies.search.methods import walk as search_of

log = logging.getLogger(__name__)

PARALLEL = 2  # points at once that a search asks for where the launcher runs several jobs: both neighbours of a point


def note_plan(folder: Path, noted: plan.Plan) -> None:
    """Write down what the study consists of, before it is run."""
    with storage_errors_named("run this again"):
        plan.write_plan(folder, noted)


@dataclass
class Explorer:
    """Makes the runs of searches that join the plan `noted` of the study in `folder`.

    launch: makes runs and returns what they returned. alone: whether it makes them one after the other.
    """

    noted: plan.Plan
    changed: plan.Changes
    folder: Path
    launch: Callable[[Sequence[plan.Point]], list[JobReturn]]
    progress: Progress
    alone: bool

    def __post_init__(self) -> None:
        self.decided = decisions.Decisions(self.folder)

    def explore(self, block: dict[str, Any]) -> list[JobReturn]:
        """Run a search: the mean score over the seeds of a point decides where it goes. Its points join the plan.

        A search that was interrupted takes the same way again, over runs that are read back. A failed run stops a
        search that does not know where to go without it.
        """
        results: list[JobReturn] = []
        arm, budget = block["arm"], block["budget"]
        seeds = len(self.changed.axes.get("seed", self.noted.study["seeds"]))
        told = 0

        def score(values: list[search.Values]) -> list[search.Score]:
            nonlocal told
            made = [
                plan.search_points(self.noted.study, block, told + place, point, self.changed)
                for place, point in enumerate(values)
            ]
            told += len(values)
            done = self._launch_noted([point for points in made for point in points])
            results.extend(done)
            scores = [mean_score(done[place * seeds : (place + 1) * seeds]) for place in range(len(values))]
            for point, found in zip(values, scores, strict=True):
                shown = "failed" if found is None else "diverged" if math.isnan(found) else f"{100 * found:.2f} %"
                log.info("%s, point %d of at most %d: %s: %s", arm, told, budget, search.words(point), shown)
            return scores

        def decide(step: search.Step) -> None:
            self.decided.add(arm, step, seeds)

        walk = search_of(block, width=1 if self.alone else PARALLEL, folder=self.folder, told=decide)
        try:
            path = search.follow(walk, score)
        except search.FailedRunError:
            log.error("%s stops: a run failed; the same command goes on.", arm)
            return results
        finally:
            self.progress.total -= max(0, seeds * budget - len(results))
        log.info("%s ends: %s. Best: %s", arm, path.end, self._keep_best(block, path))
        return results

    def confirm(self, results: Sequence[JobReturn]) -> list[JobReturn]:
        """Run the best point of every arm again with the seeds of `confirm`: what is selected looks better than it is.

        results: what the runs of the plan returned, in its order.
        """
        seeds = self.noted.study.get("confirm") or ()
        if not seeds:
            return []
        again = [plan.again(point, seed) for seed in seeds for point in best_of_arms(self.noted.points, results)]
        self.progress.total = self.progress.done + len(again)
        return self._launch_noted(again)

    def _launch_noted(self, points: list[plan.Point]) -> list[JobReturn]:
        self.noted.points.extend(points)
        note_plan(self.folder, self.noted)
        return self.launch(points)

    def _keep_best(self, block: dict[str, Any], path: search.Path) -> str:
        """Write the best point of a search as best_<arm>.yaml, ready for conf/experiment; returns it in words."""
        words = f"{search.words(path.best.values)}: {100 * path.best.score:.2f} % on held-out images"
        number = {"arm": block["arm"], "number": path.best.number}
        point = next(point for point in self.noted.points if number.items() <= point.values.items())
        own = plan.finished(self.folder).get(run.settings(point.overrides))
        if own is not None:
            found_by = f"Found by {block['arm']} ({block['method']}, {len(path.steps)} points): {words}"
            target = self.folder / f"best_{run.folder_name(block['arm'])}.yaml"
            with storage_errors_named("run this again"):
                run.write_atomically(target, best.experiment(own, found_by))
            words += f". Ready for conf/experiment: {target}"
        return words


def best_of_arms(points: Sequence[plan.Point], results: Sequence[JobReturn]) -> list[plan.Point]:
    """A run of the point with the highest mean score over its seeds, for every arm that has one."""
    arms: dict[str, dict[str, list[tuple[plan.Point, JobReturn]]]] = {}
    for point, result in zip(points, results, strict=True):
        values = json.dumps({key: value for key, value in point.values.items() if key != "seed"})
        arms.setdefault(point.values["arm"], {}).setdefault(values, []).append((point, result))
    best = []
    for settings in arms.values():
        scores = {values: mean_score([result for _, result in runs]) for values, runs in settings.items()}
        sound = {values: score for values, score in scores.items() if score is not None and not math.isnan(score)}
        if sound:
            best.append(settings[max(sound, key=lambda values: sound[values])][0][0])
    return best


def mean_score(results: Sequence[JobReturn]) -> search.Score:
    """The mean over the seeds of a point; NaN where one diverged, None where one failed."""
    if any(result.status != JobStatus.COMPLETED for result in results):
        return None
    return math.fsum(float(result.return_value) for result in results) / len(results)
