"""The embedding table as one step uses it: rows looked up, and all of it as decoders.

The table is large (85,472 x 768: 260 MB), so what is done for each of its uses is noticed: by itself, every look-up and every
slice has a gradient as large as the table, to be filled with zeros and added to the others. Here all of them are one step of
the gradient's way back, which writes the table's gradient once.

Shape legend: V word pieces, F phrases, D size of a state, u different rows looked up, M places.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from mvptr_data.transfers import sent


class Table(NamedTuple):
    """`words` [V, D] and `phrases` [F, D], the candidates of decoders; `used` [u, D], the rows `ids` int64 [u], ascending, on
    the host."""

    words: Tensor
    phrases: Tensor
    used: Tensor
    ids: Tensor

    @classmethod
    def of(cls, weight: Tensor, words: int, *ids: Tensor) -> Table:
        """`weight` [V + F, D], of which the first `words` are V; `ids`, on the host: all that will be looked up."""
        used = torch.cat([part.flatten() for part in ids]).unique()
        parts: tuple[Tensor, Tensor, Tensor] = _Parts.apply(weight, words, sent(used, weight.device))
        return cls(*parts, ids=used)

    def rows(self, ids: Tensor) -> Tensor:
        """[M] on the host -> [M, D]."""
        return F.embedding(sent(torch.searchsorted(self.ids, ids), self.used.device), self.used)


class _Parts(torch.autograd.Function):
    """The table's three uses."""

    @staticmethod
    def forward(ctx: Any, weight: Tensor, words: int, used: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(used)
        ctx.shape, ctx.words = weight.shape, words
        return weight[:words], weight[words:], weight.index_select(0, used)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor | None) -> tuple[Tensor | None, None, None]:
        known = next((gradient for gradient in gradients if gradient is not None), None)
        if known is None:
            return None, None, None
        (used,), found = ctx.saved_tensors, known.new_empty(ctx.shape)
        for part, gradient in zip((found[: ctx.words], found[ctx.words :]), gradients, strict=False):
            part.zero_() if gradient is None else part.copy_(gradient)
        if gradients[2] is not None:
            found.index_add_(0, used, gradients[2])  # each row once: the order of additions cannot matter
        return found, None, None
