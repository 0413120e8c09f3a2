"""Optuna by ask and tell: its samplers and pruners decide which runs a search makes.

Its storage remembers every trial, so a search goes on where it was, and several processes with the same command share
one. Optuna is an optional extra.
"""

import importlib
import logging
import math
import os
import platform
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import psutil
from filelock import FileLock

from onecycle.callbacks.options import PRUNED
from onecycle.callbacks.optuna_storage import open_storage, optuna_part
from onecycle.errors import ConfigError
from onecycle.studies.search.coordinate import Evaluate, SearchPath, Values
from onecycle.studies.search.options import OptunaAxis, OptunaSearch

if TYPE_CHECKING:
    import optuna
    import pandas as pd
    from matplotlib.figure import Figure

log = logging.getLogger(__name__)

PLOTS = {
    "history": "plot_optimization_history", "importance": "plot_param_importances", "slice": "plot_slice",
}  # fmt: skip
OWNER, OUTCOME = "owner", "outcome"  # user attributes of a trial: its process, and how its run ended without a score


def check_optuna(options: OptunaSearch) -> None:
    """Raise ConfigError where Optuna is not installed, or refuses the options of the sampler or the pruner."""
    try:
        importlib.import_module("optuna")
    except ImportError:
        install = "python -m pip install 'onecycle[search]'"
        raise ConfigError([f"method=optuna: Optuna is not installed; {install}"]) from None
    optuna_part("sampler", options.sampler, {"seed": 0, **options.sampler_options})
    optuna_part("pruner", options.pruner, options.pruner_options)


def journal(folder: Path) -> str:
    """The storage of a search without another one: a file in its study's folder."""
    return f"journal:{(folder / 'optuna.journal').absolute()}"


def optuna_search(
    options: OptunaSearch, evaluate: Evaluate, path: SearchPath, *, folder: Path, width: int = 1, name: str = "",
    first: Mapping[str, Any] | None = None,
) -> None:  # fmt: skip
    """Read back the trials that are finished, go on with the interrupted ones, ask for the rest of the budget.

    folder: of the study. width: points to evaluate at once. name: of Optuna's study, else that of the search. first:
    the values of the first trial, by key. Failed and diverged runs do not end the search.
    """
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    where = options.storage or journal(folder)
    study = optuna.create_study(
        storage=open_storage(where), study_name=name or options.arm, direction="maximize", load_if_exists=True,
        pruner=optuna_part("pruner", options.pruner, options.pruner_options),
    )  # fmt: skip
    if first and not study.get_trials(deepcopy=False):
        study.enqueue_trial({key: axis.value(first[key]) for key, axis in options.space.items()})
    # A sampler that goes on, or works beside another process, must not draw what was drawn before.
    # Asking for a trial and signing it is one step for the others, who would take it for an orphan in between.
    asking = FileLock(folder / ".asking")
    with asking:
        running = study.get_trials(deepcopy=False, states=(optuna.trial.TrialState.RUNNING,))
        gone = [trial for trial in running if _is_gone(trial.user_attrs.get(OWNER))]
        for trial in gone:
            optuna.Trial(study, trial._trial_id).set_user_attr(OWNER, _signature())
    words = [options.seed, len(study.trials), os.getpid() if len(gone) < len(running) else 0]
    seed = int(np.random.SeedSequence(words).generate_state(1)[0])
    study.sampler = optuna_part("sampler", options.sampler, {"seed": seed, **options.sampler_options})
    search = _OptunaSearch(options, study, evaluate, path, where, asking)
    search.read_back()
    for trial in gone:
        if options.space.keys() <= trial.params.keys():
            search.run([trial])
        else:  # its process was killed before it had drawn all of them
            study.tell(trial.number, state=optuna.trial.TrialState.FAIL)
    while trials := search.ask(width):
        search.run(trials)
    search.read_back()  # the trials of other processes


