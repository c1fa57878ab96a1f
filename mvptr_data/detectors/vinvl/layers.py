"""The bottleneck of the trunk and of the region head, frozen normalization folded into its convolutions.

Shape shorthand: B images (or regions), C channels, H x W map.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mvptr_data.detectors.vinvl.architecture import Stage


class Bottleneck(nn.Module):
    """1x1, grouped 3x3 and 1x1 convolutions beside a shortcut (Xie et al. 2017, figure 3c); the 3x3 carries the stride."""

    def __init__(self, inputs: int, stage: Stage, groups: int, stride: int, *, widened: bool) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, stage.width, 1)
        self.conv2 = nn.Conv2d(stage.width, stage.width, 3, stride, padding=1, groups=groups)
        self.conv3 = nn.Conv2d(stage.width, stage.outputs, 1)
        self.downsample = nn.Conv2d(inputs, stage.outputs, 1, stride) if widened else None

    def forward(self, x: Tensor) -> Tensor:
        """[B, inputs, H, W] -> [B, outputs, H / stride, W / stride]."""
        shortcut = x if self.downsample is None else self.downsample(x)
        return self.after_entry(F.relu_(self.conv1(x)), shortcut)

    def after_entry(self, entered: Tensor, shortcut: Tensor) -> Tensor:
        """The block from its 3x3 convolution on; `shortcut` [B, outputs, H / stride, W / stride] is not changed."""
        return F.relu_(self.conv3(F.relu_(self.conv2(entered))).add_(shortcut))


def make_stage(inputs: int, stage: Stage, groups: int, stride: int) -> nn.Sequential:
    """A stage's blocks; only the first one strides and has a convolution in its shortcut."""
    return nn.Sequential(
        *(
            Bottleneck(
                inputs if index == 0 else stage.outputs,
                stage,
                groups,
                stride if index == 0 else 1,
                widened=index == 0,
            )
            for index in range(stage.blocks)
        )
    )


def fold(weight: Tensor, norm: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
    """A convolution's weight [O, I, h, w] and the frozen normalization behind it -> the weight and bias [O] of both in one.

    The normalization is `x * (w * rsqrt(var)) + (b - mean * w * rsqrt(var))`, without an epsilon (the reference's
    FrozenBatchNorm2d).
    """
    scale = norm["weight"] * torch.rsqrt(norm["running_var"])  # [O]
    return weight * scale[:, None, None, None], norm["bias"] - norm["running_mean"] * scale
