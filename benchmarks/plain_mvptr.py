"""MVPTR as it is usually written, to compare with: padded sequences, attention step by step, heads on every position, matching
and grounding sample by sample. It borrows a model's weights and gives the same losses (`benchmarks/pretrain.py` checks it).

Phrases alone are recovered at masked places only: on every position 54,950 candidates would be most of a step.

Shape legend: n pairs, q = 2 n pairs encoded jointly, T places of a text (40), G of a tag sequence (20), R regions (50), L places
of a sequence, D size of a state, V word pieces, h heads.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
import torch.nn.functional as F
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from mvptr_model.batch import Batch
from mvptr_model.encoders import Encoder, Layer
from mvptr_model.heads import PredictionHead
from mvptr_model.losses.itm import mismatched_pairs
from mvptr_model.losses.ranks import Peers
from mvptr_model.losses.vsc import Rivals, Similarities
from mvptr_model.losses.wpg import MARGIN
from mvptr_model.masking import IGNORED
from mvptr_model.model import Mvptr

_NOTHING = -1e4


class PlainMvptr:
    """The losses of a padded batch by a model's weights; dropout as that model's settings say."""

    def __init__(self, model: Mvptr) -> None:
        self.model, self.bert, self.configuration = model, model.bert, model.configuration
        table = model.bert.embeddings.word_embeddings.weight
        self.words, self.phrases = table[: self.configuration.word_rows], table[self.configuration.word_rows :]

    def losses(self, batch: Batch, *, stage: int, seed: int = 0, step: int = 0) -> dict[str, Tensor]:
        """Eq. 10 or 11, by loss."""
        text = self._stack(self.bert.txt_encoder, self._embedded(batch.text_ids, 0), batch.text_mask)[-1]
        image_mask = torch.cat([batch.tag_mask, batch.region_mask], dim=1)
        embedded = torch.cat([self._embedded(batch.tag_ids, 1), self._regions(batch)], dim=1)
        tags, regions = self._stack(self.bert.vis_encoder, embedded, image_mask)[-1].split(
            [batch.tag_ids.shape[1], batch.features.shape[1]], dim=1
        )
        images = F.normalize(self.bert.vis_proj(tags[:, 0]), dim=-1)
        texts = F.normalize(self.bert.txt_proj(text[:, 0]), dim=-1)
        similarity = self.model.logit_scale.exp() * images @ texts.T
        own = torch.arange(len(batch), device=similarity.device)
        found = {
            "vsc": (F.cross_entropy(similarity, own) + F.cross_entropy(similarity.T, own)) / 2,
            "mcr_v": self._concepts(self._scores(self.model.half_mlm, tags, self.words), batch.tag_labels),
            "mcr_s": self._phrases(text, batch.phrase_labels),
        }
        return found if stage == 1 else found | self._joint(batch, text, regions, similarity, seed, step)

    def _joint(
        self, batch: Batch, text: Tensor, regions: Tensor, similarity: Tensor, seed: int, step: int
    ) -> dict[str, Tensor]:
        """MLM, ITM and WPG."""
        rivals = Rivals.among(Peers.alone(), batch.image_ids, batch.weights)
        found = Similarities(similarity, similarity.T)
        wrong = mismatched_pairs(found, rivals, seed=seed, step=step, hardest=False).pairs()
        image_of, text_of = (torch.cat([rivals.places, other]).to(text.device) for other in (wrong.images, wrong.texts))
        states = torch.cat([text[text_of], regions[image_of]], dim=1)
        mask = torch.cat([batch.text_mask[text_of], batch.region_mask[image_of]], dim=1)
        layers = self._stack(self.bert.mul_encoder, states, mask)
        n, places = len(batch), batch.text_ids.shape[1]
        words = self._scores(self.model.cls.predictions, layers[-1][:n, :places], self.words)
        pooled = torch.tanh(self.bert.pooler.dense(layers[-1][:, 0]))
        is_match = (torch.arange(2 * n, device=pooled.device) < n).long()
        return {
            "mlm": F.cross_entropy(words.flatten(0, 1), batch.word_labels.flatten(), ignore_index=IGNORED),
            "itm": F.cross_entropy(self.model.cls.seq_relationship(pooled), is_match),
            "wpg": self._grounding(batch, layers[self.configuration.grounding_layer], image_of, text_of),
        }

    def _grounding(self, batch: Batch, states: Tensor, image_of: Tensor, text_of: Tensor) -> Tensor:
        """Eq. 6-7, pair by pair: each sentence with the mean of its negatives."""
        scores = []
        for pair, (image, text) in enumerate(zip(image_of.tolist(), text_of.tolist(), strict=True)):
            end = int(batch.text_lengths[text]) - 1
            phrases = states[pair, end - int(batch.phrase_counts[text]) : end]
            first = batch.text_ids.shape[1]
            regions = states[pair, first : first + int(batch.region_counts[image])]
            cosines = F.normalize(phrases, dim=-1) @ F.normalize(regions, dim=-1).T
            scores.append(cosines.max(dim=1).values.mean())
        n, hinges = len(batch), []
        for text in range(n):
            others = [scores[pair] for pair in range(n, 2 * n) if int(text_of[pair]) == text]
            if others and int(batch.phrase_counts[text]):
                hinges.append(torch.stack([F.relu(MARGIN + other - scores[text]) for other in others]).mean())
        return torch.stack(hinges).mean()

    def _concepts(self, scores: Iterable[Tensor], labels: Iterable[Tensor]) -> Tensor:
        """Eq. 1-2: scores [L, V] and labels [L] of one sample after another."""
        losses = []
        for sample_scores, sample_labels in zip(scores, labels, strict=True):
            places = (sample_labels != IGNORED).nonzero()[:, 0]
            if len(places):
                wanted, logits = sample_labels[places], sample_scores[places]
                cost = 1 - logits.float().softmax(dim=1)[:, wanted]
                rows, columns = linear_sum_assignment(cost.detach().cpu().numpy())
                losses.append(F.cross_entropy(logits[rows], wanted[columns]))
        return torch.stack(losses).mean()

    def _phrases(self, text: Tensor, labels: Tensor) -> Tensor:
        """Eq. 3, at masked places only: a decoder for all of them would be as wide as the phrases are many."""
        there = labels != IGNORED
        scores = self._scores(self.model.phrase_mcr, text[there], self.phrases)
        counts = there.sum(dim=1).tolist()
        return self._concepts(scores.split(counts), labels[there].split(counts))

    def _scores(self, head: PredictionHead, states: Tensor, rows: Tensor) -> Tensor:
        """[..., D] -> [..., V]."""
        return F.linear(head.transform(states), rows, head.bias)

    def _embedded(self, ids: Tensor, segment: int) -> Tensor:
        """[n, L] -> [n, L, D]."""
        parts = self.bert.embeddings
        summed = parts.word_embeddings(ids) + parts.position_embeddings.weight[: ids.shape[1]]
        return self._dropped(parts.LayerNorm(summed + parts.token_type_embeddings.weight[segment]))

    def _regions(self, batch: Batch) -> Tensor:
        """[n, R, D]."""
        dtype = self.bert.img_embedding.weight.dtype
        vectors = torch.cat([batch.features.to(dtype), batch.geometry.to(dtype)], dim=-1)
        return self._dropped(self.bert.LayerNorm(self.bert.img_embedding(vectors)))

    def _stack(self, encoder: Encoder, states: Tensor, mask: Tensor) -> list[Tensor]:
        """[n, L, D] and bool [n, L] -> each layer's output."""
        bias = torch.where(mask, 0.0, _NOTHING).to(states.dtype)[:, None, None]
        found = []
        for layer in encoder.layer:
            assert isinstance(layer, Layer)
            states = self._layer(layer, states, bias)
            found.append(states)
        return found

    def _layer(self, layer: Layer, states: Tensor, bias: Tensor) -> Tensor:
        attention = layer.attention
        queries, keys, values = (  # [n, h, L, d]
            project(states).unflatten(2, (self.configuration.heads, -1)).transpose(1, 2)
            for project in (attention.self.query, attention.self.key, attention.self.value)
        )
        scores = queries @ keys.transpose(-1, -2) / math.sqrt(queries.shape[-1]) + bias
        weights = F.dropout(scores.softmax(dim=-1), self.configuration.attention_dropout, self.model.training)
        seen = (weights @ values).transpose(1, 2).flatten(2)
        attended = attention.output.LayerNorm(self._dropped(attention.output.dense(seen)) + states)
        wide = F.gelu(layer.intermediate.dense(attended))
        return layer.output.LayerNorm(self._dropped(layer.output.dense(wide)) + attended)

    def _dropped(self, states: Tensor) -> Tensor:
        return F.dropout(states, self.configuration.dropout, self.model.training)
