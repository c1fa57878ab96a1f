"""From stored samples to what the model takes (MVPTR 3.1, 4.1, A.1; `reference/model.md` 1).

Shape legend: n samples, T places of a text (40), W word pieces of it (33), P phrases of a text, G places of a tag sequence (20),
R regions of an image (50), K regions that an image has, V word pieces of the vocabulary.

    collate = Collator(WordPieces.load("vocab.txt"), reader.vocabulary(), masking=MaskingSettings(seed=7))
    StreamSpec(roots=("coco",), order=OrderSettings(global_batch=1024), collate=collate)

1. `read_item` takes what the model needs of one sample, and raises where its bytes are not what their format says. Features stay
   where they are; whether numbers are the right ones is for digests to say (`mvptr-data verify`).
2. `assemble` makes the batch, with numpy over all samples at once. Features are copied once, from the mapped file to their
   place in the batch.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from mvptr_data.dataset.records import FEATURE_SIZE, geometry
from mvptr_data.errors import DamagedFileError, InputError
from mvptr_data.phrases import PhraseVocabulary
from mvptr_model.batch import Batch
from mvptr_model.masking import MaskedTags, MaskedTexts, MaskingSettings, Table, Tags, Texts, mask, mask_key, unmasked
from mvptr_model.stored_facts import CaptionInput, Member, RegionsInput, read_caption, read_regions
from mvptr_model.word_pieces import WordPieces

if TYPE_CHECKING:
    from mvptr_model.stream.batches import Item
    from mvptr_model.stream.shard import OpenShard

Ints = NDArray[np.int64]
_GEOMETRY_SIZE = 6


@dataclass(frozen=True, slots=True, kw_only=True)
class InputSettings:
    """The limits of a sample's sequences, and the form of a batch.

    `max_words`: word pieces of a text, `[CLS]` and `[SEP]` included; `max_tags`: the same of a tag sequence. `max_phrases`: in
    preset "paper" the phrases of a text; in "official" they may also use the room that words left. `packed`: without padding.
    """

    max_words: int = 35
    max_phrases: int = 5
    max_tags: int = 20
    max_regions: int = 50
    preset: Literal["paper", "official"] = "paper"
    packed: bool = False

    def __post_init__(self) -> None:
        for name, least in (("max_words", 2), ("max_phrases", 1), ("max_tags", 2), ("max_regions", 1)):
            if (value := getattr(self, name)) < least:
                raise InputError(f"{name} is {value}", f"Give a whole number from {least}.")
        if self.preset not in ("paper", "official"):
            raise InputError(f"preset is {self.preset!r}", "Choose paper or official.")

    @property
    def text_places(self) -> int:
        """T."""
        return self.max_words + self.max_phrases

    @property
    def phrase_places(self) -> int:
        """P: the most phrases that any text has."""
        return self.phrases_beside(0)

    def phrases_beside(self, words: int) -> int:
        """How many phrases a text of so many word pieces may have."""
        return self.max_phrases if self.preset == "paper" else self.text_places - 2 - words


class Part(NamedTuple):
    """What fills one slot of a batch.

    `text` and `tags` are ids with their special tokens; the text has so many `phrases`. In half-open code points of the caption,
    `offsets` has start and end of each word piece, and `spans` a phrase's number, start and end for each of its content words:
    one list of numbers each, because tuples that live as long as a batch keep the garbage collector busy (20 us a sample).
    `features` float16 [K, 2048], `geometry` float32 [K, 6], K at most R.
    """

    text: list[int]
    phrases: int
    offsets: list[int]
    spans: list[int]
    tags: list[int]
    tag_of_piece: list[int]
    features: NDArray[np.float16]
    geometry: NDArray[np.float32]
    image_id: int
    mask_key: int
    weight: float


class Collator:
    """Makes batches of the items of a stream; picklable. `masking` None masks nothing, for evaluation."""

    def __init__(
        self,
        words: WordPieces,
        phrases: PhraseVocabulary,
        settings: InputSettings | None = None,
        masking: MaskingSettings | None = None,
    ) -> None:
        self._words, self._phrases, self._masking = words, phrases, masking
        self._settings = settings or InputSettings()
        self._table = Table(words=words.size, phrases=len(phrases), mask=words.mask)

    def read_item(self, item: Item) -> Part:
        """One slot's contents. Raises `DamagedFileError`, `FormatVersionError`, naming the sample."""
        if item.shard is None:
            return self._empty()
        shard, nth = item.shard, item.nth
        sample = shard.sample(nth)
        facts = read_regions(Member(shard.member("regions.json", nth), "regions", f"regions.json of {sample}"))
        text_member = Member(shard.member("text.json", nth), "text", f"text.json of {sample}")
        text, phrases, offsets, spans = self._text(read_caption(text_member, item.caption))
        tags, tag_of_piece = self._tags(facts.tags if facts.gold_tags is None else facts.gold_tags)
        features, boxes = self._regions(shard, nth, facts)
        return Part(
            text=text,
            phrases=phrases,
            offsets=offsets,
            spans=spans,
            tags=tags,
            tag_of_piece=tag_of_piece,
            features=features,
            geometry=geometry(boxes, facts.width, facts.height),
            image_id=int(shard.image_ids[nth]),
            mask_key=self._mask_key(item, shard.keys[nth]),
            weight=1.0,
        )

    def assemble(self, parts: Sequence[Part]) -> Batch:
        """The batch of sound parts."""
        settings, pad = self._settings, self._words.pad
        text_ids, text_lengths = _padded([part.text for part in parts], settings.text_places, pad)
        tag_ids, tag_lengths = _padded([part.tags for part in parts], settings.max_tags, pad)
        tag_of_piece, _ = _padded([part.tag_of_piece for part in parts], settings.max_tags, -1)
        phrase_counts = np.array([part.phrases for part in parts], np.int64)
        pieces = _phrase_pieces(parts, settings.phrase_places, settings.text_places)
        texts, tags = Texts(text_ids, text_lengths, phrase_counts, pieces), Tags(tag_ids, tag_of_piece)
        masked_texts, masked_tags = self._masked(texts, tags, parts)

        def laid(padded: NDArray[np.int64] | NDArray[np.bool_], lengths: Ints) -> torch.Tensor:
            return torch.from_numpy(padded[_within(lengths, padded.shape[1])] if settings.packed else padded)

        region_counts = np.array([len(part.features) for part in parts], np.int64)
        region_places = None if settings.packed else settings.max_regions
        return Batch(
            text_ids=laid(masked_texts.ids, text_lengths),
            text_lengths=torch.from_numpy(text_lengths),
            phrase_counts=torch.from_numpy(phrase_counts),
            phrase_pieces=laid(pieces, phrase_counts),
            word_labels=laid(masked_texts.word_labels, text_lengths),
            phrase_labels=laid(masked_texts.phrase_labels, text_lengths),
            tag_ids=laid(masked_tags.ids, tag_lengths),
            tag_lengths=torch.from_numpy(tag_lengths),
            tag_of_piece=laid(tag_of_piece, tag_lengths),
            tag_labels=laid(masked_tags.labels, tag_lengths),
            features=stacked([part.features for part in parts], places=region_places),
            geometry=stacked([part.geometry for part in parts], places=region_places),
            region_counts=torch.from_numpy(region_counts),
            image_ids=torch.from_numpy(np.array([part.image_id for part in parts], np.uint64).view(np.int64)),
            weights=torch.from_numpy(np.array([part.weight for part in parts], np.float32)),
            packed=settings.packed,
        )

    def _empty(self) -> Part:
        """What fills a slot that has no sample."""
        nothing = [self._words.cls, self._words.sep]
        return Part(
            text=nothing,
            phrases=0,
            offsets=[],
            spans=[],
            tags=nothing,
            tag_of_piece=[-1, -1],
            features=np.zeros((0, FEATURE_SIZE), np.float16),
            geometry=np.zeros((0, _GEOMETRY_SIZE), np.float32),
            image_id=0,
            mask_key=0,
            weight=0.0,
        )

    def _text(self, caption: CaptionInput) -> tuple[list[int], int, list[int], list[int]]:
        """`Part.text`, `phrases`, `offsets` and `spans`.

        Stored phrases are in order of position, then of rank, so the first ones are those to keep.
        """
        room = self._settings.max_words - 2
        pieces = self._words.encode(caption.text)
        words = pieces.ids[:room]
        ranked = ((self._phrases.rank(known.phrase), known.spans) for known in caption.phrases)
        phrases = [(rank, spans) for rank, spans in ranked if rank is not None]
        del phrases[self._settings.phrases_beside(len(words)) :]
        rows = [self._table.words + rank for rank, _ in phrases]
        spans = [value for number, (_, found) in enumerate(phrases) for span in found for value in (number, *span)]
        return [self._words.cls, *words, *rows, self._words.sep], len(rows), pieces.offsets[: 2 * room], spans

    def _tags(self, names: Iterable[str]) -> tuple[list[int], list[int]]:
        """`Part.tags` and `tag_of_piece`."""
        room, remembered = self._settings.max_tags - 2, self._words.remembered
        ids: list[int] = []
        tags: list[int] = []
        for number, name in enumerate(dict.fromkeys(map(str.lower, names))):
            if len(ids) >= room:
                break
            pieces = remembered(name).ids
            ids += pieces
            tags += [number] * len(pieces)
        return [self._words.cls, *ids[:room], self._words.sep], [-1, *tags[:room], -1]

    def _regions(
        self, shard: OpenShard, nth: int, facts: RegionsInput
    ) -> tuple[NDArray[np.float16], NDArray[np.float32]]:
        """The first R features and boxes, views of the mapped shard: regions are stored best first."""
        features = shard.array("features.npy", nth, np.float16, FEATURE_SIZE)
        boxes = shard.array("boxes.npy", nth, np.float32, 4)
        if not len(features) == len(boxes) == len(facts.tags):
            raise DamagedFileError(
                f"{shard.sample(nth)} has {len(features)} features, {len(boxes)} boxes and {len(facts.tags)} tags",
                "Run `mvptr-data verify`.",
            )
        return features[: self._settings.max_regions], boxes[: self._settings.max_regions]

    def _masked(self, texts: Texts, tags: Tags, parts: Sequence[Part]) -> tuple[MaskedTexts, MaskedTags]:
        if self._masking is None:
            return unmasked(texts, tags)
        keys = np.array([part.mask_key for part in parts], np.uint64)
        return mask(texts, tags, keys, self._table, self._masking)

    def _mask_key(self, item: Item, key: str) -> int:
        if self._masking is None:
            return 0
        return mask_key(self._masking.seed, item.epoch, item.data_set, key, item.caption)


