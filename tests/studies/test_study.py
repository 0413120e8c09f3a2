from typing import Any

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser

from helpers import composed_of
from onecycle.errors import ConfigError
from onecycle.runs.identity import settings
from onecycle.studies import plan
from onecycle.studies.plan import Changes, read_changes, refuse_values
from onecycle.studies.study import at_scale, of_search

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


def test_a_run_of_a_search_alone_is_named_by_what_varies_and_known_without_its_pruner() -> None:
    block = search()
    values: dict[str, Any] = {"hyperparameters.momentum": 0.75, "+callbacks.pruning": {"storage": "x", "trial": 3}}
    (point,) = plan.search_points(of_search("mine", [0], block), block, 3, values, Changes(common=("batch_size=8",)))
    assert point.overrides[0] == "+study.label='momentum=0.75,seed=0'"
    assert settings(point.overrides) == ("hyperparameters.momentum=0.75", "seed=0", "batch_size=8")


CLAIM: dict[str, Any] = {
    "id": "x", "text": "t", "effect": "difference", "metric": "test_accuracy", "of": {"arm": "a"}, "at_least": 1.0,
    "unit": "points", "against": [{"arm": "b"}, {"arm": "c"}],
}  # fmt: skip
BLOW_UP: dict[str, Any] = {
    "id": "y", "text": "", "unit": "", "effect": "blow_up_spread", "x": "lr", "y": "loss", "by": "n", "level": 2,
    "at_most": 1,
}  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "starts"),
    [
        ({"scale": "huge"}, "scale=huge"), ({"runs": []}, "runs"), ({"seeds": []}, "seeds=[]"),
        ({"starts": [{}]}, "starts: has 1; must"), ({"at_once": 0}, "at_once=0"),
        ({"seeds": [0, "a"]}, "seeds"), ({"confirm": [1, 2]}, "confirm=[1, 2]"), ({"confirm": 3}, "confirm=3"),
        ({"runs": [{"axes": {"seed": []}}]}, "runs[0].axes.seed=[]"), ({"runs": [{"axis": {}}]}, "runs[0].axis"),
        ({"runs": [{"axes": {"a": 1}}]}, "runs[0].axes.a=1"), ({"clams": []}, "clams=[]"),
        ({"derive": "magic"}, "derive=magic"),
        ({"searches": [search(metod="random")]}, "searches[0].metod"),
        ({"searches": [search(method="magic")]}, "searches[0].method=magic"),
        ({"searches": [search(arm=None)]}, "searches[0].arm"),
        ({"searches": [search(budget=0)]}, "searches[0].budget=0"),
        ({"searches": [search(coordinates={"a": {"start": 1, "factor": 0}})]}, "searches[0].coordinates.a.factor=0"),
        ({"scales": {"cpu": {"sedes": [1]}}}, "scales.cpu.sedes=[1]"),
        ({"scales": {"cpu": None, "tiny": {"runs": [{"axes": {"lr": []}}]}}}, "scales.tiny.runs[0].axes.lr=[]"),
        ({"figures": [{"x": "lr"}]}, "figures[0].kind"),
        ({"published": {"metric": "a", "source": "b", "rows": [{"text": "c"}]}}, "published.rows[0].value"),
        ({"claims": [CLAIM | {"effect": "differnce"}]}, "claims[0].effect=differnce"),
        ({"claims": [{**BLOW_UP, "at_most": None}]}, "claims[0]"),
        ({"claims": [CLAIM | {"at_most": 0.5}]}, "claims[0]"),
        ({"claims": [CLAIM | {"assumed_sd": -1}]}, "claims[0].assumed_sd=-1"),
        ({"claims": [CLAIM | {"by": "n"}]}, "claims[0].by=n"),
        ({"claims": [CLAIM | {"of": {"arm": []}}]}, "claims[0].of"),
        ({"claims": [CLAIM | {"against": []}]}, "claims[0].against=[]"),
        ({"claims": [{key: value for key, value in CLAIM.items() if key != "metric"}]}, "claims[0].metric"),
        ({"claims": [CLAIM, BLOW_UP | {"level": True}]}, "claims[1].level=true"),
    ],
)  # fmt: skip
def test_an_error_of_a_study_is_a_line_with_its_key_and_value(changes: dict[str, Any], starts: str) -> None:
    with pytest.raises(ConfigError) as caught:
        at_scale(study(**changes))
    assert all(line.startswith(f"study.{starts}") for line in caught.value.problems), caught.value.problems


def test_every_error_of_a_study_is_named_at_once_and_what_was_meant() -> None:
    with pytest.raises(ConfigError) as caught:
        at_scale(study(seeds=[], clams=[], runs=[{"axis": {}}], claims=[CLAIM | {"beter": "lower"}, {}]))
    lines = caught.value.problems
    places = ["study.seeds", "study.clams", "study.runs[0].axis", "study.claims[0].beter", "study.claims[1].effect"]
    assert [next(line for line in lines if line.startswith(place)) for place in places] == lines
    assert "claims?" in lines[1]
    assert "axes?" in lines[2]
    assert "better?" in lines[3]


def test_a_change_of_something_that_is_no_axis_names_the_axes() -> None:
    with pytest.raises(ConfigError) as caught:
        plan.points(at_scale(STUDY), Changes(axes={"model.width": [4, 8]}))
    (line,) = caught.value.problems
    assert line.startswith("model.width: ")
    assert "data.subset_size, schedule.peak_lr, seed" in line


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


CHANGED: dict[str, Any] = {"runs": [{"axes": {"schedule.peak_lr": [0.1], "data.subset_size": [None]}}]}


def test_axes_and_overrides_of_every_run_are_told_apart() -> None:
    words = ["study=one", "study.scale=tiny", "seed=0,1", "data.subset_size=null", "model=resnet9", "hydra.sweep.dir=x"]
    assert read_changes(words, CHANGED) == Changes({"seed": [0, 1], "data.subset_size": [None]}, ("model=resnet9",))


def test_a_value_that_every_run_would_refuse_is_refused_by_the_rules_of_the_configuration(drawn: list[str]) -> None:
    config = composed_of(*drawn)
    with pytest.raises(ConfigError) as caught:
        refuse_values({"seed": [0, "a"], "schedule.peak_lr": [0.1, -1], "data": ["synthetic"]}, config)
    assert [line.split(":")[0] for line in caught.value.problems] == ["seed=a", "schedule.peak_lr=-1"]
    refuse_values({"data.subset_size": [None, 100], "hyperparameters.effective_decay": [-1]}, config)  # another group's
    assert config.seed == 0  # nothing has changed in it
