"""Masked concept recovering: tags from regions, phrases from words (MVPTR 3.2.1).

Concepts have no order, so predictions are matched with labels at the least cost first (the Hungarian method, as in DETR).

Shape legend: m masked places of the batch, C candidates (word pieces or phrases), s samples, k the most masked places that
any sample has.

1. p(label) for each masked place and each label of its own sample: [m, k], gathered at once, one copy to the CPU.
2. An assignment for each sample with at least two places.
3. Cross entropy with the assigned labels; the mean over a sample's places, then over the samples that have any.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from mvptr_model.losses.ranks import Loss, mean, widened


def recovered_concepts(logits: Tensor, labels: Tensor, sample: Tensor, samples: int, *, match: bool) -> Loss:
    """Eq. 2 for tags, eq. 3 for phrases.

    `logits` float [m, C] at the masked places; `labels` int64 [m], what was there; `sample` int64 [m], ascending, from 0 to
    `samples` - 1: whose place it is. Without `match` (the released code) labels stay at their places.
    """
    logits = widened(logits)
    normalizer = logits.logsumexp(dim=1)  # [m]
    counts = torch.bincount(sample, minlength=samples)
    if match:
        labels = matched(logits.detach(), normalizer.detach(), labels, counts)
    entropy = normalizer - logits.gather(1, labels[:, None])[:, 0]  # [m]: -log p(label)
    right = (logits.detach().argmax(dim=1) == labels).to(entropy.dtype) if len(labels) else entropy.detach()
    return Loss(_mean_of_samples(entropy, sample, counts), mean(right))


def matched(logits: Tensor, normalizer: Tensor, labels: Tensor, counts: Tensor) -> Tensor:
    """Eq. 1: `labels` [m] in the order, within each sample, that costs least: the sum of 1 - p(label) over its places.

    `normalizer` [m] is the logsumexp of `logits` [m, C]; `counts` int64 [s] are the places of each sample, one sample's after
    another's.
    """
    if not len(labels):
        return labels
    sample, first = torch.repeat_interleave(counts), counts.cumsum(0) - counts
    within = torch.arange(int(counts.max()), device=labels.device) + first[sample, None]  # [m, k]
    candidates = labels[within.clamp(max=len(labels) - 1)]  # beyond the sample's own: never looked at
    cost = 1 - (logits.gather(1, candidates) - normalizer[:, None]).exp()
    order = assignments(cost.double().cpu().numpy(), counts.cpu().numpy())
    return labels[torch.from_numpy(order).to(labels.device)]


def assignments(cost: NDArray[np.float64], counts: NDArray[np.int64]) -> NDArray[np.int64]:
    """int64 [m]: which place's label each place is given; `cost` [m, k], its first `counts[s]` columns are a sample's labels.

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
