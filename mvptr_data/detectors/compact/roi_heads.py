"""Regions to vectors, and vectors to kinds, boxes, colors and sizes.

Shape shorthand: R regions of all images, C kinds (class 0 is the background), D = 2048.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.ops import roi_align

from mvptr_data.detectors.boxes import Weights
from mvptr_data.detectors.compact.backbone import MAP_CHANNELS, MAP_STRIDE
from mvptr_data.detectors.compact.layers import ResidualBlock
from mvptr_data.detectors.interface import FEATURE_SIZE

#: Cells of a region's crop along each side.
CROP_CELLS = 8
#: Weights of the second stage's box steps (Fast R-CNN's released code): brings their spread near one.
BOX_WEIGHTS: Weights = (10.0, 10.0, 5.0, 5.0)

_BLOCK_WIDTH = 256
_KIND_WIDTH = 64
#: Pixels; brings the logarithms of the boxes' extents near zero.
_TYPICAL_EXTENT = 52.0


class RoiHead(nn.Module):
    """What the map says about a box."""

    def __init__(self, *, kinds: int, colors: int, sizes: int) -> None:
        super().__init__()
        self.block = ResidualBlock(MAP_CHANNELS, _BLOCK_WIDTH, stride=2)
        self.expand = nn.Linear(_BLOCK_WIDTH, FEATURE_SIZE)
        self.kind = nn.Linear(FEATURE_SIZE, kinds + 1)
        self.deltas = nn.Linear(FEATURE_SIZE, 4)
        self.kind_embedding = nn.Embedding(kinds + 1, _KIND_WIDTH)
        self.color = nn.Linear(FEATURE_SIZE + _KIND_WIDTH, colors)
        self.size = nn.Linear(FEATURE_SIZE + _KIND_WIDTH + 2, sizes)

    def pool(self, feature_map: Tensor, boxes: list[Tensor]) -> Tensor:
        """Map [B, 128, H, W] and each image's boxes [*, 4] -> vectors [R, D], in the order of the boxes."""
        # sampling_ratio 1: one sample a cell. With two, the backward pass of this line alone was 28 % of a training step.
        crops = roi_align(feature_map.float(), boxes, CROP_CELLS, 1.0 / MAP_STRIDE, sampling_ratio=1, aligned=True)
        # RoIAlign has no bf16 kernel on CPU. Its crops are made narrow before they are reordered, and once rather than by
        # autocast before each of the two convolutions that read them.
        dtype = torch.bfloat16 if torch.is_autocast_enabled("cpu") else self.block.first.conv.weight.dtype
        crops = crops.to(dtype).contiguous(memory_format=torch.channels_last)
        # The mean comes before the expansion: 16 times less work than expanding every cell, a quarter of a training step.
        pooled = self.block(crops).float().mean(dim=(2, 3))  # [R, 256]
        return F.relu(self.expand(pooled))

    def classify(self, vectors: Tensor) -> tuple[Tensor, Tensor]:
        """[R, D] -> logits of background and kinds [R, 1 + C], box steps [R, 4], the same for every kind."""
        return self.kind(vectors).float(), self.deltas(vectors).float()

    def describe(self, vectors: Tensor, labels: Tensor, boxes: Tensor) -> tuple[Tensor, Tensor]:
        """Vectors [R, D], their kinds [R], from 1, and boxes [R, 4] -> logits of the colors and of the sizes.

        A crop has the same number of cells whatever its box, so the size head is told the box's width and height.
        """
        joined = torch.cat([vectors, self.kind_embedding(labels)], dim=1)
        extents = ((boxes[:, 2:] - boxes[:, :2]) / _TYPICAL_EXTENT).log()
        return self.color(joined).float(), self.size(torch.cat([joined, extents], dim=1)).float()
