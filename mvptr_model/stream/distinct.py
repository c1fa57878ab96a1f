"""No two samples of one image in a batch: samples change places with others of their stream.

Shape legend: W batches of a window, B slots of a batch.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mvptr_model.stream.deal import EMPTY

Ints = NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class SameImages:
    """Samples whose image is found in other samples too: `sample` int64 [M] ascending, `image` int64 [M], the first of them."""

    sample: Ints
    image: Ints

    def images(self, samples: Ints) -> Ints:
        """A number for the image of each sample: its own, or that of the first sample with the same image."""
        if not len(self.sample):
            return samples
        place = np.minimum(np.searchsorted(self.sample, samples), len(self.sample) - 1)
        return np.where(self.sample[place] == samples, self.image[place], samples)


NO_SAME_IMAGES = SameImages(np.zeros(0, np.int64), np.zeros(0, np.int64))


def separate(images: Ints, groups: Ints) -> Ints:
    """Where each slot's sample comes from, so that no batch holds an image twice.

    `images` [W, B]: image numbers, `EMPTY` where a slot has none; `groups` [W, B]: samples change places within a group only.
    Returns int64 [W, B], places in the flattened window; `EMPTY` for a sample for which no batch of the window has room.
    A function of its arguments: the later of two samples moves, to the nearest batch after it where that leaves both sound.
    """
    places = np.arange(images.size).reshape(images.shape)
    conflicts = [(row, column) for row in range(len(images)) for column in _repeated(images[row])]
    if not conflicts:
        return places
    images = images.copy()
    held = [Counter(row.tolist()) for row in images]
    for row, column in conflicts:
        if held[row][int(images[row, column])] < 2:  # the other one, or this one's predecessor, has left
            continue
        if (partner := _partner(images, groups, held, row, column)) is None:
            places[row, column] = EMPTY
            held[row][int(images[row, column])] -= 1
            images[row, column] = EMPTY
            continue
        mine, theirs = int(images[row, column]), int(images[partner])
        for batch, leaves, comes in ((row, mine, theirs), (partner[0], theirs, mine)):
            held[batch][leaves] -= 1
            held[batch][comes] += 1
        images[row, column], images[partner] = theirs, mine
        places[row, column], places[partner] = places[partner], places[row, column]
    return places


def _repeated(images: Ints) -> list[int]:
    """The slots of one batch whose image is in an earlier slot as well, ascending."""
    order = np.argsort(images, kind="stable")
    ordered = images[order]
    again = (ordered[1:] == ordered[:-1]) & (ordered[1:] != EMPTY)
    return sorted(order[1:][again].tolist())


def _partner(images: Ints, groups: Ints, held: list[Counter[int]], row: int, column: int) -> tuple[int, int] | None:
    """The slot to change places with: of the same group, in another batch, neither image a second time in its new one."""
    mine, group = int(images[row, column]), groups[row, column]
    for step in range(1, len(images)):
        other = (row + step) % len(images)
        if held[other][mine]:
            continue
        for candidate in np.flatnonzero((groups[other] == group) & (images[other] != EMPTY)).tolist():
            if not held[row][int(images[other, candidate])]:
                return other, candidate
    return None
