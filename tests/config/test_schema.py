"""What each key of a training configuration may be, and how an error is told."""

import math
from typing import Any

import pytest
from omegaconf import DictConfig, OmegaConf

from helpers import composed_of
from onecycle.config.compose import CONF, plain
from onecycle.config.schema import COMPONENTS
from onecycle.config.targets import instantiate
from onecycle.config.validate import allowed_text, evaluation_errors, target_errors, training_errors, validated
from onecycle.errors import ConfigError, problems_of

NAN, INF = math.nan, math.inf


def errors(config: DictConfig) -> list[str]:
    return problems_of(lambda: validated(config))


@pytest.fixture(scope="module")
def bases() -> list[dict[str, Any]]:
    """Resolved configurations in which, together, every key of CASES stands."""
    ema = "ema={decay_per_step: 0.9, every_n_steps: 2}"
    data = [composed_of(ema, f"data={name}") for name in ("synthetic", "cifar10", "image_folder")]
    return [plain(config) for config in (*data, composed_of("optimizer=muon"))]


NO_SIDES = [
    [], [24], [[0]], [[0.1, 24]], [[0, 24], [0, 32]], [[0, 24], [1, 32]], [[0, 24], [NAN, 32]], [[0, 11]], [[0, 513]],
    [[0, 24.5]], [[0, 24.0]], [[0, 1]], [[0, 0.0]], [[0, True]], [[0, 24, 1]], True, 24, "small",
]  # fmt: skip
# key: values that are refused, values that are taken.
CASES: dict[str, tuple[list[Any], list[Any]]] = {
    "name": (
        ["", "  ", ".", "..", "a/b", "a\\b", "n" * 101, "…" * 67, "a\nb", "\udcff", "\x1b[1m", 3, None],
        ["a b", "n" * 100, "…" * 66],
    ),
    "tags": (["a", [1], [""], None, {"a": 1}], [[], ["a", "b c"]]),
    "seed": ([-1, 2**32, 1.0, True, "0", None, NAN], [0, 2**32 - 1]),
    "batch_size": ([0, -5, 64.0, True, "64", None, INF, 10**9 + 1, 2**64], [1, 4096]),
    "label_smoothing": ([-0.1, 1, 1.0, NAN, INF, False, "0", None], [0, 0.0, 0.999]),
    "ema.decay_per_step": ([-0.1, 1.0, NAN, True, None], [0, 0.999]),
    "ema.every_n_steps": ([0, 1.5, True, None], [1, 50]),
    "resizing": (
        NO_SIDES,
        [None, [[0, 12]], [[0, 24], [0.5, 32]], [[0, 0.625], [0.5, 1.0]], [[0.0, 20], [0.35, 26], [0.65, 512]]],
    ),
    "optimizer.nesterov": ([0, 1, "true", None], [True, False]),
    "optimizer.fused": ([0, 1, "null", "yes"], [True, False, None]),
    "optimizer.iterations": ([0, 1.5, True, None, "3", 101], [1, 3, 100]),
    "evaluation.batch_size": ([0, 10.0, True, None], [1]),
    "evaluation.tta": (["mirror", "", True, None], ["flip", "none"]),
    "evaluation.every_n_epochs": ([-1, 0.5, False, None], [0, 3]),
    "output": (["", " ", 5, None, "a\0b", "x" * 256, "a/" * 3000], ["/tmp/a b", "../logs"]),
    "resume": (["", 5, False], [None, "logs/runs/x"]),
    "init_from": (["", 5, False], [None, "logs/runs/x"]),
    "data.root": (["", 5, None], ["."]),
    "data.fallback": (["cifar10", False, ""], [None, "synthetic"]),
    "data.classes": (
        [[], ["cat"], ["cat", "cat"], ["cat", ""], ["cat", 1], "cat,dog", {"cat": "dog"}],
        [None, ["cat", "dog"]],
    ),
    "data.subset_size": ([0, -1, 0.0, 1.5, NAN, INF, True, "all", [5]], [None, 1, 60_000, 1.0, 0.001]),
    "data.subset_seed": ([-1, 0.0, True, None, 2**63], [0, 2**40]),
    "data.val_size": ([-1, 0.1, True, None], [0, 5000]),
    "data.augment.crop": ([-1, 4.0, True, None], [0, 40]),
    "data.augment.flip": (["mirror", True, None], ["none", "random", "alternating"]),
    "data.augment.cutout": ([-1, 8.0, True, None], [0, 40]),
    "data.source.train_size": ([9, 100.0, True, None, 10**6 + 1, 2**70], [10, 10**6]),
    "data.source.image_size": ([24, 33, 520, 32.0, True, None], [32, 40, 512]),
    "data.source.download": ([0, 1, "yes", None], [True, False]),
    "model.width": ([0, 1025, True, "16", 1.5, None], [1, 1024]),
    "model.norm": (["layer", None, 1], ["batch", "ghost", "none"]),
    "model.residual": ([[4], [1, 1], 1, [True]], [[], [1, 2, 3]]),
    "model.in_channels": ([1, None, 3.0], [3]),
    "schedule.peak_at": ([-0.1, 2, NAN, True, None], [0, 0.2, 1]),
    "schedule.shape": (["round", None], ["linear", "cosine"]),
    "schedule.momentum_range": ([[0.9], [0.8, 0.9], [1.0, 0.5], 0.9], [None, [0.95, 0.85]]),
    "hyperparameters.momentum": ([-0.1, 1, NAN, True, None, "fast"], [0, 0.9]),
    "hyperparameters.weight_decay": ([-1e-4, NAN, INF, True, None], [0, 5e-4]),
    "hyperparameters.groups.bias.lr": ([-1, NAN, "x", None], [0, 64.0]),
    "trainer.accelerator": (["tpu", "", None, 1], ["auto", "cpu", "gpu", "cuda", "mps"]),
    "trainer.devices": ([0, -1, "all", [], [-1], True, None, 1.5], ["auto", 1, 4, [0, 2]]),
    "trainer.strategy": (["", 1, None, "fsdp"], ["auto", "ddp"]),
    "trainer.deterministic": (["maybe", 1, None], [True, False, "warn"]),
    "trainer.precision": (["16", 32, "bf16", None], ["auto", "bf16-mixed", "bf16-true", "32-true"]),
    "trainer.max_epochs": ([0, -1, 0.0, 1e300, 10**400, NAN, INF, True, "24", None], [0.01, 1, 24.5]),
    "trainer.max_steps": ([0, -1, 1.5, True, "all"], [None, 1, 200]),
    "trainer.gradient_clip_val": ([0, -1.0, NAN, True, "1"], [None, 0.5, 1]),
    "trainer.threads": ([0, 2.0, True, "2", 1025], [None, 1]),
    "callbacks.checkpoint.every_n_minutes": ([0, -1, NAN, INF, True, None], [1e-9, 5]),
    "callbacks.checkpoint.every_n_steps": ([0, -1, 1.5, NAN, True, "often"], [1, 100, None]),
    "callbacks.divergence.max_loss": ([0, -1, NAN, INF, True, None], [0.5, 100]),
    "callbacks.figures.mistakes": ([0, 2.5, True, None], [1]),
}


