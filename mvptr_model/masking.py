"""Which inputs are masked, as a pure function of (seed, epoch, data set, key, caption) (MVPTR 3.2.1, 3.3.4; BERT).

Shape legend: n samples, T places of a text, G places of a tag sequence, L places of either, P phrases of a text,
V word pieces, F phrases of the vocabulary.

Words and phrases are chosen with p = 0.15, tags with 0.25. Of the chosen, 80 % become [MASK], 10 % a random row of their own
kind, 10 % stay. A phrase that contains a chosen word would tell it, so it becomes [MASK] as well, and is to be recovered.

Each place of each sample has its own number from a sequence that starts at the sample's key. So masks depend on neither the
rest of the batch, nor the order of reading, nor rank, worker or release of numpy; and what is stored is never altered.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from mvptr_data.errors import InputError
from mvptr_model.stream import keyed

Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]
Draws = NDArray[np.uint64]

#: Label of a place that no loss looks at (torch's `ignore_index`).
IGNORED = -100
#: Of the chosen places: so many become [MASK], so many a random row, the others stay (BERT).
MASKED_SHARE, RANDOM_SHARE = 0.8, 0.1
#: Numbers drawn for each place: text and tags, for each the choice and the random row.
_PURPOSES = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class MaskingSettings:
    """Probabilities with which `words`, `tags` and `phrases` are chosen. `whole_tags`: all pieces of a tag share one choice."""

    seed: int = 0
    words: float = 0.15
    tags: float = 0.25
    phrases: float = 0.15
    whole_tags: bool = False

    def __post_init__(self) -> None:
        for name in ("words", "tags", "phrases"):
            if not 0 <= (value := getattr(self, name)) <= 1:
                raise InputError(f"the masking probability of {name} is {value}", "Give a number from 0 to 1.")


class Table(NamedTuple):
    """The rows of the embedding table: `words` V, then `phrases` F; `mask` is the row of [MASK]."""

    words: int
    phrases: int
    mask: int


class Texts(NamedTuple):
    """Texts `[CLS] words phrases [SEP]`: `ids` int64 [n, T], `lengths` [n], `phrases` [n] (how many), `pieces` bool [n, P, T]
    (the places of each phrase's words)."""

    ids: Ints
    lengths: Ints
    phrases: Ints
    pieces: Bools


class Tags(NamedTuple):
    """Tag sequences `[CLS] pieces [SEP]`: `ids` int64 [n, G], `tag` int64 [n, G]: which tag a piece belongs to, -1 for none."""

    ids: Ints
    tag: Ints


class MaskedTexts(NamedTuple):
    """int64 [n, T] each: `ids` as the model sees them; rows of words and ranks of phrases to be recovered, else `IGNORED`."""

    ids: Ints
    word_labels: Ints
    phrase_labels: Ints


class MaskedTags(NamedTuple):
    """int64 [n, G] each: `ids` as the model sees them; `labels` of what is to be recovered, else `IGNORED`."""

    ids: Ints
    labels: Ints


def mask_key(seed: int, epoch: int, data_set: str, key: str, caption: int) -> int:
    """64 bits that decide one sample's masks: `key` names its image in the data set, `epoch` is the pass over that."""
    return keyed.key("masking", seed, epoch, data_set, key, caption)


def mask(
    texts: Texts, tags: Tags, keys: Draws, table: Table, settings: MaskingSettings
) -> tuple[MaskedTexts, MaskedTags]:
    """Mask a batch; `keys` uint64 [n] are the samples' `mask_key`s. The arguments stay as they are."""
    length = max(texts.ids.shape[1], tags.ids.shape[1])
    numbers = keyed.mixed(keys[:, None], np.arange(_PURPOSES * length))
    draws = numbers.reshape(len(keys), length, _PURPOSES).transpose(2, 0, 1)
    text_draws, tag_draws = draws[:2, :, : texts.ids.shape[1]], draws[2:, :, : tags.ids.shape[1]]
    return _mask_texts(texts, text_draws, table, settings), _mask_tags(tags, tag_draws, table, settings)


def unmasked(texts: Texts, tags: Tags) -> tuple[MaskedTexts, MaskedTags]:
    """The same form with nothing masked, for evaluation."""
    none, no_tags = np.full_like(texts.ids, IGNORED), np.full_like(tags.ids, IGNORED)
    return MaskedTexts(texts.ids, none, none.copy()), MaskedTags(tags.ids, no_tags)


def _mask_texts(texts: Texts, draws: Draws, table: Table, settings: MaskingSettings) -> MaskedTexts:
    ids = texts.ids
    place = np.arange(ids.shape[1])
    end = (texts.lengths - 1)[:, None]  # of [SEP]
    first_phrase = end - texts.phrases[:, None]
    is_word = (place >= 1) & (place < first_phrase)
    is_phrase = (place >= first_phrase) & (place < end)
    choice = _uniform(draws[0])
    probability = np.where(is_word, settings.words, np.where(is_phrase, settings.phrases, 0.0))
    words_chosen = is_word & (choice < probability)

    told = (texts.pieces & words_chosen[:, None, :]).any(axis=2)  # [n, P]
    which = np.clip(place - first_phrase, 0, told.shape[1] - 1)
    forced = is_phrase & np.take_along_axis(told, which, axis=1)

    words = _random_rows(draws[1], 0, table.words)
    phrases = _random_rows(draws[1], table.words, table.phrases)
    changed, chosen = _changed(ids, choice, probability, np.where(is_phrase, phrases, words), table.mask)
    return MaskedTexts(
        ids=np.where(forced, table.mask, changed),
        word_labels=np.where(words_chosen, ids, IGNORED),
        phrase_labels=np.where(is_phrase & (chosen | forced), ids - table.words, IGNORED),
    )


def _mask_tags(tags: Tags, draws: Draws, table: Table, settings: MaskingSettings) -> MaskedTags:
    choice = _uniform(draws[0])
    if settings.whole_tags:
        choice = np.take_along_axis(choice, _first_places(tags.tag), axis=1)
    probability = np.where(tags.tag >= 0, settings.tags, 0.0)
    changed, chosen = _changed(tags.ids, choice, probability, _random_rows(draws[1], 0, table.words), table.mask)
    return MaskedTags(ids=changed, labels=np.where(chosen, tags.ids, IGNORED))


def _changed(
    ids: Ints, choice: NDArray[np.float64], probability: NDArray[np.float64], random_rows: Ints, mask_row: int
) -> tuple[Ints, Bools]:
    """BERT's 80/10/10 at the places where `choice` is below `probability`; also which places these are. [n, L] each."""
    masked = choice < MASKED_SHARE * probability
    random = choice < (MASKED_SHARE + RANDOM_SHARE) * probability
    return np.where(masked, mask_row, np.where(random, random_rows, ids)), choice < probability


def _first_places(tag: Ints) -> Ints:
    """[n, G]: the place of the first piece of the tag that is at each place."""
    begins = np.ones(tag.shape, dtype=bool)
    begins[:, 1:] = tag[:, 1:] != tag[:, :-1]
    return np.maximum.accumulate(np.where(begins, np.arange(tag.shape[1]), 0), axis=1)


def _uniform(draws: Draws) -> NDArray[np.float64]:
    """The upper 53 bits as numbers in [0, 1)."""
    return (draws >> np.uint64(11)).astype(np.float64) * 2.0**-53


def _random_rows(draws: Draws, first: int, count: int) -> Ints:
    """Rows `first` to `first + count - 1`, evenly; `first` where there are none."""
    return first + (draws % np.uint64(max(count, 1))).astype(np.int64)
