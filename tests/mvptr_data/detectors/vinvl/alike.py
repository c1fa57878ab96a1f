"""Whether two lists of regions are one and the same but for roundings.

Two convolution kernels that add the same numbers in another order give maps that differ in the last bits. Where two scores
are closer than that, which comes first is chance: regions may trade places only there.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mvptr_data.detectors import Regions

#: Boxes of one proposal are nearer than this, in pixels; those of two proposals are not.
SAME_BOX = 0.25


@dataclass(frozen=True, kw_only=True)
class Expected:
    """What a reference says of an image; boxes as the reference has them, those without extent included."""

    boxes: np.ndarray
    labels: np.ndarray
    scores: np.ndarray
    features: np.ndarray
    attribute_labels: np.ndarray
    attribute_scores: np.ndarray


@dataclass(frozen=True, kw_only=True)
class Differences:
    """The largest differences between regions of one box, and how many stand at another rank."""

    boxes: float
    scores: float
    features: float
    attribute_scores: float
    displaced: int
    #: Attributes that only one of the two names, their probability being at the limit of 0.05.
    at_limit: int


def compare_regions(found: Regions, expected: Expected, attributes: Sequence[str], *, rounding: float) -> Differences:
    """Asserts that `found` is `expected` up to `rounding` of a score; says how far apart they are."""
    assert len(found) == len(expected.labels)
    distances = np.abs(found.boxes[:, None] - expected.boxes[None]).max(axis=2)  # [found, expected]
    # Two proposals can have one box along an edge: the nearest of equal scores is meant.
    partner = (distances + np.abs(found.scores[:, None] - expected.scores)).argmin(axis=1)
    ranks = np.arange(len(found))
    far = distances[ranks, partner] >= SAME_BOX
    # A region at the end of the list may be cut off in one and kept in the other.
    last = min(found.scores[-1], expected.scores[-1])
    assert (found.scores[far] - last < rounding).all(), "a box that the reference does not have"
    ranks, partner = ranks[~far], partner[~far]
    assert len(set(partner.tolist())) == len(partner), "two regions for one of the reference"
    moved = ranks != partner
    for rank, place in zip(ranks[moved], partner[moved], strict=True):
        assert abs(expected.scores[rank] - expected.scores[place]) < rounding, f"region {rank} should stand at {place}"
    assert (found.labels[ranks] == expected.labels[partner]).all()
    attribute_difference, at_limit = 0.0, 0
    for rank, place in zip(ranks, partner, strict=True):
        truth = {
            attributes[index - 1]: float(score)
            for index, score in zip(expected.attribute_labels[place], expected.attribute_scores[place], strict=True)
            if score > 0
        }
        mine = dict(zip(found.attributes[rank], found.attribute_scores[rank], strict=True))
        at_limit += len(truth.keys() ^ mine.keys())
        for name in truth.keys() | mine.keys():
            # An attribute at the limit of 0.05 may be named by one alone.
            difference = abs(truth.get(name, 0.05) - mine.get(name, 0.05))
            assert difference < rounding, f"attribute {name!r} of region {rank}"
            attribute_difference = max(attribute_difference, difference)
    return Differences(
        boxes=float(distances[ranks, partner].max()),
        scores=float(np.abs(found.scores[ranks] - expected.scores[partner]).max()),
        features=float(np.abs(found.features[ranks] - expected.features[partner]).max()),
        attribute_scores=attribute_difference,
        displaced=int(moved.sum()),
        at_limit=at_limit,
    )
