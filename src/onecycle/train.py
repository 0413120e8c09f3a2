"""From a configuration to a finished run: `onecycle-train`, or `python -m onecycle.train`."""

import logging
import math
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import CompactHydraException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from onecycle.config import checks as config
from onecycle.config import overrides, saved
from onecycle.data import room
from onecycle.errors import ConfigError, InfrastructureError, config_errors_shown, one_line, show, storage_errors_named
from onecycle.runs import processes
from onecycle.runs import record as run
from onecycle.runs.environment import keep_freed_memory
from onecycle.runs.identity import comparable, folder_name, identity, short_name

log = logging.getLogger("onecycle")

# At import, not in main: the workers of a parallel launcher import this module and never call main.
config.register_resolvers()


def train(
    cfg: DictConfig, overrides: list[str], sweep: Path | None = None, progress: bool = True, keep: bool = True
) -> dict[str, Any]:
    """Train and test as `cfg` says, in this process or, for several devices, in new ones; returns the run's record.

    sweep: the folder of a sweep, in which a run's folder follows from its identity: a finished run is read back and
    an interrupted one goes on. Without it every call makes a new folder. progress: false where several runs share
    a terminal, and their bars would overwrite each other. keep: false writes no cache of the data set.

    Raises ConfigError for a configuration that cannot be run.
    """
    config.check(cfg)
    unfit = room.problems(config.plain(cfg))
    if unfit:
        raise ConfigError(unfit)
    if processes.must_be_started(cfg):
        folder = processes.launch(cfg, _train_as_rank, _shown_level(), cfg, overrides, sweep, progress, keep)
        return run.read_result(folder) or {}
    return train_here(cfg, overrides, sweep, progress, keep)[1]


def _train_as_rank(level: int, *arguments: Any) -> Path:
    show_messages(level)
    return train_here(*arguments)[0]


def train_here(
    cfg: DictConfig, overrides: list[str], sweep: Path | None, progress: bool, keep: bool
) -> tuple[Path, dict[str, Any]]:
    """Train in this process, with those that have been started beside it; the run's folder and its record."""
    started = time.perf_counter()
    # Only now: a rejected configuration must not wait seconds for torch.
    from onecycle import build as assembly
    from onecycle.runs import checkpoints
    from onecycle.runs import summary as closing

    closing.quiet()
    keep_freed_memory()
    processes.join(cfg)
    with assembly.value_errors_as_config_errors():
        cfg, dataset, source = processes.first_goes_ahead(lambda: assembly.load_dataset(cfg, keep))
        cfg = assembly.choose_precision(cfg)
        datamodule = assembly.build_datamodule(cfg, dataset)
        steps = assembly.total_steps(cfg, datamodule)
        this = open_run(cfg, source.key(), overrides, sweep)
        if this.done:
            closing.show_skipped(this)
            return this.folder, this.result
        saved.check_folder(this.folder)
        classifier = assembly.build_classifier(cfg, datamodule, steps)
    with this.recording():
        if this.done:  # by another process, while this one was getting ready
            return this.folder, this.result
        start = processes.of_first(lambda: checkpoints.newest(this.folder))
        key = comparable(this.config, source.key())
        different = checkpoints.changes(start.run, key)
        if different:
            raise ConfigError(different)
        with assembly.value_errors_as_config_errors():
            trainer = assembly.build_trainer(
                cfg, this.folder, steps, key, steps_done=start.step, progress=progress, check=this.check_lease
            )
        closing.show_start(this, classifier, datamodule, trainer, start.step)
        setup = time.perf_counter() - started
        try:
            trainer.fit(classifier, datamodule, ckpt_path=start.path, weights_only=True)
        except SystemExit:
            # Lightning ends the process itself on Ctrl-C; the run stays "running", to be gone on with.
            again = "the same command" if sweep else f"onecycle-train resume={this.folder}"
            log.info("Interrupted behind step %d. Go on with: %s", trainer.global_step, again)
            raise KeyboardInterrupt from None
        closing.finish(this, classifier, datamodule, trainer, setup)
    closing.show_end(this, single=sweep is None)
    return this.folder, this.result


def open_run(cfg: DictConfig, data_key: dict[str, Any], overrides: list[str], sweep: Path | None) -> run.Run:
    """The run of a configuration: in its folder of the sweep, in the folder to resume, or in a new one."""
    plain = config.plain(cfg)
    own = identity(plain, data_key)
    if cfg.resume is not None:
        folder = Path(cfg.resume)
    elif sweep is not None:
        folder = sweep / f"{job_name(cfg, overrides)}-{own[:8]}"
    else:
        folder = processes.of_first(lambda: run.new_folder(Path(cfg.output), cfg.name))
    return run.Run(folder, cfg.name, own, plain, overrides)


def job_name(cfg: DictConfig, overrides: list[str]) -> str:
    """What tells a run of a sweep from the others, as a folder's name: the study's label, or what was overridden."""
    label = cfg.study.label if cfg.get("study") else None
    return folder_name(label) if label else short_name(overrides)


