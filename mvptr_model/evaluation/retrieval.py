"""Image-text retrieval: coarse by the uni-modal encoders, then re-ranked by the multi-modal one (MVPTR 4.2.1, A.3.1).

An image has found its text when any of its own captions is among the first k (the protocol of COCO and Flickr30k); a text has one
image. What scores no better than a wrong candidate stands behind it, so a model that tells nothing apart finds nothing.

Shape legend: N images, M texts, Q queries (either), C candidates (the other), D size of an embedding, q pairs.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from mvptr_data.errors import InputError
from mvptr_model.evaluation.encoding import Encoded, encode_images, encode_texts, match_log_odds, measuring
from mvptr_model.evaluation.held_out import HeldOut
from mvptr_model.model import Mvptr

#: The paper's: so many texts an image, and images a text, are re-ranked.
RERANKED_TEXTS, RERANKED_IMAGES = 128, 64
#: R@k is reported for these.
CUTOFFS = (1, 5, 10)


@dataclass(frozen=True, slots=True)
class Recalls:
    """Shares of queries, 0 to 1, that find a right candidate among their first 1, 5 and 10."""

    r1: float
    r5: float
    r10: float

    @classmethod
    def of(cls, ranks: Tensor) -> Recalls:
        """`ranks` int64 [Q], the best one being 0."""
        return cls(*((ranks < k).double().mean().item() for k in CUTOFFS))

    @property
    def sum(self) -> float:
        """In per cent, as the paper adds them up."""
        return 100 * (self.r1 + self.r5 + self.r10)


@dataclass(frozen=True, slots=True, kw_only=True)
class Retrieval:
    """Both ways."""

    image_to_text: Recalls
    text_to_image: Recalls

    @property
    def rsum(self) -> float:
        """All six recalls in per cent, added up: at most 600."""
        return self.image_to_text.sum + self.text_to_image.sum


@dataclass(frozen=True, slots=True, kw_only=True)
class Retrieved:
    """`coarse` is None for a model without VSC, of which `reranked` judges every pair."""

    coarse: Retrieval | None
    reranked: Retrieval


def retrieve(
    model: Mvptr,
    data: HeldOut,
    *,
    texts_each: int = RERANKED_TEXTS,
    images_each: int = RERANKED_IMAGES,
    batch: int = 256,
) -> Retrieved:
    """Search each image's texts and each text's image among all of `data`.

    The best `texts_each` texts of an image and `images_each` images of a text are re-ranked, fewer where there are fewer; a
    pair is encoded once for both ways. Raises `InputError` for numbers below 1, or a model that gives no finite score.
    """
    for name, value in (("texts_each", texts_each), ("images_each", images_each)):
        if value < 1:
            raise InputError(f"{name} is {value}", "Give a whole number from 1.")
    texts, images = encode_texts(model, data.text_batches(batch)), encode_images(model, data.image_batches(batch))
    own = data.image_of_text()[None, :] == torch.arange(data.images)[:, None]  # [N, M]
    coarse, chosen = None, (torch.ones_like(own), torch.ones_like(own))
    if "vsc" in model.configuration.losses:
        similar = images.embeddings @ texts.embeddings.T  # [N, M]
        coarse = both_ways(similar, similar, own)
        chosen = best(similar, texts_each), best(similar.T, images_each).T
    judged = _judged(model, texts, images, chosen[0] | chosen[1], batch)
    for_images, for_texts = (judged.masked_fill(~part, -torch.inf) for part in chosen)
    return Retrieved(coarse=coarse, reranked=both_ways(for_images, for_texts, own))


def both_ways(for_images: Tensor, for_texts: Tensor, own: Tensor) -> Retrieval:
    """Scores float [N, M] by which images rank texts, and those by which texts rank images; `own` bool [N, M]."""
    return Retrieval(
        image_to_text=Recalls.of(ranks(for_images, own)), text_to_image=Recalls.of(ranks(for_texts.T, own.T))
    )


def ranks(scores: Tensor, right: Tensor) -> Tensor:
    """int64 [Q]: how many wrong candidates score as high as a query's best right one, or higher.

    `scores` float [Q, C], -inf for what was not considered; `right` bool [Q, C]. All wrong ones where no right one is
    considered. Raises `InputError` where a score is no number.
    """
    if scores.isnan().any():
        raise InputError("the model gives scores that are no numbers", "Take weights from before training diverged.")
    found = scores.masked_fill(~right, -torch.inf).amax(dim=1, keepdim=True)
    return ((scores >= found) & ~right).sum(dim=1)


def best(scores: Tensor, most: int) -> Tensor:
    """bool [Q, C]: each query's `most` best candidates; of equal ones, those that come first."""
    order = scores.sort(dim=1, descending=True, stable=True).indices[:, :most]
    return torch.zeros_like(scores, dtype=torch.bool).scatter(1, order, True)


def chance(texts: Sequence[int]) -> Retrieval:
    """What guessing finds in expectation, where images have so many `texts` each: a query with `own` right ones among C
    candidates finds one with probability 1 - C(C - own, k) / C(C, k)."""
    image_to_text, text_to_image = (
        [sum(_by_chance(own, candidates, k) for own in queries) / len(queries) for k in CUTOFFS]
        for queries, candidates in ((texts, sum(texts)), ([1], len(texts)))
    )
    return Retrieval(image_to_text=Recalls(*image_to_text), text_to_image=Recalls(*text_to_image))


def _by_chance(own: int, candidates: int, k: int) -> float:
    return 1 - math.comb(candidates - own, min(k, candidates)) / math.comb(candidates, min(k, candidates))


def _judged(model: Mvptr, texts: Encoded, images: Encoded, wanted: Tensor, batch: int) -> Tensor:
    """float32 [N, M]: ITM's log odds of the `wanted` pairs, bool [N, M]; -inf for the others."""
    image, text = wanted.nonzero(as_tuple=True)
    # Pairs of like length beside each other, for attention that pads.
    order = texts.states.lengths[text].sort(stable=True).indices
    image, text = image[order], text[order]
    scores = torch.full(wanted.shape, -torch.inf)
    with measuring(model) as device:
        for start in range(0, len(image), batch):
            rows, columns = image[start : start + batch], text[start : start + batch]
            pair = texts.states.rows(columns).to(device), images.states.rows(rows).to(device)
            scores[rows, columns] = match_log_odds(model, *pair).cpu()
    return scores
