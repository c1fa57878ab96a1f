"""The network as a whole."""

from __future__ import annotations

import torch
from torch import nn

from mvptr_data.detectors.vinvl.architecture import Architecture
from mvptr_data.detectors.vinvl.attributes import AttributeHead
from mvptr_data.detectors.vinvl.backbone import Backbone
from mvptr_data.detectors.vinvl.roi_heads import RegionHead
from mvptr_data.detectors.vinvl.rpn import RegionProposalHead


class VinvlModel(nn.Module):
    """Backbone, proposals, regions, attributes. Normalization is folded: every convolution has a weight and a bias."""

    def __init__(self, architecture: Architecture) -> None:
        super().__init__()
        self.backbone = Backbone(architecture)
        self.rpn = RegionProposalHead(architecture)
        self.roi = RegionHead(architecture)
        self.attribute = AttributeHead(architecture)


def empty_model(architecture: Architecture) -> VinvlModel:
    """A network without parameters yet: they are on the meta device."""
    with torch.device("meta"):
        return VinvlModel(architecture).eval()