def stacked(arrays: Sequence[NDArray[Any]], *, places: int | None) -> torch.Tensor:
    """Arrays [K, size] as [n, places, size], filled up with zeros, or one after another where `places` is None.

    numpy's memory, not torch's: it asks for huge pages, and a page fault every 4 kB costs more than the copy
    (a quarter of the time: `benchmarks/collate.py`).
    """
    size, dtype = arrays[0].shape[1], arrays[0].dtype
    if places is None:
        return torch.from_numpy(np.concatenate(arrays))
    laid = np.zeros((len(arrays), places, size), dtype)
    for row, array in zip(laid, arrays, strict=True):
        row[: len(array)] = array
    return torch.from_numpy(laid)


def _padded(rows: Sequence[list[int]], places: int, fill: int) -> tuple[Ints, Ints]:
    """int64 [n, places] and the lengths of the rows [n]."""
    lengths = np.fromiter(map(len, rows), np.int64, len(rows))
    padded = np.full((len(rows), places), fill, np.int64)
    padded[_within(lengths, places)] = np.fromiter(chain.from_iterable(rows), np.int64, int(lengths.sum()))
    return padded, lengths


def _phrase_pieces(parts: Sequence[Part], phrases: int, places: int) -> NDArray[np.bool_]:
    """bool [n, P, T]: which places of a text hold word pieces that a phrase's spans touch."""
    offsets, _ = _padded([part.offsets for part in parts], 2 * places, 0)
    begins, ends = offsets[:, 0::2], offsets[:, 1::2]  # [n, T], of the word pieces from the first on; padding is empty
    sample = np.repeat(np.arange(len(parts)), [len(part.spans) // 3 for part in parts])
    spans = np.fromiter(chain.from_iterable(part.spans for part in parts), np.int64, 3 * len(sample))
    phrase, start, end = spans.reshape(-1, 3).T
    touched, piece = np.nonzero((begins[sample] < end[:, None]) & (start[:, None] < ends[sample]))
    found = np.zeros((len(parts), phrases, places), dtype=bool)
    found[sample[touched], phrase[touched], 1 + piece] = True  # after [CLS]
    return found


def _within(lengths: Ints, places: int) -> NDArray[np.bool_]:
    """bool [n, places]: the first so many places of each row."""
    return np.arange(places) < lengths[:, None]
