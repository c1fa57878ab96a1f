"""Pixels to one feature map: C4 stages, fused at stride 8.

Shape shorthand: B images of H x W pixels, both multiples of 16.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from mvptr_data.detectors.compact.layers import ConvNorm, ResidualBlock

#: Pixels per cell of the map that the backbone gives.
MAP_STRIDE = 8
#: Channels of that map.
MAP_CHANNELS = 128
#: Picture sides are multiples of this: the coarsest stage's stride.
SIZE_DIVISOR = 16

_STEM_WIDTHS = (24, 48)
_STAGE_WIDTHS = (48, 96, 192)


class Backbone(nn.Module):
    """Two strided convolutions, then residual stages at strides 4, 8 and 16; the last two are summed at stride 8.

    The stride-16 stage (C4) sees enough of the picture to name a thing, the stride-8 stage keeps small ones apart.
    """

    def __init__(self) -> None:
        super().__init__()
        narrow, wide = _STEM_WIDTHS
        fine, middle, coarse = _STAGE_WIDTHS
        self.stem = nn.Sequential(ConvNorm(3, narrow, 3, 2), nn.ReLU(), ConvNorm(narrow, wide, 3, 2), nn.ReLU())
        self.stage4 = nn.Sequential(ResidualBlock(wide, fine), ResidualBlock(fine, fine))
        self.stage8 = nn.Sequential(ResidualBlock(fine, middle, 2), ResidualBlock(middle, middle))
        self.stage16 = nn.Sequential(ResidualBlock(middle, coarse, 2), ResidualBlock(coarse, coarse))
        self.lateral8 = ConvNorm(middle, MAP_CHANNELS, 1)
        self.lateral16 = ConvNorm(coarse, MAP_CHANNELS, 1)
        self.fuse = ConvNorm(MAP_CHANNELS, MAP_CHANNELS, 3)

    def forward(self, pixels: Tensor) -> Tensor:
        """[B, 3, H, W], normalized -> [B, 128, H/8, W/8]."""
        c8 = self.stage8(self.stage4(self.stem(pixels)))  # [B, 96, H/8, W/8]
        c16 = self.stage16(c8)  # [B, 192, H/16, W/16]
        context = F.interpolate(self.lateral16(c16), scale_factor=2.0, mode="nearest")
        return F.relu(self.fuse(F.relu(self.lateral8(c8) + context)))
