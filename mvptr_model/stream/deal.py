"""One data set dealt to canonical streams, and the order of each stream in each pass over it.

Shape legend: S shards, N samples, R rounds, C streams, L slots of a stream in a pass.

The shards, in an order that only the data set and C decide, are laid end to end and cut into C equal streams: a stream's
shards are the same in every pass, so a node that reads one stream caches one C-th of the data. In each pass a stream's shards
are shuffled, taken in blocks of a few, and the samples of a block are shuffled: only a block's shards are open at a time.

With a caption an image, a pass is one round over all samples. With every (image, caption) pair, round r goes over the samples
that have more than r captions, so a pass has as many rounds as the largest number of captions, and an image comes once in each.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from mvptr_data.storage import digest
from mvptr_model.stream.keyed import permutation

Ints = NDArray[np.int64]
#: What fills a slot when a stream has no more samples.
EMPTY = -1
#: Shuffled blocks that are kept at hand: those of 64 streams, twice.
_BLOCKS_KEPT = 128


@dataclass(frozen=True, slots=True, eq=False)
class SampleCounts:
    """What an order needs to know of a data set.

    `at_least`: int64 [R, S], how many samples of each shard have more than r captions; row 0 counts all of them.
    `captions_of(shard)`: the number of captions of each of its samples; asked only where a shard's samples differ in it.
    `digest` names the plan, the usable keys and the caption counts.
    """

    at_least: Ints
    captions_of: Callable[[int], Ints]
    digest: str

    @property
    def samples(self) -> int:
        return int(self.at_least[0].sum())


def joined(sets: Sequence[SampleCounts]) -> SampleCounts:
    """Several data sets as one: their shards, and so their samples, one set after another."""
    rounds = max(len(counts.at_least) for counts in sets)
    padded = [np.pad(counts.at_least, ((0, rounds - len(counts.at_least)), (0, 0))) for counts in sets]
    first = np.cumsum([0, *(part.shape[1] for part in padded)])

    def captions_of(shard: int) -> Ints:
        owner = int(np.searchsorted(first, shard, side="right")) - 1
        return sets[owner].captions_of(shard - int(first[owner]))

    return SampleCounts(np.concatenate(padded, axis=1), captions_of, digest([counts.digest for counts in sets]))


class Deal:
    """The passes over one data set, as C streams of `length` slots each."""

    def __init__(self, counts: SampleCounts, *, seed: int, streams: int, block_shards: int, rounds: int) -> None:
        self._counts, self._seed, self._block_shards = counts, seed, block_shards
        self._first = np.concatenate([[0], np.cumsum(counts.at_least[0])])
        dealt = permutation(counts.at_least.shape[1], "deal", counts.digest, streams)
        #: By stream and round: the shard, start and stop of each segment.
        self._segments = [[_cut(counts.at_least[r], dealt, c, streams) for r in range(rounds)] for c in range(streams)]
        sizes = [[int((cut[:, 2] - cut[:, 1]).sum()) for cut in rounds_of] for rounds_of in self._segments]
        #: int64 [C, R + 1]: where each round begins in a stream's pass.
        self._begins = np.cumsum([[0, *row] for row in sizes], axis=1)
        self._block = lru_cache(_BLOCKS_KEPT)(self._shuffled_block)
        self._blocks = lru_cache(2 * streams)(self._blocks_of)

    @property
    def lengths(self) -> Ints:
        """int64 [C]: the slots of each stream that hold samples; they differ by R at most."""
        return self._begins[:, -1]

    def slots(self, stream: int, number: int, start: int, stop: int) -> tuple[Ints, Ints]:
        """Samples and rounds in the slots `start` to `stop` of a stream's pass `number`; `EMPTY` after its end."""
        samples, rounds = np.full(stop - start, EMPTY, np.int64), np.zeros(stop - start, np.int64)
        begins = self._begins[stream]
        at = start
        while at < min(stop, begins[-1]):
            turn = int(np.searchsorted(begins, at, side="right")) - 1
            ends, _ = self._blocks(stream, number, turn)
            block = int(np.searchsorted(ends, at - begins[turn], side="right"))
            found = self._block(stream, number, turn, block)
            skipped = at - int(begins[turn] + ends[block]) + len(found)
            taken = found[skipped : skipped + stop - at]
            samples[at - start : at - start + len(taken)] = taken
            rounds[at - start : at - start + len(taken)] = turn
            at += len(taken)
        return samples, rounds

    def _blocks_of(self, stream: int, number: int, turn: int) -> tuple[Ints, Ints]:
        """Where the blocks of a round end in its samples, and its segments in this pass's order."""
        segments = self._segments[stream][turn]
        order = permutation(len(segments), "shards", self._seed, number, stream, turn)
        ends = np.cumsum((segments[:, 2] - segments[:, 1])[order])
        last = np.arange(self._block_shards, len(ends) + self._block_shards, self._block_shards)
        return ends[np.minimum(last, len(ends)) - 1], segments[order]

    def _shuffled_block(self, stream: int, number: int, turn: int, block: int) -> Ints:
        _, segments = self._blocks(stream, number, turn)
        chosen = segments[block * self._block_shards : (block + 1) * self._block_shards].tolist()
        samples = np.concatenate([self._samples(turn, *segment) for segment in chosen])
        return samples[permutation(len(samples), "samples", self._seed, number, stream, turn, block)]

    def _samples(self, turn: int, shard: int, start: int, stop: int) -> Ints:
        """Those of a shard's samples that are in the round, from `start` to `stop`; numbered over the whole data set."""
        at_least, first = self._counts.at_least, self._first[shard]
        if at_least[turn, shard] == at_least[0, shard]:
            return np.arange(first + start, first + stop)
        return first + np.flatnonzero(self._counts.captions_of(shard) > turn)[start:stop]


def _cut(counts: Ints, dealt: Ints, stream: int, streams: int) -> Ints:
    """int64 [segments, 3]: shard, start, stop of what one stream has of the n samples that lie end to end in dealt order."""
    ends = np.cumsum(counts[dealt])
    total = int(counts.sum())
    low, high = total * stream // streams, total * (stream + 1) // streams
    starts, stops = np.maximum(ends - counts[dealt], low), np.minimum(ends, high)
    begins = ends - counts[dealt]
    return np.stack([dealt, starts - begins, stops - begins], axis=1)[starts < stops]
