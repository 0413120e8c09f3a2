import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig, OmegaConf

from onecycle.config import checks as config
from onecycle.config.checks import ALLOWED_TARGETS, RULES, check, instantiate, target_problems
from onecycle.errors import ConfigError

CONF = Path(__file__).parents[1] / "conf"
NAN, INF = float("nan"), float("inf")
ALLOWED = ", ".join(ALLOWED_TARGETS)

config.register_resolvers()


def composed(*overrides: str, name: str = "train") -> DictConfig:
    with initialize_config_dir(version_base="1.3", config_dir=str(CONF)):
        return compose(name, overrides=list(overrides))


@pytest.fixture(scope="module")
def bases() -> dict[str, DictConfig]:
    """Composed configurations in which, together, every key of the rules stands."""
    ema = "ema={decay: 0.9, every_n_steps: 2}"
    bases = {data: composed(ema, f"data={data}") for data in ("synthetic", "cifar10", "image_folder")}
    return bases | {"muon": composed("optimizer=muon")}


def base_with(key: str, bases: dict[str, DictConfig]) -> DictConfig:
    missing = object()
    for base in bases.values():
        if OmegaConf.select(base, key, default=missing) is not missing:
            return base.copy()
    raise AssertionError(f"no configuration has the key {key}")


def problems_of(cfg: DictConfig) -> list[str]:
    try:
        check(cfg)
    except ConfigError as error:
        return error.problems
    return []


