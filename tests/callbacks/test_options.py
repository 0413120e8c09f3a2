from typing import Any

import pytest
from pydantic import ValidationError

from onecycle.callbacks.options import CALLBACKS

VALID: dict[str, dict[str, Any]] = {
    "progress.Progress": {"refresh_per_second": 4},
    "checkpoint.Checkpoint": {"every_n_minutes": 5, "every_n_steps": None},
    "divergence.Divergence": {"max_loss": 25.0, "every_n_steps": 10},
    "figures.Figures": {"mistakes": 25},
    "probes.FinalLoss": {"images": 100, "test_images": 0},
    "probes.Recency": {"average": 4},
    "probes.GradientNorms": {"at": [0, 0.5, 1.0], "every_n_steps": None},
    "probes.StepBreakdown": {"steps": 3},
    "surface.LossSurface": {"images": 64, "points": 3, "extent": 1, "seed": 0},
    "twin.Twin": {"lr": 4, "weight_decay": 0, "weight_scale": 2.0},
}
NO_COUNT, NO_NUMBER = [0, -1, 1.5, True, "many"], [0, -1.0, float("nan"), float("inf"), True, "much"]
REFUSED: dict[str, list[Any]] = {
    "progress.Progress.refresh_per_second": NO_NUMBER,
    "checkpoint.Checkpoint.every_n_minutes": [None, *NO_NUMBER],
    "checkpoint.Checkpoint.every_n_steps": NO_COUNT,
    "divergence.Divergence.max_loss": NO_NUMBER,
    "figures.Figures.mistakes": NO_COUNT,
    "probes.FinalLoss.test_images": [-1, 1.5],
    "probes.GradientNorms.every_n_steps": NO_COUNT,
    "probes.GradientNorms.at": [[], 0.5, [0.5, 1.5], [0.5, 0.5], [0.5, 0.5 + 1e-9]],
    "surface.LossSurface.points": [1, 2, 4, 3.0],
    "surface.LossSurface.seed": [-1, 0.5, 2**63],
    "twin.Twin.weight_decay": NO_NUMBER[1:],
}


@pytest.mark.parametrize("name", VALID)
def test_the_options_are_the_arguments_of_the_class_and_stay_as_they_were_written(name: str) -> None:
    module, _, cls = f"onecycle.callbacks.{name}".rpartition(".")
    options = vars(CALLBACKS[f"{module}.{cls}"](**VALID[name]))
    assert [(key, value, type(value)) for key, value in options.items()] == [
        (key, value, type(value)) for key, value in VALID[name].items()
    ]
    getattr(__import__(module, fromlist=[cls]), cls)(**VALID[name])


@pytest.mark.parametrize("key", REFUSED)
def test_values_out_of_range_and_unknown_keys_are_refused(key: str) -> None:
    name, _, option = key.rpartition(".")
    for changes in [{option: value} for value in REFUSED[key]] + [{"other": 1}]:
        with pytest.raises(ValidationError) as caught:
            CALLBACKS[f"onecycle.callbacks.{name}"](**VALID[name] | changes)
        assert {error["loc"][0] for error in caught.value.errors()} == set(changes)
