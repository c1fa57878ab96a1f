"""The network as a whole."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from mvptr_data.detectors.vinvl.architecture import Architecture
from mvptr_data.detectors.vinvl.attributes import AttributeHead
from mvptr_data.detectors.vinvl.backbone import Backbone
from mvptr_data.detectors.vinvl.layers import NormalizedConv
from mvptr_data.detectors.vinvl.roi_heads import RegionHead
from mvptr_data.detectors.vinvl.rpn import RegionProposalHead


class VinvlModel(nn.Module):
    """Backbone, proposals, regions, attributes."""

    def __init__(self, architecture: Architecture) -> None:
        super().__init__()
        self.backbone = Backbone(architecture)
        self.rpn = RegionProposalHead(architecture)
        self.roi = RegionHead(architecture)
        self.attribute = AttributeHead(architecture)

    def feature_maps(self, pixels: Tensor) -> Tensor:
        """float32 pixels [B, 3, H, W] -> C4, in the trunk's own precision and layout."""
        return self.backbone(pixels.to(self.backbone.stem.weight.dtype).contiguous(memory_format=self.roi.layout))

    def fold(self) -> None:
        """Fold every frozen normalization into its convolution, in place."""
        for module in self.modules():
            if isinstance(module, NormalizedConv):
                module.fold()


def empty_model(architecture: Architecture) -> VinvlModel:
    """A network without parameters yet: they are on the meta device."""
    with torch.device("meta"):
        return VinvlModel(architecture).eval()
