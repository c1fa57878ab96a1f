"""Ready-made regions of an image, from what its lines say.

Shapes: K regions of one image.

Boxes are the predictions' rects, in pixels; without rects they are the geometry (`reference/model.md` 1) times the image's size,
and without a size they stay parts of the image, 0..1. Where rects and geometry are both there, they have to agree, and give
the image's size if nothing else does.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from mvptr_data.dataset.records import BOX_TOLERANCE
from mvptr_data.errors import SampleFault
from mvptr_data.sources.feature_lines import LineParts

#: Parts of the image by which rects and geometry may differ: some tools count a box's last pixel in, some do not.
AGREEMENT = 0.02
#: Pixels by which a box may leave its image and is cut at its edge; beyond that the size is another image's.
OVERHANG = 1.0
#: Parts of the image by which roundings may let a box end before it begins: below what float32 geometry tells apart.
ROUNDING = 5e-7


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ReadyRegions:
    """The regions of one image in descending order of score; regions of one score stay in the file's order.

    `boxes` float32 [K, 4], x1 y1 x2 y2 in pixels, or 0..1 where `width` and `height` are None; `features` float32 [K, 2048];
    `scores` float32 [K], 1.0 where the file has none; `labels` int32 [K], 0 where the file has none; the rest has K entries.
    """

    boxes: NDArray[np.float32]
    features: NDArray[np.float32]
    scores: NDArray[np.float32]
    labels: NDArray[np.int32]
    tags: tuple[str, ...]
    attributes: tuple[tuple[str, ...], ...]
    attribute_scores: tuple[tuple[float, ...], ...]
    gold_tags: tuple[str, ...] | None
    width: int | None
    height: int | None


def merge(features: LineParts, predictions: LineParts) -> LineParts:
    """One image's parts from two files. Raises `SampleFault("broken_record")` where they count different regions."""
    if features.count != predictions.count:
        raise SampleFault(
            "broken_record",
            f"the features are of {features.count} regions, the predictions have {predictions.count} objects",
        )
    return replace(predictions, vectors=features.vectors, geometry=features.geometry)


def make_regions(parts: LineParts, *, size: tuple[int, int] | None, default_tag: str | None) -> ReadyRegions:
    """The regions that `parts` tell of.

    `size` (width, height) is used where the parts have none; `default_tag` is the tag of regions without a class. Raises
    `SampleFault("broken_record")`, naming what is missing or does not fit.
    """
    if parts.vectors is None:
        raise SampleFault("broken_record", "there are no features")
    count = parts.count
    boxes, size = _boxes(parts, parts.size or size)
    with np.errstate(over="ignore"):
        scores = np.array([1.0 if score is None else score for score in parts.scores or (None,) * count], np.float32)
    if not np.isfinite(scores).all():
        raise SampleFault("broken_record", "a score is infinite")
    tags = [tag or default_tag for tag in parts.tags or (None,) * count]
    named = tuple(tag for tag in tags if tag)
    if len(named) < count:
        raise SampleFault("broken_record", f"{count - len(named)} of {count} regions have no class")
    attributes = parts.attributes or ((),) * count
    attribute_scores = parts.attribute_scores or ((),) * count
    labels = np.array(parts.labels or (0,) * count, np.int32)
    features = parts.vectors
    order = np.argsort(-scores, kind="stable")
    if (np.diff(order) != 1).any():
        boxes, features, scores, labels = boxes[order], features[order], scores[order], labels[order]
        named = tuple(named[place] for place in order)
        attributes = tuple(attributes[place] for place in order)
        attribute_scores = tuple(attribute_scores[place] for place in order)
    return ReadyRegions(
        boxes=boxes,
        features=features,
        scores=scores,
        labels=labels,
        tags=named,
        attributes=attributes,
        attribute_scores=attribute_scores,
        gold_tags=parts.gold_tags,
        width=size[0] if size else None,
        height=size[1] if size else None,
    )


