"""The compact detector behind the `Detector` interface.

Shape shorthand: P proposals of an image, K regions kept, C kinds, D = 2048.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from torchvision.ops import batched_nms

from mvptr_data.detectors.boxes import clip, decode
from mvptr_data.detectors.compact.layers import fold_normalization
from mvptr_data.detectors.compact.model import CompactModel
from mvptr_data.detectors.compact.options import CompactOptions
from mvptr_data.detectors.compact.pixels import NETWORK_SIZE, PreparedPicture, prepare
from mvptr_data.detectors.compact.roi_heads import BOX_WEIGHTS
from mvptr_data.detectors.compact.rpn import anchor_boxes, propose
from mvptr_data.detectors.compact.weights import BUNDLED_WEIGHTS, FORMAT_VERSION, TrainedModel, load_weights
from mvptr_data.detectors.interface import Regions
from mvptr_data.detectors.selection import kept_count

#: Raised when the same weights and options begin to give other regions.
ALGORITHM_VERSION = 1

#: What `load` takes.
OPTIONS = ("weights", *(option.name for option in fields(CompactOptions)))


class CompactDetector:
    """Small Faster R-CNN with attributes: 2048-d features, kinds, a color and a size for every region.

    Images go through the network one by one, so that an image's regions cannot depend on its neighbors, whichever kernels
    the processor has for which batch. In fp32 that costs 8 % (two threads: 79 pictures/s alone, 85 in batches of 8).
    """

    name = "compact"

    def __init__(self, trained: TrainedModel, options: CompactOptions) -> None:
        self._names = trained.names
        self._digest = trained.digest
        self._options = options
        self._model = inference_model(trained.model, options.precision)

    def configuration(self) -> dict[str, object]:
        """See `Detector.configuration`."""
        return {
            "name": self.name,
            "version": ALGORITHM_VERSION,
            "weights_format": FORMAT_VERSION,
            "weights_sha256": self._digest,
            "network_size": NETWORK_SIZE,
            **asdict(self._options),
        }

    def prepare(self, image: Image.Image) -> PreparedPicture:
        """`image` at its network size. Raises `ValueError` for an image that is not RGB."""
        return prepare(image)

    def detect(self, images: Sequence[Image.Image | PreparedPicture]) -> list[Regions]:
        """See `Detector.detect`; takes images or what `prepare` made of them. Raises as `prepare`."""
        return [self._regions(image if isinstance(image, PreparedPicture) else prepare(image)) for image in images]

    @torch.inference_mode()
    def _regions(self, image: PreparedPicture) -> Regions:
        pixels = image.pixels  # uint8 [3, H, W]
        height, width = pixels.shape[1:]

        # 1. Boxes that may hold a thing.
        feature_map = self._model.feature_map(pixels[None])
        objectness, deltas = self._model.rpn(feature_map)
        proposals = propose(
            objectness[0],
            deltas[0],
            anchor_boxes(*feature_map.shape[2:]),
            width=width,
            height=height,
            limit=self._options.proposals,
        )

        # 2. What each holds, and where it is exactly.
        vectors = self._model.roi.pool(feature_map, [proposals])  # [P, D]
        kind_logits, steps = self._model.roi.classify(vectors)
        boxes = clip(decode(steps, proposals, BOX_WEIGHTS), width, height)
        scores, kinds = kind_logits.softmax(dim=1)[:, 1:].max(dim=1)  # [P]; kinds from 0

        # 3. One region per thing, best first.
        kept = batched_nms(boxes, scores, kinds, self._options.nms_iou)
        count = kept_count(
            scores[kept].tolist(),
            threshold=self._options.score_threshold,
            minimum=self._options.min_regions,
            maximum=self._options.max_regions,
        )
        kept = kept[:count]
        labels = kinds[kept] + 1

        # 4. Its color and size.
        described = self._model.roi.describe(vectors[kept], labels, proposals[kept])
        attributes, attribute_scores = _best_attributes(described, (self._names.colors, self._names.sizes))

        # 5. Back to the image's own pixels.
        stretch = boxes.new_tensor([image.size[0] / width, image.size[1] / height]).repeat(2)
        return Regions(
            boxes=clip(boxes[kept] * stretch, *image.size).numpy(),
            features=vectors[kept].numpy(),
            scores=scores[kept].numpy(),
            labels=labels.int().numpy(),
            tags=tuple(self._names.kinds[kind] for kind in kinds[kept].tolist()),
            attributes=attributes,
            attribute_scores=attribute_scores,
        )


def inference_model(model: CompactModel, precision: str) -> CompactModel:
    """`model` made quick, in place: normalization folded, channels last, convolutions in bf16 if `precision` says so."""
    model.eval()
    fold_normalization(model)
    if precision == "bf16":
        for convolutions in (model.backbone, model.rpn, model.roi.block):
            convolutions.to(dtype=torch.bfloat16)
    return model.to(memory_format=torch.channels_last)


def load(*, weights: str | os.PathLike[str] | None = None, **options: Any) -> CompactDetector:
    """The detector with the weights of this package, or with those in the file `weights`; see `CompactOptions`."""
    return CompactDetector(load_weights(Path(weights) if weights else BUNDLED_WEIGHTS), CompactOptions(**options))


def _best_attributes(
    logits: Sequence[Tensor], names: Sequence[Sequence[str]]
) -> tuple[tuple[tuple[str, ...], ...], tuple[tuple[float, ...], ...]]:
    """For each group of attributes logits [K, *] and its names -> each region's best of every group, by descending score."""
    best = [group.softmax(dim=1).max(dim=1) for group in logits]
    scores = torch.stack([values for values, _ in best], dim=1).tolist()  # K x groups
    chosen = torch.stack([indices for _, indices in best], dim=1).tolist()
    rows = [
        sorted(
            ((score, group[index]) for score, index, group in zip(*row, names, strict=True)), key=lambda pair: -pair[0]
        )
        for row in zip(scores, chosen, strict=True)
    ]
    return (
        tuple(tuple(name for _, name in row) for row in rows),
        tuple(tuple(score for score, _ in row) for row in rows),
    )
