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

from onecycle.errors import ClusterError, ConfigError


class _In:
    """A task that is run in the folder from which it was launched."""

    def __init__(self, folder: Path, task: TaskFunction) -> None:
        self.folder, self.task = folder, task

    def __call__(self, config: DictConfig) -> Any:
        os.chdir(self.folder)
        return self.task(config)


class _Requeued(_In):
    """The same under submitit, which on a signal queues the task again: only behind a checkpoint, where it is training.

    SLURM announces a preemption by SIGTERM, and the end of a task's time by SIGUSR2.
    """

    def __call__(self, config: DictConfig) -> Any:
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
            return super().__call__(config)
        except KeyboardInterrupt:
            queue_again(announced, None)
            raise


class _ExtraLauncher(Launcher):
    """Hands everything to the launcher `real`, whose `needs` are installed by the extra `extra`."""

    real: ClassVar[tuple[str, str]]
    needs: ClassVar[str]
    extra: ClassVar[str]
    task: ClassVar[type[_In]]

    def __init__(self, **settings: Any) -> None:
        self.settings = settings

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Make the launcher. Raises ConfigError where its packages are not installed."""
        module, name = self.real
        try:
            importlib.import_module(self.needs)
            launcher = getattr(importlib.import_module(module), name)
        except ImportError:
            raise ConfigError(
                [f"hydra/launcher: {self.needs} is not installed; python -m pip install 'onecycle[{self.extra}]'"]
            ) from None
        # A worker may start in another folder: what the configuration names relative to this one must be found.
        here = f"hydra.sweep.dir={Path(str(config.hydra.sweep.dir)).absolute()}"
        config.hydra.overrides.hydra.append(here)
        self.launcher: Launcher = launcher(**self.settings)
        self.launcher.setup(
            hydra_context=hydra_context, task_function=self.task(Path.cwd(), task_function), config=config
        )

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """Run the jobs, as many at once as there is room for."""
        return self.launcher.launch(job_overrides, initial_job_idx)


class RayLauncher(_ExtraLauncher):
    """Runs on the devices of this machine or of a cluster: each run is a task that Ray repeats if its node dies."""

    real = ("hydra_plugins.hydra_ray_launcher.ray_launcher", "RayLauncher")
    needs, extra, task = "ray", "ray", _In

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """Run the jobs. Raises ClusterError where there is no cluster at the address."""
        try:
            return super().launch(job_overrides, initial_job_idx)
        except ConnectionError as error:
            address = self.settings["ray"]["init"].get("address")
            raise ClusterError(
                f"hydra.launcher.ray.init.address={address}: no Ray cluster can be reached there; start one with "
                f"`ray start --head`, name another, or take hydra/launcher=ray_local ({_line(error)})"
            ) from error


def _line(error: Exception) -> str:
    """The first line of what an error says, without a full stop."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__).rstrip(".")


class SlurmLauncher(_ExtraLauncher):
    """Each run is a task of one SLURM job array; preempted, or out of time, it is queued again and goes on."""

    real = ("hydra_plugins.hydra_submitit_launcher.submitit_launcher", "SlurmLauncher")
    needs, extra, task = "submitit", "slurm", _Requeued

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Make the launcher. Raises ConfigError as above, and on a machine without SLURM's commands."""
        super().setup(hydra_context=hydra_context, task_function=task_function, config=config)
        missing = [command for command in ("sbatch", "srun") if shutil.which(command) is None]
        if missing:
            raise ConfigError(
                [f"hydra/launcher=slurm: this machine has no {' and no '.join(missing)}; start it where SLURM is, or "
                 "take hydra/launcher=slurm_local"]
            )  # fmt: skip

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """Run the jobs. Raises ClusterError where sbatch refuses them."""
        from submitit.core.utils import FailedJobError

        try:
            return super().launch(job_overrides, initial_job_idx)
        except FailedJobError as error:
            said = " ".join(str(error).split())
            raise ClusterError(f"hydra/launcher=slurm: sbatch refuses the runs: {said}") from error


class SubmititLocalLauncher(_ExtraLauncher):
    """The same without SLURM: every run in a process of this machine."""

    real = ("hydra_plugins.hydra_submitit_launcher.submitit_launcher", "LocalLauncher")
    needs, extra, task = "submitit", "slurm", _Requeued
