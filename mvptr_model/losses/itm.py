"""Image-text matching, and the negative pairs it draws (MVPTR 3.3.3).

Shape legend: n pairs of a rank, N pairs of all its peers, q matched or mismatched pairs of a rank.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from mvptr_data.transfers import Fetched, sent
from mvptr_model.losses.ranks import Loss, drawn, mean, widened
from mvptr_model.losses.vsc import Rivals, Similarities


class Pairs(NamedTuple):
    """int64 [q] each, on the host: places of an image and a text among all N; float32 [q]: 0 for what is no pair, else 1."""

    images: Tensor
    texts: Tensor
    weights: Tensor


def matched_pairs(rivals: Rivals) -> Pairs:
    """Each image with its own text."""
    own = rivals.places
    return Pairs(own, own, rivals.weights)


class Drawn:
    """Which negatives were drawn is on its way from the device, until `pairs` asks."""

    def __init__(self, taken: Tensor, rivals: Rivals, other_image: Tensor) -> None:
        """`taken` int64 [n]: places; `other_image` bool [n], on the host: of images for the pair's text, else of texts."""
        self._taken, self._other_image, self._own = Fetched(taken), other_image, rivals.places
        self._weights = rivals.negative.any(dim=1).to(rivals.weights.dtype)

    def pairs(self) -> Pairs:
        """The n mismatched pairs."""
        (taken,) = self._taken.get()
        return Pairs(
            images=torch.where(self._other_image, taken, self._own),
            texts=torch.where(self._other_image, self._own, taken),
            weights=self._weights,
        )


def mismatched_pairs(found: Similarities, rivals: Rivals, *, seed: int, step: int, hardest: bool) -> Drawn:
    """A hard negative for each of a rank's pairs: those at even places among all take another image, the others another text.

    It is drawn from the distribution of eq. 4 over the pair's negatives, by a number that (seed, step, place) decides, so the
    same ones are drawn whatever the number of ranks; the most similar one if `hardest` (the released code). Weighs 0 where
    there is no negative.
    """
    other_image = rivals.own % 2 == 0
    similarity = torch.where(other_image[:, None], found.text_to_image, found.image_to_text).detach()
    taken = _chosen(similarity, rivals, None if hardest else ("itm", seed, step))
    return Drawn(taken, rivals, rivals.places % 2 == 0)


def other_images(found: Similarities, rivals: Rivals, *, seed: int, step: int) -> Drawn:
    """Another image for each text, drawn from p^s2v: V' of eq. 7 to the letter."""
    taken = _chosen(found.text_to_image.detach(), rivals, ("wpg", seed, step))
    return Drawn(taken, rivals, torch.ones(len(rivals.own), dtype=torch.bool))


def matching(logits: Tensor, pairs: Pairs, matched: Tensor) -> Loss:
    """Eq. 8: the mean cross entropy over matched and mismatched pairs.

    `logits` float [q, 2] of the pooled joint `[CLS]`; `matched` int64 [q]: 1 for a match, else 0.
    """
    values = F.cross_entropy(widened(logits), matched, reduction="none")
    right = (logits.detach().argmax(dim=1) == matched).to(values.dtype)
    return Loss(mean(values, pairs.weights), mean(right, pairs.weights))


def _chosen(similarity: Tensor, rivals: Rivals, draws: tuple[int | str, ...] | None) -> Tensor:
    """int64 [n]: a negative of each pair, drawn from the softmax of `similarity` [n, N] over its negatives, by
    numbers that `draws` decides; the most similar one where that is None. Any place where there is no negative."""
    allowed = similarity.masked_fill(~rivals.negative, -torch.inf)
    if draws is None:
        return allowed.argmax(dim=1)
    best = allowed.amax(dim=1, keepdim=True).clamp(min=torch.finfo(allowed.dtype).min)  # finite without a negative, too
    numbers = sent(drawn(len(rivals.own), 1, *draws), similarity.device)
    return multinomial((allowed - best).double().exp(), numbers[:, 0])


def multinomial(shares: Tensor, numbers: Tensor) -> Tensor:
    """int64 [n]: the place that each of `numbers` [n] in [0, 1) falls on, if places are as wide as their `shares` [n, N].

    Never one of share 0, but where all are.
    """
    ends = shares.cumsum(dim=1)
    return torch.searchsorted(ends, numbers[:, None] * ends[:, -1:], right=True)[:, 0].clamp(max=shares.shape[1] - 1)
