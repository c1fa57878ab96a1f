"""A data set to be measured on: every image once, every text once, in the order of the plan, nothing drawn.

Shape legend: N images, M texts of them, n rows of a batch.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from mvptr_data.errors import InputError
from mvptr_data.phrases import PhraseWords
from mvptr_model.ablations import phrase_places
from mvptr_model.batch import Batch
from mvptr_model.inputs import Collator, InputSettings
from mvptr_model.masking import MaskingSettings
from mvptr_model.stream.batches import Item
from mvptr_model.stream.reader import Sample, ShardReader
from mvptr_model.word_pieces import WordPieces


class TextPlace(NamedTuple):
    """Which image a text belongs to, and which of its captions it is."""

    image: int
    caption: int


class HeldOut:
    """The images of `reader` and their texts, as packed batches.

    `captions`: "first" takes one text of each image, "every" takes all, image after image. `masking` None masks nothing; masks
    are a function of seed, data set, key and caption, so that they are the same for every model.
    """

    def __init__(
        self,
        reader: ShardReader,
        words: WordPieces,
        inputs: InputSettings,
        *,
        captions: Literal["first", "every"] = "every",
        masking: MaskingSettings | None = None,
    ) -> None:
        """Raises `InputError` for another choice of captions, or a data set without a sample."""
        if captions not in ("first", "every"):
            raise InputError(f"captions is {captions!r}", "Choose first or every.")
        if not len(reader):
            raise InputError("the data set has no sample to measure on", "Publish one with images and captions.")
        self._reader, self._vocabulary, self._word_rows = reader, reader.vocabulary(), words.size
        self._collator = Collator(words, self._vocabulary, replace(inputs, packed=True), masking)
        counts = [int(count) for shard in range(reader.manifest["shards"]) for count in reader.captions_of(shard)]
        self.images = len(counts)
        self.texts: tuple[TextPlace, ...] = tuple(
            TextPlace(image, caption)
            for image, count in enumerate(counts)
            for caption in range(count if captions == "every" else 1)
        )

    def texts_of_images(self) -> list[int]:
        """[N]: how many texts each image has here."""
        return torch.bincount(self.image_of_text(), minlength=self.images).tolist()

    def image_of_text(self) -> Tensor:
        """int64 [M]: the image of each text."""
        return torch.tensor([text.image for text in self.texts])

    def image_batches(self, size: int) -> Iterator[Batch]:
        """The N images, each beside its first text, in batches of `size` rows. Raises `InputError` below 1."""
        return self._batches([TextPlace(image, 0) for image in range(self.images)], size)

    def text_batches(self, size: int) -> Iterator[Batch]:
        """The M texts, each beside its image, in batches of `size` rows."""
        return self._batches(self.texts, size)

    def sample(self, image: int) -> Sample:
        """What is stored of an image."""
        return self._reader[image]

    def phrases_of(self, batch: Batch) -> list[PhraseWords]:
        """The phrases of the texts of an unmasked batch, text after text."""
        return [
            self._vocabulary.phrases[row - self._word_rows] for row in batch.text_ids[phrase_places(batch)].tolist()
        ]

    def _batches(self, places: Sequence[TextPlace], size: int) -> Iterator[Batch]:
        if size < 1:
            raise InputError(f"a batch of {size} rows", "Give a whole number from 1.")
        for start in range(0, len(places), size):
            parts = [self._collator.read_item(self._item(place)) for place in places[start : start + size]]
            yield self._collator.assemble(parts)

    def _item(self, place: TextPlace) -> Item:
        shard, nth = self._reader.place(place.image)
        return Item(self._reader.shard(shard), nth, place.caption, self._reader.samples.digest, 0)
