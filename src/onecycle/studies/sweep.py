"""Runs a study: every run of its plan through Hydra's launcher, then its page."""

import json
import logging
import math
import shlex
import sys
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from hydra.core.utils import JobReturn, JobStatus
from hydra.plugins.launcher import Launcher
from omegaconf import DictConfig

from onecycle import run
from onecycle.config import plain
from onecycle.faults import ConfigError, storage_errors_named
from onecycle.studies import best, plan, search, search_axes, table
from onecycle.studies.changes import changes, refuse
from onecycle.studies.launching import launch, launcher_runs_one_by_one

log = logging.getLogger(__name__)

PARALLEL = 2  # points at once that a search asks for where the launcher runs several jobs: both neighbours of a point


def sweep(config: DictConfig, launcher: Launcher, arguments: Sequence[str]) -> list[JobReturn]:
    """Run what is missing of the study in `config`, show how far it is, and draw its page.

    A failed run does not keep the others from running; it is raised at the end, behind the page. Raises ConfigError
    for a study or a change of it that makes no sense, before anything runs.
    """
    if not config.get("study"):
        raise ConfigError(["hydra/sweeper=study: needs a study; name one: study=lr_vs_subset_size"])
    return conduct(plan.at_scale(plain(config)["study"]), config, launcher, arguments)


def search_alone(
    config: DictConfig, launcher: Launcher, arguments: Sequence[str], seeds: Sequence[int], block: dict[str, Any]
) -> list[JobReturn]:
    """Run one search, a block of a study's `searches`, around the configuration as it is composed; see `sweep`.

    A coordinate without a start begins at the configuration's own value.
    """
    if config.get("study"):
        raise ConfigError(["hydra/sweeper: a study has its own; leave it out, or leave out the study"])
    if block["method"] == "coordinate":
        block["coordinates"] = search_axes.coordinates_of(block["coordinates"] or [], config)
    else:
        block["space"], arguments = search_axes.space_of(arguments)
    return conduct(plan.of_search(config.name, seeds, block), config, launcher, arguments)


def conduct(study: dict[str, Any], config: DictConfig, launcher: Launcher, arguments: Sequence[str]) -> list[JobReturn]:
    """Run what is missing of a study at its scale; see `sweep`."""
    changed = changes(arguments, study)
    points = plan.points(study, changed)
    refuse(changed, config)
    folder = Path(config.hydra.sweep.dir)
    if study["force"]:
        move_aside(folder)
    for name in study.get("records_of") or ():
        table.read_plan(folder.parent / name)
    refuse_blind(study, config)
    noted = table.Plan(study, points, command())
    note_plan(folder, noted)
    alone = launcher_runs_one_by_one(config)
    try:
        results = launch(launcher, points, folder, alone=alone)
        for block in study.get("searches") or ():
            results += explore(launcher, noted, block, changed, folder, alone=alone)
        results += confirm(launcher, noted, results, folder, alone=alone)
    except KeyboardInterrupt:
        log.info("Interrupted. The same command goes on; what is finished is kept.")
        raise
    # Only now: drawing needs matplotlib, and a study that is refused does not.
    from onecycle.studies import report

    with storage_errors_named("draw the pages with make report"):
        report.build(folder)
        report.build_index(folder.parent)
    for result in results:
        _ = result.return_value  # raises what the run raised
    return results


def refuse_blind(study: dict[str, Any], config: DictConfig) -> None:
    """Raise ConfigError for a search that has nothing to go by."""
    searches = study.get("searches") or ()
    if searches and not config.data.val_size:
        raise ConfigError(["data.val_size=0: a search selects on held-out images; hold some out, such as 5000"])
    if not config.evaluation.every_n_epochs and any(block.get("pruner") not in (None, "none") for block in searches):
        raise ConfigError(["evaluation.every_n_epochs=0: a pruner looks at every evaluation; set it to 1"])


def note_plan(folder: Path, noted: table.Plan) -> None:
    """Write down what the study consists of, before it is run."""
    with storage_errors_named("run this again"):
        table.write_plan(folder, noted)


def explore(
    launcher: Launcher, noted: table.Plan, block: dict[str, Any], change: plan.Changes, folder: Path, *, alone: bool
) -> list[JobReturn]:
    """Run a search: the mean score over the seeds of a point decides where it goes. Its points join the plan.

    A search that was interrupted takes the same way again, over runs that are read back. A failed run stops a search
    that does not know where to go without it.
    """
    results: list[JobReturn] = []
    told = 0

    def score(values: list[search.Values]) -> list[search.Score]:
        nonlocal told
        runs = [
            plan.search_points(noted.study, block, told + place, point, change) for place, point in enumerate(values)
        ]
        told += len(values)
        noted.points.extend(run for point in runs for run in point)
        note_plan(folder, noted)
        done = launch(launcher, [run for point in runs for run in point], folder, alone=alone)
        results.extend(done)
        share = len(done) // len(values)
        scores = [mean_score(done[place * share : (place + 1) * share]) for place in range(len(values))]
        for point, found in zip(values, scores, strict=True):
            shown = "failed" if found is None else "diverged" if math.isnan(found) else f"{100 * found:.2f} %"
            log.info(
                "%s, point %d of at most %d: %s: %s", block["arm"], told, block["budget"], search.words(point), shown
            )
        return scores

    try:
        path = search.follow(plan.walk(block, width=1 if alone else PARALLEL, folder=folder), score)
    except search.FailedRunError:
        log.error("%s stops: a run failed; the same command goes on.", block["arm"])
        return results
    log.info("%s ends: %s. Best: %s", block["arm"], path.end, keep_best(noted, block, path, folder))
    return results


def confirm(
    launcher: Launcher, noted: table.Plan, results: Sequence[JobReturn], folder: Path, *, alone: bool
) -> list[JobReturn]:
    """Run the best point of every arm again with the seeds of `confirm`: what is selected looks better than it is."""
    seeds = noted.study.get("confirm") or ()
    if not seeds:
        return []
    points = [plan.again(point, seed) for seed in seeds for point in best_of_arms(noted.points, results)]
    noted.points.extend(points)
    note_plan(folder, noted)
    return launch(launcher, points, folder, alone=alone)


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


def keep_best(noted: table.Plan, block: dict[str, Any], path: search.Path, folder: Path) -> str:
    """Write the best point of a search as best_<arm>.yaml, ready for conf/experiment; returns it in words."""
    words = f"{search.words(path.best.values)}: {100 * path.best.score:.2f} % on held-out images"
    number = {"arm": block["arm"], "number": path.best.number}
    point = next(point for point in noted.points if number.items() <= point.values.items())
    own = table.finished(folder).get(run.settings(point.overrides))
    if own is not None:
        found_by = f"Found by {block['arm']} ({block['method']}, {len(path.steps)} points): {words}"
        target = folder / f"best_{run.folder_name(block['arm'])}.yaml"
        with storage_errors_named("run this again"):
            run.write_atomically(target, best.experiment(own, found_by))
        words += f". Ready for conf/experiment: {target}"
    return words


def command() -> str:
    """This command line as a user would type it."""
    program, *arguments = sys.orig_argv if Path(sys.argv[0]).name == "__main__.py" else sys.argv
    return shlex.join([Path(program).name, *arguments])


def move_aside(folder: Path) -> None:
    """Rename a study's folder, so that everything runs again and nothing is lost."""
    if not folder.exists():
        return
    aside = folder.with_name(f"{folder.name}.before-{datetime.now():%Y-%m-%d_%H%M%S}")
    folder.rename(aside)
    log.info("The study's former folder is now %s.", aside)
