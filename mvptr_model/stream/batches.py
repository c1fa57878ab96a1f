"""A rank's part of any global batch, read from the shards.

    spec = StreamSpec(roots=("coco", "flickr30k"), order=OrderSettings(global_batch=1024), collate=collate, rank=3, world=8)
    batch = BatchReader(spec).read(epoch=2, number=50)

Reading is a function of the spec and the batch's place, so it may be done in any process, in any order.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple, Protocol

import numpy as np

from mvptr_data.dataset.samples import same_images
from mvptr_data.errors import ConfigurationMismatchError, InputError, MvptrError
from mvptr_model.stream.deal import EMPTY, SampleCounts
from mvptr_model.stream.distinct import NO_SAME_IMAGES, SameImages
from mvptr_model.stream.order import Order, Slots, captions_of
from mvptr_model.stream.reader import CACHE, CACHE_BYTES, ShardReader
from mvptr_model.stream.settings import OrderSettings
from mvptr_model.stream.shard import OpenShard


class Item(NamedTuple):
    """What fills one slot of a batch: the n-th sample of an open shard, with one of its captions.

    `shard` is None for an empty slot, which weighs 0. `data_set` is the digest that names the data set, `epoch` the pass over it.
    """

    shard: OpenShard | None
    nth: int
    caption: int
    data_set: str
    epoch: int


NO_ITEM = Item(None, 0, 0, "", 0)


class Collate(Protocol):
    """Makes batches. It travels to worker processes, so it and what it holds must be picklable."""

    def read_item(self, item: Item) -> Any:
        """One slot's contents. Raises a `MvptrError` where the sample's bytes are not sound."""
        ...

    def assemble(self, parts: Sequence[Any]) -> Any:
        """The batch of all slots' contents."""
        ...


class Fault(NamedTuple):
    """A sample whose slot stayed empty: where it is, and what is wrong with it."""

    epoch: int
    batch: int
    sample: int
    message: str


class Loaded(NamedTuple):
    """A rank's batch, and the faults met in it."""

    batch: Any
    faults: tuple[Fault, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamSpec:
    """All that decides what a rank reads; picklable.

    `roots`: published data sets, folders or URLs. `on_fault`: "raise" ends with the error of an unsound sample; "skip" leaves its
    slot empty, with weight 0, so that the ranks stay together. `accumulate`: in how many parts a rank takes its share.
    """

    roots: tuple[str, ...]
    order: OrderSettings
    collate: Collate
    rank: int = 0
    world: int = 1
    accumulate: int = 1
    on_fault: Literal["raise", "skip"] = "raise"
    cache: Path = CACHE
    cache_bytes: int = CACHE_BYTES

    def __post_init__(self) -> None:
        if not 0 <= self.rank < self.world:
            raise InputError(f"rank {self.rank} of {self.world}", "Ranks count from 0.")
        if self.accumulate < 1 or self.order.global_batch < self.world * self.accumulate:
            raise InputError(
                f"a global batch of {self.order.global_batch} in {self.accumulate} parts for each of {self.world} ranks",
                "Choose a larger global_batch, or fewer parts.",
            )
        if self.on_fault not in ("raise", "skip"):
            raise InputError(f"on_fault is {self.on_fault!r}", "Choose raise or skip.")


class BatchReader:
    """Reads one rank's part of global batches. `order` is that of all data sets together."""

    def __init__(self, spec: StreamSpec) -> None:
        """Raises what `ShardReader` and `Order` raise, and `ConfigurationMismatchError` for data sets with other vocabularies."""
        self._spec = spec
        settings = spec.order
        streams = math.ceil(settings.canonical_streams / spec.world) + 1  # a share may begin and end inside a stream
        # The blocks of this rank's streams, and the next ones, which the prefetching has begun.
        open_shards = streams * 2 * settings.block_shards
        self._readers = [
            ShardReader(root, cache=spec.cache, cache_bytes=spec.cache_bytes, open_shards=open_shards)
            for root in spec.roots
        ]
        _check_vocabularies(spec.roots, self._readers)
        sets = [
            SampleCounts(reader.samples.at_least, reader.captions_of, reader.samples.digest) for reader in self._readers
        ]
        self.order = Order(sets, settings, _same_images(self._readers) if settings.distinct_images else NO_SAME_IMAGES)
        self._first = np.cumsum([0, *map(len, self._readers)])

    def read(self, epoch: int, number: int) -> tuple[Loaded, ...]:
        """This rank's parts of a global batch, `accumulate` of them."""
        share = self.order.batch(epoch, number).share(self._spec.rank, self._spec.world)
        parts = [share.share(part, self._spec.accumulate) for part in range(self._spec.accumulate)]
        return tuple(self._load(slots, epoch, number) for slots in parts)

    def _load(self, slots: Slots, epoch: int, number: int) -> Loaded:
        read = self._spec.collate.read_item
        parts, faults = [], []
        for sample, item in zip(slots.sample.tolist(), self._items(slots), strict=True):
            try:
                parts.append(read(item))
            except MvptrError as error:
                if self._spec.on_fault == "raise":
                    raise
                faults.append(Fault(epoch, number, sample, str(error)))
                parts.append(read(NO_ITEM))
        return Loaded(self._spec.collate.assemble(parts), tuple(faults))

    def _items(self, slots: Slots) -> list[Item]:
        """What fills each slot. Raises what opening its shard raises: that is not one sample's fault."""
        owners = np.searchsorted(self._first, slots.sample, side="right") - 1
        places: list[tuple[OpenShard, int] | None] = []
        for sample, owner in zip(slots.sample.tolist(), owners.tolist(), strict=True):
            if sample == EMPTY:
                places.append(None)
                continue
            shard, nth = self._readers[owner].place(sample - int(self._first[owner]))
            places.append((self._readers[owner].shard(shard), nth))
        counts = np.array([1 if place is None else place[0].captions[place[1]] for place in places], dtype=np.int64)
        chosen = captions_of(self._spec.order, slots, counts)
        return [
            NO_ITEM if place is None else Item(*place, caption, self._readers[owner].samples.digest, number)
            for place, caption, owner, number in zip(
                places, chosen.tolist(), owners.tolist(), slots.number.tolist(), strict=True
            )
        ]


def _check_vocabularies(roots: Sequence[str], readers: Sequence[ShardReader]) -> None:
    """Phrases are ranks in a vocabulary: two data sets can be mixed only where these mean the same."""
    digests = [reader.manifest["phrase_vocab"]["digest"] for reader in readers]
    for root, found in zip(roots, digests, strict=True):
        if found != digests[0]:
            raise ConfigurationMismatchError(
                f"{root} was written with the phrase vocabulary {found[:12]}..., {roots[0]} with {digests[0][:12]}...",
                "Run `mvptr-data write-shards OUT --vocab FILE` with one vocabulary for all.",
            )


def _same_images(readers: Sequence[ShardReader]) -> SameImages:
    """Samples that show one image, over all data sets. One data set has them published; more are compared now."""
    if len(readers) == 1:
        pairs = readers[0].samples.same_images
    else:
        pairs = same_images(np.concatenate([reader.image_ids() for reader in readers]))
    return SameImages(np.ascontiguousarray(pairs[:, 0]), np.ascontiguousarray(pairs[:, 1]))
