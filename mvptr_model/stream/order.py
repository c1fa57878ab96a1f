"""The order of samples: what fills each slot of each global batch, as a pure function.

Shape legend: N samples, T batches of an epoch, B slots of a global batch, C canonical streams, W batches of a window.

    order = Order([counts], OrderSettings(global_batch=1024, seed=7))
    slots = order.batch(epoch=2, number=50)     # of the global batch, for any number of ranks
    mine = slots.share(rank, world)             # a rank's contiguous part of it

A batch is a function of (order digest, seed, epoch, global batch, canonical streams): nothing is drawn, so nothing has to be
remembered, and any rank computes any batch at once, wherever a run was stopped and on whatever it goes on. Each batch takes
B / C slots of each stream (`deal.py`). Several data sets with weights share each stream's slots by a fixed pattern; each goes
on with its own passes. Where a batch would hold an image twice, samples of one stream change places (`distinct.py`) within a
window of W batches.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise

import numpy as np

from mvptr_data.errors import InputError
from mvptr_data.storage import digest
from mvptr_model.stream.deal import EMPTY, Deal, Ints, SampleCounts, joined
from mvptr_model.stream.distinct import NO_SAME_IMAGES, SameImages, separate
from mvptr_model.stream.keyed import key, mixed
from mvptr_model.stream.mixture import Pattern
from mvptr_model.stream.settings import OrderSettings

#: Raised with every change that alters an order; called out in CHANGELOG.md as ORDER change.
ORDER_VERSION = 1
#: Batches within which samples may change places.
WINDOW = 32


@dataclass(frozen=True, slots=True, eq=False)
class Slots:
    """Slots of a batch, int64 [slots] each.

    `sample` counts over all data sets, one after another; `EMPTY` where a slot has none and weighs 0. `turn`: which of the
    image's captions in its order (`captions_of`). `number`: the pass over its data set.
    """

    sample: Ints
    turn: Ints
    number: Ints

    def __len__(self) -> int:
        return len(self.sample)

    def share(self, rank: int, world: int) -> Slots:
        """The contiguous part of one of `world` ranks; the parts of all, one after another, are these slots."""
        return self[rank * len(self) // world : (rank + 1) * len(self) // world]

    def __getitem__(self, part: slice) -> Slots:
        return Slots(self.sample[part], self.turn[part], self.number[part])


class Order:
    """The batches of one or more data sets; see the module's text.

    `batches` is the number of global batches in an epoch: one pass over all samples, or with `weights` as many slots as that.
    """

    def __init__(
        self, sets: Sequence[SampleCounts], settings: OrderSettings, same_images: SameImages = NO_SAME_IMAGES
    ) -> None:
        """Raises `InputError` where the data sets cannot fill one batch, or their number is not that of the weights."""
        if settings.weights is not None and len(settings.weights) != len(sets):
            raise InputError(f"{len(settings.weights)} weights for {len(sets)} data sets", "Give one for each.")
        self.settings, self._same_images = settings, same_images
        #: Names all that an order depends on beside seed, global batch and canonical streams.
        self.digest = digest([ORDER_VERSION, [counts.digest for counts in sets], settings.reading()])
        parts = [joined(sets)] if settings.weights is None else list(sets)
        self._pattern = Pattern(settings.weights or [1.0])
        self._deals = [
            Deal(
                counts,
                seed=settings.seed,
                streams=settings.canonical_streams,
                block_shards=settings.block_shards,
                rounds=1 if settings.captions == "one" else len(counts.at_least),
            )
            for counts in parts
        ]
        self._offsets = np.cumsum([0, *(counts.samples for counts in parts)])
        self._width = settings.global_batch // settings.canonical_streams
        self._pass_slots = [self._pass(deal.lengths) for deal in self._deals]
        self.batches = sum(self._pass_slots) // self._width
        images = self._offsets[-1] - len(same_images.sample) + len(np.unique(same_images.image))
        wanted = settings.global_batch if settings.distinct_images else 1
        if min(self._pass_slots) == 0 or not self.batches or images < wanted:
            raise InputError(
                f"{self._offsets[-1]} samples of {images} images do not fill a global batch of {settings.global_batch}",
                "Choose a smaller global_batch, or fewer canonical_streams.",
            )
        self._window = lru_cache(4)(self._arranged)

    def batch(self, epoch: int, number: int) -> Slots:
        """The global batch `number` (from 0) of an epoch. Raises `IndexError` where an epoch has no such batch."""
        if not 0 <= number < self.batches or epoch < 0:
            raise IndexError(f"batch {number} of epoch {epoch}; an epoch has {self.batches} batches")
        window, row = divmod(epoch * self.batches + number, WINDOW)
        size = self.settings.global_batch
        return self._window(window)[row * size : (row + 1) * size]

    def _pass(self, lengths: Ints) -> int:
        """A stream's slots in a pass. Alone, a data set's pass is of whole batches; beside others it ends anywhere."""
        width = self._width if self.settings.weights is None else 1
        return int(lengths.min() // width if self.settings.tail == "drop" else -(-lengths.max() // width)) * width

    def _arranged(self, window: int) -> Slots:
        """The slots of a window's W batches, one batch after another."""
        streams = self.settings.canonical_streams
        start = window * WINDOW * self._width
        columns = np.stack([self._stream(c, start, start + WINDOW * self._width) for c in range(streams)])
        # [what, C, W * b] -> [what, W, B]
        sample, turn, number, group = (
            part.reshape(streams, WINDOW, self._width).swapaxes(0, 1).reshape(WINDOW, -1)
            for part in columns.swapaxes(0, 1)
        )
        if self.settings.distinct_images:
            places = separate(self._same_images.images(sample), group).ravel()
            sample = np.where(places == EMPTY, EMPTY, sample.ravel()[places])
            turn, number = turn.ravel()[places], number.ravel()[places]
        return Slots(sample.ravel(), turn.ravel(), number.ravel())

    def _stream(self, stream: int, start: int, stop: int) -> Ints:
        """int64 [4, stop - start]: sample, turn, pass and exchange group of a stream's slots, counted over all epochs."""
        found = np.empty((4, stop - start), np.int64)
        owners = self._pattern.owners(start, stop)
        before, after = self._pattern.had(start), self._pattern.had(stop)
        for owner, deal in enumerate(self._deals):
            taken = [
                self._in_pass(owner, deal, stream, number, low, high)
                for number, low, high in _passes(int(before[owner]), int(after[owner]), self._pass_slots[owner])
            ]
            found[:, owners == owner] = np.concatenate(taken, axis=1) if taken else np.empty((4, 0), np.int64)
        return found

    def _in_pass(self, owner: int, deal: Deal, stream: int, number: int, low: int, high: int) -> Ints:
        sample, turn = deal.slots(stream, number, low, high)
        sample = np.where(sample == EMPTY, EMPTY, sample + self._offsets[owner])
        group = (number * len(self._deals) + owner) * self.settings.canonical_streams + stream
        return np.stack([sample, turn, np.full_like(turn, number), np.full_like(turn, group)])


def _passes(start: int, stop: int, length: int) -> list[tuple[int, int, int]]:
    """Slots `start` to `stop`, counted over all passes, as (pass, from, to)."""
    cuts = [start, *range((start // length + 1) * length, stop, length), stop]
    return [(low // length, low % length, low % length + high - low) for low, high in pairwise(cuts) if low < high]


def captions_of(settings: OrderSettings, slots: Slots, captions: Ints) -> Ints:
    """int64 [slots]: which of its image's `captions` [slots] each takes: over its turns, or with one a pass over its passes, each
    comes once before any comes again."""
    cycle, place = (slots.number, slots.turn) if settings.captions == "every" else np.divmod(slots.number, captions)
    keys = mixed(mixed(np.uint64(key("captions", settings.seed)), slots.sample), cycle)
    drawn = mixed(keys[:, None], np.arange(captions.max(initial=1)))
    drawn[np.arange(drawn.shape[1]) >= captions[:, None]] = np.iinfo(
        np.uint64
    ).max  # what an image does not have comes last
    return np.argsort(drawn, axis=1, kind="stable")[np.arange(len(place)), place]
