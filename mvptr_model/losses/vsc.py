"""The visual semantic contrastive loss, and who may be whose negative (MVPTR 3.3.1).

Shape legend: n pairs of a rank, N pairs of all its peers, D size of an embedding.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from mvptr_model.losses.ranks import Loss, Peers, mean, not_narrowed, widened


@dataclass(frozen=True, slots=True, eq=False)
class Rivals:
    """Which of all pairs a rank's own may be told apart from.

    `own` int64 [n]: the places of the rank's pairs among all N of its `peers`. `weights` float32 [n]: 0 for an empty slot,
    else 1. `negative` bool [n, N]: another image, byte for byte, and no empty slot.
    """

    peers: Peers
    own: Tensor
    weights: Tensor
    negative: Tensor

    @classmethod
    def among(cls, peers: Peers, image_ids: Tensor, weights: Tensor) -> Rivals:
        """`image_ids` int64 [n], `weights` float32 [n] as in a `Batch`."""
        all_ids, all_weights = peers.gather(image_ids), peers.gather(weights)
        filled = (weights > 0)[:, None] & (all_weights > 0)
        different = image_ids[:, None] != all_ids
        own = torch.arange(len(image_ids), device=image_ids.device) + peers.rank * len(image_ids)
        return cls(peers, own, weights, filled & different)

    @property
    def places(self) -> Tensor:
        """`own`, on the host."""
        return torch.arange(len(self.own)) + self.peers.rank * len(self.own)

    @property
    def compared(self) -> Tensor:
        """bool [n, N]: the negatives and the pair itself."""
        itself = torch.zeros_like(self.negative)
        itself[torch.arange(len(self.own), device=self.own.device), self.own] = True
        return self.negative | itself


class Similarities(NamedTuple):
    """U / tau of eq. 4, float [n, N]: of a rank's images with all texts, and of its texts with all images."""

    image_to_text: Tensor
    text_to_image: Tensor


def similarities(images: Tensor, texts: Tensor, scale: Tensor, peers: Peers) -> Similarities:
    """Cosines of `images` and `texts` [n, D], of any length, times `scale` [], which is 1 / tau."""
    both = torch.stack([F.normalize(widened(images), dim=-1), F.normalize(widened(texts), dim=-1)], dim=1)  # [n, 2, D]
    all_images, all_texts = peers.gather(both).unbind(dim=1)  # [N, D]
    own_images, own_texts = both.unbind(dim=1)
    with not_narrowed(images):
        return Similarities(scale * own_images @ all_texts.T, scale * own_texts @ all_images.T)


def contrastive(found: Similarities, rivals: Rivals) -> Loss:
    """Eq. 5: the mean of -log p of each image's own text and each text's own image, where p is eq. 4 over the pair itself and
    its negatives. The accuracy is R@1, both ways."""
    values, right = [], []
    for similarity in found:
        compared = similarity.masked_fill(~rivals.compared, -torch.inf)
        values.append(F.cross_entropy(compared, rivals.own, reduction="none"))
        right.append((compared.detach().argmax(dim=1) == rivals.own).to(similarity.dtype))
    weights = rivals.weights.repeat(2)
    return Loss(mean(torch.cat(values), weights), mean(torch.cat(right), weights))
