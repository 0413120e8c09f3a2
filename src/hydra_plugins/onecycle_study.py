"""Makes `hydra/sweeper=study` known to Hydra: the runs of a study in place of the product of the command line."""

from dataclasses import dataclass
from typing import Any

from hydra.core.config_store import ConfigStore
from hydra.core.plugins import Plugins
from hydra.plugins.launcher import Launcher
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig

from onecycle.errors import config_errors_shown


class StudySweeper(Sweeper):
    """Runs the study of the configuration; see `onecycle.studies.sweep`."""

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Keep the configuration, and make the launcher that it names."""
        self.config = config
        self.launcher: Launcher = Plugins.instance().instantiate_launcher(
            hydra_context=hydra_context, task_function=task_function, config=config
        )

    def sweep(self, arguments: list[str]) -> Any:
        """Run the study, with the command line's overrides."""
        assert self.config is not None
        from onecycle.studies.sweep import run_study

        with config_errors_shown():
            return run_study(self.config, self.launcher, arguments)


@dataclass
class StudySweeperConf:
    """The sweeper takes no options: everything about a study stands in conf/study."""

    _target_: str = "hydra_plugins.onecycle_study.StudySweeper"


ConfigStore.instance().store(group="hydra/sweeper", name="study", node=StudySweeperConf, provider="onecycle")
