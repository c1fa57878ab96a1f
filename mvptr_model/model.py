"""MVPTR (Li et al. 2022): both stages, as a dictionary of losses.

    model = Mvptr(ModelConfiguration.preset("paper", phrase_rows=len(vocabulary)))
    outcome = model(batch, stage=2, seed=7, step=123)
    outcome.total.backward()

1. Text (words, phrases) and image (tags, regions) are encoded apart.
2. `[CLS]` states are compared over all ranks (VSC), masked tags and phrases recovered (MCR).
3. In stage 2, each text with its regions, and each with a hard negative, goes through the multi-modal encoder, once: pairs
   are judged (ITM), masked words recovered (MLM), phrases grounded halfway (WPG). Tags stay behind, for words could be read
   off them.

With `merged_attention` the multi-modal encoder takes embedded text, tags and regions, and 2. reads its output.

Sequences have no padding: a padded batch loses it first. The last layer of a stack is computed for the places that a loss looks
at, which is exact and saves 9 % of stage 2 and 13 % of stage 1.

Shape legend: n pairs of a rank, N pairs of all its peers, q pairs encoded jointly (the n, then n mismatched ones), M places of
all sequences of a kind.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from mvptr_data.errors import InputError
from mvptr_data.transfers import Fetched, sent
from mvptr_model.ablations import ablated
from mvptr_model.batch import Batch
from mvptr_model.configuration import FIRST_STAGE_LOSSES, LossName, ModelConfiguration
from mvptr_model.encoders import Encoders
from mvptr_model.heads import PairHeads, PredictionHead, initial_logit_scale, similarity_scale
from mvptr_model.losses.itm import Drawn, Pairs, matched_pairs, matching, mismatched_pairs, other_images
from mvptr_model.losses.mcr import Recovery
from mvptr_model.losses.mlm import masked_words
from mvptr_model.losses.ranks import Loss, Peers, drawn
from mvptr_model.losses.vsc import Rivals, Similarities, contrastive, similarities
from mvptr_model.losses.wpg import Grounding, grounded, grounding
from mvptr_model.masking import IGNORED
from mvptr_model.meeting import Encoded, Lengths, Meeting
from mvptr_model.sequences import Sequences, owners, taken
from mvptr_model.table import Table

#: The standard deviation of fresh weights in BERT, of states of this size. In narrower models it is larger, so that products are
#: as large: with 128 and BERT's own, VSC learns nothing for hundreds of steps.
INITIAL_DEVIATION, BERT_SIZE = 0.02, 768


@dataclass(frozen=True, slots=True, eq=False)
class Outcome:
    """Scalars by loss. The mean over ranks is the whole batch's, of losses, of accuracies and of gradients."""

    losses: dict[LossName, Tensor]
    accuracies: dict[LossName, Tensor]

    @property
    def total(self) -> Tensor:
        """Eq. 10 or 11: the sum, all weights 1."""
        return torch.stack(list(self.losses.values())).sum()


