"""The order as a pure function: permutations, shares, distinct images, mixtures."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mvptr_data.errors import InputError
from mvptr_model.stream.deal import EMPTY, SampleCounts
from mvptr_model.stream.distinct import SameImages
from mvptr_model.stream.order import WINDOW, Order, Slots, captions_of
from mvptr_model.stream.settings import OrderSettings


def counted(captions: list[list[int]], digest: str = "one") -> SampleCounts:
    """The counts of a data set whose shards' samples have so many captions each."""
    shards = [np.array(shard, dtype=np.int64) for shard in captions]
    most = max((int(shard.max()) for shard in shards if len(shard)), default=1)
    at_least = np.array([[int((shard > r).sum()) for shard in shards] for r in range(most)], dtype=np.int64)
    return SampleCounts(at_least.reshape(most, len(shards)), lambda shard: shards[shard], digest)


def plain(sizes: list[int], digest: str = "one") -> SampleCounts:
    return counted([[1] * size for size in sizes], digest)


def epoch_of(order: Order, epoch: int) -> Slots:
    parts = [order.batch(epoch, number) for number in range(order.batches)]
    return Slots(*(np.concatenate([getattr(part, name) for part in parts]) for name in ("sample", "turn", "number")))


shards = st.lists(st.lists(st.integers(1, 4), max_size=9), min_size=1, max_size=8)
shapes = st.tuples(st.integers(1, 4), st.integers(1, 4), st.integers(1, 3))  # streams, slots of each, shards of a block


@given(shards, shapes, st.sampled_from(["one", "every"]), st.booleans(), st.integers(0, 3))
@settings(max_examples=200, deadline=None)
def test_an_epoch_is_a_permutation(
    captions: list[list[int]], shape: tuple[int, int, int], reading: str, pad: bool, epoch: int
) -> None:
    streams, width, block = shape
    chosen = OrderSettings(
        global_batch=streams * width,
        canonical_streams=streams,
        block_shards=block,
        captions=reading,  # type: ignore[arg-type]
        distinct_images=False,
        tail="pad" if pad else "drop",
    )
    flat = [count for shard in captions for count in shard]
    try:
        order = Order([counted(captions)], chosen)
    except InputError:
        items = len(flat) if reading == "one" else sum(flat)
        assert not flat or (not pad and items < streams * (width + max(flat)))
        return
    slots = epoch_of(order, epoch)
    counts = np.array([1 if sample == EMPTY else flat[sample] for sample in slots.sample.tolist()])
    captioned = zip(slots.sample.tolist(), captions_of(chosen, slots, counts).tolist(), strict=True)
    taken = [pair for pair in captioned if pair[0] != EMPTY]
    assert len(set(taken)) == len(taken)
    every = {(sample, caption) for sample, count in enumerate(flat) for caption in range(count)}
    assert set(taken) <= every
    if reading == "one":
        assert len({sample for sample, _ in taken}) == len(taken)
    if pad:
        assert {sample for sample, _ in taken} == set(range(len(flat)))
        assert reading == "one" or set(taken) == every
    else:
        rounds = 1 if reading == "one" else max(flat)
        total = len(flat) if reading == "one" else len(every)
        assert EMPTY not in slots.sample
        assert total - len(taken) < streams * (width + rounds)


@given(shapes, st.integers(1, 9), st.integers(0, 40))
@settings(max_examples=50, deadline=None)
def test_the_shares_of_any_number_of_ranks_are_the_batch(shape: tuple[int, int, int], world: int, number: int) -> None:
    streams, width, block = shape
    chosen = OrderSettings(global_batch=streams * width, canonical_streams=streams, block_shards=block)
    order = Order([plain([40] * 5)], chosen)
    batch = order.batch(1, number % order.batches)
    shares = [batch.share(rank, world) for rank in range(world)]
    assert np.array_equal(np.concatenate([share.sample for share in shares]), batch.sample)
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


def test_a_batch_is_a_function_of_its_place() -> None:
    chosen = OrderSettings(global_batch=12, canonical_streams=3, captions="every", seed=5)
    captions = [[1 + (s * 7 + i) % 5 for i in range(30)] for s in range(9)]
    forward, backward = (Order([counted(captions)], chosen) for _ in range(2))
    places = [(epoch, number) for epoch in range(3) for number in range(forward.batches)]
    expected = {place: forward.batch(*place).sample for place in places}
    for place in reversed(places):
        assert np.array_equal(backward.batch(*place).sample, expected[place])


