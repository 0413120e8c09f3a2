"""Optuna by ask and tell: its samplers and pruners decide which runs a search makes.

Its storage remembers every trial, so a search goes on where it was, and several processes with the same command share
one. Optuna is an optional extra.
"""

import importlib
import math
import os
import platform
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import psutil

from onecycle.callbacks.optuna_storage import PRUNED, make_pruner, open_storage, optuna_object
from onecycle.errors import ConfigError
from onecycle.studies.search import coordinate as searches
from onecycle.studies.search.coordinate import BETTER, SPENT, START, WORSE, Score, Search, Step, Values

if TYPE_CHECKING:
    import optuna
    from matplotlib.figure import Figure

SAMPLERS = {
    "tpe": "TPESampler", "random": "RandomSampler", "gp": "GPSampler", "cmaes": "CmaEsSampler", "qmc": "QMCSampler",
    "nsgaii": "NSGAIISampler",
}  # fmt: skip
JOURNAL = "optuna.journal"
OWNER, OUTCOME = "owner", "outcome"  # what a trial carries


@dataclass(frozen=True)
class Axis:
    """A configuration key, the distribution that Optuna draws it from, and whether it draws 1 − value."""

    key: str
    distribution: Any
    complement: bool = False

    def value(self, drawn: Any) -> Any:
        """The key's value for what was drawn, with as many digits as a person would type."""
        drawn = 1 - drawn if self.complement else drawn
        return float(f"{drawn:.6g}") if isinstance(drawn, float) else drawn


def search(block: Mapping[str, Any], width: int, folder: Path | None, told: searches.Told = searches.untold) -> Search:
    """A search by Optuna; raises ConfigError with every mistake, also where Optuna is not installed.

    told: called with each step at the end, when the trials of other processes are known as well.
    block: see `plan.SEARCH`; `space` is {key: {low, high, log, step, integer, complement}} or {key: {choices}}.
    """
    try:
        library = importlib.import_module("optuna")
    except ImportError:
        raise ConfigError(
            ["method=optuna: Optuna is not installed; python -m pip install 'onecycle[search]'"]
        ) from None
    library.logging.set_verbosity(library.logging.WARNING)
    problems: list[str] = []
    axes = [_axis(library, key, entry or {}, problems) for key, entry in (block.get("space") or {}).items()]
    if not axes:
        problems.append("space: is empty; name at least one key, such as schedule.peak_lr")

    if problems:
        raise ConfigError(problems)

    def sampler(seed: int) -> Any:
        name, options = block.get("sampler") or "tpe", {"seed": seed, **(block.get("sampler_options") or {})}
        if name not in SAMPLERS:
            raise ConfigError([f"sampler={name}: unknown; there are {', '.join(SAMPLERS)}"])
        return optuna_object("sampler", name, SAMPLERS[name], options)

    first = sampler(0)
    pruning, pruning_options = block.get("pruner") or "none", block.get("pruner_options") or {}
    pruner = make_pruner(pruning, pruning_options)
    if folder is None:
        return iter(())  # type: ignore[return-value]
    where = block.get("storage") or f"journal:{(folder / JOURNAL).absolute()}"
    study = library.create_study(
        storage=open_storage(where), sampler=first, pruner=pruner, study_name=block["arm"], direction="maximize",
        load_if_exists=True,
    )  # fmt: skip
    study.sampler = sampler(_seed(block.get("seed") or 0, study.trials))
    callback = {
        "_target_": "onecycle.callbacks.pruning.Pruning", "storage": where, "study": block["arm"], "pruner": pruning,
        "pruner_options": pruning_options,
    }  # fmt: skip
    return _Trials(study, axes, block["budget"], None if pruning == "none" else callback, told).walk(width)


def _seed(seed: int, trials: Sequence["optuna.trial.FrozenTrial"]) -> int:
    """A sampler's seed. One that goes on, or works beside another process, must not draw what was drawn before."""
    running = [trial for trial in trials if trial.state.name == "RUNNING"]
    beside = any(not _is_gone(trial.user_attrs.get(OWNER)) for trial in running)
    words = [seed, len(trials), os.getpid() if beside else 0]
    return int(np.random.SeedSequence(words).generate_state(1)[0])


def _axis(library: Any, key: str, entry: Mapping[str, Any], problems: list[str]) -> Axis:
    given = dict(entry)
    complement = bool(given.pop("complement", False))
    names = ("choices",) if "choices" in given else ("low", "high", "log", "step", "integer")
    unknown = [name for name in given if name not in names]
    if unknown:
        problems += [f"{key}.{name}: is unknown; there are {', '.join(names)}, complement" for name in unknown]
        return Axis(key, None)
    integer = given.pop("integer", False)
    kind = "CategoricalDistribution" if "choices" in given else "IntDistribution" if integer else "FloatDistribution"
    try:
        return Axis(key, getattr(library.distributions, kind)(**given), complement)
    except (TypeError, ValueError) as error:
        problems.append(f"{key}: {' '.join(str(error).split())}")
        return Axis(key, None)


PLOTS = {
    "history": "plot_optimization_history", "importance": "plot_param_importances", "slice": "plot_slice",
}  # fmt: skip