# key: values that are refused, values that are taken.
CASES: dict[str, tuple[list[Any], list[Any]]] = {
    "name": (
        ["", "  ", ".", "..", "a/b", "a\\b", "n" * 101, "…" * 67, "a\nb", "\udcff", "\x1b[1m", 3, None],
        ["a b", "n" * 100, "…" * 66],
    ),
    "seed": ([-1, 2**32, 1.0, True, "0", None, NAN], [0, 2**32 - 1]),
    "batch_size": ([0, -5, 64.0, True, "64", None, INF, 10**9 + 1, 2**64], [1, 4096]),
    "label_smoothing": ([-0.1, 1, 1.0, NAN, INF, False, "0", None], [0, 0.0, 0.999]),
    "ema.decay": ([-0.1, 1.0, NAN, True, None], [0, 0.999]),
    "ema.every_n_steps": ([0, 1.5, True, None], [1, 50]),
    "resizing": (
        [
            [],
            [24],
            [[0]],
            [[0.1, 24]],
            [[0, 24], [0, 32]],
            [[0, 24], [1, 32]],
            [[0, 24], [NAN, 32]],
            [[0, 11]],
            [[0, 513]],
            [[0, 24.5]],
            [[0, 24, 1]],
            True,
            24,
            "small",
            [[0, 24], [0.5, 28], [0.4, 32]],
        ],
        [None, [[0, 12]], [[0, 24], [0.5, 32]], [[0.0, 20], [0.35, 26], [0.65, 512]]],
    ),
    "optimizer.nesterov": ([0, 1, "true", None], [True, False]),
    "optimizer.fused": ([0, 1, "null"], [True, False, None]),
    "optimizer.iterations": ([0, 1.5, True, None, "3", 101], [1, 3, 100]),
    "evaluation.batch_size": ([0, 10.0, True, None], [1]),
    "evaluation.tta": (["mirror", "", True, None], ["flip", "none"]),
    "evaluation.every_n_epochs": ([-1, 0.5, False, None], [0, 3]),
    "output": (["", " ", 5, None, "a\0b", "x" * 256, "a/" * 3000], ["/tmp/a b", "../logs"]),
    "resume": (["", 5, False], [None, "logs/runs/x"]),
    "data.root": (["", 5, None], ["."]),
    "data.cache": (["", 5, None], ["."]),
    "data.fallback": (["cifar10", False, ""], [None, "synthetic"]),
    "data.classes": (
        [[], ["cat"], ["cat", "cat"], ["cat", ""], ["cat", 1], "cat,dog", {"cat": "dog"}],
        [None, ["cat", "dog"]],
    ),
    "data.subset_size": ([0, -1, 0.0, 1.5, NAN, INF, True, "all", [5]], [None, 1, 60_000, 1.0, 0.001]),
    "data.subset_seed": ([-1, 0.0, True, None, 2**63], [0, 2**40]),
    "data.val_size": ([-1, 0.1, True, None], [0, 5000]),
    "data.augment.crop": ([-1, 32, 4.0, True, None], [0, 31]),
    "data.augment.flip": (["mirror", True, None], ["none", "random", "alternating"]),
    "data.augment.shift": ([-1, 32, 4.0, True, None], [0, 31]),
    "data.augment.cutout": ([-1, 33, 8.0, True, None], [0, 32]),
    "data.source.name": (["", "..", "../x", "/x", "a\nb", 5, None], ["cifar10", "my images"]),
    "data.source.train_size": ([9, 100.0, True, None, 10**6 + 1, 2**70], [10, 10**6]),
    "data.source.test_size": ([9, 100.0, True, None, 10**6 + 1], [10]),
    "data.source.seed": ([-1, 0.0, True, None, 2**63], [0, 2**40, 2**63 - 1]),
    "data.source.image_size": ([24, 33, 520, 32.0, True, None], [32, 40, 512]),
    "data.source.download": ([0, 1, "yes", None], [True, False]),
    "trainer.accelerator": (["tpu", "", None, 1], ["auto", "cpu", "gpu", "cuda", "mps"]),
    "trainer.devices": ([0, -1, "all", [], [-1], True, None, 1.5], ["auto", 1, 4, [0, 2]]),
    "trainer.num_nodes": ([0, 1.5, "auto", None, True], [1, 2]),
    "trainer.strategy": (["", 1, None, "fsdp"], ["auto", "ddp"]),
    "trainer.deterministic": (["maybe", 1, None], [True, False, "warn"]),
    "trainer.benchmark": (["yes", 1, None], [True, False]),
    "trainer.detect_anomaly": (["yes", 0, None], [True, False]),
    "trainer.precision": (["16", 32, "bf16", None], ["auto", "16-mixed", "bf16-mixed", "32-true"]),
    "trainer.max_epochs": ([0, -1, 0.0, 1e300, 10**400, NAN, INF, True, "24", None], [0.01, 1, 24.5]),
    "trainer.max_steps": ([0, -1, 1.5, True, "all"], [None, 1, 200]),
    "trainer.log_every_n_steps": ([0, 1.0, True, None], [1]),
    "trainer.gradient_clip_val": ([0, -1.0, NAN, True, "1"], [None, 0.5, 1]),
    "trainer.compile": ([0, 1, "true", None], [True, False]),
    "trainer.threads": ([0, 2.0, True, "2", 1025], [None, 1]),
    "callbacks.checkpoint.every_n_minutes": ([0, -1, NAN, INF, True, None], [1e-9, 5]),
    "callbacks.checkpoint.every_n_steps": ([0, -1, 1.5, NAN, True, "often"], [1, 100, None]),
    "callbacks.divergence.max_loss": ([0, -1, NAN, INF, True, None], [0.5, 100]),
    "callbacks.divergence.every_n_steps": ([0, 1.5, True, None], [1]),
    "callbacks.progress.refresh_per_second": ([0, -1, NAN, INF, True, None], [0.5, 4]),
    "callbacks.figures.mistakes": ([0, 2.5, True, None], [1]),
}


def shown(value: Any) -> str:
    """A value as YAML writes it."""
    if value is None:
        return "null"
    return str(value).lower() if isinstance(value, bool) else str(value)


def test_every_rule_has_its_cases() -> None:
    assert list(CASES) == [key for key, _, _ in RULES]


@pytest.mark.parametrize(("key", "allowed"), [(key, allowed) for key, _, allowed in RULES])
def test_a_rule_refuses_wrong_values_in_one_line_and_takes_right_ones(
    key: str, allowed: str, bases: dict[str, DictConfig]
) -> None:
    refused, taken = CASES[key]
    cfg = base_with(key, bases)
    for value in refused:
        OmegaConf.update(cfg, key, value, merge=False)
        assert problems_of(cfg) == [f"{key}={shown(value)}: must be {allowed}"]
    for value in taken:
        OmegaConf.update(cfg, key, value, merge=False)
        assert problems_of(cfg) == [], value


