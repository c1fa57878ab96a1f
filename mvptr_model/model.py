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

Shape legend: n pairs of a rank, N pairs of all its peers, q pairs encoded jointly (the n, then n mismatched ones), T places of
a text, G of a tag sequence, R regions, D size of a state.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from mvptr_data.errors import InputError
from mvptr_model.ablations import ablated
from mvptr_model.batch import Batch
from mvptr_model.configuration import FIRST_STAGE_LOSSES, LossName, ModelConfiguration
from mvptr_model.encoders import Encoders, Sequences
from mvptr_model.heads import PairHeads, PredictionHead, initial_logit_scale, similarity_scale
from mvptr_model.losses.itm import Pairs, matched_pairs, matching, mismatched_pairs, other_images
from mvptr_model.losses.mcr import recovered_concepts
from mvptr_model.losses.mlm import masked_words
from mvptr_model.losses.ranks import Loss, Peers, drawn
from mvptr_model.losses.vsc import Rivals, Similarities, contrastive, similarities
from mvptr_model.losses.wpg import Grounding, grounded, grounding
from mvptr_model.masking import IGNORED

#: The standard deviation of fresh weights (BERT).
INITIAL_DEVIATION = 0.02


@dataclass(frozen=True, slots=True, eq=False)
class Outcome:
    """Scalars by loss. The mean over ranks is the whole batch's, of losses, of accuracies and of gradients."""

    losses: dict[LossName, Tensor]
    accuracies: dict[LossName, Tensor]

    @property
    def total(self) -> Tensor:
        """Eq. 10 or 11: the sum, all weights 1."""
        return torch.stack(list(self.losses.values())).sum()


@dataclass(frozen=True, slots=True, eq=False)
class Encoded:
    """What becomes of a batch before text and image meet: [n, T, D], [n, G, D], [n, R, D]."""

    text: Sequences
    tags: Sequences
    regions: Sequences


