"""The space of training configurations: for every key values that are taken, and values that are not."""

from typing import Any

from hypothesis import strategies as st

NAN, INF = float("nan"), float("inf")
NO_NUMBER = [None, True, "1", "", NAN, INF, -INF, [1], {"a": 1}]
NO_COUNT = [*NO_NUMBER, 0, -1, 1.5, 2**70]
NO_SWITCH = [None, 0, 1, "true"]

# key: values that a run takes, alone or with others, and values that are refused, whatever the others are.
# What would start processes (devices, nodes), compile, or write elsewhere is drawn only where it is refused.
VALUES: dict[str, tuple[list[Any], list[Any]]] = {
    "name": (["a b", "…" * 66, "n" * 100], ["", "..", "a/b", "a\nb", "\udcff", 3, None, "$(x)", "${nowhere}"]),
    "seed": ([0, 1, 2**32 - 1], [*NO_NUMBER, -1, 2**32, 0.5]),
    "batch_size": ([1, 2, 16, 64, 65, 10**9], NO_COUNT),
    "label_smoothing": ([0, 0.0, 0.999, 0.1], [*NO_NUMBER, -0.1, 1]),
    "ema": ([None, {"decay": 0, "every_n_steps": 1}, {"decay": 0.99, "every_n_steps": 5}],
            [0.9, [], {}, {"decay": 1, "every_n_steps": 1}, {"decay": 0.5}, {"decay": 0.5, "every_n_steps": 0}]),
    "optimizer.nesterov": ([True, False], NO_SWITCH),
    "optimizer.fused": ([True, False, None], [0, "null"]),
    "optimizer.iterations": ([1, 3], [*NO_COUNT, 101]),
    "resizing": ([None, [[0, 24]], [[0, 24], [0.5, 32]]], [[], [24], [[0.1, 24]], [[0, 11]], True, "small"]),
    "evaluation.batch_size": ([1, 7, 10**9], NO_COUNT),
    "evaluation.tta": (["flip", "none"], ["mirror", None, True]),
    "evaluation.every_n_epochs": ([0, 1, 2, 10**9], [*NO_NUMBER, -1]),
    "output": ([], ["", None, 5, "a\0b", "x" * 256, "${nowhere}"]),
    "resume": ([None], ["", 5, "nowhere", [], ".."]),
    "data.root": (["nowhere"], ["", None, 5]),
    "data.cache": ([], ["", None, 5]),
    "data.fallback": ([None, "synthetic"], ["cifar10", False]),
    "data.classes": ([None, ["disc", "star"], ["disc", "unknown"]], [[], ["disc"], ["disc", "disc"], "disc", [1, 2]]),
    "data.subset_size": ([None, 1, 16, 63, 64, 65, 1.0, 0.5, 1e-9], [0, -1, 0.0, 1.5, NAN, INF, True, "all", [5]]),
    "data.subset_seed": ([0, 2**63 - 1], [*NO_NUMBER, -1, 2**63]),
    "data.val_size": ([0, 1, 48, 63, 64], [*NO_NUMBER, -1]),
    "data.augment.crop": ([0, 4, 31], [*NO_NUMBER, -1, 32]),
    "data.augment.flip": (["none", "random", "alternating"], ["mirror", None]),
    "data.augment.shift": ([0, 2, 31], [*NO_NUMBER, -1, 32]),
    "data.augment.cutout": ([0, 8, 32], [*NO_NUMBER, -1, 33]),
    "data.source.name": ([], ["../x", "", None]),
    "data.source.train_size": ([10, 64, 65], [*NO_NUMBER, 9, 2**40]),
    "data.source.test_size": ([10, 20, 33], [*NO_NUMBER, 9, 2**40]),
    "data.source.seed": ([0, 2**63 - 1], [*NO_NUMBER, -1]),
    "data.source.image_size": ([], [32]),
    "data.source.download": ([], [True]),
    "trainer.accelerator": (["auto", "cpu"], ["tpu", None]),
    "trainer.devices": ([1, "auto"], [0, -1, "all", [], None]),
    "trainer.num_nodes": ([1], NO_COUNT),
    "trainer.strategy": (["auto"], ["fsdp", None, ""]),
    "trainer.deterministic": ([True, False, "warn"], ["maybe", 1, None]),
    "trainer.benchmark": ([True, False], NO_SWITCH),
    "trainer.detect_anomaly": ([True, False], NO_SWITCH),
    "trainer.precision": (["auto", "bf16-mixed", "32-true"], ["16", 32, None, "fp8"]),
    "trainer.max_epochs": ([0.01, 1, 10**6], [*NO_NUMBER, 0, -1, 1e300]),
    "trainer.max_steps": ([1], [0, -1, 1.5, "all", 2**70]),
    "trainer.log_every_n_steps": ([1, 10, 10**9], NO_COUNT),
    "trainer.gradient_clip_val": ([None, 0.5, 1e-30, 1e30], [0, -1, NAN, True]),
    "trainer.compile": ([False], NO_SWITCH),
    "trainer.threads": ([1], [0, 2.0, "2", 1025]),
    "callbacks.checkpoint.every_n_minutes": ([1e-9, 5, 1e30], [*NO_NUMBER, 0, -1]),
    "callbacks.checkpoint.every_n_steps": ([None, 1, 10**9], [0, 1.5, "often"]),
    "callbacks.divergence.max_loss": ([1e-9, 0.5, 1e30], [*NO_NUMBER, 0, -1]),
    "callbacks.divergence.every_n_steps": ([1, 10], NO_COUNT),
    "callbacks.progress.refresh_per_second": ([1, 4], [*NO_NUMBER, 0]),
    "callbacks.figures.mistakes": ([1, 3], NO_COUNT),
    "callbacks.checkpoint": ([None], [5, [], {"a": 1}]),
    "callbacks.divergence": ([None], [5, {"_target_": "os.system"}]),
    "logger": ([None, {}], [5, {"x": {"_target_": "os.system"}}, {"x": {"_target_": "torch.nn.Linear", "b": 1}}]),
    "model.width": ([1, 3, 4], [*NO_COUNT, 1025]),
    "model.channels": ([None, [4, 4, 4, 4], [1, 2, 3, 5]], [[], [1, 2, 3], [1, 2, 3, 0], "4", [1, 2, 3, 10**6]]),
    "model.residual": ([[], [1], [1, 3], [3, 2, 1]], [None, [4], [1, 1], "13", 1, [True]]),
    "model.extra": ([[], [2], [1, 2, 3]], [None, [0], [2, 2]]),
    "model.norm": (["batch", "ghost", "group", "none"], ["layer", None, 1]),
    "model.train_scale": ([True, False], NO_SWITCH),
    "model.ghost_size": ([1, 2, 32, 10**9], [*NO_COUNT]),
    "model.norm_groups": ([1, 2, 3, 8], [*NO_COUNT]),
    "model.norm_momentum": ([0.1, 1], [*NO_NUMBER, 0, 1.1]),
    "model.norm_eps": ([1e-5, 1, 1e-300], [*NO_NUMBER, 0, -1, 2]),
    "model.activation": (["relu", "celu", "gelu"], ["swish", None]),
    "model.celu_alpha": ([0.075, 1000, 1e-30], [*NO_NUMBER, 0]),
    "model.pool": (["after", "before"], ["never", None]),
    "model.downsample": (["pool", "conv3x3_stride2", "conv1x1_stride2"], ["stride", None]),
    "model.head_pool": (["max", "average", "concat"], ["sum", None]),
    "model.logit_scale": ([0.125, 1000, 1e-30], [*NO_NUMBER, 0, 1001]),
    "model.prep": (["conv", "whitening"], ["patch", None]),
    "model.init": (["default", "dirac"], ["zeros", None]),
    "model.prep_padding": ([0, 1], [2, -1, True, None, "1"]),
    "model.in_channels": ([3], [*NO_COUNT, 1]),
    "schedule.peak_lr": ([1e-30, 0.1, 1e4, 1e30, 1e300], [*NO_NUMBER, 0, -1]),
    "schedule.peak_at": ([0, 0.2, 1], [*NO_NUMBER, -0.1, 1.1]),
    "schedule.start": ([0, 1, 0.5], [*NO_NUMBER, -1, 2]),
    "schedule.shape": (["linear", "cosine"], ["round", None]),
    "schedule.momentum_range": ([None, [0.95, 0.85], [0, 0]], [[0.9], [1, 0.5], [0.5, 0.9], "x", [NAN, 0]]),
    "schedule.warmup": ([0, 0.1, 1], [NAN, -1, 2]),
    "schedule.start_lr": ([1e-9, 1e9], [NAN, -1]),
    "schedule.knots": ([[[0, 1], [1, 0]]], [[], [[0, 1], [0.5]], [[2, 1]], "x", None]),
    "hyperparameters.momentum": ([0, 0.9, 0.999999], [*NO_NUMBER, 1, -0.1]),
    "hyperparameters.weight_decay": ([0, 5e-4, 1e30], [*NO_NUMBER, -1]),
    "hyperparameters.effective_decay": ([0.002, 1e30, 1e-300], [NAN, 0, -1, None]),
    "hyperparameters.per_example_lr": ([0.001, 1e30], [NAN, 0, -1, None]),
    "hyperparameters.parametrisation": (["direct"], ["both", None]),
    "hyperparameters.groups.bias.lr": ([0, 1, 64, 1e30], [*NO_NUMBER, -1]),
    "hyperparameters.groups.head": ([{"lr": 0, "weight_decay": 0}], [None, {}, {"lr": 1}, 5]),
}  # fmt: skip

