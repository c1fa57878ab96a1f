"""What every detector takes and gives.

Shape shorthand: K regions of one image, in descending order of score.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING, Protocol

import numpy as np

if TYPE_CHECKING:
    from PIL import Image

#: Length of a region's feature vector: the width of a ResNet's last stage, which MVPTR and VinVL consume.
FEATURE_SIZE = 2048


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Regions:
    """The regions of one image.

    Raises `ValueError` when the parts disagree in length, shape or dtype, and for scores that are not finite or not descending.
    """

    #: float32 [K, 4]: x1, y1, x2, y2 in pixels of the original image, 0 <= x1 <= x2 <= width and the same for y.
    boxes: np.ndarray
    #: float32 [K, 2048]: the pooled vector of each region.
    features: np.ndarray
    #: float32 [K]: probability of the region's class, descending.
    scores: np.ndarray
    #: int32 [K]: class index, from 1; 0 is the background and never occurs.
    labels: np.ndarray
    #: K class names.
    tags: tuple[str, ...]
    #: K tuples of attribute names, each by descending score; a tuple may be empty.
    attributes: tuple[tuple[str, ...], ...]
    #: The probabilities of `attributes`, in the same nesting.
    attribute_scores: tuple[tuple[float, ...], ...]

    def __post_init__(self) -> None:
        count = len(self.tags)
        expected = {
            "boxes": (self.boxes, (count, 4), np.float32),
            "features": (self.features, (count, FEATURE_SIZE), np.float32),
            "scores": (self.scores, (count,), np.float32),
            "labels": (self.labels, (count,), np.int32),
        }
        for name, (array, shape, dtype) in expected.items():
            if not isinstance(array, np.ndarray):
                raise ValueError(f"{name} must be a numpy array, got {type(array).__name__}")
            if array.shape != shape or array.dtype != dtype:
                raise ValueError(f"{name} must be {np.dtype(dtype)} {shape}, got {array.dtype} {array.shape}")
        if not np.isfinite(self.scores).all() or not np.isfinite(list(chain(*self.attribute_scores))).all():
            raise ValueError("a score is NaN or infinite")
        if (np.diff(self.scores) > 0).any():
            raise ValueError("the scores do not descend, and readers take the first regions for the best")
        if any(isinstance(names, str) for names in (self.tags, *self.attributes)):
            raise ValueError("tags, or a region's attributes, are one text and no tuple of texts")
        if [len(names) for names in self.attributes] != [len(scores) for scores in self.attribute_scores]:
            raise ValueError("attributes and attribute_scores differ in nesting")
        if not all(isinstance(name, str) and name for names in (self.tags, *self.attributes) for name in names):
            raise ValueError("a tag or an attribute is no text")
        if (self.labels < 1).any():
            raise ValueError(f"the label {self.labels.min()} is no class: they count from 1")
        if len(self.attributes) != count:
            raise ValueError(f"{len(self.attributes)} regions have attributes, {count} have tags")

    def __len__(self) -> int:
        return len(self.tags)


class Detector(Protocol):
    """Finds regions in images. One instance serves one process; the registry makes them (`load_detector`).

    Two attributes are optional, for detectors that want work done ahead of them:

    * `prepare(image) -> prepared`: what can be done to one image without the others (resizing, say), a pure function. The
      pipeline calls it in its decoding threads and hands what it returned to `detect` in the image's place; `detect` takes
      plain images all the same.
    * `window: int`: how many images `detect` likes to see at once (16 without it), so that it can batch those of one size.
    """

    #: The name the registry knows it by.
    name: str

    def configuration(self) -> dict[str, object]:
        """Everything that changes the output, JSON-able: equal dictionaries mean equal output on the same machine."""
        ...

    def detect(self, images: Sequence[Image.Image]) -> list[Regions]:
        """One `Regions` per RGB image, in the order given. Which images share a call changes no image's result."""
        ...
