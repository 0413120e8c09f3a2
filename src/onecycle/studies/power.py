"""What a study will cost and what it can decide, before it runs: `study.plan=true`."""

import json
import logging
import math
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from hydra import compose

from onecycle.config.hyperparameters import Hyperparameters
from onecycle.config.schema import TrainOptions
from onecycle.config.validate import validated
from onecycle.errors import ConfigError
from onecycle.runs.environment import processor
from onecycle.runs.identity import override_key, settings
from onecycle.studies import plan
from onecycle.studies import rows as table
from onecycle.studies.effects import columns_of, filters_of
from onecycle.studies.launching import expected_runs
from onecycle.studies.study import CLAIMS, ClaimOptions
from onecycle.studies.verdicts import ALPHA, SHARE, forecast, measured, metric_of

log = logging.getLogger(__name__)

SECONDS = 20.0  # of timed steps, for all classes of runs together
WARM, FEWEST = 2, 5  # steps that are not timed, and that are at least
TESTING = 1 / 3  # of the time that an image takes in training
# Keys that decide what a step costs; runs that agree in them are a class.
COSTS = ("model", "batch_size", "data.side", "data.source", "data.augment", "resizing", "optimizer", "trainer")
# Standard deviations from seed to seed where no run tells them: of accuracies in points, and of losses.
ASSUMED = {"accuracy": 1.0, "loss": 0.03}
LINEAR = ("value", "difference", "gap", "spread", "order")  # half widths do not depend on what is measured
ENOUGH = 0.8  # how probable a decision should be
MORE_SEEDS = (2, 3, 4, 5, 7, 10, 14, 20)


