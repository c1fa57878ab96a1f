"""Weakly supervised phrase grounding: a text's phrases are found in its own image rather than in another (MVPTR 3.3.2).

Shape legend: q pairs of a rank, n matched ones, N matched ones of all its peers, T places of a text, R regions, D size of a
state.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from mvptr_data.transfers import sent
from mvptr_model.losses.ranks import Loss, Peers, mean, not_narrowed, widened

#: Eq. 7: how much better a text's own image has to be.
MARGIN = 0.2
#: Below any cosine.
_NEVER = -2.0


class Grounding(NamedTuple):
    """`similarity` float [q] of text and image; `known` bool [q]: there is a phrase, and a region to find it in."""

    similarity: Tensor
    known: Tensor


def grounding(
    text: Tensor, regions: Tensor, phrase_mask: Tensor, region_mask: Tensor, draws: Tensor | None = None, best: int = 1
) -> Grounding:
    """Eq. 6: the mean over a text's phrases of the greatest cosine with a region.

    `text` float [q, T, D], of which `phrase_mask` bool [q, T] are phrases; `regions` float [q, R, D], of which `region_mask`
    bool [q, R] are there. With `draws` [q, T] in [0, 1), one of the `best` greatest counts in place of the greatest (the
    released code, with 3).
    """
    with not_narrowed(text):
        cosines = F.normalize(widened(text), dim=-1) @ F.normalize(widened(regions), dim=-1).mT  # [q, T, R]
    cosines = cosines.masked_fill(~region_mask[:, None], _NEVER)
    known = phrase_mask.any(dim=1) & region_mask.any(dim=1)
    if not regions.shape[1]:
        return Grounding(cosines.sum(dim=(1, 2)), known)
    if draws is None:
        found = cosines.amax(dim=2)  # [q, T]
    else:
        ranked = cosines.topk(min(best, cosines.shape[2]), dim=2).values
        there = region_mask.sum(dim=1, keepdim=True).clamp(min=1, max=ranked.shape[2])
        found = ranked.gather(2, (draws * there).long()[..., None])[..., 0]
    phrases = phrase_mask.sum(dim=1).clamp(min=1)
    return Grounding(torch.where(phrase_mask & known[:, None], found, 0.0).sum(dim=1) / phrases, known)


def grounded(matched: Grounding, mismatched: Grounding, texts: Tensor, weights: Tensor, peers: Peers) -> Loss:
    """Eq. 7, with the maximum for its `min`, a misprint: the mean over sentences of `max(0, 0.2 + S(V', S) - S(V, S))`.

    `matched` [n]: each sentence of this rank with its own image; `mismatched` [q]: with other images V', where `texts` int64
    [q], on the host, are the places of the sentences among all N, and `weights` float [q] are 0 for what is no pair. A sentence
    with several V' takes their mean; one with none, or without a phrase or a region, is not part of the mean over sentences.
    """
    texts = sent(texts, weights.device)
    similarity, known = peers.gather(matched.similarity), peers.gather(matched.known)  # [N]
    valid = (mismatched.known & known[texts] & (weights > 0)).to(similarity.dtype)  # [q]
    others = similarity.new_zeros(len(known)).index_add(0, peers.gather(texts), peers.gather(valid))  # [N]: how many V'
    hinge = F.relu(MARGIN + mismatched.similarity - similarity[texts])
    return Loss(mean(hinge, valid / others[texts].clamp(min=1)))