def test_all_mistakes_are_reported_at_once_one_line_each() -> None:
    cfg = composed(
        "seed=-1", "label_smoothing=nan", "trainer.max_epochs=0", "data.subset_size=1.5", "schedule.peak_at=2",
        "schedule.shape=round", "hyperparameters.momentum=true", "hyperparameters.groups.bias.lr=-1",
        "model._target_=os.system",
    )  # fmt: skip
    with pytest.raises(ConfigError) as caught:
        check(cfg)
    assert str(caught.value).splitlines() == caught.value.problems
    assert sorted(caught.value.problems) == [
        "data.subset_size=1.5: must be null, a count of at least 1, or a fraction above 0.0 up to 1.0",
        "hyperparameters.groups.bias.lr=-1: must be a finite number of at least 0",
        "hyperparameters.momentum=True: must be a number in [0, 1)",
        "label_smoothing=nan: must be a number in [0, 1)",
        f"model._target_=os.system: must be in {ALLOWED}",
        "schedule.peak_at=2: must be a number in [0, 1]",
        "schedule.shape='round': must be linear or cosine",
        "seed=-1: must be a whole number from 0 to 4294967295",
        "trainer.max_epochs=0: must be a number above 0 up to 1000000",
    ]


def test_a_part_that_is_set_to_null_needs_no_values() -> None:
    assert problems_of(composed("ema=null", "callbacks.checkpoint=null", "callbacks.figures=null")) == []


@pytest.mark.parametrize("part", ["model", "schedule", "hyperparameters", "trainer", "optimizer", "evaluation"])
def test_a_part_that_every_run_needs_cannot_be_null(part: str) -> None:
    cfg = composed()
    OmegaConf.update(cfg, part, None, merge=False)
    if part == "schedule":  # hyperparameters=direct reads its peak
        OmegaConf.update(cfg, "hyperparameters.peak_lr", 0.4)
    assert f"{part}=null: must be a group of keys" in problems_of(cfg)


@pytest.mark.parametrize("value", [NAN, INF, True, "fast", -0.1, None])
@pytest.mark.parametrize("key", ["schedule.peak_lr", "hyperparameters.weight_decay", "hyperparameters.momentum"])
def test_a_hyperparameter_is_a_finite_number(key: str, value: Any) -> None:
    cfg = composed()
    OmegaConf.update(cfg, key, value)
    (problem,) = (line for line in problems_of(cfg) if line.startswith(key))
    assert problem.startswith(f"{key}={value!r}: must be a")


def test_a_product_and_another_peak_contradict_each_other() -> None:
    assert problems_of(composed("hyperparameters=effective")) == []
    assert problems_of(composed("hyperparameters=effective", "schedule.peak_lr=1.0")) == [
        "schedule.peak_lr=1.0: contradicts hyperparameters=effective, which makes it 0.4; "
        "set hyperparameters.effective_decay, or choose hyperparameters=direct"
    ]
    assert problems_of(composed("hyperparameters=per_example", "schedule.peak_lr=1.0", "batch_size=256")) == [
        "schedule.peak_lr=1.0: contradicts hyperparameters=per_example, which makes it 0.2; "
        "set hyperparameters.per_example_lr, or choose hyperparameters=direct"
    ]
    assert problems_of(composed("hyperparameters.peak_lr=1.0")) == [
        "hyperparameters.peak_lr=1.0: contradicts schedule.peak_lr=0.4; set only the latter"
    ]


def test_an_interpolation_that_fails_is_a_line_with_its_key() -> None:
    (line,) = problems_of(composed("hyperparameters=effective", "hyperparameters.weight_decay=0"))
    assert line.startswith("schedule.peak_lr: ")
    assert "weight_decay=0: must be above 0" in line
    (line,) = problems_of(composed("name=${nowhere}"))
    assert line == "name: Interpolation key 'nowhere' not found"


def options(group: str) -> list[str]:
    parts = {"base"}  # what the options of a group have in common, not an option of its own
    return [path.stem for path in sorted((CONF / group).glob("*.yaml")) if path.stem not in parts]


GROUPS = ("callbacks", "data", "experiment", "hyperparameters", "logger", "model", "schedule", "trainer")


@pytest.mark.parametrize("choice", ["seed=0", *(f"{group}={option}" for group in GROUPS for option in options(group))])
def test_every_file_of_conf_composes_and_passes(choice: str) -> None:
    # The default experiment pools before the norm; strided convolutions have no pooling to move.
    strided = ["model.pool=after"] if choice in ("model=backbone_1x1", "model=backbone_3x3") else []
    assert problems_of(composed(choice, *strided)) == []


