import math
from typing import Any, get_args

import pytest
import yaml

from onecycle.callbacks.optuna_storage import PRUNERS, SAMPLERS
from onecycle.config.compose import CONF
from onecycle.errors import ConfigError
from onecycle.studies.search import trials
from onecycle.studies.search.options import METHODS, Coordinate, CoordinateSearch, OptunaSearch
from onecycle.studies.study import block_errors

BLOCKS: dict[str, dict[str, Any]] = {
    "coordinate": {"coordinates": {"a": {"start": 1.0}}}, "optuna": {"space": {"a": {"low": 1, "high": 2}}},
}  # fmt: skip


def test_the_searches_of_the_studies_are_valid_and_keep_their_order() -> None:
    blocks = yaml.safe_load((CONF / "study/tuning_path.yaml").read_text())["study"]["searches"]
    first, *_ = [METHODS[block["method"]].model_validate(block) for block in blocks]
    assert isinstance(first, CoordinateSearch)
    assert next(iter(first.coordinates)) == "hyperparameters.effective_decay"
    assert first.coordinates["hyperparameters.momentum"] == Coordinate(start=0.5, factor=2, complement=True)


@pytest.mark.parametrize(
    ("method", "changes", "start"),
    [
        ("coordinate", {"coordinates": {"a": {"start": 1.0, "factor": 0}}}, "coordinates.a.factor=0: "),
        ("coordinate", {"coordinates": {"a": {"start": 0}}}, "coordinates.a: start=0 "),
        ("coordinate", {"coordinates": {"a": {"start": 2, "complement": True}}}, "coordinates.a: start=2 "),
        ("coordinate", {"coordinates": {"a": {"start": 2, "high": 1}}}, "coordinates.a: start=2 "),
        ("coordinate", {"coordinates": {"a": {"start": 1.0, "step": 2}}}, "coordinates.a.step"),
        ("coordinate", {"coordinates": {"a": {"start": 1.0, "high": math.nan}}}, "coordinates.a.high=nan: "),
        ("coordinate", {"refinements": 9}, "refinements=9: "),
        ("coordinate", {"budget": 0}, "budget=0: "),
        ("coordinate", {"bugdet": 3}, "bugdet=3: did you mean budget?"),
        ("optuna", {"space": {"a": {"low": 2, "high": 1}}}, "space.a: low=2 "),
        ("optuna", {"space": {}}, "space: "),
        ("optuna", {"space": {"a": {"low": 0.0, "high": 0.1, "log": True}}}, "space.a: low=0.0 "),
        ("optuna", {"space": {"a": {"low": 0.1}}}, "space.a: must have low and high"),
        ("optuna", {"space": {"a": {"low": 0.5, "high": 2, "integer": True}}}, "space.a: low, high and step"),
        ("optuna", {"space": {"a": {"low": 1, "choices": [1]}}}, "space.a: choices"),
        ("optuna", {"sampler": "magic"}, "sampler=magic: "),
        ("optuna", {"pruner": "magic"}, "pruner=magic: "),
        ("magic", {}, "method=magic: "),
    ],
)
def test_an_error_in_a_search_is_one_line_with_its_key_and_value(method: str, changes: Any, start: str) -> None:
    block = {"arm": "a", "method": method, "budget": 3, **BLOCKS.get(method, {})}
    (line,) = block_errors("searches", {**block, **changes}, "searches[0]")
    key, _, words = start.partition(": ")
    assert line.startswith(f"searches[0].{key}")
    assert words in line
    assert "\n" not in line


def test_samplers_and_pruners_have_their_classes() -> None:
    found = [get_args(OptunaSearch.model_fields[name].annotation) for name in ("sampler", "pruner")]
    assert found == [tuple(SAMPLERS), tuple(PRUNERS)]


@pytest.mark.parametrize(
    ("changes", "start"),
    [({"sampler_options": {"magic": 1}}, "sampler=tpe: "), ({"pruner": "percentile"}, "pruner=percentile: ")],
)
def test_what_only_optuna_can_tell_is_one_line_too(changes: dict[str, Any], start: str) -> None:
    block = {"arm": "a", "method": "optuna", "budget": 3, **BLOCKS["optuna"], **changes}
    with pytest.raises(ConfigError) as caught:
        trials.check_optuna(OptunaSearch.model_validate(block))
    assert [line.startswith(start) for line in caught.value.problems] == [True]
