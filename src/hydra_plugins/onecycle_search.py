"""Makes searches known to Hydra: `hydra/sweeper=coordinate`, one hyperparameter after the other, and `tpe`, Optuna."""

from dataclasses import dataclass, field
from typing import Any

from hydra.core.config_store import ConfigStore
from omegaconf import OmegaConf

from hydra_plugins.onecycle_study import StudySweeper
from onecycle.errors import config_errors_shown


class SearchSweeper(StudySweeper):
    """Runs one search; see `onecycle.studies.sweep.run_search`. settings: a block of a study's searches."""

    def __init__(self, seeds: list[int], **settings: Any) -> None:
        self.seeds, self.settings = list(seeds), settings

    def sweep(self, arguments: list[str]) -> Any:
        """Search, with the command line's overrides in every run."""
        assert self.config is not None
        from onecycle.studies.sweep import run_search

        block: dict[str, Any] = {
            name: OmegaConf.to_container(value) if OmegaConf.is_config(value) else value
            for name, value in self.settings.items()
        }
        with config_errors_shown():
            return run_search(self.config, self.launcher, arguments, self.seeds, block)


def _effective() -> list[Any]:
    return [
        {"key": "hyperparameters.effective_decay", "factor": 2.0},
        {"key": "hyperparameters.momentum", "factor": 2.0, "complement": True},
        {"key": "hyperparameters.weight_decay", "factor": 2.0},
    ]


@dataclass
class CoordinateSweeperConf:
    """Double or halve until worse, in the order of `coordinates`; each starts at the configuration's own value.

    coordinates: a list of {key, start, factor, complement, low, high}. budget: points at most. min_gain: by how much a
    step must be better, as a fraction. refinements: how often, where no step is better, the factors become their
    square roots. seeds: each point is run with all of them, and their mean decides.
    """

    _target_: str = "hydra_plugins.onecycle_search.SearchSweeper"
    arm: str = "coordinate search"
    method: str = "coordinate"
    seeds: list[int] = field(default_factory=lambda: [0])
    budget: int = 30
    min_gain: float = 0.0
    refinements: int = 0
    coordinates: list[Any] = field(default_factory=_effective)


@dataclass
class TpeSweeperConf:
    """Optuna, by its tree-structured Parzen estimator or another sampler.

    The axes stand on the command line in Hydra's own words: `schedule.peak_lr=tag(log,interval(0.01,1))`, a number;
    `trainer.max_epochs=range(1,9)`, a whole number; `model.norm=choice(batch,group)`, or `model.norm=batch,group`, one
    of these. sampler, pruner: see `onecycle.studies.search.trials`; their options as Optuna names them. storage: null
    for a file in the sweep's folder, "journal:PATH", or the URL of a database.
    """

    _target_: str = "hydra_plugins.onecycle_search.SearchSweeper"
    arm: str = "optuna"
    method: str = "optuna"
    seeds: list[int] = field(default_factory=lambda: [0])
    budget: int = 30
    sampler: str = "tpe"
    sampler_options: dict[str, Any] = field(default_factory=dict)
    pruner: str = "none"
    pruner_options: dict[str, Any] = field(default_factory=dict)
    storage: str | None = None
    seed: int = 0


for name, node in (("coordinate", CoordinateSweeperConf), ("tpe", TpeSweeperConf)):
    ConfigStore.instance().store(group="hydra/sweeper", name=name, node=node, provider="onecycle")
