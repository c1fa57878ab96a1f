"""Independent random streams for the parts of a scene.

Backdrop, layout and captions each draw from a stream of their own, so a change to the wording of captions can never
move a pixel or a box.
"""

from __future__ import annotations

from enum import IntEnum

import numpy as np


class Stream(IntEnum):
    """What a random stream is for. The numbers are part of every scene's identity."""

    BACKDROP = 0
    LAYOUT = 1
    CAPTIONS = 2


def generator(seed: int, index: int, stream: Stream) -> np.random.Generator:
    """The stream of scene `index` of the world `seed`: a counter-based generator keyed by all three.

    Raises `ValueError` if `seed` or `index` is negative.
    """
    return np.random.Generator(np.random.Philox(np.random.SeedSequence((seed, index, int(stream)))))
