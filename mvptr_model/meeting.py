"""A batch at the point where text and image meet.

Shape legend: n pairs of a rank, N pairs of all its peers, q pairs encoded jointly.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from mvptr_model.batch import Batch
from mvptr_model.losses.itm import Pairs
from mvptr_model.losses.vsc import Rivals, Similarities
from mvptr_model.sequences import Sequences


@dataclass(frozen=True, slots=True, eq=False)
class Encoded:
    """Text and image of n pairs, each by itself: words and phrases, tags, regions."""

    text: Sequences
    tags: Sequences
    regions: Sequences


@dataclass(frozen=True, slots=True, eq=False)
class Meeting:
    """Who is compared with whom, how similar they are, and what decides the numbers drawn for them.

    `with_tags`: the multi-modal encoder sees the tags, too. `lengths` int64 [N, 3]: of all peers' texts, their phrases, and
    their tag sequences.
    """

    batch: Batch
    encoded: Encoded
    rivals: Rivals
    similar: Similarities
    lengths: Tensor
    with_tags: bool
    seed: int
    step: int

    def joined(self, pairs: Pairs) -> Sequences:
        """Texts and images of q pairs: text, tags where they are seen, regions."""
        encoded, gather = self.encoded, self.rivals.peers.gather_sequences
        image = encoded.tags.then(encoded.regions) if self.with_tags else encoded.regions
        return gather(encoded.text).rows(pairs.texts).then(gather(image).rows(pairs.images))

    def parted(self, joint: Sequences) -> Encoded:
        """What `joined` put together, of the n pairs that match, which come first."""
        text, image = joint.rows(slice(len(self.batch))).split(self.batch.text_lengths)
        tags = self.batch.tag_lengths
        return Encoded(text, *image.split(tags if self.with_tags else torch.zeros_like(tags)))

    def phrases_and_regions(self, joint: Sequences, pairs: Pairs) -> tuple[Sequences, Sequences]:
        """The phrases and the regions of `joined` pairs."""
        text, phrases = self.lengths[pairs.texts, 0], self.lengths[pairs.texts, 1]
        others = text + self.lengths[pairs.images, 2] if self.with_tags else text
        return joint.part(text - 1 - phrases, phrases), joint.part(others, joint.lengths - others)
