"""The searches of a study: their points become runs, and the scores of the runs decide where they go."""

import logging
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import yaml
from hydra.core.utils import JobReturn, JobStatus

from onecycle.config.compose import CONF
from onecycle.errors import storage_errors_named
from onecycle.runs import record as run
from onecycle.runs.identity import folder_name, relevant, settings
from onecycle.runs.saved import read_saved
from onecycle.studies import plan
from onecycle.studies.launching import RunCounter
from onecycle.studies.search import coordinate
from onecycle.studies.search.options import METHODS, CoordinateSearch
from onecycle.studies.search.trials import optuna_search

log = logging.getLogger(__name__)

PARALLEL = 2  # points at once that a search asks for where the launcher runs several jobs: both neighbours of a point
# Groups whose choice an experiment replaces whole, so that the keys of two components do not mix.
REPLACED = ("model", "schedule", "hyperparameters", "optimizer")
Launch = Callable[[Sequence[plan.Point]], list[JobReturn]]  # makes runs and returns what they returned


class Explorer:
    """Makes the runs of searches, which join the plan `noted` of the study in `folder`.

    alone: whether `launch` makes one run after the other.
    """

    def __init__(
        self, noted: plan.Plan, changes: plan.Changes, folder: Path, launch: Launch, counter: RunCounter, alone: bool
    ) -> None:
        self.noted, self.changes, self.folder, self.launch = noted, changes, folder, launch
        self.counter, self.alone = counter, alone
        self.decided = coordinate.Decisions(folder)
        self.seeds = len(plan.seeds_of(noted.study, changes))

    def explore(self, block: dict[str, Any]) -> list[JobReturn]:
        """Run a search: the mean score over the seeds of a point decides where it goes. Its points join the plan.

        A search that was interrupted takes the same way again, over runs that are read back. A failed run stops a
        search that does not know where to go without it.
        """
        options = METHODS[block["method"]].model_validate(block)
        results: list[JobReturn] = []

        def evaluate(points: list[coordinate.Values]) -> list[coordinate.Score]:
            first, made = len(results) // self.seeds, list[plan.Point]()
            for number, values in enumerate(points, first):
                made += plan.search_points(self.noted.study, block, number, values, self.changes)
            done = self._launch_noted(made)
            results.extend(done)
            scores = [mean_score(done[place : place + self.seeds]) for place in range(0, len(done), self.seeds)]
            for values, score in zip(points, scores, strict=True):
                shown = "failed" if score is None else "diverged" if math.isnan(score) else f"{100 * score:.2f} %"
                text, number = coordinate.point_text(values), first + len(points)
                log.info("%s, point %d of at most %d: %s: %s", options.arm, number, options.budget, text, shown)
            return scores

        path = coordinate.SearchPath(on_step=lambda step: self.decided.add(options.arm, step, self.seeds))
        try:
            if isinstance(options, CoordinateSearch):
                coordinate.coordinate_search(options, evaluate, path, pairs=not self.alone)
            else:
                width = 1 if self.alone else PARALLEL
                optuna_search(options, evaluate, path, folder=self.folder, width=width)
        except coordinate.FailedRunError:
            log.error("%s stops: a run failed; the same command goes on.", options.arm)
            return results
        finally:
            self.counter.total -= max(0, self.seeds * options.budget - len(results))
        log.info("%s ends: %s. Best: %s", options.arm, path.end, self._write_best(options.arm, options.method, path))
        return results

    def confirm(self, results: Sequence[JobReturn]) -> list[JobReturn]:
        """Run the best point of every arm again with the seeds of `confirm`: what is selected looks better than it is.

        results: what the runs of the plan returned, in its order.
        """
        seeds = self.noted.study.get("confirm") or ()
        if not seeds:
            return []
        again = [plan.confirmation(point, seed) for seed in seeds for point in best_of_arms(self.noted.points, results)]
        self.counter.total = self.counter.done + len(again)
        return self._launch_noted(again)

    def _launch_noted(self, points: list[plan.Point]) -> list[JobReturn]:
        self.noted.points.extend(points)
        plan.write_plan(self.folder, self.noted)
        return self.launch(points)

    def _write_best(self, arm: str, method: str, path: coordinate.SearchPath) -> str:
        """Write the best point of a search as best_<arm>.yaml, ready for conf/experiment; returns it in words."""
        if not path.steps:
            return "none, for every run failed"
        words = f"{coordinate.point_text(path.best.values)}: {100 * path.best.score:.2f} % on held-out images"
        number = {"arm": arm, "number": path.best.number}
        point = next(point for point in self.noted.points if number.items() <= point.values.items())
        own = plan.finished_runs(self.folder).get(settings(point.overrides))
        if own is None:
            return words
        target = self.folder / f"best_{folder_name(arm)}.yaml"
        text = experiment_text(*own, f"Found by {arm} ({method}, {len(path.steps)} points): {words}")
        with storage_errors_named("run this again"):
            run.write_atomically(target, text)
        return f"{words}. Ready for conf/experiment: {target}"


def experiment_text(folder: Path, result: dict[str, Any], found_by: str) -> str:
    """The text of a conf/experiment file that trains as the run in `folder` did, name and seed aside.

    result: the run's record. found_by: the first line of the text, a comment.
    """
    config = relevant(read_saved(folder))
    del config["seed"]
    # Where the data lie is the user's own: the group of the same source says so.
    data = result["data"]["name"]
    groups = {"data": data if (CONF / "data" / f"{data}.yaml").exists() else "image_folder", **dict.fromkeys(REPLACED)}
    defaults = {"defaults": [{f"override /{group}": choice} for group, choice in groups.items()]}
    head = (
        f"# @package _global_\n# {found_by}\n"
        "# Command: onecycle-train experiment=best        (this file as conf/experiment/best.yaml)\n"
    )
    parts = (defaults, {"name": "best", **config})
    return head + "\n".join(yaml.safe_dump(part, sort_keys=False, allow_unicode=True) for part in parts)


def best_of_arms(points: Sequence[plan.Point], results: Sequence[JobReturn]) -> list[plan.Point]:
    """A run of the point with the highest mean score over its seeds, for every arm that has one."""
    arms: dict[str, dict[str, list[int]]] = {}  # by arm, and by a point's values without the seed, where its runs are
    for place, point in enumerate(points):
        values = repr({key: value for key, value in point.values.items() if key != "seed"})
        arms.setdefault(point.values["arm"], {}).setdefault(values, []).append(place)
    best = []
    for found in arms.values():
        scores = {places[0]: mean_score([results[place] for place in places]) for places in found.values()}
        known = {place: score for place, score in scores.items() if score is not None and score > -math.inf}
        best += [points[max(known, key=known.__getitem__)]] if known else []
    return best


def mean_score(results: Sequence[JobReturn]) -> coordinate.Score:
    """The mean over the seeds of a point; NaN where one diverged, None where one failed."""
    if any(result.status != JobStatus.COMPLETED for result in results):
        return None
    return math.fsum(float(result.return_value) for result in results) / len(results)
