"""The training loss of one batch: proposals, kinds, boxes, colors, sizes.

Shape shorthand: B images, N anchors of an image, R sampled regions of the batch, F of them on things.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import torch
import torch.nn.functional as F
from torch import Tensor

from mvptr_data.detectors.boxes import encode
from mvptr_data.detectors.compact.model import CompactModel
from mvptr_data.detectors.compact.roi_heads import BOX_WEIGHTS
from mvptr_data.detectors.compact.rpn import anchor_boxes, propose
from mvptr_data.detectors.compact.targets import Truth, match_anchors, sample_anchors, sample_regions

#: Proposals of an image that the second stage trains on.
TRAINING_PROPOSALS = 60
#: Where the box losses turn from square to linear (Fast R-CNN's smooth L1, in the units of the weighted steps).
_RPN_BETA, _REGION_BETA = 1.0 / 9.0, 1.0


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Losses:
    """Scalar parts of a batch's loss."""

    objectness: Tensor
    proposal: Tensor
    kind: Tensor
    box: Tensor
    color: Tensor
    size: Tensor

    def total(self) -> Tensor:
        return self.objectness + self.proposal + self.kind + self.box + self.color + self.size

    def parts(self) -> dict[str, float]:
        """The value of each part by name."""
        return {part.name: getattr(self, part.name).item() for part in fields(self)}


def batch_losses(model: CompactModel, pixels: Tensor, truths: list[Truth], generator: torch.Generator) -> Losses:
    """Loss of uint8 pixels [B, 3, H, W] whose things are `truths`; `generator` draws what is sampled."""
    feature_map = model.feature_map(pixels)
    objectness, deltas = model.rpn(feature_map)  # [B, N], [B, N, 4]
    anchors = anchor_boxes(*feature_map.shape[2:])
    first = [
        _proposal_losses(objectness[i], deltas[i], anchors, truth.boxes, generator) for i, truth in enumerate(truths)
    ]
    objectness_loss, proposal_loss = (torch.stack(part).mean() for part in zip(*first, strict=True))

    # Which boxes the second stage sees is not differentiated: only what it says about them.
    height, width = pixels.shape[2:]
    with torch.no_grad():
        samples = [
            sample_regions(
                propose(objectness[i], deltas[i], anchors, width=width, height=height, limit=TRAINING_PROPOSALS),
                truth,
                width=width,
                height=height,
                generator=generator,
            )
            for i, truth in enumerate(truths)
        ]
    vectors = model.roi.pool(feature_map, [boxes for boxes, _, _ in samples])  # [R, 2048]
    kind_logits, region_deltas = model.roi.classify(vectors)
    labels = torch.cat([kinds for _, _, kinds in samples])  # [R]
    on_thing = labels > 0

    # What was sampled, thing by thing: [F, 4], [F, 4], [F], [F].
    boxes = torch.cat([sampled for sampled, _, _ in samples])[on_thing]
    matched = [(truth, things) for truth, (_, things, _) in zip(truths, samples, strict=True)]
    truth_boxes = torch.cat([truth.boxes[things] for truth, things in matched])[on_thing]
    colors = torch.cat([truth.colors[things] for truth, things in matched])[on_thing]
    sizes = torch.cat([truth.sizes[things] for truth, things in matched])[on_thing]
    color_logits, size_logits = model.roi.describe(vectors[on_thing], labels[on_thing], boxes)
    steps = encode(truth_boxes, boxes, BOX_WEIGHTS)
    return Losses(
        objectness=objectness_loss,
        proposal=proposal_loss,
        kind=F.cross_entropy(kind_logits, labels),
        box=F.smooth_l1_loss(region_deltas[on_thing], steps, beta=_REGION_BETA, reduction="sum") / len(labels),
        color=F.cross_entropy(color_logits, colors),
        size=F.cross_entropy(size_logits, sizes),
    )


def _proposal_losses(
    objectness: Tensor, deltas: Tensor, anchors: Tensor, truth: Tensor, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Logits [N], steps [N, 4], anchors [N, 4], things [T, 4] of one image -> objectness and box loss."""
    nearest, roles = match_anchors(anchors, truth)
    things, background = sample_anchors(roles, objectness.detach(), generator)
    logits = objectness[torch.cat([things, background])]
    wanted = torch.zeros_like(logits)
    wanted[: len(things)] = 1.0
    steps = encode(truth[nearest[things]], anchors[things])
    objectness_loss = F.binary_cross_entropy_with_logits(logits, wanted)
    proposal_loss = F.smooth_l1_loss(deltas[things], steps, beta=_RPN_BETA, reduction="sum") / max(len(things), 1)
    return objectness_loss, proposal_loss