@dataclass(frozen=True, slots=True, eq=False)
class Meeting:
    """A batch at the point where text and image meet: who is compared with whom, how similar they are, and what decides the
    numbers drawn for them."""

    batch: Batch
    encoded: Encoded
    rivals: Rivals
    similar: Similarities
    seed: int
    step: int

    def joined(self, pairs: Pairs, *, with_tags: bool) -> Sequences:
        """Texts and images of all peers side by side: [q, T + R, D], or [q, T + G + R, D]."""
        text, tags, regions = self.encoded.text, self.encoded.tags, self.encoded.regions
        image = tags.then(regions) if with_tags else regions
        gather = self.rivals.peers.gather
        texts = Sequences(gather(text.states), gather(text.mask))
        images = Sequences(gather(image.states), gather(image.mask))
        return texts.rows(pairs.texts).then(images.rows(pairs.images))

    def parted(self, joint: Sequences, *, with_tags: bool) -> Encoded:
        """What `joined` put together, of any of its rows."""
        text, image = joint.split(self.encoded.text.states.shape[1])
        return Encoded(text, *image.split(self.encoded.tags.states.shape[1] if with_tags else 0))


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
        self.apply(_initialize)

    def forward(self, batch: Batch, *, stage: int, seed: int = 0, step: int = 0) -> Outcome:
        """The losses of stage 1 or 2 for a padded batch.

        (seed, step) decide the negatives; `step` counts forward passes, accumulated ones too. All ranks call it together,
        with parts of equal size. Raises `InputError` for a packed batch, one too long, or a stage that learns nothing.
        """
        self._check(batch)
        learns, merged = self.configuration.learns(stage), self.configuration.merged_attention
        meeting = self._meet(ablated(batch, self.configuration), seed=seed, step=step)
        encoded = meeting.encoded
        # Once: each split's gradient is as large as the table.
        words, phrases = self.bert.embeddings.word_embeddings.weight.split(
            [self.configuration.word_rows, self.configuration.phrase_rows]
        )
        found: dict[LossName, Loss] = {}
        if "vsc" in learns:
            found["vsc"] = contrastive(meeting.similar, meeting.rivals)
        if merged or learns.difference(FIRST_STAGE_LOSSES):
            pairs = self._pairs(meeting, learns)
            last, halfway = self.configuration.joint_layers - 1, self.configuration.grounding_layer
            joint = self.bert.mul_encoder.outputs(meeting.joined(pairs, with_tags=merged), {last, halfway})
            found |= self._joint_losses(meeting, pairs, joint[last], learns, words)
            if "wpg" in learns:
                found["wpg"] = self._grounding_loss(meeting, pairs, joint[halfway])
            if merged:
                encoded = meeting.parted(joint[last].rows(slice(len(batch))), with_tags=True)
        found |= self._concept_losses(meeting.batch, encoded, learns, words, phrases)
        return Outcome(
            {name: loss.value for name, loss in found.items()},
            {name: loss.accuracy for name, loss in found.items() if loss.accuracy is not None},
        )

    def encode(self, batch: Batch) -> Encoded:
        """Text and image by themselves; with `merged_attention`, no more than embedded."""
        text = self.bert.text(batch.text_ids, batch.text_mask)
        regions = self.bert.regions(batch.features, batch.geometry, batch.region_mask)
        return Encoded(text, *self.bert.image(self.bert.tags(batch.tag_ids, batch.tag_mask), regions))

    def _check(self, batch: Batch) -> None:
        if batch.packed:
            raise InputError("the batch is packed", "Collate with packed=False: the model takes padded batches.")
        longest = max(batch.text_ids.shape[1], batch.tag_ids.shape[1])
        if longest > self.configuration.positions:
            raise InputError(
                f"a sequence of {longest} places has more than the model's {self.configuration.positions} positions",
                "Collate shorter ones.",
            )

    def _meet(self, batch: Batch, *, seed: int, step: int) -> Meeting:
        """Text and image encoded and compared by eq. 4; without VSC nobody has learned to compare, and all are equal."""
        encoded = self.encode(batch)
        peers = Peers.everyone() if self.configuration.negatives == "global" else Peers.alone()
        rivals = Rivals.among(peers, batch.image_ids, batch.weights)
        if "vsc" in self.configuration.losses:
            images = self.bert.vis_proj(encoded.tags.states[:, 0])
            texts = self.bert.txt_proj(encoded.text.states[:, 0])
            scale = similarity_scale(self.logit_scale, self.configuration.max_similarity_scale)
            similar = similarities(images, texts, scale, peers)
        else:
            equal = torch.zeros(rivals.negative.shape, device=rivals.negative.device)
            similar = Similarities(equal, equal)
        return Meeting(batch, encoded, rivals, similar, seed, step)

    def _pairs(self, meeting: Meeting, learns: frozenset[LossName]) -> Pairs:
        """The pairs to encode jointly: [q]."""
        matched = matched_pairs(meeting.rivals)
        shared = "wpg" in learns and self.configuration.wpg_negatives == "itm"
        if "itm" not in learns and not shared:
            return matched
        mismatched = mismatched_pairs(
            meeting.similar,
            meeting.rivals,
            seed=meeting.seed,
            step=meeting.step,
            hardest=self.configuration.hardest_negatives,
        )
        return Pairs(*(torch.cat(parts) for parts in zip(matched, mismatched, strict=True)))

    def _joint_losses(
        self, meeting: Meeting, pairs: Pairs, joint: Sequences, learns: frozenset[LossName], words: Tensor
    ) -> dict[LossName, Loss]:
        """MLM and ITM of the multi-modal encoder's output `joint` [q, ...]; `words` [V, D] are rows of the table."""
        found: dict[LossName, Loss] = {}
        if "mlm" in learns:
            labels = meeting.batch.word_labels
            sample, place = (labels != IGNORED).nonzero(as_tuple=True)
            # Matched pairs come first, and texts first in each, so places are those of the batch.
            logits = self.cls.predictions(joint.states[sample, place], words)
            found["mlm"] = masked_words(logits, labels[sample, place])
        if "itm" in learns:
            is_match = (torch.arange(len(pairs.weights), device=pairs.weights.device) < len(meeting.batch)).long()
            found["itm"] = matching(self.cls.seq_relationship(self.bert.pooler(joint.states)), pairs, is_match)
        return found

    def _grounding_loss(self, meeting: Meeting, pairs: Pairs, joint: Sequences) -> Loss:
        """WPG on `joint` [q, ...], the grounding layer's output."""
        count = len(meeting.batch)
        if self.configuration.wpg_negatives == "itm":
            others, apart = Pairs(*(part[count:] for part in pairs)), joint.rows(slice(count, None))
        else:
            others = other_images(meeting.similar, meeting.rivals, seed=meeting.seed, step=meeting.step)
            joined = meeting.joined(others, with_tags=self.configuration.merged_attention)
            halfway = self.configuration.grounding_layer
            apart = self.bert.mul_encoder.outputs(joined, {halfway})[halfway]
        phrases = meeting.rivals.peers.gather(phrase_places(meeting.batch))  # [N, T]
        matched = self._grounded(meeting, joint.rows(slice(count)), phrases[meeting.rivals.own], "matched")
        mismatched = self._grounded(meeting, apart, phrases[others.texts], "mismatched")
        return grounded(matched, mismatched, others.texts, others.weights, meeting.rivals.peers)

    def _grounded(self, meeting: Meeting, joint: Sequences, phrases: Tensor, name: str) -> Grounding:
        """Eq. 6 for n pairs; `phrases` bool [n, T], `name` goes into what is drawn."""
        best, draws = self.configuration.wpg_best_regions, None
        if best > 1:
            draws = drawn(*phrases.shape, "region", name, meeting.seed, meeting.step).to(phrases.device)
        parts = meeting.parted(joint, with_tags=self.configuration.merged_attention)
        return grounding(parts.text.states, parts.regions.states, phrases, parts.regions.mask, draws, best)

    def _concept_losses(
        self, batch: Batch, encoded: Encoded, learns: frozenset[LossName], words: Tensor, phrases: Tensor
    ) -> dict[LossName, Loss]:
        """MCR of tags and phrases; `words` [V, D] and `phrases` [F, D] are rows of the table."""
        found: dict[LossName, Loss] = {}
        for name, states, labels, head, rows in (
            ("mcr_v", encoded.tags.states, batch.tag_labels, self.half_mlm, words),
            ("mcr_s", encoded.text.states, batch.phrase_labels, self.phrase_mcr, phrases),
        ):
            if name in learns:
                sample, place = (labels != IGNORED).nonzero(as_tuple=True)
                logits = head(states[sample, place], rows)
                match = self.configuration.match_concepts
                found[name] = recovered_concepts(logits, labels[sample, place], sample, len(labels), match=match)
        return found


def phrase_places(batch: Batch) -> Tensor:
    """bool [n, T]: where a padded batch's phrases are, the last places before `[SEP]`."""
    end = (batch.text_lengths - 1)[:, None]
    place = torch.arange(batch.text_ids.shape[1], device=end.device)
    return (place >= end - batch.phrase_counts[:, None]) & (place < end)


def _initialize(module: nn.Module) -> None:
    if isinstance(module, nn.Linear | nn.Embedding):
        nn.init.normal_(module.weight, std=INITIAL_DEVIATION)
    if isinstance(module, nn.Linear) and module.bias is not None:
        nn.init.zeros_(module.bias)
