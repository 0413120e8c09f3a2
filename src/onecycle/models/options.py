"""Which options of the networks fit together. Without torch, so that a configuration can be refused at once."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

LAYERS = (1, 2, 3)
NORMS = ("batch", "ghost", "group", "none")
CHOICES = {
    "activation": ("relu", "celu", "gelu"),
    "pool": ("after", "before"),
    "downsample": ("pool", "conv3x3_stride2", "conv1x1_stride2"),
    "head_pool": ("max", "average", "concat"),
    "prep": ("conv", "whitening"),
    "init": ("default", "dirac"),
}
COUNTS = ("classes", "in_channels", "width")
MULTIPLES = (1, 2, 4, 8)
POSITIVE = (*COUNTS, "logit_scale", "norm_momentum", "norm_eps", "celu_alpha")
LARGEST = {"width": 1024, "norm_momentum": 1, "norm_eps": 1, "logit_scale": 1000, "celu_alpha": 1000}
LARGEST_GROUP, MOST_CHANNELS = 10**9, 8 * LARGEST["width"]


def problems(options: Mapping[str, Any]) -> list[str]:
    """What is wrong with the arguments of `ResNet9`, a line each: name, value, reason, remedy.

    An option that is not there is not looked at: its absence is the constructor's to report.
    """
    found = _number_problems(options)
    for name in ("residual", "extra"):
        if name in options and not _are_layers(options[name]):
            shown = list(options[name]) if isinstance(options[name], list | tuple) else options[name]
            found.append(f"{name}={shown}: not distinct layers out of 1, 2, 3; name each layer once")
    channels = options.get("channels")
    if channels is not None and not _are_counts(channels, len(MULTIPLES)):
        found.append(f"channels={channels}: must be null or four whole numbers, for prep and layers 1, 2, 3")
    elif channels is not None and max(channels) > MOST_CHANNELS:
        found.append(f"channels={channels}: must be at most {MOST_CHANNELS} each")
    if options.get("prep_padding", 1) not in (0, 1) or isinstance(options.get("prep_padding"), bool):
        found.append(f"prep_padding={options['prep_padding']}: must be 0 or 1 pixel")
    for name, choices in CHOICES.items():
        if name in options and not (isinstance(options[name], str) and options[name] in choices):
            found.append(f"{name}={options[name]!r}: unknown; choose one of {', '.join(choices)}")
    if found:
        return found
    pool, downsample = options.get("pool"), options.get("downsample", "pool")
    if pool == "before" and downsample != "pool":
        found.append(
            f"pool='before': downsample={downsample!r} has no pooling to move; set pool='after' or downsample='pool'"
        )
    norm_options = {
        name: options[name] for name in ("norm", "train_scale", "ghost_size", "norm_groups") if name in options
    }
    for width in sorted(set(layer_channels(options.get("width", 1), channels))):
        found += norm_problems(width, **norm_options)
        if found:
            break
    return found


def layer_channels(width: int, channels: Sequence[int] | None) -> list[int]:
    """Channels of prep and of layers 1, 2, 3: `channels`, or 1, 2, 4 and 8 times `width`."""
    return [width * multiple for multiple in MULTIPLES] if channels is None else list(channels)


def norm_problems(
    channels: int, norm: str = "batch", train_scale: bool = True, ghost_size: int = 2, norm_groups: int = 1
) -> list[str]:
    """What is wrong with the norm of `channels` feature maps, a line each."""
    if norm not in NORMS:
        return [f"norm={norm!r}: unknown; choose one of {', '.join(NORMS)} (a frozen scale is train_scale=False)"]
    if norm == "none" and not train_scale:
        return ["train_scale=False: norm='none' has no scale to freeze; set train_scale=True"]
    if norm == "group" and (not _is_count(norm_groups) or channels % norm_groups):
        return [f"norm_groups={norm_groups}: does not divide {channels} channels; use a divisor of the width"]
    if norm == "ghost" and not (_is_count(ghost_size) and ghost_size >= 2):
        return [f"ghost_size={ghost_size}: one image is no group; use 2 images or more"]
    return []


def _number_problems(options: Mapping[str, Any]) -> list[str]:
    found = []
    for name in POSITIVE:
        if name not in options:
            continue
        value = options[name]
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < float("inf"):
            found.append(f"{name}={value}: must be positive; use a value above 0")
        elif name in COUNTS and not _is_count(value):
            found.append(f"{name}={value}: must be a whole number of at least 1")
        elif value > LARGEST.get(name, value):
            found.append(f"{name}={value}: must be at most {LARGEST[name]}")
    for name in ("ghost_size", "norm_groups"):
        if name in options and not (_is_count(options[name]) and options[name] <= LARGEST_GROUP):
            found.append(f"{name}={options[name]}: must be a whole number from 1 to {LARGEST_GROUP}")
    if "train_scale" in options and not isinstance(options["train_scale"], bool):
        found.append(f"train_scale={options['train_scale']}: must be true or false")
    return found


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1


def _are_counts(value: object, length: int) -> bool:
    return (
        isinstance(value, Sequence)
        and not isinstance(value, str)
        and len(value) == length
        and all(_is_count(number) for number in value)
    )


def _are_layers(value: object) -> bool:
    if isinstance(value, str) or not isinstance(value, Collection):
        return False
    layers = list(value)
    return all(_is_count(layer) and layer in LAYERS for layer in layers) and len(set(layers)) == len(layers)