class Mvptr(nn.Module):
    """The model with its pre-training heads. Parameters have the authors' names; `phrase_mcr` is what their code lacks."""

    def __init__(self, configuration: ModelConfiguration) -> None:
        super().__init__()
        self.configuration = configuration
        self.bert = Encoders(configuration)
        self.cls = PairHeads(configuration)
        self.half_mlm = PredictionHead(configuration, configuration.word_rows, tied=configuration.tied_decoders)
        self.phrase_mcr = PredictionHead(configuration, configuration.phrase_rows, tied=True)
        self.logit_scale = initial_logit_scale(configuration.temperature)
        self.apply(partial(_initialize, deviation=INITIAL_DEVIATION * math.sqrt(BERT_SIZE / configuration.hidden_size)))

    def forward(self, batch: Batch, *, stage: int, seed: int = 0, step: int = 0) -> Outcome:
        """The losses of stage 1 or 2 for a batch, padded or packed, best from the host: see `Batch.placed`.

        (seed, step) decide the negatives; `step` counts forward passes, accumulated ones too. All ranks call it together,
        with as many samples each. Raises `InputError` for a batch with too long a sequence, or a stage that learns nothing.
        """
        learns = self.configuration.learns(stage)
        batch = ablated(batch.placed(self.logit_scale.device).without_padding(), self.configuration)
        self._check(batch)
        lengths = Lengths.asked(batch, self._peers(), self.logit_scale.device)
        table = self.bert.embeddings.table(batch.text_ids, batch.tag_ids)
        encoded = self._encode(batch, table, *self._places(batch, learns))
        meeting = self._meet(batch, encoded, lengths, seed=seed, step=step)
        drawn = self._draw(meeting, learns)
        recoveries: dict[LossName, Recovery] = {}
        if not self.configuration.merged_attention:
            recoveries = self._recoveries(batch, encoded, learns, table)
        found: dict[LossName, Loss] = {}
        if "vsc" in learns:
            found["vsc"] = contrastive(meeting.similar, meeting.rivals)
        if self.configuration.merged_attention or learns.difference(FIRST_STAGE_LOSSES):
            pairs = self._pairs(meeting, drawn)
            last, halfway = self.configuration.joint_layers - 1, self.configuration.grounding_layer
            joined = meeting.joined(pairs)
            only = self._joint_places(meeting, joined, learns)
            joint = self.bert.mul_encoder.outputs(joined, {last, halfway}, only)
            parted = meeting.parted(joint[last])
            found |= self._joint_losses(meeting, pairs, joint[last], parted, learns, table)
            if "wpg" in learns:
                found["wpg"] = self._grounding_loss(meeting, pairs, joint[halfway])
            if self.configuration.merged_attention:
                recoveries = self._recoveries(batch, parted, learns, table)
        found |= {name: recovery.loss() for name, recovery in recoveries.items()}
        return Outcome(
            {name: loss.value for name, loss in found.items()},
            {name: loss.accuracy for name, loss in found.items() if loss.accuracy is not None},
        )

    def encode(self, batch: Batch) -> Encoded:
        """Text and image of a packed batch by themselves; with `merged_attention`, no more than embedded."""
        return self._encode(batch.placed(self.logit_scale.device))

    def _encode(
        self, batch: Batch, table: Table | None = None, text: Tensor | None = None, image: Tensor | None = None
    ) -> Encoded:
        """As `encode`; of the last layers, the places `text` and `image` bool [M] alone."""
        return Encoded(
            self.bert.text(batch.text_ids, batch.text_lengths, table, text),
            *self.bert.image(
                self.bert.tags(batch.tag_ids, batch.tag_lengths, table),
                self.bert.regions(batch.features, batch.geometry, batch.region_counts),
                image,
            ),
        )

    def _places(self, batch: Batch, learns: frozenset[LossName]) -> tuple[Tensor | None, Tensor]:
        """bool [M] each, on the host: which places of text and of image (tags, regions) are looked at, besides `[CLS]`; None for
        all."""
        joint = bool(learns.difference(FIRST_STAGE_LOSSES))
        phrases = _masked(batch.phrase_labels, "mcr_s" in learns)
        tags = Sequences(_masked(batch.tag_labels, "mcr_v" in learns), batch.tag_lengths)
        regions = torch.full((len(batch.features),), joint)
        return None if joint else phrases, tags.then(Sequences(regions, batch.region_counts)).states

    def _joint_places(self, meeting: Meeting, joined: Sequences, learns: frozenset[LossName]) -> Tensor | None:
        """The same of the multi-modal encoder's output."""
        batch, configuration = meeting.batch, self.configuration
        if "wpg" in learns and configuration.grounding_layer == configuration.joint_layers - 1:
            return None
        text = Sequences(_masked(batch.word_labels, "mlm" in learns), batch.text_lengths)
        regions = Sequences(torch.zeros(len(batch.features), dtype=torch.bool), batch.region_counts)
        if meeting.with_tags:
            text = Sequences(text.states | _masked(batch.phrase_labels, "mcr_s" in learns), text.lengths)
            text = text.then(Sequences(_masked(batch.tag_labels, "mcr_v" in learns), batch.tag_lengths))
        matched = text.then(regions).states
        return torch.cat([matched, matched.new_zeros(len(joined.states) - len(matched))])

    def _check(self, batch: Batch) -> None:
        longest = int(torch.cat([batch.text_lengths, batch.tag_lengths]).max())
        if longest > self.configuration.positions:
            raise InputError(
                f"a sequence of {longest} places has more than the model's {self.configuration.positions} positions",
                "Collate shorter ones.",
            )

    def _peers(self) -> Peers:
        """The ranks among whose pairs negatives are."""
        return Peers.everyone() if self.configuration.negatives == "global" else Peers.alone()

    def _meet(self, batch: Batch, encoded: Encoded, lengths: Fetched, *, seed: int, step: int) -> Meeting:
        """Text and image compared by eq. 4; without VSC nobody has learned to compare, and all are equal."""
        peers = self._peers()
        rivals = Rivals.among(peers, batch.image_ids, batch.weights)
        if "vsc" in self.configuration.losses:
            images, texts = self.bert.vis_proj(encoded.tags.first), self.bert.txt_proj(encoded.text.first)
            scale = similarity_scale(self.logit_scale, self.configuration.max_similarity_scale)
            similar = similarities(images, texts, scale, peers)
        else:
            equal = torch.zeros(rivals.negative.shape, device=rivals.negative.device)
            similar = Similarities(equal, equal)
        return Meeting(
            batch, encoded, rivals, similar, Lengths.of(lengths), self.configuration.merged_attention, seed, step
        )

    def _draw(self, meeting: Meeting, learns: frozenset[LossName]) -> Drawn | None:
        """The mismatched pairs to encode jointly, if there are any."""
        shared = "wpg" in learns and self.configuration.wpg_negatives == "itm"
        if "itm" not in learns and not shared:
            return None
        return mismatched_pairs(
            meeting.similar,
            meeting.rivals,
            seed=meeting.seed,
            step=meeting.step,
            # Where all are equal, the most similar one would be the first.
            hardest=self.configuration.hardest_negatives and "vsc" in self.configuration.losses,
        )

    def _pairs(self, meeting: Meeting, drawn: Drawn | None) -> Pairs:
        """The pairs to encode jointly: [q]."""
        matched = matched_pairs(meeting.rivals)
        if drawn is None:
            return matched
        return Pairs(*(torch.cat(parts) for parts in zip(matched, drawn.pairs(), strict=True)))

    def _joint_losses(
        self,
        meeting: Meeting,
        pairs: Pairs,
        joint: Sequences,
        matched: Encoded,
        learns: frozenset[LossName],
        table: Table,
    ) -> dict[LossName, Loss]:
        """MLM and ITM of the multi-modal encoder's output for the q `pairs`, of which n are `matched`."""
        found: dict[LossName, Loss] = {}
        if "mlm" in learns:
            labels = meeting.batch.word_labels
            places = (labels != IGNORED).nonzero()[:, 0]
            logits = self.cls.predictions(taken(matched.text.states, places), table.words)
            found["mlm"] = masked_words(logits, sent(labels[places], logits.device))
        if "itm" in learns:
            is_match = (torch.arange(len(pairs.weights), device=pairs.weights.device) < len(meeting.batch)).long()
            found["itm"] = matching(self.cls.seq_relationship(self.bert.pooler(joint.first)), pairs, is_match)
        return found

    def _grounding_loss(self, meeting: Meeting, pairs: Pairs, joint: Sequences) -> Loss:
        """WPG on the grounding layer's output for the q `pairs`."""
        count = len(meeting.batch)
        matched = Pairs(*(part[:count] for part in pairs))
        if self.configuration.wpg_negatives == "itm":
            others, apart = Pairs(*(part[count:] for part in pairs)), joint.rows(slice(count, None))
        else:
            others = other_images(meeting.similar, meeting.rivals, seed=meeting.seed, step=meeting.step).pairs()
            halfway = self.configuration.grounding_layer
            apart = self.bert.mul_encoder.outputs(meeting.joined(others), {halfway})[halfway]
        right = self._grounded(meeting, joint.rows(slice(count)), matched, "matched")
        wrong = self._grounded(meeting, apart, others, "mismatched")
        return grounded(right, wrong, others.texts, others.weights, meeting.rivals.peers)

    def _grounded(self, meeting: Meeting, joint: Sequences, pairs: Pairs, name: str) -> Grounding:
        """Eq. 6 for `pairs`, encoded as `joint`; `name` goes into what is drawn."""
        best, draws = self.configuration.wpg_best_regions, None
        (phrases, phrase_mask), (regions, region_mask) = (
            part.padded() for part in meeting.phrases_and_regions(joint, pairs)
        )
        if best > 1:  # by a phrase's number in its text, whatever the most phrases are here
            draws = drawn(len(pairs.texts), self.configuration.positions, "region", name, meeting.seed, meeting.step)
            draws = sent(draws[:, : phrases.shape[1]], phrases.device)
        return grounding(phrases, regions, phrase_mask, region_mask, draws, best)

    def _recoveries(
        self, batch: Batch, encoded: Encoded, learns: frozenset[LossName], table: Table
    ) -> dict[LossName, Recovery]:
        """MCR of tags and phrases, begun."""
        found: dict[LossName, Recovery] = {}
        for name, given, labels, head, rows in (
            ("mcr_v", encoded.tags, batch.tag_labels, self.half_mlm, table.words),
            ("mcr_s", encoded.text, batch.phrase_labels, self.phrase_mcr, table.phrases),
        ):
            if name in learns:
                places = (labels != IGNORED).nonzero()[:, 0]
                sample = owners(given.lengths)[places]
                logits = head(taken(given.states, places), rows)
                match = self.configuration.match_concepts
                found[name] = Recovery(logits, labels[places], sample, len(batch), match=match)
        return found


def _masked(labels: Tensor, learned: bool) -> Tensor:
    """bool [M]: where something is to be recovered; nowhere, if nothing is `learned` from it."""
    return (labels != IGNORED) & learned


def _initialize(module: nn.Module, deviation: float) -> None:
    if isinstance(module, nn.Linear | nn.Embedding):
        nn.init.normal_(module.weight, std=deviation)
    if isinstance(module, nn.Linear) and module.bias is not None:
        nn.init.zeros_(module.bias)
