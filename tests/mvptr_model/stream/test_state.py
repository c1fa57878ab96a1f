"""A stream's state: what it says, and what it refuses."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from mvptr_data.errors import ConfigurationMismatchError, DamagedFileError, FormatVersionError
from mvptr_model.stream.deal import SampleCounts
from mvptr_model.stream.order import Order
from mvptr_model.stream.settings import OrderSettings
from mvptr_model.stream.state import StreamState

SETTINGS = OrderSettings(global_batch=8, canonical_streams=2, seed=3)


def order(settings: OrderSettings = SETTINGS, digest: str = "coco") -> Order:
    return Order([SampleCounts(np.full((1, 4), 12), lambda _: np.ones(12, np.int64), digest)], settings)


def test_a_state_survives_json_and_counts_whole_batches() -> None:
    state = StreamState.at(order(), 2, 5)
    stored = json.loads(json.dumps(state.to_dict()))
    assert set(map(type, stored.values())) == {int, str}
    assert StreamState.load(stored, order()) == state
    assert (state.epoch, state.batches, state.samples) == (2, 5, 40)


def test_after_the_last_batch_comes_the_next_epoch() -> None:
    assert StreamState.at(order(), 2, 6) == StreamState.at(order(), 3, 0)


@pytest.mark.parametrize(
    ("other", "difference"),
    [
        (order(digest="flickr30k"), "order_digest: "),
        (order(replace(SETTINGS, block_shards=2)), "order_digest: "),
        (order(replace(SETTINGS, tail="pad")), "order_digest: "),
        (order(replace(SETTINGS, seed=4)), "seed: 3 -> 4"),
        (order(replace(SETTINGS, global_batch=16)), "global_batch: 8 -> 16"),
        (order(replace(SETTINGS, canonical_streams=4)), "canonical_streams: 2 -> 4"),
    ],
)
def test_the_state_of_another_order_is_refused_with_the_difference(other: Order, difference: str) -> None:
    with pytest.raises(ConfigurationMismatchError, match=difference):
        StreamState.load(StreamState.at(order(), 0, 1).to_dict(), other)


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"version": 2}, FormatVersionError),
        ({"samples": 41}, DamagedFileError),
        ({"samples": 48}, DamagedFileError),
        ({"samples": -8}, DamagedFileError),
        ({"samples": "40"}, DamagedFileError),
        ({"epoch": True}, DamagedFileError),
        ({"ranks": 2}, DamagedFileError),
    ],
)
def test_what_is_no_place_is_refused(change: dict[str, Any], error: type[Exception]) -> None:
    with pytest.raises(error):
        StreamState.load({**StreamState.at(order(), 0, 5).to_dict(), **change}, order())
