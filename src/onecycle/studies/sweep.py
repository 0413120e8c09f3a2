"""Runs a study: every run of its plan through Hydra's launcher, then its page.

A study whose claims or figures name a column that its rows will not have is refused as early as that is known.
"""

import logging
import shlex
import sys
from collections.abc import Collection, Iterator, Mapping, Sequence
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

import joblib
from hydra.core.utils import JobReturn
from hydra.plugins.launcher import Launcher
from omegaconf import DictConfig

from onecycle.config.compose import plain
from onecycle.config.hyperparameters import Hyperparameters
from onecycle.config.validate import did_you_mean
from onecycle.errors import ConfigError, storage_errors_named
from onecycle.runs.identity import override_key, settings
from onecycle.runs.record import SECONDS
from onecycle.studies import plan
from onecycle.studies.effects import columns_named
from onecycle.studies.launching import RunCounter, expected_runs, launch_at_once, launch_one_by_one
from onecycle.studies.registration import register
from onecycle.studies.rows import DERIVED, row_of, unmeasured
from onecycle.studies.search.explorer import Explorer
from onecycle.studies.search.options import METHODS, OptunaSearch, coordinates_of, space_of
from onecycle.studies.search.trials import check_optuna
from onecycle.studies.study import ClaimOptions, at_scale, of_search

log = logging.getLogger(__name__)

# Parameters of figures that name a column of the rows, where they are texts.
NAMING = ("x", "y", "z", "by", "panels", "select_by", "column", "size")
OF_METRICS = {"histories": ("x", "y")}  # these are columns of a run's metrics.csv
BATCH = 8  # runs of each worker of a pool between two looks at what they measured
MEASURE_NOTHING = ("progress", "training_log", "checkpoint", "divergence", "figures")  # callbacks


def run_study(
    config: DictConfig, launcher: Launcher, arguments: Sequence[str], search: dict[str, Any] | None = None
) -> list[JobReturn]:
    """Run what is missing of the study in `config`, and draw its page; a failed run is raised after that.

    search: instead of a study one search around the configuration: seeds, and a block of a study's `searches`. Raises
    ConfigError for a study, or a change of it, that makes no sense, before anything runs.
    """
    if search and config.get("study"):
        raise ConfigError(["hydra/sweeper: a study has its own; leave it out, or leave out the study"])
    if search:
        seeds = search.pop("seeds")
        if search["method"] == "coordinate":
            search["coordinates"] = coordinates_of(search["coordinates"] or [], config)
        else:
            search["space"], arguments = space_of(arguments, config)
        study = of_search(config.name, seeds, search)
    elif config.get("study"):
        study = at_scale(plain(config)["study"])
    else:
        raise ConfigError(["hydra/sweeper=study: needs a study; name one: study=lr_vs_subset_size"])
    return _run(study, config, launcher, arguments)


def _run(study: dict[str, Any], config: DictConfig, launcher: Launcher, arguments: Sequence[str]) -> list[JobReturn]:
    changes = plan.read_changes(arguments, study)
    points = plan.points(study, changes)
    folder = Path(config.hydra.sweep.dir)
    for name in study.get("records_of") or ():
        plan.read_plan(folder.parent / name)
    _refuse_searches(study, changes, config)
    check = ColumnCheck(study, points, config, folder)
    if study.get("plan"):
        from onecycle.studies.power import StudyPlan  # it needs torch; a study that is refused does not

        for line in StudyPlan(study, points, changes, folder).lines():
            print(line, flush=True)
        return []
    if study["force"] and folder.exists():  # only a study that can be run takes the place of the old one
        aside = folder.with_name(f"{folder.name}.before-{datetime.now():%Y-%m-%d_%H%M%S}")
        folder.rename(aside)
        log.info("The study's former folder is now %s.", aside)
    program, *words = sys.orig_argv if Path(sys.argv[0]).name == "__main__.py" else sys.argv
    noted = plan.Plan(study, points, shlex.join([Path(program).name, *words]))
    register(folder, study, changes, config)
    plan.write_plan(folder, noted)
    counter = RunCounter(expected_runs(study, points, changes))
    is_alone = str(config.hydra.launcher._target_).endswith("BasicLauncher")  # Hydra's own runs in this process
    workers = 1 if is_alone else joblib.effective_n_jobs(config.hydra.launcher.get("n_jobs") or 1)  # of a pool
    launch_runs = launch_one_by_one if is_alone else launch_at_once
    launch = partial(launch_runs, launcher, folder=folder, counter=counter, check=check.check)
    if workers > 1:
        launch = partial(launch, batch=BATCH * workers)
        log.info(
            "%s: %d runs at most, %d at once. Each has its line when it ends.", study["name"], counter.total, workers
        )
    explorer = Explorer(noted, changes, folder, launch, counter, is_alone)
    results: list[JobReturn] = []
    stopped: ConfigError | None = None
    try:
        results += launch(points)
        if study.get("budget_minutes"):
            from onecycle.studies.sequential import SeedAdder  # it needs pandas and scipy

            results += SeedAdder(noted, changes, folder, launch, workers).run()
        for block in study.get("searches") or ():
            results += explorer.explore(block)
        results += explorer.confirm(results)
    except KeyboardInterrupt:
        log.info("Interrupted. The same command goes on; what is finished is kept.")
        raise
    except ConfigError as error:
        log.error("The study stops here.")
        results, stopped = [], error
    try:
        _draw(folder, noted)
    except ConfigError as error:
        stopped = stopped or error
    for result in results:
        _ = result.return_value  # raises what the run raised
    if stopped:
        raise stopped
    return results


