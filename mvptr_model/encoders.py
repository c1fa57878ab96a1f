"""Embeddings and transformer stacks (MVPTR 3.1, 4.1, A.2.1; Devlin et al. 2019).

Parameters have BERT's names, and those that the authors gave to what BERT has not, so that their checkpoints fit key by key:
`embeddings`, `img_embedding` and `LayerNorm` (regions), `txt_encoder`, `vis_encoder`, `mul_encoder`, `pooler`.

Shape legend: n sequences, L places of one, padding included, M places of all without padding, R regions, D size of a state
(768), h heads (12), d size of a head (64).
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mvptr_model.configuration import ModelConfiguration

#: BERT's.
LAYER_NORM_EPS = 1e-12
SEGMENTS = 2

#: Queries, keys and values [M, h, d] of all places and a dropout probability -> what each place sees [M, h, d]. All else in a
#: layer looks at one place alone.
Attend = Callable[[Tensor, Tensor, Tensor, float], Tensor]


@dataclass(frozen=True, slots=True, eq=False)
class Sequences:
    """Padded sequences: `states` float [n, L, D], `mask` bool [n, L], True where there is something."""

    states: Tensor
    mask: Tensor

    def rows(self, rows: Tensor | slice) -> Sequences:
        """Some of the sequences: a slice, or int64 [p] places, in their order."""
        return Sequences(self.states[rows], self.mask[rows])

    def split(self, places: int) -> tuple[Sequences, Sequences]:
        """The first so many places of each sequence, and the others."""
        return (
            Sequences(self.states[:, :places], self.mask[:, :places]),
            Sequences(self.states[:, places:], self.mask[:, places:]),
        )

    def then(self, other: Sequences) -> Sequences:
        """The places of each sequence, and after them those of the other's: [n, L + L', D]."""
        return Sequences(torch.cat([self.states, other.states], dim=1), torch.cat([self.mask, other.mask], dim=1))


def attend_within(mask: Tensor, there: Tensor) -> Attend:
    """Full attention within each sequence; `mask` bool [n, L] says where something is, `there` int64 [M] the same as places of
    the flattened mask."""
    seen = mask[:, None, None, :]

    def attend(queries: Tensor, keys: Tensor, values: Tensor, dropout: float) -> Tensor:
        queries, keys, values = (  # [n, h, L, d]
            laid_out(packed, mask, there).transpose(1, 2) for packed in (queries, keys, values)
        )
        found = F.scaled_dot_product_attention(queries, keys, values, seen, dropout)
        return found.transpose(1, 2).flatten(0, 1).index_select(0, there)

    return attend


def laid_out(packed: Tensor, mask: Tensor, there: Tensor) -> Tensor:
    """What is at places [M, ...] at the same places of padded sequences [n, L, ...], zeros elsewhere."""
    padded = packed.new_zeros(mask.numel(), *packed.shape[1:]).index_copy(0, there, packed)
    return padded.view(*mask.shape, *packed.shape[1:])


class Embeddings(nn.Module):
    """Rows of the table plus positions plus segments. One table serves words, tags and phrases."""

    def __init__(self, configuration: ModelConfiguration) -> None:
        super().__init__()
        size = configuration.hidden_size
        self.word_embeddings = nn.Embedding(configuration.table_rows, size)
        self.position_embeddings = nn.Embedding(configuration.positions, size)
        self.token_type_embeddings = nn.Embedding(SEGMENTS, size)
        self.LayerNorm = nn.LayerNorm(size, eps=LAYER_NORM_EPS)
        self.dropout = nn.Dropout(configuration.dropout)

    def forward(self, ids: Tensor, segment: int) -> Tensor:
        """int64 [n, L], all of one segment -> float [n, L, D]; positions run from 0."""
        positions = self.position_embeddings.weight[: ids.shape[1]]
        summed = self.word_embeddings(ids) + positions + self.token_type_embeddings.weight[segment]
        return self.dropout(self.LayerNorm(summed))


class SelfAttention(nn.Module):
    """Scaled dot-product attention over all heads."""

    def __init__(self, configuration: ModelConfiguration) -> None:
        super().__init__()
        size = configuration.hidden_size
        self.query, self.key, self.value = (nn.Linear(size, size) for _ in range(3))
        self.heads = configuration.heads
        self.dropout = configuration.attention_dropout

    def forward(self, states: Tensor, attend: Attend) -> Tensor:
        """[M, D] -> [M, D]."""
        queries, keys, values = (
            project(states).unflatten(1, (self.heads, -1)) for project in (self.query, self.key, self.value)
        )
        return attend(queries, keys, values, self.dropout if self.training else 0.0).flatten(1)


class Intermediate(nn.Module):
    """The widening half of a feed-forward block, with the exact (erf) GELU."""

    def __init__(self, configuration: ModelConfiguration) -> None:
        super().__init__()
        self.dense = nn.Linear(configuration.hidden_size, configuration.feed_forward_size)

    def forward(self, states: Tensor) -> Tensor:
        """[M, D] -> [M, feed_forward_size]."""
        return F.gelu(self.dense(states))


class AddAndNorm(nn.Module):
    """A projection back to D, added to what went into the block, normalized after that (post-LN)."""

    def __init__(self, configuration: ModelConfiguration, inputs: int) -> None:
        super().__init__()
        self.dense = nn.Linear(inputs, configuration.hidden_size)
        self.LayerNorm = nn.LayerNorm(configuration.hidden_size, eps=LAYER_NORM_EPS)
        self.dropout = nn.Dropout(configuration.dropout)

    def forward(self, found: Tensor, states: Tensor) -> Tensor:
        """[M, inputs] and [M, D] -> [M, D]."""
        return self.LayerNorm(self.dropout(self.dense(found)) + states)


class Attention(nn.Module):
    """The attention block of a layer."""

    def __init__(self, configuration: ModelConfiguration) -> None:
        super().__init__()
        self.self = SelfAttention(configuration)
        self.output = AddAndNorm(configuration, configuration.hidden_size)

    def forward(self, states: Tensor, attend: Attend) -> Tensor:
        """[M, D] -> [M, D]."""
        return self.output(self.self(states, attend), states)


class Layer(nn.Module):
    """Attention, then the feed-forward block."""

    def __init__(self, configuration: ModelConfiguration) -> None:
        super().__init__()
        self.attention = Attention(configuration)
        self.intermediate = Intermediate(configuration)
        self.output = AddAndNorm(configuration, configuration.feed_forward_size)

    def forward(self, states: Tensor, attend: Attend) -> Tensor:
        """[M, D] -> [M, D]."""
        attended = self.attention(states, attend)
        return self.output(self.intermediate(attended), attended)


class Encoder(nn.Module):
    """A stack of layers. Only attention sees padding: everything else is done for the places where something is."""

    def __init__(self, configuration: ModelConfiguration, layers: int) -> None:
        super().__init__()
        self.layer = nn.ModuleList(Layer(configuration) for _ in range(layers))

    def forward(self, sequences: Sequences) -> Sequences:
        """The last layer's output; the sequences themselves where there is no layer."""
        last = len(self.layer) - 1
        return self.outputs(sequences, [last])[last] if self.layer else sequences

    def outputs(self, sequences: Sequences, wanted: Collection[int]) -> dict[int, Sequences]:
        """The outputs of the `wanted` layers, by their numbers from 0; those behind the last of them are not computed."""
        mask = sequences.mask
        there = mask.flatten().nonzero()[:, 0]
        attend = attend_within(mask, there)
        packed = sequences.states.flatten(0, 1).index_select(0, there)  # [M, D]
        found = {}
        for number, layer in enumerate(self.layer[: max(wanted) + 1]):
            packed = layer(packed, attend)
            if number in wanted:
                found[number] = Sequences(laid_out(packed, mask, there), mask)
        return found