@pytest.mark.parametrize(
    "target",
    [
        "os.system",
        "builtins.eval",
        "subprocess.run",
        "torch.load",
        "torch.hub.load",
        "torch",
        "onecyclex.Trap",
        "5",
        "",
    ],
)
def test_a_target_outside_the_allowed_packages_is_refused_before_it_is_imported(target: str) -> None:
    with pytest.raises(ConfigError) as caught:
        instantiate({"_target_": target})
    assert caught.value.problems == [f"_target_={target}: must be in {ALLOWED}"]


@pytest.mark.parametrize(
    ("target", "module"),
    [
        ("onecycle.runs.record.os.system", "posix"),
        ("onecycle.runs.environment.subprocess.run", "subprocess"),
        ("onecycle.runs.environment.subprocess.Popen", "subprocess"),
        ("onecycle.data.sources.np.load", "numpy"),
        ("torch.nn.modules.module.warnings.warn", "_warnings"),
        ("torch.nn.modules.module.torch.hub.load", "torch.hub"),
        ("torch.optim.optimizer.torch.load", "torch.serialization"),
        ("lightning.pytorch.trainer.trainer.os.system", "posix"),
    ],
)
def test_a_target_that_walks_out_of_the_allowed_packages_is_refused(target: str, module: str) -> None:
    with pytest.raises(ConfigError) as caught:
        instantiate({"_target_": target})
    assert caught.value.problems == [f"_target_={target}: leads to {module}, outside {ALLOWED}"]


@pytest.mark.parametrize(
    "target", ["onecycle.nowhere", "onecycle.training.schedule.Nothing", "onecycle..schedule.OneCycle"]
)
def test_a_target_that_does_not_exist_is_named(target: str) -> None:
    with pytest.raises(ConfigError, match=f"^_target_={target}: does not exist"):
        instantiate({"_target_": target})


def test_targets_are_looked_for_in_lists_and_all_depths() -> None:
    node = {
        "_target_": "onecycle.Fine",
        "list": [{"_target_": "torch.nn.ReLU"}, {"_target_": "os.system"}, [{"deep": {"_target_": "a.b"}}]],
        "child": {"_target_": None, "child": {"_target_": "torchx.nn"}},
    }
    assert target_problems(node) == [
        f"list[1]._target_=os.system: must be in {ALLOWED}",
        f"list[2][0].deep._target_=a.b: must be in {ALLOWED}",
        f"child._target_=null: must be in {ALLOWED}",
        f"child.child._target_=torchx.nn: must be in {ALLOWED}",
    ]


@pytest.mark.parametrize(
    ("override", "key"),
    [
        ("model._target_=os.system", "model._target_"),
        ("+logger.mine={_target_: os.system}", "logger.mine._target_"),
        ("+model.activations=[{_target_: os.system}]", "model.activations[0]._target_"),
        ("callbacks.figures._target_=os.system", "callbacks.figures._target_"),
        ("data.source._target_=os.system", "data.source._target_"),
        ("schedule._target_=os.system", "schedule._target_"),
        ("optimizer._target_=os.system", "optimizer._target_"),
        ("trainer._target_=os.system", "trainer._target_"),
    ],
)
def test_a_foreign_target_anywhere_in_the_configuration_is_refused(override: str, key: str) -> None:
    line, *others = problems_of(composed(override))
    assert line == f"{key}=os.system: must be in {ALLOWED}"
    # No class has a list of activations.
    assert [other.partition("=")[0] for other in others] == ["model.activations"] * ("activations" in key)


def test_a_component_gets_the_other_keys_and_the_arguments() -> None:
    from onecycle.training.schedule import WarmupConstant

    part = {"_target_": "onecycle.training.schedule.WarmupConstant", "warmup": "${half}"}
    cfg = OmegaConf.create({"half": 0.5, "schedule": part})
    assert instantiate(cfg.schedule, peak_lr=0.2) == WarmupConstant(peak_lr=0.2, warmup=0.5)
    assert cfg.schedule._target_ == "onecycle.training.schedule.WarmupConstant"


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        ({"peak_lr": 0.1, "peak_at": 0.2}, "got an unexpected keyword argument 'peak_at'"),
        ({}, "missing 1 required positional argument: 'peak_lr'"),
    ],
)
def test_arguments_that_a_component_does_not_take_are_a_line(arguments: dict[str, Any], problem: str) -> None:
    with pytest.raises(ConfigError) as caught:
        instantiate({"_target_": "onecycle.training.schedule.Constant", **arguments})
    (line,) = caught.value.problems
    assert line.startswith("onecycle.training.schedule.Constant: ")
    # Python 3.13 adds what may have been meant.
    assert line.removesuffix(". Did you mean 'peak_lr'?").endswith(problem)


