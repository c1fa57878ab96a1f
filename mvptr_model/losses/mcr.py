"""Masked concept recovering: tags from regions, phrases from words (MVPTR 3.2.1).

Concepts have no order, so predictions are matched with labels at the least cost first (the Hungarian method, as in DETR).

Shape legend: m masked places of the batch, C candidates (word pieces or phrases), s samples, k the most masked places that
any sample has.

1. p(label) for each masked place and each label of its own sample: [m, k], gathered at once, and one copy to the host, on its way
   while the device computes what comes next.
2. An assignment for each sample with at least two places.
3. Cross entropy with the assigned labels; the mean over a sample's places, then over the samples that have any.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from mvptr_data.transfers import Fetched, sent
from mvptr_model.losses.ranks import Loss, mean, widened


class Recovery:
    """Eq. 2 for tags, eq. 3 for phrases: the costs of matching are fetched from when this is made until `loss` asks for them.

    `logits` float [m, C] at the masked places; on the host `labels` int64 [m], what was there, and `sample` int64 [m], ascending,
    from 0 to `samples` - 1: whose place it is. Without `match` (the released code) labels stay at their places.
    """

    def __init__(self, logits: Tensor, labels: Tensor, sample: Tensor, samples: int, *, match: bool) -> None:
        self._logits = widened(logits)
        self._normalizer = self._logits.logsumexp(dim=1)  # [m]
        self._labels, self._sample = labels, sample
        self._counts = torch.bincount(sample, minlength=samples)
        self._costs: Fetched | None = None
        if match and len(labels):
            found = costs(self._logits.detach(), self._normalizer.detach(), labels, self._counts)
            self._costs = Fetched(found.double())

    def loss(self) -> Loss:
        """The loss, and the share of concepts recovered."""
        labels = self._labels
        if self._costs is not None:
            (found,) = self._costs.get()
            labels = labels[torch.from_numpy(assignments(found.numpy(), self._counts.numpy()))]
        labels, sample, counts = (sent(part, self._logits.device) for part in (labels, self._sample, self._counts))
        entropy = self._normalizer - self._logits.gather(1, labels[:, None])[:, 0]  # [m]: -log p(label)
        right = (self._logits.detach().argmax(dim=1) == labels).to(entropy.dtype) if len(labels) else entropy.detach()
        return Loss(_mean_of_samples(entropy, sample, counts), mean(right))


def costs(logits: Tensor, normalizer: Tensor, labels: Tensor, counts: Tensor) -> Tensor:
    """Eq. 1, [m, k]: 1 - p(label) at each place, of each label of its sample.

    `normalizer` [m] is the logsumexp of `logits` [m, C]; on the host `labels` int64 [m], at least one, and `counts` int64 [s],
    the places of each sample, one sample's after another's.
    """
    first = counts.cumsum(0) - counts
    within = torch.arange(int(counts.max())) + first[torch.repeat_interleave(counts), None]
    candidates = labels[within.clamp(max=len(labels) - 1)]  # beyond the sample's own: never looked at
    return 1 - (logits.gather(1, sent(candidates, logits.device)) - normalizer[:, None]).exp()


def assignments(cost: NDArray[np.float64], counts: NDArray[np.int64]) -> NDArray[np.int64]:
    """Eq. 1, int64 [m]: which place's label each place is given, so that the sum of costs is least within each sample.

    `cost` [m, k], of which the first `counts[s]` columns are a sample's labels.

    Costs that are not finite count as 0 or as huge: the loss, which is not finite then, is to tell of it, on all ranks alike.
    """
    order, cost = np.arange(len(cost)), np.nan_to_num(cost)
    ends = np.cumsum(counts)
    for sample in np.flatnonzero(counts > 1):
        start, end = ends[sample] - counts[sample], ends[sample]
        order[start:end] = start + linear_sum_assignment(cost[start:end, : end - start])[1]
    return order


def _mean_of_samples(values: Tensor, sample: Tensor, counts: Tensor) -> Tensor:
    """The mean of each sample's values, then the mean over the samples that have any."""
    sums = values.new_zeros(len(counts)).index_add(0, sample, values)
    return mean(sums / counts.clamp(min=1), counts > 0)
