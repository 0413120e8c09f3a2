from typing import Any

import pytest
from pydantic import TypeAdapter, ValidationError

from onecycle.training.options import OPTIMIZERS, EmaOptions, Sides

SGD, MUON = OPTIMIZERS["torch.optim.SGD"], OPTIMIZERS["onecycle.training.muon.Muon"]


@pytest.mark.parametrize(
    ("kind", "options", "wrong"),
    [
        (SGD, {"nesterov": True, "fused": True}, {"nesterov": 1, "fused": "yes"}),
        (MUON, {"iterations": 3}, {"iterations": 0, "momentum": 0.9}),
        (MUON, {"iterations": 100}, {"iterations": 101}),
        (MUON, {"iterations": 1}, {"iterations": 3.0}),
        (EmaOptions, {"decay": 0, "every_n_steps": 1}, {"decay": 1.0, "every_n_steps": 0}),
    ],
)
def test_options_have_types_and_ranges(kind: Any, options: dict[str, Any], wrong: dict[str, Any]) -> None:
    kind(**options)
    for name, value in wrong.items():
        with pytest.raises(ValidationError) as refusal:
            kind(**(options | {name: value}))
        assert [error["loc"] for error in refusal.value.errors()] == [(name,)]


def test_sides_start_at_zero_and_rise_in_progress() -> None:
    check = TypeAdapter(Sides).validate_python
    assert check([[0, 20], [0.5, 26], [0.75, 512]]) == [[0, 20], [0.5, 26], [0.75, 512]]
    for sides in (
        [], "20", [20], [[0.1, 20]], [[0, 20], [0, 26]], [[0, 20], [1.0, 26]], [[0, 20], [0.5, 24], [0.4, 26]],
        [[0, 11]], [[0, 513]], [[0, 20.0]], [[0, True]], [[0, 20, 1]], [[0]],
    ):  # fmt: skip
        with pytest.raises(ValidationError):
            check(sides)
