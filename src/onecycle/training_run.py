"""From a configuration to a finished run. Read this first."""

import contextlib
import logging
import shlex
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from onecycle.config.schema import TrainOptions
from onecycle.config.targets import check_classes
from onecycle.errors import ConfigError, reason_of
from onecycle.runs import processes
from onecycle.runs.identity import comparable, folder_name, identity, identity_of_version_1, short_name
from onecycle.runs.processes import show_messages, shown_level
from onecycle.runs.record import Run, new_folder, read_result
from onecycle.runs.saved import check_links

log = logging.getLogger("onecycle")


def train(
    config: TrainOptions, overrides: list[str], sweep: Path | None = None, progress: bool = True
) -> dict[str, Any]:
    """Train and test as `config` says, in this process or in new ones for several devices.

    Returns the run's record, with its `folder`.

    overrides: the words of the command line that made the configuration, for the record. sweep: the folder of a sweep,
    in which a run's folder follows from its identity: a finished run is read back and an interrupted one goes on.
    Without it every call makes a new folder. progress: false where several runs share a terminal.

    Raises ConfigError for a configuration that cannot be run.
    """
    from onecycle.data.subsets import data_problems  # imports numpy

    unfit = data_problems(config.model_dump())
    if unfit:
        raise ConfigError(unfit)
    if processes.must_be_started(config):
        folder = processes.launch(config, _train_as_rank, shown_level(), config, overrides, sweep, progress)
    else:
        folder = train_here(config, overrides, sweep, progress)
    record: dict[str, Any] = processes.of_first(lambda: read_result(folder) or {})
    return {"folder": str(folder), **record}


def _train_as_rank(level: int, *arguments: Any) -> Path:
    show_messages(level)
    return train_here(*arguments)


def train_here(config: TrainOptions, overrides: list[str], sweep: Path | None, progress: bool) -> Path:
    """Train in this process, together with those that were started beside it; returns the run's folder."""
    started = time.perf_counter()
    # Only now: a rejected configuration must not wait seconds for torch.
    from lightning.pytorch.utilities.exceptions import MisconfigurationException

    from onecycle import build
    from onecycle.runs import checkpoints, environment, summary
    from onecycle.runs.loggers import RunContext

    summary.silence_libraries()
    environment.prepare(config.trainer.threads, processes.on_this_machine(config))
    processes.end_with_pool()
    processes.join(config)
    check_classes(config)
    with build.value_errors_as_config_errors():
        config = build.choose_precision(config)  # first: it refuses a GPU that is not there
        config, dataset = processes.first_goes_ahead(lambda: build.load_dataset(config))
        config, origin = build.load_origin(config)
        # The images as the weights know them.
        normalization = {"normalization": origin.normalization} if origin else {}
        datamodule = build.build_datamodule(config, dataset, **normalization)
        steps = build.total_steps(config, datamodule)
        build.check_monitors(config, datamodule, steps)
        run = open_run(config, dataset.key, overrides, sweep)
        if run.done:
            summary.show_end(run, single=False)
            return run.folder
        check_links(run.folder)
        try:
            classifier = build.build_classifier(config, datamodule, steps, origin)
            trainer = build.build_trainer(config, run.folder, steps, progress=progress, check=lambda: run.check_lease())
        except ValueError:
            with contextlib.suppress(OSError):
                run.folder.rmdir()  # it is new: nothing is in it
            raise
    # Two equal sweeps at once: each run is made by one of them and read back by the other.
    with run.recording(wait=sweep is not None):
        if run.done:
            summary.show_end(run, single=False)
            return run.folder
        start = processes.of_first(lambda: checkpoints.newest(run.folder))
        key = comparable(config, dataset.key)
        changed = checkpoints.changed_keys(start.run, key)
        if changed:
            raise ConfigError(changed)
        build.attach(trainer, RunContext(run.folder, start.step, key))
        summary.show_start(run, classifier, datamodule, trainer, start.step)
        setup = time.perf_counter() - started
        try:
            trainer.fit(classifier, datamodule, ckpt_path=start.path, weights_only=True)
        except SystemExit:
            # Lightning ends the process itself on Ctrl-C; the run stays "running", to be gone on with.
            again = "the same command" if sweep else f"onecycle-train {shlex.quote(f'resume={run.folder}')}"
            log.warning("Interrupted after step %d. Go on with: %s", trainer.global_step, again)
            raise KeyboardInterrupt from None
        except MisconfigurationException as error:  # what Lightning and its callbacks check only now
            raise ConfigError([reason_of(error)]) from error
        summary.test_and_record(run, classifier, datamodule, trainer, setup)
    summary.show_end(run, single=sweep is None)
    return run.folder


def open_run(config: TrainOptions, data_key: dict[str, Any], overrides: list[str], sweep: Path | None) -> Run:
    """The run of a configuration: in its folder of the sweep, in the folder to resume, or in a new one."""
    own = identity(config, data_key)
    if config.resume is not None:
        folder = Path(config.resume)
    elif sweep is not None:
        name = job_name(config.study, overrides)
        folder, earlier = sweep / f"{name}-{own[:8]}", sweep / f"{name}-{identity_of_version_1(config, data_key)[:8]}"
        folder = earlier if earlier.exists() and not folder.exists() else folder
    else:
        folder = processes.of_first(lambda: new_folder(Path(config.output) / "runs", config.name))
    return Run(folder, config.name, own, config.model_dump(exclude_unset=True), overrides)


def job_name(study: Mapping[str, Any] | None, overrides: list[str]) -> str:
    """What tells a run of a sweep from the others, as a folder's name: the study's label, or what was overridden."""
    label = study and study.get("label")
    return folder_name(label) if label else short_name(overrides)