def test_the_order_of_version_1_is_what_it_was() -> None:
    """Whoever changes these numbers changes the order of runs that are under way: raise ORDER_VERSION, say so in CHANGELOG."""
    chosen = OrderSettings(global_batch=6, canonical_streams=2, block_shards=2, seed=3, captions="every")
    order = Order([counted([[1, 2, 3], [2, 2], [1, 1, 1, 1], [3]])], chosen)
    batches = [order.batch(1, number).sample.tolist() for number in range(order.batches)]
    assert batches == [[6, 1, 0, 9, 3, 7], [2, 5, 1, 8, 9, 4]]
    assert order.digest == "519cdff4c343e97854f44a1aaffc789c6164bf2a0f9006fece0523e4cb05ce91"


@given(st.integers(0, 10_000), st.integers(2, 40), st.sampled_from(["one", "every"]))
@settings(max_examples=60, deadline=None)
def test_no_batch_holds_an_image_twice_and_nothing_is_lost(seed: int, copies: int, reading: str) -> None:
    """120 samples, of which `copies` show one image and others are pairs; batches of 8."""
    same = dict.fromkeys(range(0, 3 * copies, 3), 0) | {sample: sample - 1 for sample in range(2, 120, 12)}
    same |= {first: first for first in same.values()}
    pairs = SameImages(*(np.array(part, dtype=np.int64) for part in zip(*sorted(same.items()), strict=True)))
    chosen = OrderSettings(global_batch=8, canonical_streams=2, block_shards=2, seed=seed, captions=reading)  # type: ignore[arg-type]
    counts = counted([[3] * 24] * 5)
    order, free = (
        Order([counts], chosen, pairs),
        Order([counts], replace(chosen, distinct_images=False)),
    )
    empty = 0
    for number in range(order.batches):
        batch = order.batch(0, number)
        shown = [same.get(sample, sample) for sample in batch.sample.tolist() if sample != EMPTY]
        assert len(set(shown)) == len(shown)
        empty += 8 - len(shown)
    mine, theirs = epoch_of(order, 0), epoch_of(free, 0)
    kept = Counter(zip(mine.sample.tolist(), mine.turn.tolist(), strict=True))
    wanted = Counter(zip(theirs.sample.tolist(), theirs.turn.tolist(), strict=True))
    assert (wanted - kept).total() == empty
    # An image in most batches of a window, or of the part of it that is in this epoch, may have nowhere to go.
    places = [
        mine.sample[8 * start : 8 * min(start + WINDOW, order.batches)] for start in range(0, order.batches, WINDOW)
    ]
    crowded = [
        max(Counter(same.get(n, n) for n in place.tolist() if n != EMPTY).values()) / (len(place) / 8)
        for place in places
    ]
    assert empty == 0 or max(crowded) > 0.5


