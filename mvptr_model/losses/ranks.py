"""Losses over all ranks, each of which sees its own part of the batch.

Every rank's loss is scaled so that the mean over ranks - which is what data parallelism makes of gradients - is the loss of
the whole batch: `sum of its values * number of ranks / count over all ranks`. Accuracies are scaled alike.

Shape legend: n pairs of a rank, N pairs of all ranks, rank after rank; m values of a rank.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor

from mvptr_data.transfers import Fetched, sent
from mvptr_model.sequences import Sequences, ranges, taken
from mvptr_model.stream import keyed


class Loss(NamedTuple):
    """`value` [] is to be minimized; `accuracy` [], where there is one, is the share of right answers. Both are `mean`s."""

    value: Tensor
    accuracy: Tensor | None = None


@dataclass(frozen=True, slots=True)
class Peers:
    """The ranks that put their pairs together, seen from one of them; all have the same number of pairs."""

    rank: int
    count: int

    @classmethod
    def everyone(cls) -> Peers:
        """All ranks of the process group; this process alone where there is none."""
        return cls(dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else cls.alone()

    @classmethod
    def alone(cls) -> Peers:
        return cls(0, 1)

    def gather(self, own: Tensor) -> Tensor:
        """[n, ...] of each rank -> [N, ...]; gradients find their way back to the rank they belong to."""
        if self.count == 1:
            return own
        if own.dtype == torch.bool:  # which not every backend sends
            return _Gather.apply(own.to(torch.uint8), self).bool()
        return _Gather.apply(own, self)

    def gather_counts(self, own: Tensor, device: torch.device) -> Fetched:
        """[n, ...] of each rank -> [N, ...], both on the host, though sent from `device` to device: not every group of ranks
        sends what is on hosts."""
        return Fetched(own if self.count == 1 else self.gather(sent(own, device)))

    def gather_sequences(self, own: Sequences, lengths: Tensor) -> Sequences:
        """n sequences of each rank -> N, whose lengths are `lengths` [N]; each rank may have another number of places."""
        if self.count == 1:
            return own
        places = lengths.view(self.count, -1).sum(dim=1)
        most = int(places.max())
        # As many of each rank, the form in which they can be sent; then without what was filled up.
        gathered = self.gather(F.pad(own.states, (0, 0, 0, most - len(own.states))))
        return Sequences(taken(gathered, ranges(torch.arange(self.count) * most, places)), lengths)


class _Gather(torch.autograd.Function):
    """All ranks' parts; backward, what all ranks' losses say of this rank's part."""

    @staticmethod
    def forward(ctx: Any, own: Tensor, peers: Peers) -> Tensor:
        ctx.rows = len(own)
        parts = own.new_empty(peers.count * len(own), *own.shape[1:])
        dist.all_gather_into_tensor(parts, own.contiguous())
        return parts

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        (gradient,) = gradients
        own = gradient.new_empty(ctx.rows, *gradient.shape[1:])
        dist.reduce_scatter_tensor(own, gradient.contiguous())
        return own, None


def total(own: Tensor) -> Tensor:
    """The sum of a tensor over all ranks, without a gradient."""
    found = own.detach().clone()
    if dist.is_initialized():
        dist.all_reduce(found)
    return found


def mean(values: Tensor, weights: Tensor | None = None) -> Tensor:
    """[]: this rank's part of the weighted mean of all ranks' `values` [m] (`weights` [m], 1 by default).

    0, with a gradient of 0, where nothing weighs anything.
    """
    weights = torch.ones_like(values) if weights is None else weights.to(values.dtype)
    # What weighs nothing may be infinite or worse.
    weighed = torch.where(weights > 0, values, 0.0) * weights
    count = total(weights.sum())
    return weighed.sum() * (Peers.everyone().count / torch.where(count > 0, count, 1.0))


def drawn(pairs: int, each: int, *key: int | str) -> Tensor:
    """float64 [pairs, each]: numbers in [0, 1) for each of this rank's pairs, which `key` and its place among all ranks' decide.

    Of 32 bits, so that a product with a sum stays below the sum.
    """
    place = np.arange(pairs * each).reshape(pairs, each) + Peers.everyone().rank * pairs * each
    numbers = keyed.mixed(np.uint64(keyed.key(*key)), place)
    return torch.from_numpy((numbers >> np.uint64(32)) * 2.0**-32)


def not_narrowed(values: Tensor) -> torch.autocast:
    """A context in which products are computed as wide as their factors, autocast or not."""
    return torch.autocast(values.device.type, enabled=False)


def widened(values: Tensor) -> Tensor:
    """At least float32, in which losses are computed."""
    return values.float() if values.dtype in (torch.float16, torch.bfloat16) else values
