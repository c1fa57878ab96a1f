"""Sequences of different lengths, one after another: the form in which the model works, so that padding costs nothing.

Lengths, and all places that follow from them, are worked out on the host, wherever the states are: a device that had to be asked
for a sum or a maximum would have to be waited for, and would then wait itself.

Shape legend: n sequences, M places of all of them, L places of the longest, q sequences made of parts of others; `...` sizes
of what is at a place, for states D.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from mvptr_data.transfers import sent


@dataclass(frozen=True, slots=True, eq=False)
class Sequences:
    """`states` [M, ...], those of the first sequence first; `lengths` int64 [n] on the host, whose sum is M."""

    states: Tensor
    lengths: Tensor

    def __len__(self) -> int:
        return len(self.lengths)

    @property
    def starts(self) -> Tensor:
        """int64 [n] on the host: where each sequence begins."""
        return starts(self.lengths)

    @property
    def first(self) -> Tensor:
        """[n, ...]: each sequence's first place, its `[CLS]`. None of them may be empty."""
        return taken(self.states, self.starts)

    def rows(self, rows: Tensor | slice) -> Sequences:
        """Some of the sequences: a slice, or int64 [q] places on the host, in their order."""
        lengths = self.lengths[rows]
        return Sequences(taken(self.states, ranges(self.starts[rows], lengths)), lengths)

    def part(self, start: Tensor, lengths: Tensor) -> Sequences:
        """`lengths` [n] places of each sequence, from its place `start` [n] on."""
        return Sequences(taken(self.states, ranges(self.starts + start, lengths)), lengths)

    def split(self, lengths: Tensor) -> tuple[Sequences, Sequences]:
        """The first `lengths` [n] places of each sequence, and the others."""
        return self.part(torch.zeros_like(lengths), lengths), self.part(lengths, self.lengths - lengths)

    def then(self, other: Sequences) -> Sequences:
        """The places of each sequence, and after them those of the other's."""
        lengths = torch.stack([self.lengths, other.lengths], dim=1)  # [n, 2]
        begins = torch.stack([self.starts, other.starts + len(self.states)], dim=1)
        both = torch.cat([self.states, other.states])
        return Sequences(taken(both, ranges(begins.flatten(), lengths.flatten())), lengths.sum(dim=1))

    def padded(self) -> tuple[Tensor, Tensor]:
        """States [n, L, ...], zeros where there are none, and bool [n, L]: where there are some."""
        padding = Padding(self.lengths, self.states.device)
        return padding.padded(self.states), padding.mask

    def to(self, device: torch.device | str) -> Sequences:
        return Sequences(self.states.to(device), self.lengths)

    @classmethod
    def concatenated(cls, parts: Sequence[Sequences]) -> Sequences:
        """The sequences of all parts, in their order."""
        return cls(torch.cat([part.states for part in parts]), torch.cat([part.lengths for part in parts]))


class Padding:
    """Where the places of sequences of `lengths` [n] are in a rectangle [n, L] on `device`. `mask` bool [n, L]; `is_full`: all
    sequences are equally long."""

    def __init__(self, lengths: Tensor, device: torch.device) -> None:
        mask = torch.arange(int(lengths.max())) < lengths[:, None]
        places = mask.flatten().nonzero()[:, 0]  # [M]
        self.is_full = len(places) == mask.numel()
        self.mask, self._places = sent(mask, device), sent(places, device)

    def padded(self, states: Tensor) -> Tensor:
        """[M, ...] -> [n, L, ...], zeros where there is nothing."""
        if not self.is_full:
            states = states.new_zeros(self.mask.numel(), *states.shape[1:]).index_copy(0, self._places, states)
        return states.view(*self.mask.shape, *states.shape[1:])

    def unpadded(self, states: Tensor) -> Tensor:
        """[n, L, ...] -> [M, ...]."""
        states = states.flatten(0, 1)
        return states if self.is_full else states.index_select(0, self._places)


def taken(states: Tensor, places: Tensor) -> Tensor:
    """`states` [M, ...] at `places` int64 [q], which are on the host."""
    return states.index_select(0, sent(places, states.device))


def starts(lengths: Tensor) -> Tensor:
    """int64 [n]: the sum of the lengths before each."""
    return lengths.cumsum(0) - lengths


def bounds(lengths: Tensor) -> Tensor:
    """int64 [n + 1]: where each sequence begins, and the end: the `cu_seqlens` of attention kernels."""
    return torch.nn.functional.pad(lengths.cumsum(0), (1, 0))


def owners(lengths: Tensor) -> Tensor:
    """int64 [sum of lengths]: which sequence each place belongs to."""
    return torch.repeat_interleave(lengths)


def ranges(begins: Tensor, lengths: Tensor) -> Tensor:
    """int64 [sum of lengths]: begin, begin + 1, ... for each of `begins` int64 [q]."""
    owner = owners(lengths)
    return torch.arange(len(owner)) + (begins - starts(lengths))[owner]
