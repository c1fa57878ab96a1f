"""Zero-shot phrase grounding: where in its image is what a phrase speaks of (MVPTR 4.2.3)?

A phrase is found in the region whose state is most similar, by cosine, to the phrase's at the grounding layer of the multi-modal
encoder. It is right when the region's box and a gold box overlap with an IoU above 0.5. Nothing is learned for it.

Shape legend: n texts of a batch, T places of a text, K regions of an image, B gold boxes of a phrase, D size of a state,
p phrases of a batch.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Literal, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from mvptr_data.errors import InputError
from mvptr_data.phrases import PhraseWords
from mvptr_data.transfers import sent
from mvptr_model.ablations import phrase_places
from mvptr_model.batch import Batch
from mvptr_model.evaluation.encoding import encode_pairs, measuring
from mvptr_model.evaluation.held_out import HeldOut, TextPlace
from mvptr_model.model import Mvptr
from mvptr_model.sequences import taken

#: A box is right above this overlap.
RIGHT_IOU = 0.5

#: By image key and caption: of each phrase, the boxes float [B, 4] (x1 y1 x2 y2, pixels) of what it speaks of.
GoldBoxes = Mapping[tuple[str, str], Mapping[PhraseWords, NDArray[np.float32]]]
#: A phrase's state: the mean over its word pieces (the paper's protocol), or that of the phrase itself, which WPG learns from.
PhraseState = Literal["words", "phrase"]


@dataclass(frozen=True, slots=True, eq=False)
class GroundedPhrase:
    """A phrase of a text and the `region` it was found in. `right` bool [K]: which regions would be right; `boxes` [K, 4]."""

    text: TextPlace
    phrase: PhraseWords
    region: int
    right: NDArray[np.bool_]
    boxes: NDArray[np.float32]


@dataclass(frozen=True, slots=True, kw_only=True)
class GroundingAccuracy:
    """Shares of so many `phrases`, 0 to 1: those found; those that some region is right for; those that the largest box is
    right for (of equal ones the first); those that a region drawn at random is right for, in expectation.

    `left_out`: phrases with gold boxes that the model could not be asked for, in none of the shares; where images have no region,
    texts more phrases than `InputSettings` lets in, or the vocabulary lacks them. A protocol that counts them calls them missed.
    """

    phrases: int
    left_out: int
    accuracy: float
    upper_bound: float
    largest_box: float
    random_box: float

    @classmethod
    def of(cls, found: Sequence[GroundedPhrase], known: int) -> GroundingAccuracy:
        """Of `known` phrases, those of `ground_phrases`. All shares are 0 where there is none."""
        count = max(len(found), 1)
        return cls(
            phrases=len(found),
            left_out=known - len(found),
            accuracy=sum(bool(one.right[one.region]) for one in found) / count,
            upper_bound=sum(bool(one.right.any()) for one in found) / count,
            largest_box=sum(bool(one.right[_areas(one.boxes).argmax()]) for one in found) / count,
            random_box=sum(float(one.right.mean()) for one in found) / count,
        )


def ground_phrases(
    model: Mvptr, data: HeldOut, gold: GoldBoxes, *, state: PhraseState = "words", batch: int = 256
) -> list[GroundedPhrase]:
    """Every phrase of `data` that `gold` knows, in the order of the texts, as far as the model is given it with its words.

    Images without a region are left out. Raises `InputError` for another `state`, or a phrase's where the model has no phrases.
    """
    if state not in ("words", "phrase") or (state == "phrase" and "c" not in model.configuration.inputs):
        raise InputError(
            f"phrases are grounded by their state {state!r}", "Choose words; or phrase, if it has phrases."
        )
    found: list[GroundedPhrase] = []
    with measuring(model) as device:
        for number, part in enumerate(data.text_batches(batch)):
            queries = list(_queries(part, data.texts[number * batch :], data, gold))
            if not queries:
                continue
            texts = torch.tensor([query.row for query in queries])
            phrases = torch.tensor([query.number for query in queries])
            regions = _most_similar(model, part.placed(device), texts, phrases, state).tolist()
            found += [
                GroundedPhrase(query.text, query.phrase, region, query.right, query.boxes)
                for query, region in zip(queries, regions, strict=True)
            ]
    return found


def known_phrases(data: HeldOut, gold: GoldBoxes) -> int:
    """How many phrases of the texts of `data` have gold boxes."""
    count = 0
    for image, texts in groupby(data.texts, key=lambda text: text.image):
        sample = data.sample(image)
        for text in texts:
            known = gold.get((sample.key, sample.captions[text.caption].text), {})
            count += sum(len(wanted) > 0 for wanted in known.values())
    return count


class _Query(NamedTuple):
    """A phrase that is looked for: its text's row in the batch, its number among all phrases of the batch, what is right."""

    row: int
    number: int
    text: TextPlace
    phrase: PhraseWords
    right: NDArray[np.bool_]
    boxes: NDArray[np.float32]


def _queries(batch: Batch, texts: Sequence[TextPlace], data: HeldOut, gold: GoldBoxes) -> Iterator[_Query]:
    phrases, has_words = data.phrases_of(batch), batch.phrase_pieces.any(dim=1).tolist()
    counts, region_counts = batch.phrase_counts.tolist(), batch.region_counts.tolist()
    ends = np.cumsum(counts).tolist()
    for row, (text, count, end) in enumerate(zip(texts, counts, ends, strict=False)):
        sample = data.sample(text.image)
        known = gold.get((sample.key, sample.captions[text.caption].text), {})
        boxes = sample.boxes[: region_counts[row]]
        for number in range(end - count, end):
            wanted = known.get(phrases[number])
            if wanted is not None and len(wanted) and len(boxes) and has_words[number]:
                yield _Query(row, number, text, phrases[number], _right(boxes, wanted), boxes)


def _right(boxes: NDArray[np.float32], wanted: NDArray[np.float32]) -> NDArray[np.bool_]:
    """bool [K]: which of the boxes [K, 4] overlap enough with one of those wanted [B, 4]."""
    some, others = boxes.astype(np.float64)[:, None], wanted.astype(np.float64)[None]
    shared = np.minimum(some, others)[..., 2:] - np.maximum(some, others)[..., :2]
    both = shared.clip(min=0).prod(axis=2)  # [K, B]
    area, other_area = ((part[..., 2:] - part[..., :2]).prod(axis=2) for part in (some, others))
    # As a product: boxes without an area overlap with nothing.
    return (both > RIGHT_IOU * (area + other_area - both)).any(axis=1)


def _most_similar(model: Mvptr, batch: Batch, rows: Tensor, numbers: Tensor, state: PhraseState) -> Tensor:
    """int64 [p]: the region most similar to each phrase, the `numbers`-th [p] of the batch's, in the texts `rows` [p]."""
    texts, regions = encode_pairs(model, batch, model.configuration.grounding_layer)
    if state == "words":
        states, _ = texts.rows(rows).padded()  # [p, T, D]
        where = sent(batch.phrase_pieces[numbers][:, : states.shape[1]], states.device).to(states.dtype)
        # Of any length, for a cosine follows: the sum does for the mean.
        phrases = torch.einsum("pt,ptd->pd", where, states)
    else:
        phrases = taken(texts.states, phrase_places(batch).nonzero()[:, 0][numbers])
    candidates, there = regions.rows(rows).padded()  # [p, R, D]
    cosines = F.cosine_similarity(phrases.float()[:, None], candidates.float(), dim=2)
    return cosines.masked_fill(~there, -torch.inf).argmax(dim=1).cpu()


def _areas(boxes: NDArray[np.float32]) -> NDArray[np.float32]:
    return (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
