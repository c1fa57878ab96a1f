"""A model-ready batch: tensors, and nothing that has to be looked up again.

Shape legend: n samples, T places of a text (40), P phrases of a text, G places of a tag sequence (20), R regions of an
image (50).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from mvptr_data.transfers import sent

#: What the model computes with. All else decides how sequences are laid out, which the host does (`sequences.py`).
COMPUTED = ("features", "geometry", "image_ids", "weights")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Batch:
    """Padded (shapes as below) or `packed`: the same without padding, samples one after another, so that [n, T] is [sum of
    `text_lengths`], [n, G] [sum of `tag_lengths`], [n, R] [sum of `region_counts`] and [n, P] [sum of `phrase_counts`].

    An empty slot weighs 0; its texts are `[CLS] [SEP]`, so that attention has something to look at, and it has no region.
    """

    #: int64 [n, T]: rows of `[CLS] words phrases [SEP]` in the embedding table, a phrase's being V + its rank; some are masked.
    text_ids: Tensor
    #: int64 [n], `[CLS]` and `[SEP]` included.
    text_lengths: Tensor
    #: int64 [n]: the last so many places before `[SEP]` are phrases.
    phrase_counts: Tensor
    #: bool [n, P, T]: the places of the word pieces of each phrase, in its own text; none where they were cut off.
    phrase_pieces: Tensor
    #: int64 [n, T]: the row of a word that is to be recovered, elsewhere -100.
    word_labels: Tensor
    #: int64 [n, T]: the rank of a phrase that is to be recovered, elsewhere -100.
    phrase_labels: Tensor
    #: int64 [n, G]: rows of `[CLS] tag pieces [SEP]`; some are masked.
    tag_ids: Tensor
    #: int64 [n], `[CLS]` and `[SEP]` included.
    tag_lengths: Tensor
    #: int64 [n, G]: which of the image's tags a piece belongs to, -1 for none.
    tag_of_piece: Tensor
    #: int64 [n, G]: the row of a tag piece that is to be recovered, elsewhere -100.
    tag_labels: Tensor
    #: float16 [n, R, 2048].
    features: Tensor
    #: float32 [n, R, 6]: x1/W, y1/H, x2/W, y2/H, (x2-x1)/W, (y2-y1)/H.
    geometry: Tensor
    #: int64 [n].
    region_counts: Tensor
    #: int64 [n]: equal for samples that show the same image, byte for byte.
    image_ids: Tensor
    #: float32 [n]: 1, or 0 for an empty slot.
    weights: Tensor
    packed: bool

    def __len__(self) -> int:
        return len(self.weights)

    @property
    def nbytes(self) -> int:
        """Bytes of all tensors."""
        return sum(value.nbytes for value in self._tensors().values())

    @property
    def text_mask(self) -> Tensor:
        """bool [n, T], padded form only: True where the text is."""
        return _within(self.text_lengths, self.text_ids)

    @property
    def tag_mask(self) -> Tensor:
        """bool [n, G], padded form only: True where the tag sequence is."""
        return _within(self.tag_lengths, self.tag_ids)

    @property
    def region_mask(self) -> Tensor:
        """bool [n, R], padded form only: True where a region is."""
        return _within(self.region_counts, self.features)

    def without_padding(self) -> Batch:
        """The packed form; itself where it is packed."""
        if self.packed:
            return self
        text, tag, region = self.text_mask, self.tag_mask, self.region_mask
        return dataclasses.replace(
            self,
            packed=True,
            **{name: _at(getattr(self, name), text) for name in ("text_ids", "word_labels", "phrase_labels")},
            **{name: _at(getattr(self, name), tag) for name in ("tag_ids", "tag_of_piece", "tag_labels")},
            **{name: _at(getattr(self, name), region) for name in ("features", "geometry")},
            phrase_pieces=_at(self.phrase_pieces, _within(self.phrase_counts, self.phrase_pieces)),
        )

    def placed(self, device: torch.device) -> Batch:
        """What the model computes with on `device`, all else on the host. Nothing is waited for if the batch comes from there."""
        return self._map(lambda name, value: sent(value, device) if name in COMPUTED else value.cpu())

    def to(self, device: torch.device | str) -> Batch:
        """All of the batch on `device`, as other models may want it."""
        return self._map(lambda _, value: value.to(device))

    def pin_memory(self) -> Batch:
        """What `placed` sends in page-locked memory, as loaders ask for. Needs an accelerator."""
        return self._map(lambda name, value: value.pin_memory() if name in COMPUTED else value)

    def _map(self, change: Callable[[str, Tensor], Tensor]) -> Batch:
        changed: dict[str, Any] = {name: change(name, value) for name, value in self._tensors().items()}
        return dataclasses.replace(self, **changed)

    def _tensors(self) -> dict[str, Tensor]:
        values = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        return {name: value for name, value in values.items() if isinstance(value, Tensor)}


def _within(lengths: Tensor, padded: Tensor) -> Tensor:
    return torch.arange(padded.shape[1], device=lengths.device) < lengths[:, None]


def _at(padded: Tensor, mask: Tensor) -> Tensor:
    """[n, L, ...] where `mask` [n, L] is true: [M, ...]."""
    places = mask.flatten().nonzero()[:, 0]
    return padded.flatten(0, 1).index_select(0, sent(places, padded.device))