def with_value(base: dict[str, Any], key: str, value: Any) -> dict[str, Any] | None:
    """A copy of a configuration with another value; None where it does not have the key."""
    first, _, rest = key.partition(".")
    if first not in base:
        return None
    if not rest:
        return base | {first: value}
    child = with_value(base[first], rest, value) if isinstance(base[first], dict) else None
    return None if child is None else base | {first: child}


@pytest.mark.parametrize("key", CASES)
def test_wrong_values_are_refused_in_one_line_and_right_ones_taken(key: str, bases: list[dict[str, Any]]) -> None:
    base = next(base for base in bases if with_value(base, key, 0) is not None)
    refused, taken = CASES[key]
    for value in refused:
        (line,) = training_errors(with_value(base, key, value) or {})
        assert line.startswith(f"{key}="), line
        assert ": must " in line, line
    for value in taken:
        changed = with_value(base, key, value)
        assert training_errors(changed or {}) == [], value


def test_an_error_says_the_range_and_what_was_meant() -> None:
    lines = errors(composed_of("seed=-1", "hyperparameters.momentum=1", "+model.widht=4"))
    assert "from 0 to 4294967295" in lines[0]
    assert "in [0, 1)" in lines[1]
    assert lines[2].endswith("did you mean width?")


def test_values_are_kept_as_they_were_written() -> None:
    config = composed_of("trainer.max_epochs=3", "hyperparameters.momentum=0", "data.subset_size=0.5")
    kept = validated(config).model_dump(exclude_unset=True)
    assert kept == plain(config)
    assert type(kept["trainer"]["max_epochs"]) is int
    assert type(kept["hyperparameters"]["momentum"]) is int