def _boxes(parts: LineParts, size: tuple[int, int] | None) -> tuple[NDArray[np.float32], tuple[int, int] | None]:
    """float32 [K, 4], and the size that they are in: None for parts of the image."""
    rects, geometry = parts.rects, parts.geometry
    if geometry is not None:
        _check_geometry(geometry)
    if rects is None and geometry is None:
        raise SampleFault("broken_record", "there are no boxes: no rects, and the features are 2048 wide")
    if rects is None:
        assert geometry is not None
        scale = np.array([*(size or (1, 1))] * 2)
        boxes = geometry[:, :4].astype(np.float64) * scale
    else:
        relative = size is None and bool((rects <= 1 + BOX_TOLERANCE).all())
        if size is None and not relative:
            size = None if geometry is None else _size_from(rects, geometry)
            if size is None:
                raise SampleFault("broken_record", "the rects are in pixels, and the image's size is not known")
        boxes = rects
        if geometry is not None and count_differing(boxes, geometry, size or (1, 1)):
            raise SampleFault(
                "broken_record", "rects and geometry are of different boxes: are features and predictions of one run?"
            )
    with np.errstate(over="ignore"):
        return _sound(boxes.astype(np.float32), size), size


def count_differing(rects: NDArray[np.float64], geometry: NDArray[np.float32], size: tuple[int, int]) -> int:
    """How many boxes [K, 4] are not those of the geometry [K, 6] in an image of `size`."""
    difference = np.abs(rects / np.array([*size, *size]) - geometry[:, :4])
    return int((difference > AGREEMENT).any(axis=1).sum())


def _check_geometry(geometry: NDArray[np.float32]) -> None:
    low, extent = geometry[:, :2], geometry[:, 2:4] - geometry[:, :2]
    if (geometry[:, :4] > 1 + BOX_TOLERANCE).any() or (low < -BOX_TOLERANCE).any():
        raise SampleFault("broken_record", "the last six numbers of a feature are no geometry: corners beyond 0..1")
    if (np.abs(extent - geometry[:, 4:]) > AGREEMENT).any():
        raise SampleFault(
            "broken_record", "the last six numbers of a feature are no geometry: width and height are not the corners'"
        )


def _size_from(rects: NDArray[np.float64], geometry: NDArray[np.float32]) -> tuple[int, int] | None:
    """(width, height) in pixels by which the geometry becomes the rects; None where no one size does."""
    sides = []
    for axis in (0, 1):
        pixels, parts = rects[:, 2 + axis], geometry[:, 2 + axis].astype(np.float64)
        if not (parts > 0).any():
            return None
        widest = int(parts.argmax())
        side = round(pixels[widest] / parts[widest])
        if side < 1 or (np.abs(parts * side - pixels) > 1e-5 * side + BOX_TOLERANCE).any():
            return None
        sides.append(side)
    return sides[0], sides[1]


def _sound(boxes: NDArray[np.float32], size: tuple[int, int] | None) -> NDArray[np.float32]:
    """Boxes [K, 4] that are boxes in the image; one may have no extent, where a detector counts its last pixel in."""
    if not np.isfinite(boxes).all():
        raise SampleFault("broken_record", "a box is infinite")
    limit = np.array(size or (1, 1), np.float32)
    overhang = max(0.0, -boxes.min(initial=0), (boxes[:, 2:] - limit).max(initial=0))
    if overhang > (OVERHANG if size else BOX_TOLERANCE):
        where = f"its image of {size[0]} x {size[1]}" if size else "0..1"
        raise SampleFault("broken_record", f"a box leaves {where} by {overhang:.4g}")
    if overhang > BOX_TOLERANCE:
        boxes = np.clip(boxes, 0, np.tile(limit, 2))
    low, high = boxes[:, :2], boxes[:, 2:]
    if (high < low - 2 * ROUNDING * limit).any():
        raise SampleFault("broken_record", "a box ends before it begins (x2 < x1 or y2 < y1)")
    return np.concatenate([low, np.maximum(low, high)], axis=1)