@dataclass
class _OptunaSearch:
    """One process's part in a study of Optuna in the storage `where`. seen: the numbers of the trials in the path."""

    options: OptunaSearch
    study: "optuna.Study"
    evaluate: Evaluate
    path: SearchPath
    where: str
    asking: FileLock
    seen: set[int] = field(default_factory=set)

    def read_back(self) -> None:
        """Evaluate finished trials again, which reads their records; those that failed would only fail again."""
        for trial in self.study.get_trials(deepcopy=False):
            is_new = trial.number not in self.seen and trial.number < self.options.budget
            is_whole = self.options.space.keys() <= trial.params.keys() and trial.user_attrs.get(OUTCOME) != "failed"
            if is_new and is_whole and trial.state.is_finished():
                self.evaluate([self._overrides(trial)])
                self._add(trial.number)

    def ask(self, width: int) -> list["optuna.Trial"]:
        """As many new trials as are wanted at once and left of the budget, marked as this process's own."""
        from optuna.trial import TrialState

        trials: list[optuna.Trial] = []
        distributions = {key: _distribution(axis) for key, axis in self.options.space.items()}
        asked = [state for state in TrialState if state != TrialState.WAITING]
        while len(trials) < width and len(self.study.get_trials(False, asked)) < self.options.budget:
            with self.asking:
                trial = self.study.ask(distributions)
                trial.set_user_attr(OWNER, _signature())
            if trial.number >= self.options.budget:  # another process was faster
                self.study.tell(trial.number, state=TrialState.FAIL)
                break
            trials.append(trial)
        return trials

    def run(self, trials: Sequence[Any]) -> None:
        """Evaluate trials at once and tell Optuna: a failed and a diverged run as failed, a pruned one as pruned."""
        import optuna
        from optuna.trial import TrialState

        scores = self.evaluate([self._overrides(trial) for trial in trials])
        pruned = [one.params for one in self.study.trials if one.user_attrs.get(PRUNED)]
        for trial, score in zip(trials, scores, strict=True):
            if score is None or math.isnan(score):
                outcome = "failed" if score is None else "diverged"
                optuna.Trial(self.study, trial._trial_id).set_user_attr(OUTCOME, outcome)
                self.study.tell(trial.number, state=TrialState.FAIL)
            elif trial.params in pruned:  # its run may be that of an earlier trial with the same values
                self.study.tell(trial.number, state=TrialState.PRUNED)
            else:
                self.study.tell(trial.number, score)
            self._add(trial.number)

    def _add(self, number: int) -> None:
        """Append a trial to the path; one without a score counts as the worst there is."""
        self.seen.add(number)
        trial = self.study.get_trials(deepcopy=False)[number]
        score = trial.value if trial.state.name == "COMPLETE" else None
        outcome = "was pruned" if trial.state.name == "PRUNED" else trial.user_attrs.get(OUTCOME, "failed")
        self.path.add_draw(self._values(trial), -math.inf if score is None else score, outcome)

    def _values(self, trial: Any) -> Values:
        return {key: axis.value(trial.params[key]) for key, axis in self.options.space.items()}

    def _overrides(self, trial: Any) -> Values:
        """The values of a trial, and the callback that stops its run where there is a pruner."""
        if self.options.pruner == "none":
            return self._values(trial)
        callback = {
            "_target_": "onecycle.callbacks.pruning.Pruning", "storage": self.where, "study": self.study.study_name,
            "pruner": self.options.pruner, "pruner_options": self.options.pruner_options, "trial": trial._trial_id,
        }  # fmt: skip
        return {**self._values(trial), "+callbacks.pruning": callback}


def _distribution(axis: OptunaAxis) -> Any:
    import optuna.distributions as kinds

    if axis.choices is not None:
        return kinds.CategoricalDistribution(axis.choices)
    if axis.integer:
        return kinds.IntDistribution(axis.low, axis.high, log=axis.log, step=axis.step or 1)  # type: ignore[arg-type]
    return kinds.FloatDistribution(axis.low, axis.high, log=axis.log, step=None if axis.log else axis.step)  # type: ignore[arg-type]


def _signature() -> str:
    return f"{platform.node()}:{os.getpid()}"


def _is_gone(owner: str | None) -> bool:
    """Whether the process that asked for a trial has ended; of one on another machine nothing is known."""
    host, _, process = (owner or "").rpartition(":")
    if not host:
        return True  # killed between asking and signing
    return host == platform.node() and (int(process) == os.getpid() or not psutil.pid_exists(int(process)))


def optuna_figure(rows: "pd.DataFrame", *, show: str, arm: str, kept_in: str | None = None) -> "Figure | None":
    """One of Optuna's own figures, PLOTS, of the search `arm`, whose storage is `kept_in`, of the rows' study.

    None where Optuna finds too few trials, or too equal ones. Raises ConfigError for an unknown figure.
    """
    import optuna
    import optuna.visualization.matplotlib as figures

    if show not in PLOTS:
        raise ConfigError([f"show={show}: unknown; there are {', '.join(PLOTS)}"])
    storage = open_storage(kept_in or journal(Path(rows["folder"].iloc[0]).parent))
    extra = {"evaluator": optuna.importance.PedAnovaImportanceEvaluator()} if show == "importance" else {}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Optuna calls its figures experimental
            drawn = getattr(figures, PLOTS[show])(optuna.load_study(study_name=arm, storage=storage), **extra)
    except (ValueError, RuntimeError, ZeroDivisionError) as error:
        log.warning("Optuna's %s is left out: %s.", show, str(error).rstrip("."))
        return None
    figure: Figure = np.ravel(drawn)[0].get_figure()
    return figure
