"""What makes two runs the same run."""

import hashlib
import json
from pathlib import Path
from typing import Any, Literal

import pytest
from omegaconf import OmegaConf
from pydantic import Field

from helpers import composed_of
from onecycle.config import schema
from onecycle.config.schema import NO_EFFECT, TrainOptions
from onecycle.config.validate import flat, validated
from onecycle.models.options import ResNet9Options
from onecycle.runs.identity import comparable, folder_name, identity, identity_of_version_1, settings, short_name

KEY = {"name": "cifar10"}


def configured(*overrides: str) -> TrainOptions:
    return validated(composed_of("trainer.precision=32-true", *overrides))


def test_the_identity_depends_on_what_can_change_a_result_and_on_nothing_else() -> None:
    composed = composed_of("trainer.precision=32-true")
    OmegaConf.set_struct(composed, False)

    def with_word(word: str) -> str:
        config = composed.copy()
        config.merge_with_dotlist([word.lstrip("+")])
        return identity(validated(config), KEY)

    base = identity(configured(), KEY)
    for same in (
        "seed=0", "name=other", "output=elsewhere", "data.root=x", "trainer.threads=3", "callbacks.figures=null",
        "evaluation.every_n_epochs=0", "logger=null", "trainer.log_every_n_steps=7",
        "callbacks.checkpoint.every_n_steps=5", "+trainer.sync_batchnorm=false",
    ):  # fmt: skip
        assert with_word(same) == base, same
    others = [
        "seed=1", "schedule.peak_lr=0.2", "model.width=8", "data.subset_size=5000", "trainer.max_epochs=3",
        "trainer.precision=bf16-mixed", "data.augment.crop=2",
        "ema={decay_per_step: 0.9, every_n_steps: 2}",
        "callbacks.divergence.max_loss=3", "hyperparameters.groups.bias.lr=64", "+trainer.sync_batchnorm=true",
    ]  # fmt: skip
    different = {identity(configured(), {"name": "cifar100"}), identity(configured("optimizer=muon"), KEY)}
    different |= {with_word(other) for other in others}
    assert len(different | {base}) == 14


def test_every_key_without_effect_is_a_key(tmp_path: Path) -> None:
    config = configured("data=cifar10", "study=one_cycle")
    known = flat(config.model_dump())
    for key in NO_EFFECT:
        found = any(name == key or name.startswith(f"{key}.") for name in known)
        assert found or key in ("resume", "callbacks.pruning"), key


def test_a_new_option_at_its_default_leaves_every_finished_run_found(monkeypatch: pytest.MonkeyPatch) -> None:
    before, width = identity(configured(), KEY), identity(configured("model.width=8"), KEY)

    class WithMore(ResNet9Options):
        squeeze: Literal["none", "channel"] = Field("none", description="an option that is new")

    target = "onecycle.models.resnet9.ResNet9"
    monkeypatch.setitem(schema.COMPONENTS, "model", {target: WithMore})
    assert identity(configured(), KEY) == before  # a configuration that was written before the option existed
    assert identity(configured("+model.squeeze=none"), KEY) == before
    assert identity(configured("+model.squeeze=none", "model.width=8"), KEY) == width
    assert identity(configured("+model.squeeze=channel"), KEY) != before


def test_version_1_hashed_every_key_with_the_paths_that_its_classes_had() -> None:
    config = configured("experiment=debug")
    values = flat(config.model_dump(exclude_unset=True))
    assert values["schedule._target_"] == "onecycle.training.schedule.OneCycle"
    # As that version computed it, from a configuration with its own paths.
    values |= {"schedule._target_": "onecycle.schedule.OneCycle"}
    assert values.pop("task._target_") == "onecycle.training.tasks.Classification"  # it knew no other
    assert values.pop("init_from") is None  # and no run that started from another
    kept = {k: v for k, v in values.items() if not any(k == n or k.startswith(f"{n}.") for n in NO_EFFECT)}
    expected = hashlib.sha256(json.dumps([kept, KEY], sort_keys=True).encode()).hexdigest()[:12]
    assert identity_of_version_1(config, KEY) == expected


def test_what_a_resumed_run_must_agree_in_names_the_data_set() -> None:
    entries = comparable(configured(), {"name": "cifar10", "files": {"a": 1}})
    assert entries["data set: name"] == "cifar10"
    assert entries["data set: files.a"] == 1
    assert entries["schedule.peak_lr"] == 0.4
    assert "output" not in entries


@pytest.mark.parametrize(
    ("overrides", "name"),
    [
        (["schedule.peak_lr=0.1", "seed=0"], "peak_lr=0.1,seed=0"), (["experiment=debug", "output=x"], "run"),
        (["+model.x=[1,2]"], "x=_1,2_"), (["data.root=/a/b", "seed=3"], "seed=3"),
    ],
)  # fmt: skip
def test_the_folder_of_a_sweeps_run_is_named_by_what_was_changed(overrides: list[str], name: str) -> None:
    assert short_name(overrides) == name
    assert settings(overrides) == tuple(o for o in overrides if not o.startswith(("output", "data.root")))


@pytest.mark.parametrize("text", ["a/b", "x" * 300, "ä b", "$(id)"])
def test_any_text_becomes_a_name_that_a_shell_takes_as_it_is(text: str) -> None:
    made: Any = folder_name(text)
    assert 0 < len(made) <= 100
    assert not set(made) & set("/ $()`'\"\\")
