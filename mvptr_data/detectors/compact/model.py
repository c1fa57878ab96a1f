"""The network as a whole, and how its parameters start.

Shape shorthand: B images of H x W pixels.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from mvptr_data.detectors.compact.backbone import Backbone
from mvptr_data.detectors.compact.names import Names
from mvptr_data.detectors.compact.roi_heads import RoiHead
from mvptr_data.detectors.compact.rpn import RegionProposalHead

_PIXEL_CENTER, _PIXEL_SPREAD = 127.5, 63.75


class CompactModel(nn.Module):
    """Backbone, proposal head and region head of the compact detector."""

    def __init__(self, names: Names) -> None:
        super().__init__()
        self.backbone = Backbone()
        self.rpn = RegionProposalHead()
        self.roi = RoiHead(kinds=len(names.kinds), colors=len(names.colors), sizes=len(names.sizes))

    def feature_map(self, pixels: Tensor) -> Tensor:
        """uint8 RGB [B, 3, H, W], H and W multiples of 16 -> [B, 128, H/8, W/8]."""
        dtype = self.backbone.fuse.conv.weight.dtype
        normalized = (pixels.float() - _PIXEL_CENTER) / _PIXEL_SPREAD
        return self.backbone(normalized.to(dtype=dtype, memory_format=torch.channels_last))


def empty_model(names: Names) -> CompactModel:
    """A network whose parameters are not set yet. It draws nothing from the global random state."""
    with torch.device("meta"):
        model = CompactModel(names)
    return model.to_empty(device="cpu")


def initial_model(names: Names, generator: torch.Generator) -> CompactModel:
    """A network ready to be trained; every parameter is a function of `generator`."""
    model = empty_model(names)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.reset_parameters()
        elif isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu", generator=generator)
        elif isinstance(module, (nn.Linear, nn.Embedding)):
            nn.init.normal_(module.weight, std=0.01, generator=generator)
        if isinstance(module, (nn.Conv2d, nn.Linear)) and module.bias is not None:
            nn.init.zeros_(module.bias)
    nn.init.kaiming_normal_(model.roi.expand.weight, nonlinearity="relu", generator=generator)
    # Small outputs at first: an untrained head should neither shout nor move boxes.
    for output in (model.rpn.objectness, model.rpn.deltas):
        nn.init.normal_(output.weight, std=0.01, generator=generator)
    return model.to(memory_format=torch.channels_last)
