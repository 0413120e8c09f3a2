"""The networks of torchvision.models, for small images."""

from typing import Any

from torch import Tensor, nn
from torchvision import models


class Torchvision(nn.Module):
    """The network `name` of torchvision.models with `classes` logits, initialised as torchvision does.

    Images are [n, 3, height, width]. small_stem: the first convolution of a ResNet is 3×3 with stride 1, and no pooling
    follows it, as usual for images of 32×32 (He et al. 2016, "Deep Residual Learning for Image Recognition", section
    4.2); its own stem makes them 8×8 at once. Raises ValueError for other networks with it, and for unknown names.
    """

    def __init__(self, classes: int, name: str, small_stem: bool, **arguments: Any) -> None:
        super().__init__()
        self.network = models.get_model(name, weights=None, num_classes=classes, **arguments)
        if small_stem:
            if not isinstance(self.network, models.ResNet):
                raise ValueError(f"small_stem=true: {name} is no ResNet; set false")
            self.network.conv1 = nn.Conv2d(3, self.network.conv1.out_channels, 3, padding=1, bias=False)
            nn.init.kaiming_normal_(self.network.conv1.weight, mode="fan_out", nonlinearity="relu")
            self.network.maxpool = nn.Identity()

    def forward(self, images: Tensor) -> Tensor:
        """The logits [n, classes]."""
        return self.network(images)
