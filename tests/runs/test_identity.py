import copy
from pathlib import Path
from typing import Any

import pytest
from hydra import compose, initialize_config_dir

from onecycle.config import checks as config
from onecycle.runs.identity import NEUTRAL_KEYS, folder_name, identity, short_name

CONF = Path(__file__).parents[2] / "conf"
DATA_KEY = {"name": "cifar10"}

config.register_resolvers()


def composed(*overrides: str) -> dict[str, Any]:
    with initialize_config_dir(version_base="1.3", config_dir=str(CONF)):
        return config.plain(compose("train", overrides=list(overrides)))


@pytest.fixture(scope="module")
def base() -> dict[str, Any]:
    return composed()


def changed(base: dict[str, Any], key: str, value: Any) -> dict[str, Any]:
    result = copy.deepcopy(base)
    node = result
    *parents, last = key.split(".")
    for name in parents:
        node = node.setdefault(name, {})
    assert node.get(last) != value
    node[last] = value
    return result


@pytest.mark.parametrize("key", NEUTRAL_KEYS)
def test_what_cannot_change_a_result_does_not_change_the_identity(key: str, base: dict[str, Any]) -> None:
    for value in ("elsewhere", None, {"_target_": "another", "with": {"keys": 1}}):
        other = copy.deepcopy(base) if value is None else changed(base, key, value)
        if value is None:
            other = changed(changed(base, key, "set"), key, None)
        assert identity(other, DATA_KEY) == identity(base, DATA_KEY)


def test_a_run_is_the_same_on_another_machine_in_other_folders_and_shown_otherwise(base: dict[str, Any]) -> None:
    other = composed(
        "name=other", "output=/tmp/x", "resume=logs/runs/x", "data.root=/data", "data.cache=/tmp/cache",
        "data.fallback=synthetic", "data.source.download=false", "logger=csv", "callbacks.progress=null",
        "callbacks.training_log=null", "callbacks.figures=null", "callbacks.checkpoint.every_n_minutes=1",
        "evaluation.batch_size=10", "evaluation.every_n_epochs=0", "trainer.accelerator=gpu",
        "trainer.threads=3", "trainer.log_every_n_steps=1",
        "trainer.benchmark=false", "trainer.deterministic=true", "trainer.detect_anomaly=true",
    )  # fmt: skip
    assert identity(other, DATA_KEY) == identity(base, DATA_KEY)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("seed", 1),
        ("batch_size", 128),
        ("label_smoothing", 0.2),
        ("resizing", [[0, 24], [0.5, 32]]),
        ("ema", {"decay": 0.99, "every_n_steps": 5}),
        ("schedule.peak_lr", 0.3),
        ("schedule._target_", "onecycle.training.schedule.Constant"),
        ("hyperparameters.momentum", 0.85),
        ("hyperparameters.groups.bias.lr", 32.0),
        ("trainer.devices", 2),
        ("optimizer.nesterov", False),
        ("model.width", 32),
        ("model.residual", []),
        ("model.residual", [1, 2]),
        ("data.subset_size", 5000),
        ("data.subset_seed", 1),
        ("data.val_size", 500),
        ("data.classes", ["cat", "dog"]),
        ("data.augment.flip", "none"),
        ("data.source.name", "cifar100"),
        ("evaluation.tta", "none"),
        ("trainer.precision", "32-true"),
        ("trainer.max_epochs", 7),
        ("trainer.gradient_clip_val", 1.0),
        ("trainer.compile", True),
        ("callbacks.divergence.max_loss", 9.0),
        ("a_key_of_tomorrow", 1),
        ("names", {}),  # begins like the neutral "name"
    ],
)
def test_what_can_change_a_result_changes_the_identity(key: str, value: Any, base: dict[str, Any]) -> None:
    assert identity(changed(base, key, value), DATA_KEY) != identity(base, DATA_KEY)


def test_other_data_are_another_run(base: dict[str, Any]) -> None:
    assert identity(base, {"name": "cifar10", "files": "1a2b"}) != identity(base, DATA_KEY)


def test_an_identity_is_the_same_tomorrow_and_in_any_order_of_keys() -> None:
    # Sweeps find their finished runs by it: were it to change, all of them would be run again.
    first = {"seed": 0, "model": {"width": 16, "residual": [1, 3]}, "name": "x"}
    second = {"name": "y", "model": {"residual": [1, 3], "width": 16}, "seed": 0}
    assert identity(first, {"a": 1, "b": 2}) == identity(second, {"b": 2, "a": 1}) == "094f5a894d8f"


@pytest.mark.parametrize(
    ("overrides", "name"),
    [
        ([], "run"),
        (["schedule.peak_lr=0.1", "seed=0"], "peak_lr=0.1,seed=0"),
        (["experiment=quick", "seed=3"], "seed=3"),
        (["name=x", "output=/tmp/x", "data.root=/data", "logger=csv", "trainer.accelerator=cpu"], "run"),
        (["data=synthetic", "trainer=cpu", "model=backbone"], "data=synthetic,trainer=cpu,model=backbone"),
        (["+model.depth=3", "++seed=1", "~callbacks.progress"], "depth=3,seed=1"),
        (["data.classes=[cat,dog]", "model.extra=[1, 2]"], "classes=_cat,dog_,extra=_1,_2_"),
        (["data.source.test_size=20", "hyperparameters.groups.bias.lr=64"], "test_size=20,lr=64"),
        (["model.norm=../../x y"], "norm=.._.._x_y"),
        (["schedule.peak_lr=1e-3"], "peak_lr=1e-3"),
    ],
)
def test_a_short_name_says_what_varies(overrides: list[str], name: str) -> None:
    assert short_name(overrides) == name


@pytest.mark.parametrize(
    ("label", "name"),
    [
        ("constant 0.05,seed=0", "constant_0.05,seed=0"),
        ("step, from 0.1,seed=1", "step,_from_0.1,seed=1"),
        ("4λ, α/4,seed=2", "4λ,_α_4,seed=2"),
        ("../../etc", ".._.._etc"),
    ],
)
def test_a_label_becomes_a_folder_name_that_still_says_what_it_is(label: str, name: str) -> None:
    assert folder_name(label) == name


def test_a_short_name_is_short_and_one_folder() -> None:
    name = short_name([f"model.option_{i}=value/{i}" for i in range(40)])
    assert len(name) == 100
    assert "/" not in name
