from collections.abc import Callable

import lightning.pytorch as pl
import pytest
import torch

from foreign import Crash, CrashError
from onecycle.callbacks.twin import Twin

Fit = Callable[..., pl.Trainer]

EXACT = {"lr": 4.0, "weight_decay": 0.25, "weight_scale": 2.0}
# All that the copy must follow: cycles of LR and momentum, label smoothing, factors of the other groups.
RECIPE = (
    "schedule=one_cycle_momentum", "label_smoothing=0.1", "hyperparameters.weight_decay=0.05",
    "hyperparameters.groups.bias.lr=4", "hyperparameters.groups.head.weight_decay=0.5",
)  # fmt: skip


@pytest.mark.parametrize(("precision", "largest"), [("64-true", 1e-10), ("32-true", 0.0), ("bf16-mixed", 0.0)])
def test_the_exact_factors_leave_no_deviation(precision: str, largest: float, fit: Fit) -> None:
    twin = Twin(**EXACT)
    fit(twin, overrides=(*RECIPE, "model.norm_eps=1e-14"), number_format=precision)
    assert len(twin.measures["twin_deviation"]) == 10
    assert twin.measures["twin_deviation_max"] <= largest
    assert twin.measures["twin_loss_gap"] <= largest


@pytest.mark.parametrize(
    "wrong", [{"weight_decay": 1.0}, {"lr": 1.0, "weight_decay": 1.0}, {"lr": 4.0, "weight_scale": 4.0}]
)
def test_other_factors_deviate_more_with_every_step(wrong: dict[str, float], fit: Fit) -> None:
    twin = Twin(**(EXACT | wrong))
    fit(twin, overrides=(*RECIPE, "schedule.peak_lr=0.1"))
    deviations = twin.measures["twin_deviation"]
    assert twin.measures["twin_deviation_max"] == max(deviations) > 0.02
    assert twin.measures["twin_deviation_last"] == deviations[-1] > deviations[0]
    assert twin.measures["twin_loss_gap"] > 1e-4


def test_the_first_deviation_of_too_large_a_weight_decay_is_that_of_the_formula(fit: Fit) -> None:
    twin = Twin(lr=4.0, weight_decay=1.0, weight_scale=2.0)
    fit(twin, overrides=("schedule=constant", "schedule.peak_lr=0.01", "hyperparameters.weight_decay=0.05"))
    # Nesterov's first step is λ(1 + ρ)(g + αw). Decay moves 2w by 4λ(1 + ρ)·2αw in place of 2λ(1 + ρ)αw.
    assert twin.measures["twin_deviation"][0] == pytest.approx(6 * 0.01 * 1.9 * 0.05 / 2, rel=0.02)


def test_a_resumed_run_continues_the_twin_to_the_bit(fit: Fit) -> None:
    wrong = EXACT | {"weight_decay": 1.0}
    whole, broken, resumed = Twin(**wrong), Twin(**wrong), Twin(**wrong)
    fit(whole, overrides=RECIPE)
    with pytest.raises(CrashError):
        fit(broken, Crash(7), overrides=RECIPE, folder="run")
    fit(resumed, overrides=RECIPE, folder="run")
    assert resumed.measures == whole.measures
    first, second = (twin.state_dict()["network"] for twin in (whole, resumed))
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_clipped_gradients_are_refused(fit: Fit) -> None:
    with pytest.raises(ValueError, match=r"trainer\.gradient_clip_val=0\.5"):
        fit(Twin(**EXACT), overrides=("trainer.gradient_clip_val=0.5",))
