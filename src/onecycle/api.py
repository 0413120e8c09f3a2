"""Training and reading runs from Python: `from onecycle import train, records`."""

import contextlib
import io
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra import compose, initialize_config_dir

from onecycle.config.compose import CONF, as_hydra_takes_it, check_words, register_resolvers
from onecycle.config.validate import validated
from onecycle.errors import ConfigError, problems_of
from onecycle.runs.table import all_runs
from onecycle.training_run import train

if TYPE_CHECKING:
    import pandas as pd


def train_by_words(*words: str, show: bool = False) -> dict[str, Any]:
    """Train and test one network; returns the run's record, with its `folder`.

    words: as on the command line of `onecycle-train`, for example "experiment=quick", "seed=3", "output=/tmp/logs";
    sweeps and studies are for the command line. show: also draw the progress bar and print the results.

    Raises ConfigError with a line for each word or value that is wrong.
    """
    register_resolvers()
    taken = [as_hydra_takes_it(word) for word in words]
    if any(word.startswith(("-", "study=", "resume=")) for word in taken):
        raise ConfigError(["train takes words of a single new run; sweeps, studies and resume= are for onecycle-train"])
    check_words(taken, "train", lambda config, sweeping: problems_of(lambda: validated(config)))
    with initialize_config_dir(version_base="1.3", config_dir=str(CONF)):
        config = validated(compose("train", overrides=taken))
    with contextlib.nullcontext() if show else contextlib.redirect_stdout(io.StringIO()):
        return train(config, taken, progress=show)


def records(folder: str | Path = "logs") -> "pd.DataFrame":
    """All runs in or below a folder, one row each, in the order in which they were started.

    Columns are those of `onecycle-runs format=csv`: run, folder, status, the hyperparameters, accuracy, val_accuracy,
    loss, seconds and others. What a run does not have is missing.
    """
    import pandas as pd

    return pd.DataFrame(all_runs(Path(folder)))