def test_an_unknown_key_of_the_schedule_is_refused_before_any_data_is_read() -> None:
    (line,) = problems_of(composed("+schedule.hold=0.1"))
    assert line.startswith("schedule: onecycle.training.schedule.OneCycle: ")
    assert line.endswith("got an unexpected keyword argument 'hold'")


@pytest.mark.parametrize("again", [lambda e: pickle.loads(pickle.dumps(e)), lambda e: e], ids=["pickled", "itself"])
def test_a_configuration_error_comes_back_whole_from_another_process(
    again: Callable[[ConfigError], ConfigError],
) -> None:
    error = again(ConfigError(["seed=-1: must be 0", "name=: must be a name"]))
    assert type(error) is ConfigError
    assert isinstance(error, ValueError)
    assert error.problems == ["seed=-1: must be 0", "name=: must be a name"]
    assert str(error) == "seed=-1: must be 0\nname=: must be a name"


@pytest.mark.parametrize(
    ("changes", "problems"),
    [
        ({}, []),
        ({"precision": "16-mixed", "checkpoint": "/a/b.ckpt", "figures": False}, []),
        (
            {"precision": "fp8", "accelerator": None, "figures": 1, "checkpoint": ""},
            [
                "precision=fp8: must be null, auto, 16-mixed, bf16-mixed, 32-true",
                "accelerator=null: must be auto, cpu, gpu, cuda or mps",
                "figures=1: must be true or false",
                "checkpoint=: must be a file name",
            ],
        ),
        (
            {"data": {"root": "", "source": {"_target_": "os.system", "image_size": 30}}},
            [
                "data.root=: must be a folder",
                "data.source.image_size=30: must be a multiple of 8 from 32 to 512",
                f"data.source._target_=os.system: must be in {ALLOWED}",
            ],
        ),
    ],
)
def test_an_evaluation_is_checked_as_well(changes: dict[str, Any], problems: list[str]) -> None:
    cfg = composed("run=somewhere", name="evaluate")
    OmegaConf.set_struct(cfg, False)
    for key, value in changes.items():
        OmegaConf.update(cfg, key, value, merge=False)
    assert config.evaluation_problems(cfg) == problems


@pytest.mark.parametrize("module", ["onecycle.config.checks", "onecycle.runs.record", "onecycle.train"])
def test_a_mistake_is_answered_before_the_heavy_libraries_are_imported(module: str) -> None:
    heavy = ("torch", "torchvision", "lightning", "numpy", "matplotlib", "PIL", "tensorboard")
    code = f"import sys, {module}; print(sorted(set({heavy}) & set(sys.modules)), 'hydra' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout == "[] True\n"


@pytest.mark.parametrize(
    ("overrides", "line"),
    [
        (["ema=0.99"], "ema=0.99: must be a group of keys or null"),
        (["ema={decay:0.9}"], "ema.every_n_steps is missing: must be a whole number from 1 to 1000000000"),
        (["data=base"], "data.source is missing: must be a group of keys"),
        (["data.augment=null"], "data.augment=null: must be a group of keys"),
        (["callbacks.checkpoint=5"], "callbacks.checkpoint=5: must be a group of keys or null"),
        (["~seed"], "seed is missing: must be a whole number from 0 to 4294967295"),
        (["~batch_size"], "batch_size is missing: must be a whole number from 1 to 1000000000"),
        (["~schedule._target_"], "schedule._target_ is missing: it names the component"),
        (["model._target_=null"], f"model._target_=null: must be in {ALLOWED}"),
    ],
)
def test_a_part_that_is_missing_or_of_another_kind_is_named(overrides: list[str], line: str) -> None:
    with initialize_config_dir(version_base="1.3", config_dir=str(CONF)), pytest.raises(ConfigError) as caught:
        check(compose("train", overrides=overrides))
    assert line in caught.value.problems


@pytest.mark.parametrize("target", ["onecycle.data", "onecycle.runs.record.SCHEMA", None])
def test_a_target_that_is_no_component_is_refused(target: str | None) -> None:
    with pytest.raises(ConfigError, match="_target_="):
        instantiate({"_target_": target})