@hydra.main(version_base="1.3", config_path=str(config.CONF), config_name="train")
def hydra_job(cfg: DictConfig) -> float:
    """One job of Hydra, single or in a sweep; returns its `score`, for sweepers that want a number."""
    show_messages()
    settings: Any = HydraConfig.get()
    sweeping = settings.mode == RunMode.MULTIRUN
    # As they were written: what a word interpolates is a value of this configuration, not of Hydra's.
    words = list(OmegaConf.to_container(settings.overrides, resolve=False)["task"])  # type: ignore[index, call-overload]
    if sweeping:
        return one_job(cfg, settings, words)
    with config_errors_shown():
        return one_job(cfg, settings, words)


def one_job(cfg: DictConfig, settings: Any, words: list[str]) -> float:
    """See `hydra_job`. settings: Hydra's own; words: the overrides."""
    sweeping = settings.mode == RunMode.MULTIRUN
    try:
        config.check(cfg)
        # A run's folder may be a stranger's: nothing is written where its configuration says.
        keep = cfg.resume is None or any(word.lstrip("+").startswith("data.cache=") for word in words)
        if cfg.resume is not None:
            if sweeping:
                raise ConfigError(["resume: not in a sweep, which goes on by itself when it is run again"])
            cfg = run.resumed_config(cfg, words)
            words = run.earlier_result(Path(cfg.resume)).get("overrides", [])
        alone = settings.launcher._target_.endswith("BasicLauncher")
        with storage_errors_named("run this again" if sweeping else "go on with resume=<the run's folder>"):
            sweep = Path(settings.sweep.dir) if sweeping else None
            record = train(cfg, words, sweep, progress=alone, keep=keep)
    except Exception as error:
        # A sweep goes on with its next run, and Hydra reports only the first failure: say each one when it happens.
        if sweeping:
            log.error("%s: %s", job_name(cfg, words), "\n".join(map(one_line, str(error).splitlines())))
        raise
    return score(record)


def score(record: dict[str, Any]) -> float:
    """What a search goes by: the accuracy on held-out images, or without them that on the test images.

    NaN for a run that diverged.
    """
    return math.nan if record["status"] == "diverged" else float((record["val"] or record["test"])["accuracy"])


def show_messages(level: int = logging.INFO) -> None:
    """Messages go to the terminal as they are; what is of use only later goes to the run's train.log alone.

    Of several processes the first one speaks, the others only where they fail.
    """
    logging.basicConfig(format="%(message)s", stream=sys.stdout)
    logging.getLogger().setLevel(logging.INFO)
    log.setLevel(logging.DEBUG)
    for handler in logging.getLogger().handlers:
        handler.setLevel(level if processes.is_first() else logging.ERROR)


def _shown_level() -> int:
    """From which level on messages of a run are shown on this terminal: a study shows its own instead."""
    message = logging.LogRecord("onecycle", logging.INFO, "", 0, "", (), None)
    shown = any(handler.filter(message) for handler in logging.getLogger().handlers)
    return logging.INFO if shown else logging.WARNING


def run_as_command(job: Callable[[], Any], name: str, problems: overrides.Values) -> None:
    """Run a Hydra job whose configuration is `name`; problems: what is wrong with a composed one, a line each.

    The process ends with 0 for success, 2 for a user's mistake, 1 for a failure, 130 for Ctrl-C.
    """
    show_messages()
    try:
        overrides.check(sys.argv[1:], config.CONF, name, problems)
        job()
    except ConfigError as error:
        show(error)
        sys.exit(2)
    except KeyboardInterrupt:
        sys.exit(130)
    except BrokenPipeError:  # somebody piped us into head
        sys.stdout = None
        sys.exit(1)
    except SystemExit as stop:
        # Hydra turns every error into exit code 1; what it was stands behind.
        cause = stop.__context__
        mistake = isinstance(cause, CompactHydraException | OmegaConfBaseException)
        sys.exit(2 if stop.code == 1 and mistake and not isinstance(cause, InfrastructureError) else stop.code)


def problems(cfg: DictConfig, sweeping: bool) -> list[str]:
    """What is wrong with a composed training configuration, and with the study or the run's folder that it names."""
    found = config.problems(cfg)
    if OmegaConf.select(cfg, "study", throw_on_resolution_failure=False):
        from onecycle.studies import study as plan  # only a study pays for this import

        found += plan.problems(cfg)
    if isinstance(cfg.get("resume"), str) and not any(line.startswith("resume=") for line in found):
        refusal = "resume: not in a sweep, which goes on by itself when it is run again"
        found += [refusal] if sweeping else run.folder_problems(Path(cfg.resume))
    return found


def main() -> None:
    """Console entry."""
    run_as_command(hydra_job, "train", problems)


if __name__ == "__main__":
    main()
