"""Full attention within each of many sequences of different lengths, by what is fastest on a device.

Shape legend: n sequences, M places of all of them, Q places that ask (all, or some of each sequence), L and A the most of either
that a sequence has, h heads, d size of a head.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from mvptr_data.transfers import sent
from mvptr_model.dropout import dropped
from mvptr_model.sequences import Padding, bounds

#: Queries [Q, h, d], keys and values [M, h, d], a dropout probability -> what each asking place sees, [Q, h, d].
Attend = Callable[[Tensor, Tensor, Tensor, float], Tensor]


def attend_within(lengths: Tensor, device: torch.device, asking: Tensor | None = None) -> Attend:
    """Each place of a sequence asks all of it. `lengths` int64 [n] and `asking` int64 [n], at least 1, are on the host, what
    attends on `device`. `asking`: how many of a sequence's places ask, all of them by default. Whoever asks is to be in the
    order of the sequences."""
    return (nested if device.type == "cuda" else padded)(lengths, device, asking)


def nested(lengths: Tensor, device: torch.device, asking: Tensor | None = None) -> Attend:
    """By torch's nested tensors: fused kernels on a CUDA device, without padding."""
    asked = _Jagged(lengths, device)
    asks = asked if asking is None else _Jagged(asking, device)

    def attend(queries: Tensor, keys: Tensor, values: Tensor, dropout: float) -> Tensor:
        found = F.scaled_dot_product_attention(asks(queries), asked(keys), asked(values), dropout_p=dropout)
        return found.transpose(1, 2).values()

    return attend


class _Jagged:
    """Makes nested tensors [n, h, L, d] of [M, h, d]."""

    def __init__(self, lengths: Tensor, device: torch.device) -> None:
        self._bounds = sent(bounds(lengths), device)
        # Else torch would ask the device.
        self._sizes: dict[str, Any] = {"min_seqlen": int(lengths.min()), "max_seqlen": int(lengths.max())}

    def __call__(self, states: Tensor) -> Tensor:
        return torch.nested.nested_tensor_from_jagged(states, self._bounds, **self._sizes).transpose(1, 2)


def padded(lengths: Tensor, device: torch.device, asking: Tensor | None = None) -> Attend:
    """By batched products of rectangles [L, d] and [A, d]."""
    asked = Padding(lengths, device)
    asks = asked if asking is None else Padding(asking, device)

    def attend(queries: Tensor, keys: Tensor, values: Tensor, dropout: float) -> Tensor:
        queries = asks.padded(queries).transpose(1, 2)  # [n, h, A, d]
        keys, values = (asked.padded(states).transpose(1, 2) for states in (keys, values))  # [n, h, L, d]
        seen = None if asked.is_full else asked.mask[:, None, None]
        if dropout:
            found = _with_dropout(queries, keys, values, seen, dropout)
        else:
            found = F.scaled_dot_product_attention(queries, keys, values, seen)
        return asks.unpadded(found.transpose(1, 2))

    return attend


def _with_dropout(queries: Tensor, keys: Tensor, values: Tensor, seen: Tensor | None, dropout: float) -> Tensor:
    """What torch's function takes twice as long for: it has no kernel with dropout for CPUs."""
    scores = (queries * (1 / math.sqrt(queries.shape[-1]))) @ keys.mT  # [n, h, A, L]
    if seen is not None:
        scores = scores.masked_fill(~seen, -torch.inf)  # every sequence has a place: no row is all -inf
    return dropped(scores.softmax(dim=-1), dropout) @ values
