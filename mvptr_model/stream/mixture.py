"""Which data set each slot of a stream comes from, by weight."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from mvptr_data.errors import InputError

Ints = NDArray[np.int64]
#: Slots after which the pattern repeats: weights are met to 1 in 10,000.
PERIOD = 10_000


class Pattern:
    """Slots of a stream to data sets, evenly interleaved: at any place each has had its share, to within one slot a data set."""

    def __init__(self, weights: Sequence[float]) -> None:
        """Raises `InputError` for a weight that is not positive, or too small to get a slot."""
        shares = np.asarray(weights, dtype=np.float64)
        if not (np.isfinite(shares).all() and (shares > 0).all()):
            raise InputError(f"the weights of the data sets are {list(weights)}", "Give each a number above 0.")
        quotas = shares / shares.sum() * PERIOD
        counts = np.floor(quotas).astype(np.int64)
        short = np.argsort(counts - quotas, kind="stable")[: PERIOD - int(counts.sum())]
        counts[short] += 1
        if (counts == 0).any():
            raise InputError(
                f"the weights {list(weights)} leave a data set less than one sample in {PERIOD}",
                "Give it more, or drop it.",
            )
        # The k-th of a data set's n slots wants to lie in the middle of the k-th n-th of the period.
        wanted = np.concatenate([(np.arange(n) + 0.5) / n for n in counts])
        owners = np.repeat(np.arange(len(counts)), counts)
        #: int64 [PERIOD]: the data set of each slot.
        self._owners = owners[np.lexsort((owners, wanted))]
        taken = self._owners[:, None] == np.arange(len(counts))
        #: int64 [PERIOD + 1, data sets]: slots each has had before a place.
        self._had = np.concatenate([np.zeros((1, len(counts)), np.int64), np.cumsum(taken, axis=0)])

    def owners(self, start: int, stop: int) -> Ints:
        """int64 [stop - start]: the data set of each of these slots."""
        return self._owners[np.arange(start, stop) % PERIOD]

    def had(self, place: int) -> Ints:
        """int64 [data sets]: how many slots before `place` each data set has had."""
        rounds, rest = divmod(place, PERIOD)
        return rounds * self._had[-1] + self._had[rest]
