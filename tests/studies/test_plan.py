from typing import Any

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser

from onecycle.errors import ConfigError
from onecycle.studies import plan
from onecycle.studies.plan import Changes
from onecycle.studies.study import at_scale

STUDY: dict[str, Any] = {
    "name": "one", "title": "One", "scale": "cpu", "seeds": [0, 1], "fixed": {"batch_size": 64},
    "runs": [
        {"arm": "a, b", "fixed": {"model.norm": "none"}},
        {"arm": "c", "axes": {"schedule.peak_lr": [0.1, 0.2], "data.subset_size": [100, None]}},
    ],
    "scales": {"cpu": None, "tiny": {"seeds": [7], "fixed": {"batch_size": 8, "trainer.max_steps": 2}}},
    "claims": [],
}  # fmt: skip


def search(**changes: Any) -> dict[str, Any]:
    """A block of a study's searches."""
    coordinates = {"hyperparameters.momentum": {"start": 0.5, "complement": True}}
    return {"arm": "ρ", "method": "coordinate", "budget": 5, "coordinates": coordinates, **changes}


def study(**changes: Any) -> dict[str, Any]:
    return {**STUDY, **changes}


def test_a_study_is_the_product_of_its_axes_seed_by_seed() -> None:
    points = plan.points(at_scale(STUDY))
    assert len(points) == 2 * (1 + 4)
    assert [point.values["seed"] for point in points] == [0] * 5 + [1] * 5
    assert points[0].label == "a, b,seed=0"
    assert points[1].label == "c,peak_lr=0.1,subset_size=100,seed=0"
    assert points[2].values == {"arm": "c", "peak_lr": 0.1, "subset_size": None, "seed": 0}
    assert len({point.label for point in points}) == 10


def test_a_run_gets_study_scale_label_fixed_values_and_its_own_in_this_order() -> None:
    point = plan.points(at_scale(STUDY), Changes(common=("data=synthetic",)))[0]
    assert point.overrides == (
        "study=one", "study.scale=cpu", "study.label='a, b,seed=0'", "batch_size=64", "model.norm=none", "seed=0",
        "data=synthetic",
    )  # fmt: skip


def test_a_scale_replaces_seeds_and_runs_and_joins_the_fixed_values() -> None:
    tiny = at_scale(study(scale="tiny"))
    assert (tiny["seeds"], tiny["fixed"]) == ([7], {"batch_size": 8, "trainer.max_steps": 2})
    assert tiny["runs"] == STUDY["runs"]


def test_values_of_an_axis_can_be_changed_or_added() -> None:
    changed = plan.points(at_scale(STUDY), Changes(axes={"seed": [0, 1, 2], "schedule.peak_lr": [0.4]}))
    assert len(changed) == 3 * (1 + 2)
    before = {point.overrides for point in plan.points(at_scale(STUDY))}
    assert sum(point.overrides in before for point in changed) == 2  # the runs without that axis are the same ones


def test_a_point_of_a_search_has_a_run_for_each_seed_and_its_number() -> None:
    block = search(fixed={"hyperparameters": "effective"})
    scaled = at_scale(study(searches=[block]))
    made = plan.search_points(scaled, block, 3, {"hyperparameters.momentum": 0.75}, Changes(common=("data=synthetic",)))
    assert [point.values for point in made] == [
        {"arm": "ρ", "momentum": 0.75, "seed": seed, "number": 3} for seed in (0, 1)
    ]
    assert made[1].overrides == (
        "study=one", "study.scale=cpu", "study.label='ρ,momentum=0.75,seed=1'", "batch_size=64",
        "hyperparameters=effective", "hyperparameters.momentum=0.75", "seed=1", "data=synthetic",
    )  # fmt: skip
    assert len(plan.search_points(scaled, block, 0, {"a": 1.0}, Changes(axes={"seed": [7]}))) == 1


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"scale": "huge"}, "study.scale=huge: unknown; one has cpu, tiny"),
        ({"runs": []}, "study.runs: is empty; name at least one run, or a search, or studies in records_of"),
        ({"seeds": []}, "study.seeds=[]: must be a list of at least one seed"),
        ({"seeds": 3}, "study.seeds=3: must be a list of at least one seed"),
        ({"confirm": [1, 2]}, "study.confirm=[1, 2]: must be a list of seeds that are not in study.seeds"),
        ({"confirm": 3}, "study.confirm=3: must be a list of seeds that are not in study.seeds"),
        ({"runs": [{"axes": {"seed": []}}]}, "study.runs[0].axes.seed=[]: must be a list of at least one value"),
        ({"runs": [{"axis": {}}]}, "study.runs[0].axis: unknown; did you mean axes?"),
        ({"searches": [search(metod="random")]}, "study.searches[0].metod: unknown; did you mean method?"),
        (
            {"searches": [search(method="magic")]},
            "study.searches[0].method=magic: unknown; there are",
        ),
        ({"searches": [search(arm=None)]}, "study.searches[0].arm: is missing; each search has a name"),
        ({"searches": [search(budget=0)]}, "study.searches[0].budget=0: must be a whole number of points, at least 1"),
        ({"searches": [search(coordinates={"a": {"start": 1, "factor": 0}})]}, "study.searches[0].a.factor=0: must be"),
        ({"searches": [search(min_gain="much")]}, "study.searches[0].min_gain=much: must be a number of at least 0"),
        (
            {"searches": [search(refinements=0.5)]},
            "study.searches[0].refinements=0.5: must be a whole number from 0 to",
        ),
        ({"clams": []}, "study.clams: unknown; did you mean claims?"),
        ({"claims": [{"id": "x", "text": "t", "unit": "u", "effect": "magic", "at_least": 1}]}, "claim x: "),
    ],
)
def test_a_study_that_makes_no_sense_is_refused_in_one_line(changes: dict[str, Any], line: str) -> None:
    with pytest.raises(ConfigError) as caught:
        at_scale(study(**changes))
    assert len(caught.value.problems) == 1
    assert caught.value.problems[0].startswith(line)


def test_a_change_of_something_that_is_no_axis_names_the_axes() -> None:
    with pytest.raises(ConfigError) as caught:
        plan.points(at_scale(STUDY), Changes(axes={"model.width": [4, 8]}))
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
    (override,) = OverridesParser.create().parse_overrides([f"key={plan.override_text(value)}"])
    assert override.value() == value
    assert type(override.value()) is type(value)
