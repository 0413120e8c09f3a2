"""What each key of a training configuration may be."""

import math
from collections.abc import Callable
from itertools import pairwise
from typing import Any

from onecycle.config.hyperparameters import is_finite_number

MOST = 10**9  # of anything that is counted: beyond it no machine goes, and a 64-bit number is near
LARGEST_SEED = 2**63 - 1
NOT_IN_NAMES = "/\\$`;|&<>*?!\"'"  # what ends a path or is a shell's own: people type the names of folders
PRECISIONS = ("auto", "16-mixed", "bf16-mixed", "32-true")


def whole(low: int, high: int = MOST) -> Callable[[Any], bool]:
    """A whole number from `low` to `high`."""
    return lambda value: isinstance(value, int) and not isinstance(value, bool) and low <= value <= high


def number(low: float, high: float = math.inf, *, above: bool = False, below: bool = False) -> Callable[[Any], bool]:
    """A finite number from `low` to `high`, without the ends that `above` and `below` leave out."""

    def holds(value: Any) -> bool:
        if not is_finite_number(value):
            return False
        return (low < value if above else low <= value) and (value < high if below else value <= high)

    return holds


def one_of(*choices: Any) -> Callable[[Any], bool]:
    """One of these, of the same type: 1 is not true."""
    return lambda value: any(value == choice and type(value) is type(choice) for choice in choices)


def or_null(test: Callable[[Any], bool]) -> Callable[[Any], bool]:
    """Null, or what `test` allows."""
    return lambda value: value is None or test(value)


def text(value: Any) -> bool:
    """A text that is not blank and holds nothing that a terminal, a file's name or UTF-8 cannot."""
    return isinstance(value, str) and bool(value.strip()) and value.isprintable()


def folder(value: Any) -> bool:
    """A text that can be the path of a folder."""
    return text(value) and len(value.encode()) < 4096 and all(len(part.encode()) < 256 for part in value.split("/"))


def folder_name(value: Any) -> bool:
    """A text that can name a folder."""
    return (
        text(value)
        and not set(value) & set(NOT_IN_NAMES)
        and value not in (".", "..")
        and len(value) <= 100
        and len(value.encode()) <= 200
    )


def subset_size(value: Any) -> bool:
    """A count of at least 1, or a fraction above 0 up to 1."""
    return number(0, 1, above=True)(value) if isinstance(value, float) else whole(1)(value)


def names(value: Any) -> bool:
    """A list of at least two different texts."""
    return isinstance(value, list) and len(value) >= 2 and all(map(text, value)) and len(set(value)) == len(value)


def sides(value: Any) -> bool:
    """A list of [progress, side]: from progress 0 on, each later than the one before, sides of a network's images."""
    pairs = isinstance(value, list) and all(isinstance(pair, list) and len(pair) == 2 for pair in value)
    if not (pairs and value and all(is_finite_number(start) and whole(12, 512)(side) for start, side in value)):
        return False
    starts = [start for start, _ in value]
    return starts[0] == 0 and starts[-1] < 1 and all(a < b for a, b in pairwise(starts))


def devices(value: Any) -> bool:
    """auto, a count, or a list of numbers."""
    return value == "auto" or whole(1)(value) or (isinstance(value, list) and bool(value) and all(map(whole(0), value)))


COUNT = f"a whole number from 1 to {MOST}"

# What must be a group of keys: always, always with a _target_, or unless it is null.
PARTS = {
    "data": "group", "data.source": "component", "data.augment": "group", "evaluation": "group",
    "model": "component", "schedule": "component", "hyperparameters": "group", "optimizer": "component",
    "trainer": "component", "callbacks": "optional", "logger": "optional", "ema": "optional",
    "callbacks.progress": "optional", "callbacks.training_log": "optional", "callbacks.checkpoint": "optional",
    "callbacks.divergence": "optional", "callbacks.figures": "optional",
}  # fmt: skip

# What else a group of keys may hold, beside the keys of RULES and PARTS in it. A component takes what its class takes.
OTHER_KEYS = {
    "": ("study",), "data": ("stands_in_for",), "data.augment": (), "evaluation": (), "ema": (),
    "hyperparameters": (
        "parametrisation", "momentum", "weight_decay", "groups", "peak_lr", "effective_decay", "per_example_lr",
    ),
}  # fmt: skip

# What the program itself hands to a component, beside its own keys of the trainer that are not Lightning's.
GIVEN = {
    "model": ("classes",), "optimizer": ("params", "lr", "momentum", "weight_decay"),
    "trainer": (
        "max_time", "min_epochs", "min_steps", "logger", "callbacks", "num_sanity_val_steps",
        "check_val_every_n_epoch", "limit_val_batches", "enable_progress_bar", "enable_model_summary",
        "enable_checkpointing", "use_distributed_sampler", "default_root_dir",
    ),
}  # fmt: skip
OWN_KEYS = {"trainer": ("compile", "threads")}

