"""Permutations that are functions of a key, the same on every machine and with every version of numpy.

numpy's own generators promise no such thing: a release may draw differently. Here a key is 64 bits of BLAKE2b, and a
permutation sorts the numbers of a SplitMix64 sequence (Steele, Lea, Flood 2014) that starts at the key.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any

import numpy as np
from numpy.typing import NDArray

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_FIRST, _SECOND = np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)


def key(*parts: int | str) -> int:
    """64 bits that stand for `parts`, in their order and with their types."""
    text = json.dumps(parts, separators=(",", ":")).encode()
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "big")


def mixed(start: NDArray[np.uint64] | np.uint64, place: NDArray[Any]) -> NDArray[np.uint64]:
    """uint64: the numbers at `place` (from 0) of the SplitMix64 sequences that begin at the keys `start`; shapes broadcast."""
    number = start + (place.astype(np.uint64) + np.uint64(1)) * _GOLDEN
    number = (number ^ (number >> np.uint64(30))) * _FIRST
    number = (number ^ (number >> np.uint64(27))) * _SECOND
    return number ^ (number >> np.uint64(31))


def permutation(count: int, *parts: int | str) -> NDArray[np.int64]:
    """int64 [count]: 0..count-1 in an order that `parts` decide."""
    return np.argsort(mixed(np.uint64(key(*parts)), np.arange(count)), kind="stable")
