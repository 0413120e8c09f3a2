"""Options of the network: type, range and meaning of every key of conf/model/resnet9.yaml. No torch is imported."""

from collections.abc import Sequence
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from onecycle.config.types import Count, Number, Options, allowed

LARGEST_WIDTH = 1024
MULTIPLES = (1, 2, 4, 8)  # channels of prep and of layers 1, 2, 3, in widths


def _distinct(value: Sequence[int]) -> Sequence[int]:
    if len(set(value)) < len(value):
        raise ValueError("must name each layer once")
    return value


# Not Literal[1, 2, 3], which accepts true for 1.
Layers = Annotated[
    Sequence[Annotated[int, Field(ge=1, le=3)]], AfterValidator(_distinct),
    allowed("a list of different layers out of 1, 2, 3"),
]  # fmt: skip
Channels = Annotated[
    Sequence[Annotated[int, Field(ge=1, le=8 * LARGEST_WIDTH)]], Field(min_length=4, max_length=4),
    allowed(f"four whole numbers from 1 to {8 * LARGEST_WIDTH}"),
]  # fmt: skip
Scale = Annotated[Number, Field(gt=0, le=1000)]
PositiveFraction = Annotated[Number, Field(gt=0, le=1)]


class ResNet9Options(Options):
    """ResNet-9, the network of cifar10-fast, with the options that its studies vary.

    Sources: Page 2018–19, "How to Train Your ResNet" 4 (the network, its backbone, `extra`) and 8 (`pool`, CELU, ghost
    norm, frozen scales, whitening), and the repository davidcpage/cifar10-fast. `init`: Jordan 2024, "94% on CIFAR-10
    in 3.29 Seconds on a Single GPU", section 3.3.
    """

    in_channels: int = Field(ge=3, le=3, description="channels of the images, which are always RGB")
    width: int = Field(
        ge=1, le=LARGEST_WIDTH, description="channels of the prep convolution; layers 1, 2, 3 have 2, 4 and 8 times it"
    )
    channels: Channels | None = Field(
        description="channels of prep and of layers 1, 2, 3, in place of the multiples of width"
    )
    residual: Layers = Field(description="layers that end in x + block(block(x)); activation before the sum")
    extra: Layers = Field(description="layers that end in one more convolution block, after a residual branch")
    norm: Literal["batch", "ghost", "group", "none"] = Field(description="norm after every convolution")
    train_scale: bool = Field(description="false freezes the norms' scale at 1")
    ghost_size: Count = Field(description="images in a group of ghost norm")
    norm_groups: Count = Field(description="channel groups of group norm")
    norm_momentum: PositiveFraction = Field(description="weight of the newest batch in the running statistics")
    norm_eps: PositiveFraction = Field(description="added to the variance before its square root")
    activation: Literal["relu", "celu", "gelu"] = Field(description="activation after every norm")
    celu_alpha: Scale = Field(description="alpha of CELU")
    pool: Literal["after", "before"] = Field(description="max pooling after or before norm and activation")
    downsample: Literal["pool", "conv3x3_stride2", "conv1x1_stride2"] = Field(
        description="how a layer halves the image: max pooling after a 3×3 convolution, or the stride of a convolution"
    )
    head_pool: Literal["max", "average", "concat"] = Field(
        description="global pooling before the head; concat is both, and doubles the head's input"
    )
    logit_scale: Scale = Field(description="factor of the logits")
    prep: Literal["conv", "whitening"] = Field(
        description="first convolution; whitening is fixed whitening filters, then a 1×1 convolution"
    )
    prep_padding: int = Field(
        ge=0, le=1, description="padding of the first convolution; 0 makes 32×32 images 30, 15, 7 and 3 pixels wide"
    )
    init: Literal["default", "dirac"] = Field(
        description="PyTorch's initialisation, or convolutions of layers 1, 2, 3 that start by passing their input on"
    )

    @property
    def layer_channels(self) -> list[int]:
        """Channels of prep and of layers 1, 2, 3."""
        return [self.width * multiple for multiple in MULTIPLES] if self.channels is None else list(self.channels)

    @model_validator(mode="after")
    def _fit_together(self) -> Self:
        """Raise ValueError for options that exclude each other; the message begins with key=value."""
        if self.pool == "before" and self.downsample != "pool":
            raise ValueError(f"pool=before: downsample={self.downsample} has no pooling to move; use pool=after")
        if self.norm == "none" and not self.train_scale:
            raise ValueError("train_scale=false: norm=none has no scale to freeze; use train_scale=true")
        if self.norm == "ghost" and self.ghost_size < 2:
            raise ValueError(f"ghost_size={self.ghost_size}: must be at least 2 with norm=ghost")
        unfit = [count for count in self.layer_channels if count % self.norm_groups]
        if self.norm == "group" and unfit:
            raise ValueError(f"norm_groups={self.norm_groups}: must divide the channels of every layer, {unfit[0]} too")
        return self
