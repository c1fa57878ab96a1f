"""Which proposals become regions, and of which class: the two rules of the reference (page "Post-processing").

All but probabilities is done on the host, in a few milliseconds an image, while a GPU computes other images.

Shape shorthand: P proposals of one image, C classes with the background in column 0, K regions kept.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torchvision.ops import nms

from mvptr_data.detectors.boxes import pairwise_iou
from mvptr_data.detectors.devices import one_thread
from mvptr_data.detectors.selection import kept_count

#: How far two regions of one class may overlap (`per_class`), or any two (`class_agnostic`).
CLASS_IOU, AGNOSTIC_IOU = 0.3, 0.5
#: `class_agnostic` looks at boxes above this part of the score threshold only.
AGNOSTIC_FLOOR = 0.01


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """How many regions an image keeps: those at or above `threshold`, at least `minimum`, at most `maximum`."""

    threshold: float
    minimum: int
    maximum: int

    def count(self, scores: list[float]) -> int:
        """How many of the best stay. The threshold is compared in float32, as the scores are."""
        threshold = float(np.float32(self.threshold))
        return kept_count(scores, threshold=threshold, minimum=self.minimum, maximum=self.maximum)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Kept:
    """The proposals that become regions, by descending score."""

    #: int64 [K]: which of the proposals.
    indices: Tensor
    #: int64 [K], from 1.
    labels: Tensor
    #: float32 [K].
    scores: Tensor


def class_probabilities(class_logits: Tensor) -> Tensor:
    """[P, C] -> [P, C], where the logits are."""
    with one_thread():
        return class_logits.softmax(dim=1)


def select_regions(rule: str, boxes: Tensor, probabilities: Tensor, limits: Limits) -> Kept:
    """Boxes [P, 4], class probabilities [P, C], both on the host -> the proposals that `rule` (a name in `RULES`) keeps."""
    with one_thread():
        return RULES[rule](boxes, probabilities, limits)


def per_class(boxes: Tensor, probabilities: Tensor, limits: Limits) -> Kept:
    """Non-maximum suppression within every class, then each box takes its best class among those where it survived.

    Boxes [P, 4], probabilities [P, C]. The result is that of a loop over all classes, of which only those (box, class) pairs
    are looked at that can matter: a pair is suppressed by pairs of higher probability only, so all pairs above any level can
    be judged without those below it. The level starts at the threshold and sinks until enough boxes have a class.
    A box that survives in no class is dropped, so an image can have fewer than `minimum` regions (the reference fails there).
    """
    scores = np.ascontiguousarray(probabilities[:, 1:].numpy())  # [P, C - 1]
    # In double, as torchvision compares: 0.3 and the float32 nearest to it differ.
    overlapping = (pairwise_iou(boxes, boxes).double() > CLASS_IOU).numpy()  # [P, P]
    level = limits.threshold or 0.2
    while True:
        best, labels = _best_above(scores, overlapping, level)
        found = int((best > 0).sum())
        enough = level <= limits.threshold and found >= limits.minimum
        if level == 0 or enough or found >= limits.maximum:
            break
        level = level / 4 if level > 1e-6 else 0.0
    order = np.argsort(-best, kind="stable")[:found]
    order = order[: limits.count(best[order].tolist())]
    indices, kinds, kept = (torch.from_numpy(part) for part in (order, labels[order] + 1, best[order]))
    return Kept(indices=indices, labels=kinds, scores=kept)


def class_agnostic(boxes: Tensor, probabilities: Tensor, limits: Limits) -> Kept:
    """Each box takes its best class, then one non-maximum suppression over all. Boxes [P, 4], probabilities [P, C]."""
    scores, labels = probabilities[:, 1:].max(dim=1)
    forward = ((boxes[:, 2:] - boxes[:, :2]) >= 0).all(dim=1)
    candidates = (forward & (scores > limits.threshold * AGNOSTIC_FLOOR)).nonzero()[:, 0]
    kept = candidates[nms(boxes[candidates], scores[candidates], AGNOSTIC_IOU)]
    kept = kept[: limits.count(scores[kept].tolist())]
    return Kept(indices=kept, labels=labels[kept] + 1, scores=scores[kept])


#: The rules by name: `NMS_FILTER` 1 and 2 of the reference.
RULES: dict[str, Callable[[Tensor, Tensor, Limits], Kept]] = {
    "per_class": per_class,
    "class_agnostic": class_agnostic,
}


def _best_above(scores: np.ndarray, overlapping: np.ndarray, level: float) -> tuple[np.ndarray, np.ndarray]:
    """Scores [P, C], overlapping [P, P] -> each box's best surviving score [P], 0 without one, and its class [P].

    Only pairs of at least `level` are looked at.
    """
    lowest = max(np.float32(level), np.nextafter(np.float32(0), np.float32(1)))
    pairs = np.flatnonzero(scores >= lowest)
    box, kind = np.divmod(pairs, scores.shape[1])
    score = scores.ravel()[pairs]
    # By class, then by descending score; equal scores keep the boxes' order, as torchvision's stable sort does.
    order = np.lexsort((box, -score, kind))
    box, kind, score = box[order], kind[order], score[order]
    survives = _survivors(box, kind, overlapping)
    box, kind, score = box[survives], kind[survives], score[survives]
    # Each box's best: highest score, then lowest class.
    order = np.lexsort((kind, -score, box))
    box, kind, score = box[order], kind[order], score[order]
    first = np.ones(len(box), dtype=bool)
    first[1:] = box[1:] != box[:-1]
    best = np.zeros(len(scores), dtype=np.float32)
    labels = np.zeros(len(scores), dtype=np.int64)
    best[box[first]] = score[first]
    labels[box[first]] = kind[first]
    return best, labels


def _survivors(box: np.ndarray, kind: np.ndarray, overlapping: np.ndarray) -> np.ndarray:
    """Pairs sorted by class, then best first -> bool: no surviving better pair of its class overlaps it.

    All classes advance together, a rank at a time: a row a class, its pairs along it.
    """
    total = len(box)
    if total == 0:
        return np.zeros(0, dtype=bool)
    starts = np.flatnonzero(np.r_[True, kind[1:] != kind[:-1]])
    counts = np.diff(np.r_[starts, total])
    row = np.repeat(np.arange(len(starts)), counts)
    rank = np.arange(total) - np.repeat(starts, counts)
    table = np.zeros((len(starts), counts.max()), dtype=np.int64)
    alive = np.zeros(table.shape, dtype=bool)
    table[row, rank] = box
    alive[row, rank] = True
    for current in range(table.shape[1] - 1):
        leading = np.flatnonzero(alive[:, current] & (counts > current + 1))  # classes whose pair still stands
        later = slice(current + 1, None)
        alive[leading, later] &= ~overlapping[table[leading, current, None], table[leading, later]]
    return alive[row, rank]
