"""How far a sweep is: a line for each run that ends, the time left, and at the end a table with the best run first."""

import atexit
import contextlib
import logging
import shlex
import time
from pathlib import Path
from typing import Any

from hydra.core.utils import JobReturn, JobStatus
from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf

from onecycle.runs.processes import is_first, show_messages


class SweepProgress(Callback):
    """Callback of Hydra for sweeps by its own sweeper; studies and searches say how far they are by themselves.

    Hydra's basic launcher runs the jobs in this process, and each one is counted as it ends. For other launchers the
    records that their processes write are counted; the callback's copies in those processes only quieten the runs.
    """

    def __init__(self, copied: bool = False) -> None:
        self.held: contextlib.ExitStack | None = None
        self.copied, self.alone, self.started = copied, False, 0.0

    def __reduce__(self) -> tuple[type["SweepProgress"], tuple[bool]]:
        """Pickle nothing: the threads and filters belong to this process."""
        return type(self), (True,)

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Read which runs there will be, and which of them are finished already."""
        if not (is_first() and config.hydra.sweeper._target_.endswith("BasicSweeper")):
            return
        from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
        from hydra.core.override_parser.overrides_parser import OverridesParser

        from onecycle.studies import launching, plan
        from onecycle.training_run import job_name

        words = [*(f"{key}={value}" for key, value in (config.hydra.sweeper.params or {}).items())]
        words += OmegaConf.to_container(config.hydra.overrides, resolve=False)["task"]  # type: ignore[index, call-overload]
        (jobs,) = BasicSweeper.split_arguments(OverridesParser.create().parse_overrides(words), None)
        self.folder, self.counter = Path(config.hydra.sweep.dir), launching.RunCounter(len(jobs))
        self.points = [plan.Point(job_name(None, job), {}, tuple(job)) for job in jobs]
        self.finished = plan.finished_runs(self.folder)
        self.alone = config.hydra.launcher._target_.endswith("BasicLauncher")
        show_messages()
        self.held = contextlib.ExitStack()
        if self.alone:
            self.held.enter_context(launching.runs_log_warnings_only())
        else:
            self.held.enter_context(launching.counted(self.points, self.folder, self.counter))
        atexit.register(self.on_multirun_end)  # Hydra calls it only where no run has failed

    def on_job_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Start the clock; in a process of a parallel launcher leave only a run's warnings on the terminal."""
        self.started = time.perf_counter()
        if self.copied:
            from onecycle.studies.launching import is_shown

            show_messages()
            for handler in logging.getLogger().handlers:
                handler.addFilter(is_shown)  # adds it once

    def on_job_end(self, config: DictConfig, job_return: JobReturn, **kwargs: Any) -> None:
        """Count a run that this process has made."""
        if self.held is None or not self.alone:
            return
        from onecycle.runs.identity import settings

        point = self.points[config.hydra.job.num]
        if job_return.status != JobStatus.COMPLETED:
            self.counter.add(f"{point.label}: failed; the sweep goes on", None)
            return
        seconds = None if settings(point.overrides) in self.finished else time.perf_counter() - self.started
        self.counter.add_result(point, job_return.return_value, seconds)

    def on_multirun_end(self, *event: Any, **kwargs: Any) -> None:
        """Print the table of the sweep's runs, the best one first, and what can be done with it."""
        if self.held is None:
            return
        atexit.unregister(self.on_multirun_end)
        self.held.close()
        self.held = None
        from onecycle.runs.identity import settings
        from onecycle.runs.table import all_runs, show_runs

        own = {settings(point.overrides) for point in self.points}
        rows = [row for row in all_runs(self.folder) if settings(row["overrides"]) in own]
        scores = [row["accuracy"] if row["val_accuracy"] is None else row["val_accuracy"] for row in rows]
        order = sorted(range(len(rows)), key=lambda place: (rows[place]["status"] == "finished", scores[place] or 0.0))
        rows = [rows[place] for place in order[::-1]]
        if not rows:  # the launcher could not start
            return
        show_runs(rows, f"{self.folder}: {len(rows)} of {len(own)} runs, the best first")
        if rows[0]["status"] == "finished":
            print(f"the best:  onecycle-evaluate run={shlex.quote(rows[0]['folder'])}")
            print(f"   again:  onecycle-train {shlex.join(rows[0]['overrides'])}")
        for row in rows:
            if row["status"] == "interrupted":
                print(f"   go on:  onecycle-train resume={shlex.quote(row['folder'])}")
        print(f"TensorBoard: tensorboard --logdir {shlex.quote(str(self.folder))}", flush=True)
