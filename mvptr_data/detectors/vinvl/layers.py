"""The bottleneck of the trunk and of the region head, and the convolutions with frozen normalization that it is made of.

Shape shorthand: B images (or regions), C channels, H x W map.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mvptr_data.detectors.vinvl.architecture import Stage


class NormalizedConv(nn.Conv2d):
    """A convolution and the frozen normalization behind it, `x * scale + shift` (the reference's FrozenBatchNorm2d).

    As loaded, the two are computed one after the other, operation for operation as the reference does. `fold` makes one
    convolution of them, whose results differ in their last bits.
    """

    #: float32 [O] each; None where they are folded.
    scale: Tensor | None
    shift: Tensor | None

    def __init__(
        self, inputs: int, outputs: int, size: int, stride: int = 1, *, padding: int = 0, groups: int = 1
    ) -> None:
        super().__init__(inputs, outputs, size, stride, padding=padding, groups=groups, bias=False)
        self.register_buffer("scale", torch.zeros(outputs))
        self.register_buffer("shift", torch.zeros(outputs))

    def forward(self, x: Tensor) -> Tensor:
        """[B, inputs, H, W] -> [B, outputs, H / stride, W / stride]."""
        found = super().forward(x)
        if self.scale is None or self.shift is None:
            return found
        return found.mul_(self.scale[:, None, None]).add_(self.shift[:, None, None])

    def fold(self) -> None:
        """Make one convolution with a bias of the two, in place."""
        if self.scale is None or self.shift is None:
            return
        self.weight = nn.Parameter(self.weight * self.scale[:, None, None, None], requires_grad=False)
        self.bias = nn.Parameter(self.shift, requires_grad=False)
        self.scale = self.shift = None


class Bottleneck(nn.Module):
    """1x1, grouped 3x3 and 1x1 convolutions beside a shortcut (Xie et al. 2017, figure 3c); the 3x3 carries the stride."""

    def __init__(self, inputs: int, stage: Stage, groups: int, stride: int, *, widened: bool) -> None:
        super().__init__()
        self.conv1 = NormalizedConv(inputs, stage.width, 1)
        self.conv2 = NormalizedConv(stage.width, stage.width, 3, stride, padding=1, groups=groups)
        self.conv3 = NormalizedConv(stage.width, stage.outputs, 1)
        self.downsample = NormalizedConv(inputs, stage.outputs, 1, stride) if widened else None

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


def frozen_normalization(norm: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
    """The frozen normalization's parts [O] -> its scale `w * rsqrt(var)` and shift `b - mean * scale`; there is no epsilon."""
    scale = norm["weight"] * torch.rsqrt(norm["running_var"])
    return scale, norm["bias"] - norm["running_mean"] * scale