def test_slots_change_places_within_a_stream_only() -> None:
    chosen = OrderSettings(global_batch=8, canonical_streams=4, block_shards=2)
    same = SameImages(np.arange(60, dtype=np.int64), np.arange(60, dtype=np.int64) // 3 * 3)
    counts = plain([20] * 10)
    with_twins = Order([counts], chosen, same)
    without = Order([counts], replace(chosen, distinct_images=False))
    for start in range(0, with_twins.batches, WINDOW):
        numbers = range(start, min(start + WINDOW, with_twins.batches))
        for stream in range(4):
            columns = slice(2 * stream, 2 * stream + 2)
            mine = np.concatenate([with_twins.batch(0, number).sample[columns] for number in numbers])
            theirs = np.concatenate([without.batch(0, number).sample[columns] for number in numbers])
            assert sorted(mine) == sorted(theirs)


def test_a_stream_reads_the_same_shards_in_every_epoch_and_few_at_a_time() -> None:
    chosen = OrderSettings(global_batch=8, canonical_streams=4, block_shards=3)
    order = Order([plain([50] * 40)], chosen)
    for stream in range(4):
        columns = slice(2 * stream, 2 * stream + 2)
        seen = [
            [set((order.batch(epoch, n).sample[columns] // 50).tolist()) for n in range(order.batches)]
            for epoch in range(2)
        ]
        first, second = (set.union(*batches) for batches in seen)
        assert first == second and len(first) == 10
        places: dict[int, list[int]] = {}
        for number, batch in enumerate(seen[0]):
            for shard in batch:
                places.setdefault(shard, []).append(number)
        # 150 samples of a block, 2 in a batch; then the shard is not read again.
        assert max(place[-1] - place[0] for place in places.values()) <= 75
    assert epoch_of(order, 0).sample.tolist() != epoch_of(order, 1).sample.tolist()


def test_with_one_caption_a_pass_each_comes_once_before_any_comes_again() -> None:
    chosen = OrderSettings(global_batch=1, canonical_streams=1)

    def captions(samples: np.ndarray, number: int) -> np.ndarray:
        slots = Slots(samples, np.zeros_like(samples), np.full_like(samples, number))
        return captions_of(chosen, slots, np.full_like(samples, 5))

    taken = np.stack([captions(np.arange(500), number) for number in range(15)])  # [passes, samples]
    for start in (0, 5, 10):
        assert (np.sort(taken[start : start + 5], axis=0) == np.arange(5)[:, None]).all()
    assert np.bincount(taken[0]).min() > 60
    assert not np.array_equal(taken[:5], taken[5:10])


@given(st.lists(st.floats(0.02, 1), min_size=2, max_size=4), st.integers(0, 5))
@settings(max_examples=25, deadline=None)
def test_a_mixture_gives_each_data_set_its_share_and_its_own_passes(weights: list[float], seed: int) -> None:
    sets = [plain([13] * (4 + 3 * k), f"set {k}") for k in range(len(weights))]
    chosen = OrderSettings(
        global_batch=8, canonical_streams=2, seed=seed, weights=tuple(weights), distinct_images=False
    )
    order = Order(sets, chosen)
    slots = [epoch_of(order, epoch) for epoch in range(2)]
    sample, number = (np.concatenate([getattr(part, name) for part in slots]) for name in ("sample", "number"))
    first = np.cumsum([0, *(counts.samples for counts in sets)])
    owner = np.searchsorted(first, sample, side="right") - 1
    for k, weight in enumerate(weights):
        expected = weight / sum(weights) * len(sample)
        assert abs((owner == k).sum() - expected) <= 2 * len(weights) + len(sample) / 10_000
        for passed in range(int(number[owner == k].max(initial=0))):
            samples = sample[(owner == k) & (number == passed)]
            assert len(set(samples.tolist())) == len(samples) >= sets[k].samples - 2


def test_what_cannot_be_ordered_is_refused() -> None:
    with pytest.raises(InputError, match="10 samples of 10 images do not fill a global batch of 16"):
        Order([plain([10])], OrderSettings(global_batch=16))
    same = SameImages(np.arange(10, dtype=np.int64), np.zeros(10, dtype=np.int64))
    with pytest.raises(InputError, match="10 samples of 1 images"):
        Order([plain([10])], OrderSettings(global_batch=2, canonical_streams=1), same)
    with pytest.raises(InputError, match="cannot take equal parts of 8 streams"):
        OrderSettings(global_batch=12)
    with pytest.raises(InputError, match="2 weights for 1 data sets"):
        Order([plain([10])], OrderSettings(global_batch=8, weights=(1.0, 2.0)))
    with pytest.raises(InputError, match="above 0"):
        Order([plain([10]), plain([10], "two")], OrderSettings(global_batch=8, weights=(1.0, 0.0)))
    with pytest.raises(IndexError):
        Order([plain([10])], OrderSettings(global_batch=8)).batch(0, 1)


def test_neighbours_of_a_shard_are_scattered() -> None:
    """Against a full shuffle: as many shards in a batch as blocks allow, and no sample near where it lay."""
    order = Order([plain([100] * 64)], OrderSettings(global_batch=64, canonical_streams=4, block_shards=8))
    sample = epoch_of(order, 0).sample
    assert np.mean([abs(b - a) == 1 for a, b in pairwise(sample.tolist())]) < 0.01
    in_batch = [len(set((sample[start : start + 64] // 100).tolist())) for start in range(0, len(sample), 64)]
    assert np.mean(in_batch) > 24  # of 4 streams of 8 shards