GROUPS = {
    "schedule": ["one_cycle", "one_cycle_momentum", "constant", "knots", "step", "range_test", "warmup_constant"],
    "hyperparameters": ["direct", "effective", "per_example"],
    "optimizer": ["sgd", "muon"],
}

anything = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=5), st.lists(st.integers(), max_size=3),
    st.sampled_from([2**70, -(2**70), 10**400, 5e-324, {"_target_": "os.system"}, "${seed}", "???", "a" * 300]),
)  # fmt: skip
# What arbitrary values could make a run start, write or wait that a test must not.
FIXED = ("output", "data.cache", "resume", "trainer.devices", "trainer.num_nodes", "trainer.strategy",
         "trainer.threads", "trainer.compile", "trainer.max_steps", "data.source.train_size",
         "data.source.test_size")  # fmt: skip


@st.composite
def overrides(draw: st.DrawFn) -> dict[str, Any]:
    """Up to six values by key, mostly such as a run takes; a few of them anything at all."""
    values = {}
    for key in draw(st.lists(st.sampled_from(sorted(VALUES)), max_size=6, unique=True)):
        taken, refused = VALUES[key]
        kind = draw(st.integers(0, 9))
        if kind == 0 and key not in FIXED:
            values[key] = draw(anything)
        elif kind <= 1 or not taken:
            values[key] = draw(st.sampled_from(refused))
        else:
            values[key] = draw(st.sampled_from(taken))
    return values


groups = st.fixed_dictionaries({name: st.sampled_from(options) for name, options in GROUPS.items()})
