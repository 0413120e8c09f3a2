from typing import Any

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser

from onecycle.faults import ConfigError
from onecycle.studies import plan
from onecycle.studies.plan import Changes

STUDY: dict[str, Any] = {
    "name": "one", "title": "One", "scale": "cpu", "seeds": [0, 1], "fixed": {"batch_size": 64},
    "runs": [
        {"arm": "a, b", "fixed": {"model.norm": "none"}},
        {"arm": "c", "axes": {"schedule.peak_lr": [0.1, 0.2], "data.subset_size": [100, None]}},
    ],
    "scales": {"cpu": None, "tiny": {"seeds": [7], "fixed": {"batch_size": 8, "trainer.max_steps": 2}}},
    "claims": [],
}  # fmt: skip


def study(**changes: Any) -> dict[str, Any]:
    return {**STUDY, **changes}


def test_a_study_is_the_product_of_its_axes_seed_by_seed() -> None:
    points = plan.points(plan.at_scale(STUDY))
    assert len(points) == 2 * (1 + 4)
    assert [point.values["seed"] for point in points] == [0] * 5 + [1] * 5
    assert points[0].label == "a, b,seed=0"
    assert points[1].label == "c,peak_lr=0.1,subset_size=100,seed=0"
    assert points[2].values == {"arm": "c", "peak_lr": 0.1, "subset_size": None, "seed": 0}
    assert len({point.label for point in points}) == 10


def test_a_run_gets_study_scale_label_fixed_values_and_its_own_in_this_order() -> None:
    point = plan.points(plan.at_scale(STUDY), Changes(common=("data=synthetic",)))[0]
    assert point.overrides == (
        "study=one", "study.scale=cpu", "study.label='a, b,seed=0'", "batch_size=64", "model.norm=none", "seed=0",
        "data=synthetic",
    )  # fmt: skip


def test_a_scale_replaces_seeds_and_runs_and_joins_the_fixed_values() -> None:
    tiny = plan.at_scale(study(scale="tiny"))
    assert (tiny["seeds"], tiny["fixed"]) == ([7], {"batch_size": 8, "trainer.max_steps": 2})
    assert tiny["runs"] == STUDY["runs"]


def test_values_of_an_axis_can_be_changed_or_added() -> None:
    changed = plan.points(plan.at_scale(STUDY), Changes(axes={"seed": [0, 1, 2], "schedule.peak_lr": [0.4]}))
    assert len(changed) == 3 * (1 + 2)
    before = {point.overrides for point in plan.points(plan.at_scale(STUDY))}
    assert sum(point.overrides in before for point in changed) == 2  # the runs without that axis are the same ones


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"scale": "huge"}, "study.scale=huge: unknown; one has cpu, tiny"),
        ({"runs": []}, "study.runs: is empty; name at least one run, or studies in records_of"),
        ({"seeds": []}, "study.seeds=[]: must be a list of at least one seed"),
        ({"seeds": 3}, "study.seeds=3: must be a list of at least one seed"),
        ({"runs": [{"axes": {"seed": []}}]}, "study.runs[0].axes.seed=[]: must be a list of at least one value"),
        ({"runs": [{"axis": {}}]}, "study.runs[0].axis: unknown; did you mean axes?"),
        ({"clams": []}, "study.clams: unknown; did you mean claims?"),
        ({"claims": [{"id": "x", "text": "t", "unit": "u", "effect": "magic", "at_least": 1}]}, "claim x: "),
    ],
)
def test_a_study_that_makes_no_sense_is_refused_in_one_line(changes: dict[str, Any], line: str) -> None:
    with pytest.raises(ConfigError) as caught:
        plan.at_scale(study(**changes))
    assert len(caught.value.problems) == 1
    assert caught.value.problems[0].startswith(line)


def test_a_change_of_something_that_is_no_axis_names_the_axes() -> None:
    with pytest.raises(ConfigError) as caught:
        plan.points(plan.at_scale(STUDY), Changes(axes={"model.width": [4, 8]}))
    assert caught.value.problems == [
        "model.width: is no axis of one, which has data.subset_size, schedule.peak_lr, seed"
    ]


@pytest.mark.parametrize(
    "value",
    [
        1, 0.05, 2e-4, 1e-7, None, True, "relu", "a, b", "4λ, α/4, 2w", "it's", "", "null", "1", [1, "x, y"],
        {"a": 1.5, "b": [None]},
    ],
)  # fmt: skip
def test_a_value_comes_back_from_hydras_syntax_as_it_was(value: Any) -> None:
    (override,) = OverridesParser.create().parse_overrides([f"key={plan.text(value)}"])
    assert override.value() == value
    assert type(override.value()) is type(value)