def _draw(folder: Path, noted: plan.Plan) -> None:
    """Draw the study's page and the index; raises ConfigError, after both, for what does not fit the records."""
    from onecycle.studies import report  # it needs matplotlib; a study that is refused does not

    with storage_errors_named("draw the pages with make report"):
        try:
            report.build(folder, noted)
        finally:
            report.build_index(folder.parent)


def _refuse_searches(study: dict[str, Any], changes: plan.Changes, config: DictConfig) -> None:
    """Raise ConfigError for a search that cannot be made: without Optuna, a start, or images to select on."""
    without = sorted(set(plan.seeds_of(study, changes)) - set(study["seeds"])) if study.get("starts") else []
    if without:
        raise ConfigError([f"seed={without[0]}: study.starts has starts for {', '.join(map(str, study['seeds']))}"])
    searches = [METHODS[block["method"]].model_validate(block) for block in study.get("searches") or ()]
    for options in searches:
        if isinstance(options, OptunaSearch):
            check_optuna(options)
            if options.pruner != "none" and not config.evaluation.every_n_epochs:
                raise ConfigError(["evaluation.every_n_epochs=0: a pruner looks at every evaluation; set it to 1"])
    if searches and not config.data.val_size:
        raise ConfigError(["data.val_size=0: a search selects on held-out images; hold some out, such as 5000"])


class ColumnCheck:
    """Raises ConfigError for a claim or figure that names a column which no row of the study can have.

    What callbacks measure is known with the first record, and where the runs have different callbacks, or those of
    other studies are read, only with all of them.
    """

    def __init__(self, study: dict[str, Any], points: Sequence[plan.Point], config: DictConfig, folder: Path) -> None:
        self.study, self.folder = study, folder
        self.known = known_columns(study, points, config)
        added = {name for name, part in (config.get("callbacks") or {}).items() if part is not None}
        measures = bool(added - set(MEASURE_NOTHING)) or _sets(study.get("fixed") or (), "callbacks")
        differ = bool(study.get("records_of")) or _sets(_own_keys(study), "callbacks")
        self.is_open = measures and not differ
        if not (measures or differ):
            self._refuse(self.known)

    def check(self, point: plan.Point) -> None:
        """Look at the record of a run that has ended, if it is the first; raises as above."""
        found = plan.finished_runs(self.folder).get(settings(point.overrides)) if self.is_open else None
        if found and found[1]["status"] == "finished":
            self.is_open = False
            self._refuse(self.known | row_of(point, *found).keys())

    def _refuse(self, known: Collection[str]) -> None:
        lines = [
            f"{where}: no column {name!r}{did_you_mean(name, known) or '; there are ' + ', '.join(sorted(known))}"
            for where, name in dict.fromkeys(named_columns(self.study))
            if name not in known
        ]
        if lines:
            raise ConfigError(lines)


def known_columns(study: Mapping[str, Any], points: Sequence[plan.Point], config: DictConfig) -> set[str]:
    """The columns that result from the form of a record, the axes, the searches and `derive`."""
    keys, measured = [*(study.get("fixed") or ()), *_own_keys(study)], {"accuracy": 0.0, "loss": 0.0}
    record = unmeasured(Hyperparameters(1, 0, 1, 1), 0) | {"test": dict(measured), "train": measured}
    record["seconds"] = dict.fromkeys(SECONDS, 0.0)
    if config.data.val_size or _sets(keys, "data.val_size"):
        record["val"] = measured
    if config.evaluation.tta != "none" or _sets(keys, "evaluation.tta"):
        record["test"]["accuracy_tta"] = 0.0
    found = {key for point in points for key in point.values} | row_of(plan.Point("", {}, ()), Path(), record).keys()
    for block in study.get("searches") or ():
        drawn = [*(block.get("coordinates") or ()), *(block.get("space") or ())]
        found |= {"arm", "number", "seed", "coordinate", "decision", *map(plan.column, drawn)}
    return found | (DERIVED[study["derive"]](Path()).keys() if study.get("derive") else set())


def _own_keys(study: Mapping[str, Any]) -> list[str]:
    """The keys that the blocks of a study set in their own runs."""
    blocks = [*(study.get("runs") or ()), *(study.get("searches") or ())]
    return [key for block in blocks for part in ("fixed", "axes") for key in block.get(part) or ()]


def _sets(keys: Collection[str], group: str) -> bool:
    return any(override_key(key).startswith(group) for key in keys)


def named_columns(study: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Every column that a study names, after the place that names it."""
    for claim in study.get("claims") or ():
        given = {name: value for name, value in claim.items() if name not in ClaimOptions.model_fields}
        yield from ((f"claim {claim['id']}", name) for name in columns_named(claim["effect"], given))
    for number, figure in enumerate(study.get("figures") or ()):
        where = f"study.figures[{number}]"
        yield from ((f"{where}.where", name) for name in figure.get("where") or {})
        for parameter in [name for name in NAMING if name not in OF_METRICS.get(figure["kind"], ())]:
            if isinstance(figure.get(parameter), str):
                yield f"{where}.{parameter}", figure[parameter]