def plot(rows: Sequence[Mapping[str, Any]], *, show: str, arm: str, kept_in: str | None = None) -> "Figure":
    """One of Optuna's own figures of a search: its history, the importance of its axes, or a slice along each.

    show: a key of PLOTS. arm: the search's name. kept_in: its storage, None for the file in the study's folder. Raises
    ConfigError for an unknown figure, and what Optuna raises where its trials are too few or too equal.
    """
    import optuna
    import optuna.visualization.matplotlib as figures

    if show not in PLOTS:
        raise ConfigError([f"optuna: show={show}: unknown; there are {', '.join(PLOTS)}"])
    place = kept_in or f"journal:{Path(rows[0]['folder']).parent.absolute() / JOURNAL}"
    study = optuna.load_study(study_name=arm, storage=open_storage(place))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Optuna calls its figures experimental
        extra = {"evaluator": optuna.importance.PedAnovaImportanceEvaluator()} if show == "importance" else {}
        drawn = getattr(figures, PLOTS[show])(study, **extra)
    axes = drawn.flat[0] if hasattr(drawn, "flat") else drawn
    figure = axes.get_figure()
    figure.set_layout_engine("tight")
    return figure


class _Trials:
    """One process's part in a study of Optuna."""

    def __init__(
        self, study: "optuna.Study", axes: Sequence[Axis], budget: int, pruning: Any, told: searches.Told
    ) -> None:
        self.study, self.axes, self.budget, self.pruning, self.told = study, axes, budget, pruning, told
        self.shown: list[int] = []

    def walk(self, width: int) -> Search:
        """Read back what is finished, go on with what was interrupted, ask for the rest."""
        for done in self._finished():
            yield [self._values(done)]
        for left in self._interrupted():
            (score,) = yield [self._values(left)]
            self._tell(left.number, score)
        while trials := self._ask(width):
            scores = yield [self._values(trial) for trial in trials]
            for trial, score in zip(trials, scores, strict=True):
                self._tell(trial.number, score)
        for done in self._finished():  # those of other processes
            yield [self._values(done)]
        return searches.Path(self._steps(), SPENT)

    def _ask(self, width: int) -> list["optuna.Trial"]:
        """As many new trials as are wanted at once and left of the budget, marked as this process's own."""
        trials: list[optuna.Trial] = []
        while len(trials) < width and len(self.study.get_trials(deepcopy=False)) < self.budget:
            trial = self.study.ask({axis.key: axis.distribution for axis in self.axes})
            if trial.number >= self.budget:  # another process was faster
                self.study.tell(trial, state=self._state("FAIL"))
                break
            trial.set_user_attr(OWNER, _owner())
            trials.append(trial)
        return trials

    def _tell(self, number: int, score: Score) -> None:
        """Tell Optuna a score; a failed and a diverged run as failed, a pruned one as pruned."""
        if score is None or math.isnan(score):
            trial = self.study.trials[number]
            self.study._storage.set_trial_user_attr(
                trial._trial_id, "outcome", "failed" if score is None else "diverged"
            )
            self.study.tell(number, state=self._state("FAIL"))
        elif self.study.trials[number].user_attrs.get(PRUNED):
            self.study.tell(number, state=self._state("PRUNED"))
        else:
            self.study.tell(number, score)

    def _state(self, name: str) -> Any:
        from optuna.trial import TrialState

        return TrialState[name]

    def _finished(self) -> Iterator["optuna.trial.FrozenTrial"]:
        """Trials with a result that have not been shown yet; failed ones would only fail again."""
        for trial in self.study.get_trials(deepcopy=False):
            failed = trial.user_attrs.get("outcome") == "failed"
            sound = trial.state.is_finished() and not failed and trial.number < self.budget
            if sound and trial.number not in self.shown:
                yield trial

    def _interrupted(self) -> Iterator["optuna.trial.FrozenTrial"]:
        """Trials whose process is no more."""
        for trial in self.study.get_trials(deepcopy=False, states=(self._state("RUNNING"),)):
            if _is_gone(trial.user_attrs.get(OWNER)):
                yield trial

    def _values(self, trial: Any) -> Values:
        self.shown.append(trial.number)
        values = {axis.key: axis.value(trial.params[axis.key]) for axis in self.axes}
        if self.pruning is None:
            return values
        return {**values, "+callbacks.pruning": {**self.pruning, "trial": trial._trial_id}}

    def _steps(self) -> list[Step]:
        """Every trial that was shown, in that order; told as well."""
        steps: list[Step] = []
        best = -math.inf
        trials = self.study.get_trials(deepcopy=False)
        for place, number in enumerate(self.shown):
            trial = trials[number]
            score = trial.value if trial.value is not None and trial.state.name == "COMPLETE" else -math.inf
            decision = START if not steps else BETTER if score > best else WORSE
            values = {axis.key: axis.value(trial.params[axis.key]) for axis in self.axes}
            steps.append(Step(place, values, score, "", decision, beside=best if steps else math.nan))
            self.told(steps[-1])
            best = max(best, score)
        return steps


def _owner() -> str:
    return f"{platform.node()}:{os.getpid()}"


def _is_gone(owner: str | None) -> bool:
    """Whether the process that asked for a trial has ended; of one on another machine nothing is known."""
    host, _, process = (owner or "").rpartition(":")
    if not host:
        return True  # killed between asking and signing
    return host == platform.node() and (int(process) == os.getpid() or not psutil.pid_exists(int(process)))