class Pooler(nn.Module):
    """What the joint `[CLS]` says of the pair."""

    def __init__(self, configuration: ModelConfiguration) -> None:
        super().__init__()
        self.dense = nn.Linear(configuration.hidden_size, configuration.hidden_size)

    def forward(self, states: Tensor) -> Tensor:
        """[n, L, D] -> [n, D]."""
        return torch.tanh(self.dense(states[:, 0]))


class Encoders(nn.Module):
    """All that turns inputs to states: embeddings, one encoder a modality, the multi-modal one, pooler, VSC projections.

    With `merged_attention` there is no encoder of one modality, and the multi-modal one is twice as deep.
    """

    def __init__(self, configuration: ModelConfiguration) -> None:
        super().__init__()
        size = configuration.hidden_size
        self.embeddings = Embeddings(configuration)
        self.img_embedding = nn.Linear(configuration.region_size, size)
        self.LayerNorm = nn.LayerNorm(size, eps=LAYER_NORM_EPS) if configuration.region_layernorm else nn.Identity()
        self.dropout = nn.Dropout(configuration.dropout)
        alone = 0 if configuration.merged_attention else configuration.layers
        self.txt_encoder, self.vis_encoder = (Encoder(configuration, alone) for _ in range(2))
        self.mul_encoder = Encoder(configuration, configuration.joint_layers)
        self.pooler = Pooler(configuration)
        self.txt_proj, self.vis_proj = (nn.Linear(size, size, bias=False) for _ in range(2))

    def text(self, ids: Tensor, mask: Tensor) -> Sequences:
        """Words and phrases, int64 [n, T] and bool [n, T] -> the textual encoder's output."""
        return self.txt_encoder(Sequences(self.embeddings(ids, segment=0), mask))

    def image(self, tags: Sequences, regions: Sequences) -> tuple[Sequences, Sequences]:
        """Embedded tags [n, G, D] and regions [n, R, D] -> the visual encoder's outputs for the two."""
        return self.vis_encoder(tags.then(regions)).split(tags.states.shape[1])

    def tags(self, ids: Tensor, mask: Tensor) -> Sequences:
        """Tag sequences embedded, int64 [n, G] and bool [n, G]."""
        return Sequences(self.embeddings(ids, segment=1), mask)

    def regions(self, features: Tensor, geometry: Tensor, mask: Tensor) -> Sequences:
        """Regions embedded, [n, R, 2048], [n, R, 6] and bool [n, R]; they have neither position nor segment."""
        dtype = self.img_embedding.weight.dtype
        vectors = torch.cat([features.to(dtype), geometry.to(dtype)], dim=-1)
        return Sequences(self.dropout(self.LayerNorm(self.img_embedding(vectors))), mask)
