"""What is read off the encoders' states: masked words, tags and phrases, and whether image and text match.

The names of parameters are BERT's and the authors' (`cls.predictions`, `cls.seq_relationship`, `half_mlm`).

Shape legend: m masked places, C candidates (word pieces or phrases), D size of a state, q pairs.
"""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mvptr_model.configuration import ModelConfiguration
from mvptr_model.encoders import LAYER_NORM_EPS
from mvptr_model.losses.ranks import widened


class Transform(nn.Module):
    """Dense, GELU, LayerNorm: BERT's step before a decoder."""

    def __init__(self, configuration: ModelConfiguration) -> None:
        super().__init__()
        self.dense = nn.Linear(configuration.hidden_size, configuration.hidden_size)
        self.LayerNorm = nn.LayerNorm(configuration.hidden_size, eps=LAYER_NORM_EPS)

    def forward(self, states: Tensor) -> Tensor:
        """[m, D] -> [m, D]."""
        return self.LayerNorm(F.gelu(self.dense(states)))


class PredictionHead(nn.Module):
    """Which candidate is at a masked place. Give it the masked places alone: its decoder is as wide as a vocabulary."""

    def __init__(self, configuration: ModelConfiguration, candidates: int, *, tied: bool) -> None:
        """`tied`: the decoder is the candidates' rows of the embedding table."""
        super().__init__()
        self.transform = Transform(configuration)
        self.decoder = None if tied else nn.Linear(configuration.hidden_size, candidates, bias=False)
        self.bias = nn.Parameter(torch.zeros(candidates))

    def forward(self, states: Tensor, rows: Tensor) -> Tensor:
        """States [m, D] and the candidates' rows [C, D] -> logits [m, C]."""
        decoder = rows if self.decoder is None else self.decoder.weight
        return F.linear(self.transform(states), decoder, self.bias)


class PairHeads(nn.Module):
    """The heads on the joint encoding: masked words, and whether the pair matches (1) or not (0)."""

    def __init__(self, configuration: ModelConfiguration) -> None:
        super().__init__()
        self.predictions = PredictionHead(configuration, configuration.word_rows, tied=configuration.tied_decoders)
        self.seq_relationship = nn.Linear(configuration.hidden_size, 2)


def initial_logit_scale(temperature: float) -> nn.Parameter:
    """[]: ln(1 / tau), which is what is learned."""
    return nn.Parameter(torch.tensor(-math.log(temperature)))


def similarity_scale(logit_scale: Tensor, maximum: float) -> Tensor:
    """[]: 1 / tau, at most `maximum` (CLIP's 100)."""
    return _AtMost.apply(widened(logit_scale), math.log(maximum)).exp()


class _AtMost(torch.autograd.Function):
    """A clamp that can be left again: above the limit, only gradients that lead back below it pass.

    torch's own has no gradient there, so that a step beyond the limit would be the last one.
    """

    @staticmethod
    def forward(ctx: Any, value: Tensor, limit: float) -> Tensor:
        ctx.above = value > limit
        return value.clamp(max=limit)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        (gradient,) = gradients
        return torch.where(ctx.above, gradient.clamp(min=0), gradient), None
