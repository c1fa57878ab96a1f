"""Permutations that are functions of a key, the same on every machine and with every version of numpy.

numpy's own generators promise no such thing: a release may draw differently. Here a key is 64 bits of BLAKE2b, and a
permutation sorts the numbers of a SplitMix64 sequence (Steele, Lea, Flood 2014) that starts at the key.
"""

from __future__ import annotations

import hashlib
import json

import numpy as np
from numpy.typing import NDArray

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_FIRST, _SECOND = np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)


def key(*parts: int | str) -> int:
    """64 bits that stand for `parts`, in their order and with their types."""
    text = json.dumps(parts, separators=(",", ":")).encode()
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "big")


def sequence(count: int, start: int) -> NDArray[np.uint64]:
    """uint64 [count]: SplitMix64 from the key `start`; each number is a function of the key and its place."""
    mixed = np.uint64(start) + np.arange(1, count + 1, dtype=np.uint64) * _GOLDEN
    mixed = (mixed ^ (mixed >> np.uint64(30))) * _FIRST
    mixed = (mixed ^ (mixed >> np.uint64(27))) * _SECOND
    return mixed ^ (mixed >> np.uint64(31))


def permutation(count: int, *parts: int | str) -> NDArray[np.int64]:
    """int64 [count]: 0..count-1 in an order that `parts` decide."""
    return np.argsort(sequence(count, key(*parts)), kind="stable")
