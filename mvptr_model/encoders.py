"""Embeddings and transformer stacks (MVPTR 3.1, 4.1, A.2.1; Devlin et al. 2019).

Parameters have BERT's names, and those that the authors gave to what BERT has not, so that their checkpoints fit key by key:
`embeddings`, `img_embedding` and `LayerNorm` (regions), `txt_encoder`, `vis_encoder`, `mul_encoder`, `pooler`.

Shape legend: n sequences, M places of all of them, one sequence after another, Q of them that are asked for, D size of a state
(768), h heads (12), d size of a head (64).
"""

from __future__ import annotations

from collections.abc import Collection

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mvptr_data.transfers import sent
from mvptr_model.attention import Attend, attend_within
from mvptr_model.configuration import ModelConfiguration
from mvptr_model.dropout import Dropout
from mvptr_model.sequences import Sequences, owners, starts
from mvptr_model.table import Table

#: BERT's.
LAYER_NORM_EPS = 1e-12
SEGMENTS = 2


class Embeddings(nn.Module):
    """Rows of the table plus positions plus segments. One table serves words, tags and phrases."""

    def __init__(self, configuration: ModelConfiguration) -> None:
        super().__init__()
        size, self.words = configuration.hidden_size, configuration.word_rows
        self.word_embeddings = nn.Embedding(configuration.table_rows, size)
        self.position_embeddings = nn.Embedding(configuration.positions, size)
        self.token_type_embeddings = nn.Embedding(SEGMENTS, size)
        self.LayerNorm = nn.LayerNorm(size, eps=LAYER_NORM_EPS)
        self.dropout = Dropout(configuration.dropout)

    def forward(self, ids: Tensor, lengths: Tensor, segment: int, table: Table | None = None) -> Sequences:
        """Sequences of rows, int64 [M], of lengths [n], both on the host, all of one segment -> float [M, D]; positions run
        from 0.

        `table`: where the rows are, if they are in use already.
        """
        device = self.word_embeddings.weight.device
        positions = sent(torch.arange(len(ids)) - starts(lengths)[owners(lengths)], device)
        looked_up = self.word_embeddings(sent(ids, device)) if table is None else table.rows(ids)
        summed = looked_up + self.position_embeddings(positions) + self.token_type_embeddings.weight[segment]
        return Sequences(self.dropout(self.LayerNorm(summed)), lengths)

    def table(self, *ids: Tensor) -> Table:
        """The rows, ready for a step that looks up no others than `ids`, which are on the host."""
        return Table.of(self.word_embeddings.weight, self.words, *ids)


