"""Pixels to C4, the map at stride 16.

Shape shorthand: B images of H x W pixels, C = 1024 channels.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from mvptr_data.detectors.vinvl.architecture import Architecture
from mvptr_data.detectors.vinvl.layers import NormalizedConv, make_stage

#: Pixels of the network's input per cell of C4.
MAP_STRIDE = 16


class Backbone(nn.Module):
    """Stem and the first three stages of ResNeXt-152."""

    def __init__(self, architecture: Architecture) -> None:
        super().__init__()
        first, second, third = architecture.trunk
        self.stem = NormalizedConv(3, architecture.stem, 7, 2, padding=3)
        self.layer1 = make_stage(architecture.stem, first, architecture.groups, 1)
        self.layer2 = make_stage(first.outputs, second, architecture.groups, 2)
        self.layer3 = make_stage(second.outputs, third, architecture.groups, 2)

    def forward(self, pixels: Tensor) -> Tensor:
        """[B, 3, H, W], BGR without its mean -> [B, C, ceil(H/16), ceil(W/16)]."""
        x = F.max_pool2d(F.relu_(self.stem(pixels)), 3, stride=2, padding=1)
        return self.layer3(self.layer2(self.layer1(x)))