# key, what must hold, and how it is said. A key of a part that is set to null is passed over.
RULES: tuple[tuple[str, Callable[[Any], bool], str], ...] = (
    ("name", folder_name, f"a name for a folder, up to 100 characters, none of {' '.join(NOT_IN_NAMES)}"),
    ("seed", whole(0, 2**32 - 1), "a whole number from 0 to 4294967295"),
    ("batch_size", whole(1), COUNT),
    ("label_smoothing", number(0, 1, below=True), "a number in [0, 1)"),
    ("ema.decay", number(0, 1, below=True), "a number in [0, 1)"),
    ("ema.every_n_steps", whole(1), COUNT),
    ("resizing", or_null(sides), "null or a list of [progress, side]: from 0 on, rising below 1; sides from 12 to 512"),
    ("optimizer.nesterov", one_of(True, False), "true or false"),
    ("optimizer.fused", one_of(True, False, None), "true, false or null"),
    ("optimizer.iterations", whole(1, 100), "a whole number from 1 to 100"),
    ("evaluation.batch_size", whole(1), COUNT),
    ("evaluation.tta", one_of("flip", "none"), "flip or none"),
    ("evaluation.every_n_epochs", whole(0), "a whole number from 0 to 1000000000"),
    ("output", folder, "a folder"),
    ("resume", or_null(folder), "null or a run's folder"),
    ("data.root", folder, "a folder"),
    ("data.cache", folder, "a folder"),
    ("data.fallback", one_of(None, "synthetic"), "null or synthetic"),
    ("data.classes", or_null(names), "null or a list of at least two different class names"),
    ("data.subset_size", or_null(subset_size), "null, a count of at least 1, or a fraction above 0.0 up to 1.0"),
    ("data.subset_seed", whole(0, LARGEST_SEED), f"a whole number from 0 to {LARGEST_SEED}"),
    ("data.val_size", whole(0), "a whole number from 0 to 1000000000"),
    ("data.augment.crop", whole(0, 31), "a whole number from 0 to 31"),
    ("data.augment.flip", one_of("none", "random", "alternating"), "none, random or alternating"),
    ("data.augment.shift", whole(0, 31), "a whole number from 0 to 31"),
    ("data.augment.cutout", whole(0, 32), "a whole number from 0 to 32"),
    ("data.source.name", folder_name, f"a name for a folder, up to 100 characters, none of {' '.join(NOT_IN_NAMES)}"),
    ("data.source.train_size", whole(10, 10**6), "a whole number from 10 to 1000000"),
    ("data.source.test_size", whole(10, 10**6), "a whole number from 10 to 1000000"),
    ("data.source.seed", whole(0, LARGEST_SEED), f"a whole number from 0 to {LARGEST_SEED}"),
    ("data.source.image_size", lambda v: whole(32, 512)(v) and v % 8 == 0, "a multiple of 8 from 32 to 512"),
    ("data.source.download", one_of(True, False), "true or false"),
    ("trainer.accelerator", one_of("auto", "cpu", "gpu", "cuda", "mps"), "auto, cpu, gpu, cuda or mps"),
    ("trainer.devices", devices, "auto, a count of at least 1 or a list of numbers"),
    ("trainer.num_nodes", whole(1), "a whole number of at least 1"),
    ("trainer.strategy", one_of("auto", "ddp"), "auto or ddp"),
    ("trainer.deterministic", one_of(True, False, "warn"), "true, false or warn"),
    ("trainer.benchmark", one_of(True, False), "true or false"),
    ("trainer.detect_anomaly", one_of(True, False), "true or false"),
    ("trainer.precision", one_of(*PRECISIONS), ", ".join(PRECISIONS)),
    ("trainer.max_epochs", number(0, 10**6, above=True), "a number above 0 up to 1000000"),
    ("trainer.max_steps", or_null(whole(1)), f"null or {COUNT}"),
    ("trainer.log_every_n_steps", whole(1), COUNT),
    ("trainer.gradient_clip_val", or_null(number(0, above=True)), "null or a number above 0"),
    ("trainer.compile", one_of(True, False), "true or false"),
    ("trainer.threads", or_null(whole(1, 1024)), "null or a whole number from 1 to 1024"),
    ("callbacks.checkpoint.every_n_minutes", number(0, above=True), "a number above 0"),
    ("callbacks.checkpoint.every_n_steps", or_null(whole(1)), f"null or {COUNT}"),
    ("callbacks.divergence.max_loss", number(0, above=True), "a number above 0"),
    ("callbacks.divergence.every_n_steps", whole(1), COUNT),
    ("callbacks.progress.refresh_per_second", number(0, above=True), "a number above 0"),
    ("callbacks.figures.mistakes", whole(1), COUNT),
)  # fmt: skip
