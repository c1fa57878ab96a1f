"""A batch at the point where text and image meet.

Shape legend: n pairs of a rank, N pairs of all its peers, q pairs encoded jointly.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from mvptr_data.transfers import Fetched
from mvptr_model.batch import Batch
from mvptr_model.losses.itm import Pairs
from mvptr_model.losses.ranks import Peers
from mvptr_model.losses.vsc import Rivals, Similarities
from mvptr_model.sequences import Sequences


@dataclass(frozen=True, slots=True, eq=False)
class Encoded:
    """Text and image of n pairs, each by itself: words and phrases, tags, regions."""

    text: Sequences
    tags: Sequences
    regions: Sequences


class Lengths(NamedTuple):
    """How much all peers' pairs have of what: int64 [N] each, on the host."""

    texts: Tensor
    phrases: Tensor
    tags: Tensor
    regions: Tensor

    @staticmethod
    def asked(batch: Batch, peers: Peers, device: torch.device) -> Fetched:
        """The lengths of the batches of all `peers`, which send them from `device`, on their way."""
        own = (batch.text_lengths, batch.phrase_counts, batch.tag_lengths, batch.region_counts)
        return peers.gather_counts(torch.stack(own, dim=1), device)

    @classmethod
    def of(cls, asked: Fetched) -> Lengths:
        """What was `asked` for, when it is needed."""
        return cls(*asked.get()[0].unbind(dim=1))


@dataclass(frozen=True, slots=True, eq=False)
class Meeting:
    """Who is compared with whom, how similar they are, and what decides the numbers drawn for them.

    `with_tags`: the multi-modal encoder sees the tags, too.
    """

    batch: Batch
    encoded: Encoded
    rivals: Rivals
    similar: Similarities
    lengths: Lengths
    with_tags: bool
    seed: int
    step: int

    def joined(self, pairs: Pairs) -> Sequences:
        """Texts and images of q pairs: text, tags where they are seen, regions."""
        encoded, lengths, gather = self.encoded, self.lengths, self.rivals.peers.gather_sequences
        if self.with_tags:
            image = gather(encoded.tags.then(encoded.regions), lengths.tags + lengths.regions)
        else:
            image = gather(encoded.regions, lengths.regions)
        return gather(encoded.text, lengths.texts).rows(pairs.texts).then(image.rows(pairs.images))

    def parted(self, joint: Sequences) -> Encoded:
        """What `joined` put together, of the n pairs that match, which come first."""
        text, image = joint.rows(slice(len(self.batch))).split(self.batch.text_lengths)
        tags = self.batch.tag_lengths
        return Encoded(text, *image.split(tags if self.with_tags else torch.zeros_like(tags)))

    def phrases_and_regions(self, joint: Sequences, pairs: Pairs) -> tuple[Sequences, Sequences]:
        """The phrases and the regions of `joined` pairs."""
        text, phrases = self.lengths.texts[pairs.texts], self.lengths.phrases[pairs.texts]
        others = text + self.lengths.tags[pairs.images] if self.with_tags else text
        return joint.part(text - 1 - phrases, phrases), joint.part(others, joint.lengths - others)
