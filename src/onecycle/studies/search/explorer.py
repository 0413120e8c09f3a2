"""The searches of a study: their points become runs, and the scores of the runs decide where they go."""

import logging
import math
from collections.abc import Callable, Mapping, Sequence
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
from onecycle.studies.search.options import METHODS, CoordinateSearch, OptunaSearch
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

    def explore(self, block: dict[str, Any]) -> list[JobReturn]:
        """Make a search, or one from each of the study's starts, with the seed of the start alone."""
        study, seeds = self.noted.study, plan.seeds_of(self.noted.study, self.changes)
        if not study.get("starts"):
            return self._search(block, seeds)
        starts = dict(zip(study["seeds"], study["starts"], strict=True))
        return [result for seed in seeds for result in self._search(block, [seed], starts[seed])]

    def _search(
        self, block: dict[str, Any], seeds: Sequence[int], first: Mapping[str, Any] | None = None
    ) -> list[JobReturn]:
        """The mean score over the seeds of a point decides where a search goes. Its points join the plan.

        first: where it starts, else where its options say. A search that was interrupted takes the same way again, over
        runs that are read back. A failed run stops a search that does not know where to go without it.
        """
        options = METHODS[block["method"]].model_validate(block)
        start, name = (None, options.arm) if first is None else (seeds[0], f"{options.arm}, start {seeds[0]}")
        if isinstance(options, OptunaSearch) and start:
            options = options.model_copy(update={"seed": options.seed + start})
        results: list[JobReturn] = []

        def evaluate(points: list[coordinate.Values]) -> list[coordinate.Score]:
            before = len(results) // len(seeds)
            made = list[plan.Point]()
            for number, values in enumerate(points, before):
                made += plan.search_points(self.noted.study, block, number, values, self.changes, seeds)
            done = self._launch_noted(made)
            results.extend(done)
            scores = [mean_score(done[place : place + len(seeds)]) for place in range(0, len(done), len(seeds))]
            for values, score in zip(points, scores, strict=True):
                shown = "failed" if score is None else "diverged" if math.isnan(score) else f"{100 * score:.2f} %"
                text, number = coordinate.point_text(values), before + len(points)
                log.info("%s, point %d of at most %d: %s: %s", name, number, options.budget, text, shown)
            return scores

        path = coordinate.SearchPath(on_step=lambda step: self.decided.add(options.arm, step, len(seeds), start))
        try:
            if isinstance(options, CoordinateSearch):
                coordinate.coordinate_search(options.begun_at(first or {}), evaluate, path, pairs=not self.alone)
            else:
                width = 1 if self.alone else PARALLEL
                optuna_search(options, evaluate, path, folder=self.folder, width=width, name=name, first=first)
        except coordinate.FailedRunError:
            log.error("%s stops: a run failed; the same command goes on.", name)
            return results
        finally:
            self.counter.total -= max(0, len(seeds) * options.budget - len(results))
        log.info("%s ends: %s. Best: %s", name, path.end, self._write_best(options, name, start, path))
        return results

    def confirm(self, results: Sequence[JobReturn]) -> list[JobReturn]:
        """Run the best point of every arm again with the seeds of `confirm`: what is selected looks better than it is.

        With starts that of every arm and start, with one of these seeds. results: what the runs of the plan returned,
        in its order.
        """
        study = self.noted.study
        if not (seeds := study.get("confirm") or ()):
            return []
        best = best_of_arms(self.noted.points, results)
        again = [plan.confirmation(point, seed) for seed in seeds for point in best]
        if study.get("starts"):
            own = dict(zip(study["seeds"], seeds, strict=True))
            again = [plan.confirmation(point, own[point.values["start"]]) for point in best]
        self.counter.total = self.counter.done + len(again)
        return self._launch_noted(again)

    def _launch_noted(self, points: list[plan.Point]) -> list[JobReturn]:
        self.noted.points.extend(points)
        plan.write_plan(self.folder, self.noted)
        return self.launch(points)

    def _write_best(
        self, options: CoordinateSearch | OptunaSearch, name: str, start: int | None, path: coordinate.SearchPath
    ) -> str:
        """Write the best point of a search as best_<name>.yaml, ready for conf/experiment; returns it in words."""
        if not path.steps:
            return "none, for every run failed"
        words = f"{coordinate.point_text(path.best.values)}: {100 * path.best.score:.2f} % on held-out images"
        place = (options.arm, start, path.best.number)
        point = next(point for point in self.noted.points if place == tuple(map(point.values.get, coordinate.DECIDED)))
        own = plan.finished_runs(self.folder).get(settings(point.overrides))
        if own is None:
            return words
        target = self.folder / f"best_{folder_name(name)}.yaml"
        text = experiment_text(*own, f"Found by {name} ({options.method}, {len(path.steps)} points): {words}")
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
    """A run of the point with the highest mean score over its seeds, for every arm, and start, that has one."""
    # By arm and start, and by a point's values without the seed: where its runs are.
    arms: dict[tuple[str, Any], dict[str, list[int]]] = {}
    for place, point in enumerate(points):
        values = repr({key: value for key, value in point.values.items() if key != "seed"})
        arms.setdefault((point.values["arm"], point.values.get("start")), {}).setdefault(values, []).append(place)
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
