"""The reference detector, step for step and in fp32: what `extract.py` measures against and what tests compare with.

A literal translation of the reference page, without any of the gains of `mvptr_data.detectors.vinvl`: normalization behind
every convolution, channels first, one image, the region stage run a second time for the attributes, and the
post-processing as a loop over all classes.

Shape shorthand: one image of H x W pixels; P proposals, C classes with the background, K regions, D = 2048.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor
from torchvision.ops import nms, roi_align

BACKBONE = "backbone.body."
BOX_STAGE = "roi_heads.box.feature_extractor.head.layer4."
ATTRIBUTE_STAGE = "attribute.feature_extractor.head.layer4."


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ReferenceRegions:
    """What the reference gives for one image."""

    boxes: Tensor  # [K, 4], pixels of the image
    labels: Tensor  # [K], from 1
    scores: Tensor  # [K]
    features: Tensor  # [K, D]
    attribute_labels: Tensor  # [K, 16]
    attribute_scores: Tensor  # [K, 16]


class ReferenceDetector:
    """Runs the weights as they are in the file, by their names there."""

    def __init__(self, tensors: Mapping[str, Tensor], *, groups: int = 32) -> None:
        self._tensors = {ATTRIBUTE_STAGE + name.removeprefix(BOX_STAGE): value for name, value in tensors.items()}
        self._tensors = {name: value for name, value in self._tensors.items() if name.startswith(ATTRIBUTE_STAGE)}
        self._tensors |= tensors
        self._groups = groups

    @torch.inference_mode()
    def detect(self, image: Image.Image, rule: str = "per_class") -> ReferenceRegions:
        """The regions of one RGB image."""
        pixels = self.preprocess(image)
        height, width = pixels.shape[2:]
        c4 = self.trunk(pixels)
        proposals, _ = self.propose(*self.rpn(c4), width=width, height=height)
        vectors, probabilities = self.classify(c4, proposals)
        kept, labels, scores = RULES[rule](proposals, probabilities)
        attribute_labels, attribute_scores = self.attributes(c4, proposals[kept], labels)
        stretch = proposals.new_tensor([image.width / width, image.height / height]).repeat(2)
        return ReferenceRegions(
            boxes=proposals[kept] * stretch,
            labels=labels,
            scores=scores,
            features=vectors[kept],
            attribute_labels=attribute_labels,
            attribute_scores=attribute_scores,
        )

    def preprocess(self, image: Image.Image) -> Tensor:
        """RGB image -> [1, 3, H, W], BGR minus the mean."""
        low, high = float(min(image.size)), float(max(image.size))
        short = 600
        if high / low * short > 1000:
            short = round(1000 * low / high)
        width, height = image.size
        if min(width, height) != short:
            if width < height:
                width, height = short, int(short * height / width)
            else:
                width, height = int(short * width / height), short
            image = image.resize((width, height), Image.Resampling.BILINEAR)
        pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1).float() / 255  # [3, H, W]
        mean = torch.tensor([103.530, 116.280, 123.675])
        return (pixels[[2, 1, 0]] * 255 - mean[:, None, None])[None].contiguous()

    def trunk(self, pixels: Tensor) -> Tensor:
        """[1, 3, H, W] -> C4 [1, 1024, H / 16, W / 16]."""
        stem = f"{BACKBONE}stem."
        x = F.conv2d(pixels, self._tensors[f"{stem}conv1.weight"], stride=2, padding=3)
        x = F.max_pool2d(F.relu(self._norm(x, f"{stem}bn1")), 3, stride=2, padding=1)
        for layer, stride in ((1, 1), (2, 2), (3, 2)):
            x = self._stage(x, f"{BACKBONE}layer{layer}.", stride)
        return x

    def rpn(self, c4: Tensor) -> tuple[Tensor, Tensor]:
        """C4 -> logits [1, A, H, W] and steps [1, 4 A, H, W]."""
        shared = F.relu(self._conv(c4, "rpn.head.conv", padding=1))
        return self._conv(shared, "rpn.head.cls_logits"), self._conv(shared, "rpn.head.bbox_pred")

    def propose(self, logits: Tensor, steps: Tensor, *, width: int, height: int) -> tuple[Tensor, Tensor]:
        """Logits and steps -> boxes [P, 4] and their objectness [P]."""
        _, per_cell, rows, columns = logits.shape
        objectness = logits.permute(0, 2, 3, 1).reshape(-1).sigmoid()
        deltas = steps.view(per_cell, 4, rows, columns).permute(2, 3, 0, 1).reshape(-1, 4)
        y, x = torch.meshgrid(torch.arange(rows) * 16.0, torch.arange(columns) * 16.0, indexing="ij")
        shifts = torch.stack([x.reshape(-1), y.reshape(-1), x.reshape(-1), y.reshape(-1)], dim=1)
        anchors = (shifts[:, None] + self._tensors["rpn.anchor_generator.cell_anchors.0"][None]).reshape(-1, 4)
        scores, order = objectness.topk(min(6000, len(objectness)), sorted=True)
        anchors, deltas = anchors[order], deltas[order]
        widths, heights = anchors[:, 2] - anchors[:, 0] + 1, anchors[:, 3] - anchors[:, 1] + 1
        center_x = deltas[:, 0] * widths + (anchors[:, 0] + 0.5 * widths)
        center_y = deltas[:, 1] * heights + (anchors[:, 1] + 0.5 * heights)
        new_width = deltas[:, 2].clamp(max=math.log(1000 / 16)).exp() * widths
        new_height = deltas[:, 3].clamp(max=math.log(1000 / 16)).exp() * heights
        corners = (
            (center_x - 0.5 * new_width).clamp(0, width - 1),
            (center_y - 0.5 * new_height).clamp(0, height - 1),
            (center_x + 0.5 * new_width - 1).clamp(0, width - 1),
            (center_y + 0.5 * new_height - 1).clamp(0, height - 1),
        )
        boxes = torch.stack(corners, dim=1)
        kept = nms(boxes, scores, 0.7)[:300]
        return boxes[kept], scores[kept]

    def crops(self, c4: Tensor, boxes: Tensor) -> Tensor:
        """[R, 1024, 14, 14]."""
        return roi_align(c4, [boxes], 14, 1 / 16, sampling_ratio=0, aligned=False)

    def classify(self, c4: Tensor, proposals: Tensor) -> tuple[Tensor, Tensor]:
        """-> vectors [P, D] and class probabilities [P, C]."""
        maps = self._stage(self.crops(c4, proposals), BOX_STAGE, 2)
        vectors = F.adaptive_avg_pool2d(maps, 1).flatten(1)
        return vectors, self._linear(vectors, "roi_heads.box.predictor.cls_score").softmax(dim=1)

    def attributes(self, c4: Tensor, boxes: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """-> attribute labels [K, 16] and their probabilities, 0 where the region has fewer."""
        maps = self._stage(self.crops(c4, boxes), ATTRIBUTE_STAGE, 2)
        vectors = F.adaptive_avg_pool2d(maps, 1).flatten(1)
        embedded = self._tensors["attribute.predictor.cls_embedding.weight"][labels]
        hidden = F.relu(self._linear(torch.cat([vectors, embedded], dim=1), "attribute.predictor.fc_attr"))
        probabilities = self._linear(hidden, "attribute.predictor.attr_score").softmax(dim=1)
        probabilities[:, 0] = 0
        probabilities[probabilities <= 0.05] = 0
        scores, indices = probabilities.topk(min(16, probabilities.shape[1]), dim=1)
        return indices, scores

    def _stage(self, x: Tensor, prefix: str, stride: int) -> Tensor:
        index = 0
        while f"{prefix}{index}.conv1.weight" in self._tensors:
            x = self._block(x, f"{prefix}{index}.", stride if index == 0 else 1)
            index += 1
        return x

    def _block(self, x: Tensor, prefix: str, stride: int) -> Tensor:
        tensors, shortcut = self._tensors, x
        if f"{prefix}downsample.0.weight" in tensors:
            shortcut = F.conv2d(x, tensors[f"{prefix}downsample.0.weight"], stride=stride)
            shortcut = self._norm(shortcut, f"{prefix}downsample.1")
        out = F.relu(self._norm(F.conv2d(x, tensors[f"{prefix}conv1.weight"]), f"{prefix}bn1"))
        out = F.conv2d(out, tensors[f"{prefix}conv2.weight"], stride=stride, padding=1, groups=self._groups)
        out = F.relu(self._norm(out, f"{prefix}bn2"))
        out = self._norm(F.conv2d(out, tensors[f"{prefix}conv3.weight"]), f"{prefix}bn3")
        return F.relu(out + shortcut)

    def _norm(self, x: Tensor, prefix: str) -> Tensor:
        weight, bias, mean, var = (
            self._tensors[f"{prefix}.{part}"] for part in ("weight", "bias", "running_mean", "running_var")
        )
        scale = weight * var.rsqrt()
        return x * scale[None, :, None, None] + (bias - mean * scale)[None, :, None, None]

    def _conv(self, x: Tensor, prefix: str, padding: int = 0) -> Tensor:
        return F.conv2d(x, self._tensors[f"{prefix}.weight"], self._tensors[f"{prefix}.bias"], padding=padding)

    def _linear(self, x: Tensor, prefix: str) -> Tensor:
        return F.linear(x, self._tensors[f"{prefix}.weight"], self._tensors[f"{prefix}.bias"])


def per_class(
    boxes: Tensor, probabilities: Tensor, threshold: float = 0.2, minimum: int = 10, maximum: int = 100
) -> tuple[Tensor, Tensor, Tensor]:
    """Boxes [P, 4], probabilities [P, C] -> the kept proposals, their labels and scores, by descending score."""
    survived = torch.zeros_like(probabilities)
    for label in range(1, probabilities.shape[1]):
        kept = nms(boxes, probabilities[:, label], 0.3)
        survived[kept, label] = 1
    best, labels = (survived * probabilities).max(dim=1)
    candidates = best.nonzero()[:, 0]
    scores, order = best[candidates].sort(descending=True, stable=True)
    confident = int((scores >= threshold).sum())
    order = candidates[order[: min(max(confident, minimum), maximum)]]
    return order, labels[order], best[order]


def class_agnostic(
    boxes: Tensor, probabilities: Tensor, threshold: float = 0.2, minimum: int = 10, maximum: int = 100
) -> tuple[Tensor, Tensor, Tensor]:
    """Boxes [P, 4], probabilities [P, C] -> the kept proposals, their labels and scores, by descending score."""
    scores, labels = probabilities[:, 1:].max(dim=1)
    extents = boxes[:, 2:] - boxes[:, :2]
    candidates = ((extents >= 0).all(dim=1) & (scores > threshold * 0.01)).nonzero()[:, 0]
    kept = candidates[nms(boxes[candidates], scores[candidates], 0.5)]
    confident = int((scores[kept] >= threshold).sum())
    kept = kept[: min(max(confident, minimum), maximum)]
    return kept, labels[kept] + 1, scores[kept]


RULES = {"per_class": per_class, "class_agnostic": class_agnostic}