class SelfAttention(nn.Module):
    """Scaled dot-product attention over all heads."""

    def __init__(self, configuration: ModelConfiguration) -> None:
        super().__init__()
        size = configuration.hidden_size
        self.query, self.key, self.value = (nn.Linear(size, size) for _ in range(3))
        self.heads = configuration.heads
        self.dropout = configuration.attention_dropout

    def forward(self, asking: Tensor, states: Tensor, attend: Attend) -> Tensor:
        """What places `asking` [Q, D] see among `states` [M, D]: [Q, D]."""
        queries, keys, values = (
            project(given).unflatten(1, (self.heads, -1))
            for project, given in ((self.query, asking), (self.key, states), (self.value, states))
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
        self.dropout = Dropout(configuration.dropout)

    def forward(self, found: Tensor, states: Tensor) -> Tensor:
        """[M, inputs] and [M, D] -> [M, D]."""
        return self.LayerNorm(self.dropout(self.dense(found)) + states)


class Attention(nn.Module):
    """The attention block of a layer."""

    def __init__(self, configuration: ModelConfiguration) -> None:
        super().__init__()
        self.self = SelfAttention(configuration)
        self.output = AddAndNorm(configuration, configuration.hidden_size)

    def forward(self, asking: Tensor, states: Tensor, attend: Attend) -> Tensor:
        """[Q, D], among [M, D] -> [Q, D]."""
        return self.output(self.self(asking, states, attend), asking)


class Layer(nn.Module):
    """Attention, then the feed-forward block."""

    def __init__(self, configuration: ModelConfiguration) -> None:
        super().__init__()
        self.attention = Attention(configuration)
        self.intermediate = Intermediate(configuration)
        self.output = AddAndNorm(configuration, configuration.feed_forward_size)

    def forward(self, asking: Tensor, states: Tensor, attend: Attend) -> Tensor:
        """The new states of `asking` [Q, D], which are all or some of `states` [M, D]."""
        attended = self.attention(asking, states, attend)
        return self.output(self.intermediate(attended), attended)


class Encoder(nn.Module):
    """A stack of layers."""

    def __init__(self, configuration: ModelConfiguration, layers: int) -> None:
        super().__init__()
        self.layer = nn.ModuleList(Layer(configuration) for _ in range(layers))

    def forward(self, sequences: Sequences, only: Tensor | None = None) -> Sequences:
        """The last layer's output, as of `outputs`; the sequences themselves where there is no layer."""
        last = len(self.layer) - 1
        return self.outputs(sequences, [last], only)[last] if self.layer else sequences

    def outputs(
        self, sequences: Sequences, wanted: Collection[int], only: Tensor | None = None
    ) -> dict[int, Sequences]:
        """The outputs of the `wanted` layers, by their numbers from 0; those behind the last of them are not computed.

        `only` bool [M], on the host: which places of that last one are of use, besides each sequence's first; what others would
        be is not computed either, and 0.
        """
        states, lengths, last = sequences.states, sequences.lengths, max(wanted)
        attend = attend_within(lengths, states.device)
        found = {}
        for number, layer in enumerate(self.layer[: last + 1]):
            if number == last and only is not None:
                states = _at_some(layer, sequences.lengths, states, only)
            else:
                states = layer(states, states, attend)
            if number in wanted:
                found[number] = Sequences(states, lengths)
        return found


def _at_some(layer: nn.Module, lengths: Tensor, states: Tensor, only: Tensor) -> Tensor:
    """A layer's output [M, D] at the places `only` bool [M] and at each sequence's first (kernels know no empty sequence)."""
    only = only.index_fill(0, starts(lengths), True)
    places = sent(only.nonzero()[:, 0], states.device)
    asking = torch.zeros_like(lengths).index_add(0, owners(lengths), only.long())
    found = layer(states.index_select(0, places), states, attend_within(lengths, states.device, asking))
    return found.new_zeros(len(states), found.shape[1]).index_copy(0, places, found)


class Pooler(nn.Module):
    """What the joint `[CLS]` says of the pair."""

    def __init__(self, configuration: ModelConfiguration) -> None:
        super().__init__()
        self.dense = nn.Linear(configuration.hidden_size, configuration.hidden_size)

    def forward(self, first: Tensor) -> Tensor:
        """Sequences' first states [n, D] -> [n, D]."""
        return torch.tanh(self.dense(first))


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
        self.dropout = Dropout(configuration.dropout)
        alone = 0 if configuration.merged_attention else configuration.layers
        self.txt_encoder, self.vis_encoder = (Encoder(configuration, alone) for _ in range(2))
        self.mul_encoder = Encoder(configuration, configuration.joint_layers)
        self.pooler = Pooler(configuration)
        self.txt_proj, self.vis_proj = (nn.Linear(size, size, bias=False) for _ in range(2))

    def text(self, ids: Tensor, lengths: Tensor, table: Table | None = None, only: Tensor | None = None) -> Sequences:
        """Words and phrases, int64 [M], of lengths [n], both on the host -> the textual encoder's output (at `only`:
        `Encoder.outputs`)."""
        return self.txt_encoder(self.embeddings(ids, lengths, 0, table), only)

    def image(self, tags: Sequences, regions: Sequences, only: Tensor | None = None) -> tuple[Sequences, Sequences]:
        """Embedded tags and regions -> the visual encoder's outputs for the two; `only` is of a sequence of both."""
        return self.vis_encoder(tags.then(regions), only).split(tags.lengths)

    def tags(self, ids: Tensor, lengths: Tensor, table: Table | None = None) -> Sequences:
        """Tag sequences embedded, int64 [M], of lengths [n]."""
        return self.embeddings(ids, lengths, 1, table)

    def regions(self, features: Tensor, geometry: Tensor, counts: Tensor) -> Sequences:
        """Regions embedded, [M, 2048] and [M, 6], `counts` [n] an image; they have neither position nor segment."""
        dtype = self.img_embedding.weight.dtype
        vectors = torch.cat([features.to(dtype), geometry.to(dtype)], dim=-1)
        return Sequences(self.dropout(self.LayerNorm(self.img_embedding(vectors))), counts)
