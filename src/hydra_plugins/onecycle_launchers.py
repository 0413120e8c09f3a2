"""Launchers of optional extras, with a line on what to install where one is missing: Ray and SLURM (submitit).

The work is done by hydra-ray-launcher and hydra-submitit-launcher; conf/hydra/launcher sets their options.
"""

import importlib
import os
import shutil
import signal
from collections.abc import Sequence
from pathlib import Path
from types import FrameType
from typing import Any, ClassVar

from hydra.core.utils import JobReturn
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig

from onecycle.errors import ClusterError, ConfigError, reason_of


class _Task:
    """A task that is run in the folder from which it was launched.

    With `requeues`, under submitit, which queues a task again on a signal: while it trains, only after a checkpoint.
    SLURM announces a preemption by SIGTERM, and the end of a task's time by SIGUSR2.
    """

    def __init__(self, folder: Path, task: TaskFunction, requeues: bool) -> None:
        self.folder, self.task, self.requeues = folder, task, requeues

    def __call__(self, config: DictConfig) -> Any:
        os.chdir(self.folder)
        if not self.requeues:
            return self.task(config)
        from submitit import JobEnvironment

        announced = JobEnvironment._usr_sig()
        queue_again, idle = signal.getsignal(announced), signal.getsignal(signal.SIGTERM)
        assert callable(queue_again)

        def told(number: int, frame: FrameType | None) -> None:
            if signal.getsignal(signal.SIGTERM) == idle:
                queue_again(number, frame)
            else:  # it is training: SIGTERM has it save and stop
                os.kill(os.getpid(), signal.SIGTERM)

        signal.signal(announced, told)
        try:
            return self.task(config)
        except KeyboardInterrupt:
            queue_again(announced, None)
            raise


class _ExtraLauncher(Launcher):
    """Hands everything to the launcher `real`, whose package `needs` is installed by the extra `extra`."""

    real: ClassVar[str]
    needs, extra, requeues = "submitit", "slurm", True

    def __init__(self, **settings: Any) -> None:
        self.settings = settings

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Make the launcher. Raises ConfigError where its packages are not installed."""
        module, _, name = self.real.rpartition(".")
        try:
            importlib.import_module(self.needs)
            launcher = getattr(importlib.import_module(f"hydra_plugins.{module}"), name)
        except ImportError:
            install = f"python -m pip install 'onecycle[{self.extra}]'"
            raise ConfigError([f"hydra/launcher: {self.needs} is not installed; {install}"]) from None
        # A worker may start in another folder: what the configuration names relative to this one must be found.
        config.hydra.overrides.hydra.append(f"hydra.sweep.dir={Path(str(config.hydra.sweep.dir)).absolute()}")
        self.launcher: Launcher = launcher(**self.settings)
        task = _Task(Path.cwd(), task_function, self.requeues)
        self.launcher.setup(hydra_context=hydra_context, task_function=task, config=config)

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """Run the jobs, as many at once as there is room for. Raises ClusterError where they cannot be handed over."""
        return self.launcher.launch(job_overrides, initial_job_idx)


class RayLauncher(_ExtraLauncher):
    """Runs on the devices of this machine or of a cluster: each run is a task that Ray repeats if its node dies."""

    real, needs, extra, requeues = "hydra_ray_launcher.ray_launcher.RayLauncher", "ray", "ray", False

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:  # noqa: D102
        try:
            return super().launch(job_overrides, initial_job_idx)
        except ConnectionError as error:
            reason = next(iter(str(error).strip().splitlines()), type(error).__name__).rstrip(".")
            raise ClusterError(
                f"hydra.launcher.ray.init.address={self.settings['ray']['init'].get('address')}: no Ray cluster can be "
                "reached there; start one with `ray start --head`, name another, or take hydra/launcher=ray_local "
                f"({reason})"
            ) from error
        except ValueError as error:  # ray.init's
            raise ConfigError([f"hydra.launcher.ray: {reason_of(error)}"]) from error


class SlurmLauncher(_ExtraLauncher):
    """Each run is a task of one SLURM job array; preempted, or out of time, it is queued again and goes on."""

    real = "hydra_submitit_launcher.submitit_launcher.SlurmLauncher"

    def setup(self, **parts: Any) -> None:
        """Make the launcher. Raises ConfigError as above, and on a machine without SLURM's commands."""
        super().setup(**parts)
        missing = [command for command in ("sbatch", "srun") if shutil.which(command) is None]
        if missing:
            remedy = "start it where SLURM is, or take hydra/launcher=slurm_local"
            raise ConfigError([f"hydra/launcher=slurm: this machine has no {' and no '.join(missing)}; {remedy}"])

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:  # noqa: D102
        from submitit.core.utils import FailedJobError

        try:
            return super().launch(job_overrides, initial_job_idx)
        except FailedJobError as error:  # sbatch's
            reason = " ".join(str(error).split())
            raise ClusterError(f"hydra/launcher=slurm: sbatch refuses the runs: {reason}") from error


class SubmititLocalLauncher(_ExtraLauncher):
    """The same without SLURM: every run in a process of this machine."""

    real = "hydra_submitit_launcher.submitit_launcher.LocalLauncher"