class StudyPlan:
    """The runs of a study, composed but not run. records: those of finished runs in its folder, by their settings."""

    def __init__(
        self, study: Mapping[str, Any], points: Sequence[plan.Point], changes: plan.Changes, folder: Path
    ) -> None:
        self.study, self.points, self.changes = study, points, changes
        self.records = plan.finished_runs(folder)
        self.seeds = len(plan.seeds_of(study, changes))
        self.configs: dict[tuple[str, ...], TrainOptions] = {}

    def config(self, point: plan.Point) -> TrainOptions:
        """The configuration of a point's runs, of whatever seed."""
        words = tuple(word for word in point.overrides if override_key(word) not in ("seed", "study.label"))
        if words not in self.configs:
            self.configs[words] = validated(compose("train", overrides=list(words)))
        return self.configs[words]

    def lines(self) -> Iterator[str]:
        """The plan in words; steps of the real training are timed where records do not say what a run takes."""
        total, searched = expected_runs(self.study, self.points, self.changes), self._searched()
        done = sum(settings(point.overrides) in self.records for point in self.points)
        yield f"{self.study['name']}: {total} runs at most, {done} of them finished."
        missing = [(point, 1) for point in self.points if settings(point.overrides) not in self.records]
        costs, sources = self._costs([point for point, _ in missing + searched])
        seconds = sum(
            costs[cost_class(self.config(point))].of_run(self.config(point)) * n for point, n in missing + searched
        )
        yield f"About {seconds / 60:.1f} minutes on this machine, one run after the other{sources}."
        for entry in self.study.get("claims") or ():
            yield self.claim_line(CLAIMS[entry["effect"]].model_validate(entry))

    def _searched(self) -> list[tuple[plan.Point, int]]:
        """A run of each search and how many there will be at most, and those that confirm the best of each arm."""
        found = []
        for block in self.study.get("searches") or ():
            points = plan.search_points(self.study, block, 0, {}, self.changes)
            found += [(point, block["budget"]) for point in points]
        firsts = {point.values.get("arm"): point for point in [*self.points, *(point for point, _ in found)]}
        return found + [(point, len(self.study.get("confirm") or ())) for point in firsts.values()]

    def _costs(self, points: Iterable[plan.Point]) -> tuple[dict[str, "Cost"], str]:
        """What a run of each class costs, and in words where that comes from."""
        own: dict[str, list[dict[str, Any]]] = {}
        configs = {settings(point.overrides): point for point in self.points}
        for key, (_, record) in self.records.items():
            if key in configs and record["environment"].get("processor") == processor():
                own.setdefault(cost_class(self.config(configs[key])), []).append(record)
        classes = {cost_class(self.config(point)): self.config(point) for point in points}
        costs = {name: Cost.of_records(own[name]) for name in classes.keys() & own}
        timed = classes.keys() - own
        for name in timed:
            costs[name] = Cost.of_steps(classes[name], SECONDS / len(timed))
        read = f", from {sum(map(len, own.values()))} records" if own else ""
        return costs, read + (f", from timed steps of {len(timed)} kinds of runs" if timed else "")

    def frame(self) -> pd.DataFrame:
        """A row for each finished run, and one without measurements for each point that has none."""
        finished, rows = set(), []
        for point in self.points:
            if found := self.records.get(settings(point.overrides)):
                rows.append(table.row_of(point, *found))
                finished.add(_without_seed(point))
        for point in self.points:
            if _without_seed(point) not in finished:
                finished.add(_without_seed(point))
                config, h = self.config(point), self.config(point).hyperparameters
                rates = Hyperparameters(config.schedule["peak_lr"], h.momentum, h.weight_decay, config.batch_size)
                rows.append(table.row_of(point, Path(), table.unmeasured(rates, config.data.subset_size or 0)))
        return pd.DataFrame(rows)

    def claim_line(self, claim: ClaimOptions) -> str:
        """The half width to expect of a claim's effect against its margin, and what would decide it."""
        metric = metric_of(columns_of(claim.effect, claim.parameters))
        if metric == SHARE:
            least = ALPHA ** (1 / self.seeds)
            return f"{claim.id}: all of {self.seeds} runs will mean at least {least:.0%} of all runs."
        frame = self.frame()
        if any(column not in frame for one in filters_of(claim.parameters) for column in one) or frame.empty:
            return f"{claim.id}: cannot be said before there are runs."
        frame = frame.assign(**{metric: table.cells(frame, metric)})
        points, sd, count = measured(frame, claim.effect, claim.parameters, claim.assumed_sd)
        known = points[metric].notna().all() and len(points)
        source = f"spread of {count.sum()} runs"
        if not known or np.isnan(sd).any():
            assumed = next((value for word, value in ASSUMED.items() if word in metric), math.nan)
            assumed = assumed if claim.assumed_sd is None else claim.assumed_sd
            sd, source = np.where(np.isnan(sd) | ~bool(known), assumed, sd), f"assumed sd {assumed:g}"
        if np.isnan(sd).any() or not (known or (claim.effect in LINEAR and len(points))):
            return f"{claim.id}: unknown before a first run of each point; one seed tells: ARGS=seed=0, and plan again."
        if not known:
            points[metric] = 0.0
        half, chance = forecast(points, sd, self.seeds, claim)
        margin = margin_of(claim)
        bound = f"margin {margin:.3g}" if margin > 0 else "bound 0"
        shown = f"{claim.id}: half width {half:.3g} {claim.unit} ({source}), {bound}"
        if known:
            is_enough, shown = chance >= ENOUGH, f"{shown}; decided in {chance:.0%} of simulated studies"
        else:
            is_enough = half <= (margin if margin > 0 else math.inf)  # what a bound of 0 needs is unknown
        if is_enough:
            return f"{shown}."
        return f"{shown}. CANNOT BE DECIDED: {remedy(points, sd, claim, bool(known), self.seeds)}."


def _without_seed(point: plan.Point) -> str:
    return json.dumps({key: value for key, value in point.values.items() if key != "seed"}, sort_keys=True)


def margin_of(claim: ClaimOptions) -> float:
    """The size of effect that a claim must tell apart: half of its range, or its bound; NaN where that is 0."""
    least, most = claim.bounds
    if math.isfinite(most - least):
        return (most - least) / 2
    return abs(least if math.isfinite(least) else most) or math.nan


