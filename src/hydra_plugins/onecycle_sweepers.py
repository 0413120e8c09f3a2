"""Makes studies and searches known to Hydra: `hydra/sweeper=study`, `coordinate` and `tpe`; see `onecycle.studies`.

The options of searches are those of `onecycle.studies.search.options`, and seeds: each point is run with all of them,
and their mean decides. The axes of `tpe` stand on the command line in Hydra's own words:
`schedule.peak_lr=tag(log,interval(0.01,1))`, a number; `trainer.max_epochs=range(1,9)`, a whole number;
`model.norm=choice(batch,group)`, or `model.norm=batch,group`, one of these.
"""

from typing import Any

from hydra.core.config_store import ConfigStore
from hydra.core.plugins import Plugins
from hydra.plugins.launcher import Launcher
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf, flag_override

from onecycle.errors import errors_shown


class StudySweeper(Sweeper):
    """Runs the study of the configuration, or around it one search: options are seeds, and a block of `searches`."""

    def __init__(self, **options: Any) -> None:
        self.options: Any = OmegaConf.to_container(OmegaConf.create(options))

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Keep the configuration, and make the launcher that it names; without a pool where that has one place."""
        self.config = config
        if config.hydra.launcher.get("n_jobs") == 1:
            with flag_override(config, ["struct", "readonly"], False):
                config.hydra.launcher = {"_target_": "hydra._internal.core_plugins.basic_launcher.BasicLauncher"}
        self.launcher: Launcher = Plugins.instance().instantiate_launcher(
            hydra_context=hydra_context, task_function=task_function, config=config
        )

    def sweep(self, arguments: list[str]) -> Any:
        """Run the study, or search, with the command line's overrides in every run."""
        assert self.config is not None
        from onecycle.studies.sweep import run_study

        with errors_shown():
            return run_study(self.config, self.launcher, arguments, self.options)


STUDY = {"_target_": "hydra_plugins.onecycle_sweepers.StudySweeper"}
SEARCH = STUDY | {"seeds": [0], "budget": 30}
COORDINATE = {
    "arm": "coordinate search", "method": "coordinate", "min_gain": 0.0, "refinements": 0,
    # In the order of Page's article; each starts at the configuration's own value.
    "coordinates": [
        {"key": "hyperparameters.effective_decay", "factor": 2.0},
        {"key": "hyperparameters.momentum", "factor": 2.0, "complement": True},
        {"key": "hyperparameters.weight_decay", "factor": 2.0},
    ],
}  # fmt: skip
TPE: dict[str, Any] = {
    "arm": "optuna", "method": "optuna", "sampler": "tpe", "sampler_options": {}, "pruner": "none",
    "pruner_options": {}, "storage": None, "seed": 0,
}  # fmt: skip
for name, node in {"study": STUDY, "coordinate": SEARCH | COORDINATE, "tpe": SEARCH | TPE}.items():
    ConfigStore.instance().store(group="hydra/sweeper", name=name, node=node, provider="onecycle")
