"""How good a detector is on pictures whose truth is known: precision, recall, attributes.

Shape shorthand: K regions and T things of one picture. All of it is NumPy, so that it measures any `Detector`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mvptr_data.abstract_scenes import KINDS, SIZES, Thing
from mvptr_data.detectors.interface import Regions

#: A region has found a thing when they overlap at least this much.
MATCH_IOU = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    """What was measured. All values are shares, 0 to 1."""

    #: Mean over kinds of the area under the precision-recall curve at IoU 0.5.
    ap50: float
    ap50_by_kind: dict[str, float]
    #: Things found with their kind by the regions at or above the operating threshold, and by size of thing.
    recall: float
    recall_by_size: dict[str, float]
    #: Regions at or above the operating threshold that have found a thing of their kind.
    precision: float
    #: Colors and sizes named rightly, of those of the things that a region at or above the threshold lies on.
    attribute_accuracy: float
    color_accuracy: float
    size_accuracy: float


def overlaps(boxes: np.ndarray, others: np.ndarray) -> np.ndarray:
    """[K, 4], [T, 4] -> [K, T], intersection over union of boxes that are not empty."""
    low = np.maximum(boxes[:, None, :2], others[None, :, :2])
    high = np.minimum(boxes[:, None, 2:], others[None, :, 2:])
    shared = (high - low).clip(min=0).prod(axis=2)
    areas, other_areas = ((b[:, 2:] - b[:, :2]).prod(axis=1) for b in (boxes, others))
    return shared / (areas[:, None] + other_areas[None, :] - shared)


def match(iou: np.ndarray) -> np.ndarray:
    """[K, T], regions by descending score -> [K], the thing each region has found, or -1.

    Each region in turn takes the thing it overlaps most among those still free, from `MATCH_IOU` on.
    """
    found = np.full(len(iou), -1)
    free = iou.copy()
    for region in range(len(iou)):
        if free.shape[1] and free[region].max() >= MATCH_IOU:
            found[region] = free[region].argmax()
            free[:, found[region]] = -1.0
    return found


def average_precision(scores: np.ndarray, correct: np.ndarray, things: int) -> float:
    """Scores [N] of all regions of one kind, whether each has found a thing [N], and how many things there are.

    The area under the curve of precision over recall, precision made monotone (PASCAL VOC from 2010 on; every point).
    0 where nothing was found.
    """
    hits = correct[np.argsort(-scores, kind="stable")]
    precision = hits.cumsum() / np.arange(1, len(hits) + 1)
    envelope = np.maximum.accumulate(precision[::-1])[::-1]
    return float(envelope[hits].sum() / things)


def evaluate(found: Sequence[Regions], truth: Sequence[Sequence[Thing]], *, threshold: float) -> Evaluation:
    """Regions and things of the same pictures -> how well they agree.

    AP takes every region, so `found` should reach down to low scores; everything else is measured at `threshold`.
    """
    kind_scores: dict[str, list[float]] = {kind: [] for kind in KINDS}
    kind_correct: dict[str, list[bool]] = {kind: [] for kind in KINDS}
    things_found: list[tuple[Thing, bool]] = []
    right_regions, confident_regions = 0, 0
    colors: list[bool] = []
    sizes: list[bool] = []
    for regions, things in zip(found, truth, strict=True):
        iou = overlaps(regions.boxes, np.array([thing.box for thing in things], dtype=np.float32))
        same_kind = np.array([[tag == thing.kind for thing in things] for tag in regions.tags])
        with_kind = match(np.where(same_kind, iou, 0.0))
        confident = int((regions.scores >= threshold).sum())
        for region, tag in enumerate(regions.tags):
            kind_scores[tag].append(float(regions.scores[region]))
            kind_correct[tag].append(with_kind[region] >= 0)
        named = set(with_kind[:confident].tolist())
        things_found.extend((thing, index in named) for index, thing in enumerate(things))
        right_regions += int((with_kind[:confident] >= 0).sum())
        confident_regions += confident
        for region, thing in enumerate(match(iou[:confident])):
            if thing >= 0:
                colors.append(things[thing].color in regions.attributes[region])
                sizes.append(things[thing].size in regions.attributes[region])
    by_kind = {
        kind: average_precision(
            np.array(kind_scores[kind]),
            np.array(kind_correct[kind], dtype=bool),
            sum(thing.kind == kind for thing, _ in things_found),
        )
        for kind in KINDS
        if any(thing.kind == kind for thing, _ in things_found)
    }
    return Evaluation(
        ap50=_share(list(by_kind.values())),
        ap50_by_kind=by_kind,
        recall=_share([was_found for _, was_found in things_found]),
        recall_by_size={size: _share([hit for thing, hit in things_found if thing.size == size]) for size in SIZES},
        precision=right_regions / max(confident_regions, 1),
        attribute_accuracy=_share(colors + sizes),
        color_accuracy=_share(colors),
        size_accuracy=_share(sizes),
    )


def _share(values: Sequence[float]) -> float:
    return float(np.mean(values)) if len(values) else 0.0
