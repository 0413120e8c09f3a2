"""The console scripts: words of the command line, messages, exit codes."""

import contextlib
import io
import logging
import math
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import CompactHydraException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from onecycle import evaluate, training_run
from onecycle.config import compose
from onecycle.config.validate import validated
from onecycle.errors import (
    ConfigError,
    InfrastructureError,
    dead_workers_named,
    errors_shown,
    make_output_harmless,
    one_line,
    problems_of,
    show,
    storage_errors_named,
)
from onecycle.runs.processes import show_messages
from onecycle.runs.record import earlier_result, score_of
from onecycle.runs.saved import finished_run, origin_of, resumed_config, saved_config, with_run_folders

log = logging.getLogger("onecycle")

IN_SWEEP = "resume: not in a sweep, which goes on by itself when it is run again"

# At import, not in main: the workers of a parallel launcher import this module and never call main.
compose.register_resolvers()


def train_command() -> None:
    """`onecycle-train`."""
    _run_as_command(train_job, "train", training_word_errors)


def evaluate_command() -> None:
    """`onecycle-evaluate`."""
    _run_as_command(evaluate_job, "evaluate", lambda config, sweeping: evaluate.evaluation_word_errors(config))


def train_by_words(*words: str, show: bool = False) -> dict[str, Any]:
    """Train and test one network; returns the run's record, with its `folder`: `from onecycle import train`.

    words: as on the command line of `onecycle-train`, for example "experiment=quick", "seed=3", "output=/tmp/logs";
    sweeps and studies are for the command line. show: also draw the progress bar and print the results.

    Raises ConfigError with a line for each word or value that is wrong.
    """
    if any(word.startswith(("-", "study=", "resume=")) for word in words):
        raise ConfigError(["train takes words of a single new run; sweeps, studies and resume= are for onecycle-train"])
    taken = [compose.as_hydra_takes_it(word) for word in with_run_folders(words)]
    compose.check_words(taken, "train", training_word_errors)
    with hydra.initialize_config_dir(version_base="1.3", config_dir=str(compose.CONF)):
        config = validated(hydra.compose("train", overrides=taken))
    with contextlib.nullcontext() if show else contextlib.redirect_stdout(io.StringIO()):
        return training_run.train(config, taken, progress=show)


@hydra.main(version_base="1.3", config_path=str(compose.CONF), config_name="train")
def train_job(config: DictConfig) -> float:
    """One job of Hydra, single or in a sweep; returns its `score`, for sweepers that want a number."""
    show_messages()
    settings: Any = HydraConfig.get()
    # As they were written: what a word interpolates is a value of this configuration, not of Hydra's.
    words = list(OmegaConf.to_container(settings.overrides, resolve=False)["task"])  # type: ignore[index, call-overload]
    alone = settings.launcher._target_.endswith("BasicLauncher")
    if settings.mode == RunMode.RUN:
        with errors_shown(), storage_errors_named("go on with resume=<the run's folder>"):
            if config.resume is None:
                return score(training_run.train(validated(config), words, progress=alone))
            first_words = earlier_result(Path(config.resume)).get("overrides", [])
            return score(training_run.train(resumed_config(config, words), first_words, progress=alone))
    try:
        if config.resume is not None:
            raise ConfigError([IN_SWEEP])
        with storage_errors_named("run this again"):
            return score(training_run.train(validated(config), words, Path(settings.sweep.dir), progress=alone))
    except Exception as error:
        # A sweep goes on with its next run, and Hydra reports only the first failure: say each one when it happens.
        lines = "\n".join(map(one_line, str(error).splitlines()))
        log.error("%s: %s", training_run.job_name(config.get("study"), words), lines)
        raise


def score(record: dict[str, Any]) -> float:
    """What a search goes by: the score of the held-out images, or else of the test images; NaN if the run diverged."""
    return math.nan if record["status"] == "diverged" else score_of(record["val"] or record["test"])


@hydra.main(version_base="1.3", config_path=str(compose.CONF), config_name="evaluate")
def evaluate_job(config: DictConfig) -> float:
    """One evaluation; returns the score of the test images."""
    show_messages()
    alone = HydraConfig.get().mode == RunMode.RUN
    with errors_shown() if alone else contextlib.nullcontext(), storage_errors_named("run this again"):
        return score_of(evaluate.evaluate(config)["test"])


def _run_as_command(job: Callable[[], Any], name: str, validate: compose.Validate) -> None:
    """Run a Hydra job whose configuration is `name`.

    The process ends with 0 for success, 2 for a user's error, 1 for a failure, 130 for Ctrl-C. No output changes that.
    """
    make_output_harmless()
    show_messages()
    os.environ["HYDRA_FULL_ERROR"] = "1"  # so that Hydra shows no error itself
    try:
        # Hydra takes no flag after the first override.
        flags = [word for word in sys.argv[1:] if word in compose.SWEEP_FLAGS]
        words = with_run_folders([word for word in sys.argv[1:] if word not in flags])
        sys.argv[1:] = [*flags, *map(compose.as_hydra_takes_it, words)]
        compose.check_words(sys.argv[1:], name, validate)
        with storage_errors_named("run this again"), dead_workers_named():
            job()
    except (ConfigError, InfrastructureError) as error:
        show(error)
        sys.exit(error.exit_code)
    except (CompactHydraException, OmegaConfBaseException) as error:
        show(error)
        sys.exit(2)
    except KeyboardInterrupt:
        sys.exit(130)


def training_word_errors(config: DictConfig, sweeping: bool) -> list[str]:
    """The errors of a composed training configuration, and of the study or the run's folder that it names."""
    lines = problems_of(lambda: validated(config))
    if OmegaConf.select(config, "study", throw_on_resolution_failure=False):
        from onecycle.studies.study import study_errors  # only a study pays for this import

        lines += study_errors(config)
    if isinstance(config.get("resume"), str) and not any(line.startswith("resume=") for line in lines):
        lines += [IN_SWEEP] if sweeping else problems_of(lambda: saved_config(Path(config.resume)))
    if isinstance(config.get("init_from"), str) and not any(line.startswith("init_from=") for line in lines):
        lines += problems_of(lambda: finished_run(origin_of(config.init_from)[0]))
    return lines
