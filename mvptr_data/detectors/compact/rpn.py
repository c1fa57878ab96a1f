"""Region proposals: which boxes of the map hold a thing, whatever it is (Ren et al. 2015).

Shape shorthand: B images, H x W map, A anchors a cell, N = H * W * A anchors, P proposals of one image.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.ops import nms

from mvptr_data.detectors.boxes import clip, decode
from mvptr_data.detectors.compact.backbone import MAP_CHANNELS, MAP_STRIDE
from mvptr_data.detectors.compact.layers import ConvNorm

#: Square roots of the anchors' areas, in pixels of the network's input; fitted to the boxes of drawn scenes.
ANCHOR_SIZES = (30.0, 52.0, 86.0)
#: Height divided by width.
ANCHOR_RATIOS = (0.6, 1.0, 1.7)
ANCHORS_PER_CELL = len(ANCHOR_SIZES) * len(ANCHOR_RATIOS)

#: Best anchors that are decoded, and how far survivors may overlap.
CANDIDATES = 300
PROPOSAL_IOU = 0.7


class RegionProposalHead(nn.Module):
    """One 3x3 convolution, then objectness and box steps for every anchor."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = ConvNorm(MAP_CHANNELS, MAP_CHANNELS, 3)
        self.objectness = nn.Conv2d(MAP_CHANNELS, ANCHORS_PER_CELL, 1)
        self.deltas = nn.Conv2d(MAP_CHANNELS, ANCHORS_PER_CELL * 4, 1)

    def forward(self, feature_map: Tensor) -> tuple[Tensor, Tensor]:
        """[B, 128, H, W] -> logits [B, N] and steps [B, N, 4], anchors in (H, W, A) order."""
        shared = F.relu(self.conv(feature_map))
        objectness = self.objectness(shared).permute(0, 2, 3, 1).flatten(1)
        deltas = self.deltas(shared).permute(0, 2, 3, 1).reshape(len(shared), -1, 4)
        return objectness.float(), deltas.float()


def anchor_boxes(map_height: int, map_width: int) -> Tensor:
    """[N, 4], in pixels of the network's input, (H, W, A) order, centered on the cells."""
    sizes, ratios = torch.tensor(ANCHOR_SIZES), torch.tensor(ANCHOR_RATIOS)
    heights = (sizes[:, None] * ratios.sqrt()).flatten()  # [A]
    widths = (sizes[:, None] / ratios.sqrt()).flatten()
    halves = torch.stack([widths, heights], dim=1) / 2  # [A, 2]
    ys = (torch.arange(map_height) + 0.5) * MAP_STRIDE
    xs = (torch.arange(map_width) + 0.5) * MAP_STRIDE
    centers = torch.stack(torch.meshgrid(ys, xs, indexing="ij")[::-1], dim=-1)[:, :, None]  # [H, W, 1, 2]
    return torch.cat([centers - halves, centers + halves], dim=-1).reshape(-1, 4)


def propose(objectness: Tensor, deltas: Tensor, anchors: Tensor, *, width: int, height: int, limit: int) -> Tensor:
    """Logits [N], steps [N, 4], anchors [N, 4] of one image -> its best boxes [P, 4], 1 <= P <= limit, best first."""
    scores, order = objectness.topk(min(CANDIDATES, len(objectness)))
    boxes = clip(decode(deltas[order], anchors[order]), width, height)
    return boxes[nms(boxes, scores, PROPOSAL_IOU)[:limit]]