def remedy(points: pd.DataFrame, sd: Any, claim: ClaimOptions, known: bool, seeds: int) -> str:
    """What would let a study decide a claim: so many seeds or, where they do not help, a finer grid or longer runs."""
    half = math.inf
    for more in (number for number in MORE_SEEDS if number > seeds):
        half, chance = forecast(points, sd, more, claim, times=50)
        if chance >= ENOUGH if known else half <= margin_of(claim):
            return f"{more} seeds would do, in place of {seeds}"
    if claim.effect.startswith(("optimum", "blow_up", "ridge")):
        return f"seeds alone do not help (half width {half:.3g} with {MORE_SEEDS[-1]}); take a finer or a wider grid"
    return f"{MORE_SEEDS[-1]} seeds do not suffice (half width {half:.3g}); take longer runs, or a claim further off"


def cost_class(config: TrainOptions) -> str:
    """What a step of a configuration costs, as a text that is equal for equal costs."""
    values = config.model_dump(exclude_unset=True)
    values["trainer"] |= {"max_steps": None, "max_epochs": None}
    values["data"] = {key: value for key, value in values["data"].items() if f"data.{key}" in COSTS}
    return json.dumps({key: values.get(key) for key in (*COSTS, "data") if "." not in key}, sort_keys=True, default=str)


class Cost(NamedTuple):
    """Seconds of a run: those of its setup and test, and those of each step; and its data set's training images."""

    fixed: float
    step: float
    images: int

    def of_run(self, config: TrainOptions) -> float:
        """Seconds of a run of a configuration of this class."""
        size = config.data.subset_size or self.images
        per_epoch = max(1, int(size if size > 1 else size * self.images) // config.batch_size)
        steps = config.trainer.max_steps or round((config.trainer.max_epochs or 1) * per_epoch)
        return self.fixed + steps * self.step

    @classmethod
    def of_records(cls, records: Sequence[Mapping[str, Any]]) -> "Cost":
        """The mean of finished runs of a class."""
        fixed = fmean(one["seconds"]["total"] - one["seconds"]["fit"] for one in records)
        steps = sum(one["steps"] for one in records)
        images = max(one["data"]["train_size"] for one in records)
        return cls(fixed, sum(one["seconds"]["fit"] for one in records) / max(1, steps), images)

    @classmethod
    def of_steps(cls, config: TrainOptions, seconds: float) -> "Cost":
        """Of some steps of the real training, which are timed for so long; testing is estimated from them."""
        from lightning.pytorch.callbacks import LambdaCallback

        from onecycle import build
        from onecycle.runs import environment, summary

        start, ends = time.perf_counter(), list[float]()

        def note(trainer: Any, *_: Any) -> None:
            ends.append(time.perf_counter())
            trainer.should_stop |= len(ends) >= WARM + FEWEST and ends[-1] - ends[0] > seconds

        summary.silence_libraries()
        environment.prepare(config.trainer.threads)
        config, dataset = build.load_dataset(build.choose_precision(config))
        datamodule = build.build_datamodule(config, dataset)
        steps = build.total_steps(config, datamodule)
        bare = config.model_copy(update={
            "callbacks": {}, "logger": {}, "evaluation": config.evaluation.model_copy(update={"every_n_epochs": 0}),
        })  # fmt: skip
        with tempfile.TemporaryDirectory() as folder:
            trainer = build.build_trainer(bare, Path(folder), min(steps, 100), progress=False)
            trainer.callbacks.append(LambdaCallback(on_train_batch_end=note))  # type: ignore[attr-defined]
            classifier = build.build_classifier(bare, datamodule, steps)
            setup = time.perf_counter() - start
            trainer.fit(classifier, datamodule)
        if len(ends) <= WARM:
            raise ConfigError([f"trainer.max_steps={steps}: too few steps to time"])
        step = float(np.median(np.diff(ends[WARM - 1 :])))
        images = len(datamodule.splits["test"].pixels)
        return cls(setup + TESTING * step * images / config.batch_size, step, len(datamodule.splits["train"].pixels))
