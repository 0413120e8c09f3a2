"""Runs a study: every run of its plan through Hydra's launcher, then its page."""

import logging
import shlex
import sys
from collections.abc import Sequence
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

from hydra.core.utils import JobReturn
from hydra.plugins.launcher import Launcher
from omegaconf import DictConfig

from onecycle.config.compose import plain
from onecycle.errors import ConfigError, storage_errors_named
from onecycle.studies import plan
from onecycle.studies.changes import changes, refuse
from onecycle.studies.columns import ColumnCheck
from onecycle.studies.launching import Check, Progress, expected_runs, launch_at_once, launch_one_by_one
from onecycle.studies.search import command_line
from onecycle.studies.search.explorer import Explorer, note_plan
from onecycle.studies.search.options import SEARCH_OPTIONS, OptunaSearch
from onecycle.studies.search.trials import check_optuna
from onecycle.studies.study import at_scale, of_search

log = logging.getLogger(__name__)


def run_study(config: DictConfig, launcher: Launcher, arguments: Sequence[str]) -> list[JobReturn]:
    """Run what is missing of the study in `config`, show how far it is, and draw its page.

    A failed run does not keep the others from running; it is raised at the end, after the page. Raises ConfigError
    for a study or a change of it that makes no sense, before anything runs.
    """
    if not config.get("study"):
        raise ConfigError(["hydra/sweeper=study: needs a study; name one: study=lr_vs_subset_size"])
    return _run(at_scale(plain(config)["study"]), config, launcher, arguments)


def run_search(
    config: DictConfig, launcher: Launcher, arguments: Sequence[str], block: dict[str, Any]
) -> list[JobReturn]:
    """Run one search around the configuration as it is composed; see `run_study`.

    block: seeds, and a block of a study's `searches`.
    """
    seeds = block.pop("seeds")
    if config.get("study"):
        raise ConfigError(["hydra/sweeper: a study has its own; leave it out, or leave out the study"])
    if block["method"] == "coordinate":
        block["coordinates"] = command_line.coordinates_of(block["coordinates"] or [], config)
    else:
        block["space"], arguments = command_line.space_of(arguments, config)
    return _run(of_search(config.name, seeds, block), config, launcher, arguments)


def _run(study: dict[str, Any], config: DictConfig, launcher: Launcher, arguments: Sequence[str]) -> list[JobReturn]:
    changed = changes(arguments, study)
    points = plan.points(study, changed)
    folder = Path(config.hydra.sweep.dir)
    refuse(changed, config)
    for name in study.get("records_of") or ():
        plan.read_plan(folder.parent / name)
    _refuse_searches(study, config)
    check = ColumnCheck(study, points, config, folder)
    if study["force"] and folder.exists():  # only a study that can be run takes the place of the old one
        aside = folder.with_name(f"{folder.name}.before-{datetime.now():%Y-%m-%d_%H%M%S}")
        folder.rename(aside)
        log.info("The study's former folder is now %s.", aside)
    noted = plan.Plan(study, points, _command())
    note_plan(folder, noted)
    results: list[JobReturn] = []
    stopped: list[ConfigError] = []
    try:
        results = _run_all(noted, changed, config, launcher, check.check)
    except KeyboardInterrupt:
        log.info("Interrupted. The same command goes on; what is finished is kept.")
        raise
    except ConfigError as error:
        log.error("The study stops here.")
        stopped = [error]
    _draw(folder, stopped)
    for result in results:
        _ = result.return_value  # raises what the run raised
    if stopped:
        raise stopped[0]
    return results


def _run_all(
    noted: plan.Plan, changed: plan.Changes, config: DictConfig, launcher: Launcher, check: Check
) -> list[JobReturn]:
    """Every run of a study: those of its plan, those of its searches, the best of each arm again."""
    folder = Path(config.hydra.sweep.dir)
    progress = Progress(expected_runs(noted.study, noted.points, changed))
    is_alone = str(config.hydra.launcher._target_).endswith("BasicLauncher")  # Hydra's own runs in this process
    launch_runs = launch_one_by_one if is_alone else launch_at_once
    launch = partial(launch_runs, launcher, folder=folder, progress=progress, check=check)
    explorer = Explorer(noted, changed, folder, launch, progress, is_alone)
    results = launch(noted.points)
    for block in noted.study.get("searches") or ():
        results += explorer.explore(block)
    return results + explorer.confirm(results)


def _draw(folder: Path, stopped: list[ConfigError]) -> None:
    """Draw the study's page and the index; what does not fit the records stands on the page and joins `stopped`."""
    # Only now: drawing needs matplotlib, and a study that is refused does not.
    from onecycle.studies import report

    with storage_errors_named("draw the pages with make report"):
        try:
            report.build(folder)
        except ConfigError as error:
            stopped.append(error)
        report.build_index(folder.parent)


def _refuse_searches(study: dict[str, Any], config: DictConfig) -> None:
    """Raise ConfigError for a search that cannot be made: without Optuna, or without images to select on."""
    searches = [SEARCH_OPTIONS.validate_python(block) for block in study.get("searches") or ()]
    for options in searches:
        if isinstance(options, OptunaSearch):
            check_optuna(options)
            if options.pruner != "none" and not config.evaluation.every_n_epochs:
                raise ConfigError(["evaluation.every_n_epochs=0: a pruner looks at every evaluation; set it to 1"])
    if searches and not config.data.val_size:
        raise ConfigError(["data.val_size=0: a search selects on held-out images; hold some out, such as 5000"])


def _command() -> str:
    """This command line as a user would type it."""
    program, *arguments = sys.orig_argv if Path(sys.argv[0]).name == "__main__.py" else sys.argv
    return shlex.join([Path(program).name, *arguments])
