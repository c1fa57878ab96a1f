"""Region proposals: which anchors of C4 hold a thing (Ren et al. 2015; reference page, "RPN").

Shape shorthand: B images, H x W map, A anchors a cell, N = H * W * A anchors, P proposals of one image.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.ops import nms

from mvptr_data.detectors.boxes import clip_counted, decode_counted
from mvptr_data.detectors.vinvl.architecture import Architecture
from mvptr_data.detectors.vinvl.backbone import MAP_STRIDE

#: Best anchors that are decoded, and how far survivors may overlap (RPN.PRE_NMS_TOP_N_TEST, RPN.NMS_THRESH).
CANDIDATES, PROPOSAL_IOU = 6000, 0.7


class RegionProposalHead(nn.Module):
    """One 3x3 convolution, then objectness and a box step for every anchor."""

    #: float32 [A, 4]: the anchors of the cell at the map's origin, in pixels. They come with the weights.
    cell_anchors: Tensor

    def __init__(self, architecture: Architecture) -> None:
        super().__init__()
        channels = architecture.trunk[-1].outputs
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)
        self.cls_logits = nn.Conv2d(channels, architecture.anchors, 1)
        self.bbox_pred = nn.Conv2d(channels, architecture.anchors * 4, 1)
        self.register_buffer("cell_anchors", torch.zeros(architecture.anchors, 4))

    def forward(self, feature_map: Tensor) -> tuple[Tensor, Tensor]:
        """[B, C, H, W] -> float32 logits [B, N] and steps [B, N, 4], anchors in (H, W, A) order."""
        shared = F.relu_(self.conv(feature_map)).to(self.cls_logits.weight.dtype)
        objectness = self.cls_logits(shared).permute(0, 2, 3, 1).flatten(1)
        steps = self.bbox_pred(shared).permute(0, 2, 3, 1).reshape(len(shared), -1, 4)
        return objectness, steps

    def anchors(self, map_height: int, map_width: int) -> Tensor:
        """[N, 4], in pixels of the network's input, (H, W, A) order."""
        device = self.cell_anchors.device
        ys = torch.arange(map_height, device=device, dtype=torch.float32) * MAP_STRIDE
        xs = torch.arange(map_width, device=device, dtype=torch.float32) * MAP_STRIDE
        y, x = torch.meshgrid(ys, xs, indexing="ij")
        shifts = torch.stack([x, y, x, y], dim=-1)[:, :, None]  # [H, W, 1, 4]
        return (shifts + self.cell_anchors).reshape(-1, 4)


def propose(objectness: Tensor, steps: Tensor, anchors: Tensor, *, width: int, height: int, limit: int) -> Tensor:
    """Logits [N], steps [N, 4], anchors [N, 4] of one image -> its best boxes [P, 4], 1 <= P <= limit, best first.

    The boxes lie in [0, width - 1] x [0, height - 1]; such as are narrower than a pixel are kept, as the reference does.
    """
    # The probabilities, not the logits, are ranked: where float32 rounds them to one value, the order is the reference's.
    scores, order = objectness.sigmoid().topk(min(CANDIDATES, len(objectness)))
    boxes = clip_counted(decode_counted(steps[order], anchors[order]), width, height)
    return boxes[nms(boxes, scores, PROPOSAL_IOU)[:limit]]