def test_agreeing_parametrisations_and_parts_that_are_left_out_are_fine() -> None:
    for overrides in (
        ["hyperparameters=effective"], ["hyperparameters=per_example", "batch_size=256"],
        ["ema=null", "callbacks.checkpoint=null", "callbacks.figures=null"],
    ):  # fmt: skip
        assert errors(composed_of(*overrides)) == []


def option_files(group: str) -> list[str]:
    return [path.stem for path in sorted((CONF / group).glob("*.yaml")) if path.stem != "base"]


GROUPS = ("callbacks", "data", "experiment", "hyperparameters", "logger", "model", "optimizer", "schedule", "trainer")


@pytest.mark.parametrize("choice", [f"{group}={option}" for group in GROUPS for option in option_files(group)])
def test_every_file_of_conf_composes_and_is_valid(choice: str) -> None:
    # The default experiment pools before the norm; strided convolutions have no pooling to move.
    strided = ["model.pool=after"] if choice in ("model=backbone_1x1", "model=backbone_3x3") else []
    assert errors(composed_of(choice, *strided)) == []


def test_every_option_of_a_component_says_what_it_means() -> None:
    for classes in COMPONENTS.values():
        for options in classes.values():
            for name, field in options.model_fields.items():
                assert field.description, f"{options.__name__}.{name}"
                assert allowed_text(options, [name])


@pytest.mark.parametrize(
    "target", ["os.system", "builtins.eval", "torch.load", "torch.hub.load", "torch", "onecyclex.Trap", "5", "", None]
)
def test_a_target_outside_the_allowed_packages_is_refused_before_it_is_imported(target: Any) -> None:
    with pytest.raises(ConfigError, match="_target_="):
        instantiate({"_target_": target})


@pytest.mark.parametrize(
    "target",
    [
        "onecycle.runs.record.logging.FileHandler", "onecycle.data.sources.np.load",
        "torch.nn.modules.module.torch.load", "torch.optim.optimizer.torch.load",
        "lightning.pytorch.trainer.trainer.os.system", "onecycle.nowhere",
        "onecycle.training.schedule.Nothing", "onecycle.training.schedule.Schedule", "onecycle.data",
        "onecycle.runs.record.SCHEMA", "onecycle.training_run.train",
    ],
)  # fmt: skip
def test_a_target_that_is_no_class_of_the_allowed_packages_is_refused(target: str) -> None:
    with pytest.raises(ConfigError, match="_target_="):
        instantiate({"_target_": target, "peak_lr": 0.1} if "schedule" in target else {"_target_": target})


def test_targets_are_looked_for_at_all_depths() -> None:
    node = {
        "list": [{"_target_": "torch.nn.ReLU"}, {"_target_": "os.system"}, [{"deep": {"_target_": "a.b"}}]],
        "child": {"child": {"_target_": "torchx.nn"}},
    }
    keys = [line.partition("=")[0] for line in target_errors(node)]
    assert keys == ["list.1._target_", "list.2.0.deep._target_", "child.child._target_"]


def test_a_component_gets_the_other_keys_and_what_it_does_not_take_is_a_line() -> None:
    from onecycle.training.schedule import Constant

    target = "onecycle.training.schedule.Constant"
    assert instantiate({"_target_": target}, Constant, "schedule", peak_lr=0.2).lr(0.5) == 0.2
    with pytest.raises(ValueError, match="hold"):
        instantiate({"_target_": target, "hold": 1}, Constant, "schedule", peak_lr=0.2)
    with pytest.raises(ConfigError, match=r"optimizer.momentun=0.9.*did you mean momentum"):
        instantiate({"_target_": "torch.optim.SGD", "momentun": 0.9}, object, "optimizer", params=[])


@pytest.mark.parametrize(
    ("changes", "keys"),
    [
        ({}, []),
        ({"precision": "16-mixed", "checkpoint": "/a/b.ckpt", "figures": False}, []),
        (
            {"precision": "fp8", "accelerator": "tpu", "figures": 1, "checkpoint": ""},
            ["checkpoint=", "figures=1", "precision=fp8", "accelerator=tpu"],
        ),
        ({"data.source": {"_target_": "os.system"}}, ["data.source._target_=os.system"]),
        ({"run": "???"}, ["run is missing"]),
    ],
)
def test_an_evaluation_is_validated_as_well(changes: dict[str, Any], keys: list[str]) -> None:
    config = composed_of("run=somewhere", name="evaluate")
    OmegaConf.set_struct(config, False)
    for key, value in changes.items():
        OmegaConf.update(config, key, value, merge=False)
    assert [line.partition(":")[0] for line in evaluation_errors(config)] == keys
