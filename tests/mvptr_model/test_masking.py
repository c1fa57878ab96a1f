"""Shape legend: n samples, T places of a text, G places of a tag sequence, P phrases of a text."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from mvptr_data.errors import InputError
from mvptr_model.masking import (
    IGNORED,
    MaskedTags,
    MaskedTexts,
    MaskingSettings,
    Table,
    Tags,
    Texts,
    mask,
    mask_key,
    unmasked,
)

PAD, CLS, SEP, MASK = 0, 1, 2, 3
TABLE = Table(words=1000, phrases=400, mask=MASK)
T, G, P = 24, 12, 4


class Sequences(NamedTuple):
    """One sample: rows of its words, ranks of its phrases with the numbers of the words in each, and pieces of its tags."""

    words: list[int]
    phrases: list[tuple[int, list[int]]]
    tags: list[list[int]]


word_rows = st.integers(5, TABLE.words - 1)
sequences = st.lists(word_rows, max_size=T - 2 - P).flatmap(
    lambda words: st.builds(
        Sequences,
        st.just(words),
        st.lists(
            st.tuples(
                st.integers(0, TABLE.phrases - 1),
                st.lists(st.integers(0, max(0, len(words) - 1)), max_size=3 if words else 0),
            ),
            max_size=P,
        ),
        st.lists(st.lists(word_rows, min_size=1, max_size=3), max_size=3),
    )
)
keys = st.integers(0, 2**64 - 1)
batches = st.lists(st.tuples(sequences, keys), min_size=1, max_size=6)


def arrays(samples: list[Sequences], wide: int = 0) -> tuple[Texts, Tags]:
    """Padded, by `wide` more places than needed."""
    texts = np.full((len(samples), T + wide), PAD, np.int64)
    pieces = np.zeros((len(samples), P, T + wide), dtype=bool)
    tags, owner = (np.full((len(samples), G + wide), fill, np.int64) for fill in (PAD, -1))
    for number, sample in enumerate(samples):
        ids = [CLS, *sample.words, *(TABLE.words + rank for rank, _ in sample.phrases), SEP]
        texts[number, : len(ids)] = ids
        for phrase, (_, words) in enumerate(sample.phrases):
            pieces[number, phrase, [1 + word for word in words]] = True
        flat = [piece for tag in sample.tags for piece in tag]
        tags[number, : len(flat) + 2] = [CLS, *flat, SEP]
        owner[number, 1 : 1 + len(flat)] = [tag for tag, of in enumerate(sample.tags) for _ in of]
    phrases = np.array([len(sample.phrases) for sample in samples], np.int64)
    lengths = np.array([len(sample.words) + len(sample.phrases) + 2 for sample in samples], np.int64)
    return Texts(texts, lengths, phrases, pieces), Tags(tags, owner)


def masked(
    batch: list[tuple[Sequences, int]], settings: MaskingSettings | None = None, wide: int = 0
) -> tuple[MaskedTexts, MaskedTags]:
    texts, tags = arrays([sample for sample, _ in batch], wide)
    found = np.array([key for _, key in batch], np.uint64)
    return mask(texts, tags, found, TABLE, settings or MaskingSettings())


def many(settings: MaskingSettings | None = None) -> tuple[Texts, Tags, MaskedTexts, MaskedTags]:
    """3,000 samples of 15 words, 4 phrases that contain none of them, and 3 tags of 2 pieces."""
    random = np.random.default_rng(0)
    samples = [
        Sequences(
            random.integers(5, TABLE.words, 15).tolist(),
            [(rank, []) for rank in random.integers(0, TABLE.phrases, P).tolist()],
            random.integers(5, TABLE.words, (3, 2)).tolist(),
        )
        for _ in range(3000)
    ]
    batch = [(sample, mask_key(0, 0, "d", str(number), 0)) for number, sample in enumerate(samples)]
    return *arrays(samples), *masked(batch, settings)


def kinds(texts: Texts, tags: Tags, text: MaskedTexts, tag: MaskedTags) -> dict[str, list[NDArray[np.int64]]]:
    """What was, what the model sees, and the labelled row, at all places of words, phrases and tags."""
    phrase = texts.ids >= TABLE.words
    word = ~phrase & (texts.ids > MASK)
    rank = np.where(text.phrase_labels == IGNORED, IGNORED, text.phrase_labels + TABLE.words)
    return {
        "words": [texts.ids[word], text.ids[word], text.word_labels[word]],
        "phrases": [texts.ids[phrase], text.ids[phrase], rank[phrase]],
        "tags": [tags.ids[tags.tag >= 0], tag.ids[tags.tag >= 0], tag.labels[tags.tag >= 0]],
    }


def test_rates_and_shares_are_those_asked_for() -> None:
    rates = {"words": 0.15, "phrases": 0.15, "tags": 0.25}
    for name, (was, seen, label) in kinds(*many()).items():
        chosen = label != IGNORED
        assert abs(chosen.mean() - rates[name]) < 0.012, name  # four standard deviations of 12,000 places
        np.testing.assert_array_equal(label[chosen], was[chosen])
        np.testing.assert_array_equal(seen[~chosen], was[~chosen])
        share = (seen[chosen] == MASK).mean(), (seen[chosen] == was[chosen]).mean()
        assert abs(share[0] - 0.8) < 0.04 and abs(share[1] - 0.1) < 0.03, (name, share)
        drawn = seen[chosen & (seen != was) & (seen != MASK)]
        low, high = (TABLE.words, TABLE.words + TABLE.phrases) if name == "phrases" else (0, TABLE.words)
        assert len(drawn) > 100 and low <= drawn.min() and drawn.max() < high
        assert drawn.min() < low + (high - low) / 10 and drawn.max() > high - (high - low) / 10
        assert abs(drawn.mean() - (low + high) / 2) < (high - low) / 8


@pytest.mark.parametrize("name", ["words", "phrases", "tags"])
def test_each_kind_has_a_probability_of_its_own(name: str) -> None:
    none = {"words": 0.0, "phrases": 0.0, "tags": 0.0}
    for kind, (was, seen, label) in kinds(*many(MaskingSettings(**{**none, name: 1.0}))).items():
        assert ((label == was) if kind == name else (label == IGNORED) & (seen == was)).all()


@given(batches, st.randoms())
def test_masks_depend_on_neither_the_others_nor_their_order_nor_the_padding(
    batch: list[tuple[Sequences, int]], random: object
) -> None:
    text, tag = masked(batch)
    order = list(range(len(batch)))
    random.shuffle(order)  # type: ignore[attr-defined]
    mixed_text, mixed_tag = masked([batch[place] for place in order], wide=5)
    for found, mixed in zip((*text, *tag), (*mixed_text, *mixed_tag), strict=True):
        np.testing.assert_array_equal(mixed[:, : found.shape[1]], found[order])
        assert (mixed[:, found.shape[1] :] == mixed[0, -1]).all()  # padding stays padding
    for number, one in enumerate(batch):
        alone_text, alone_tag = masked([one])
        for found, alone in zip((*text, *tag), (*alone_text, *alone_tag), strict=True):
            np.testing.assert_array_equal(alone[0], found[number])


@given(batches)
def test_a_phrase_never_tells_a_chosen_word(batch: list[tuple[Sequences, int]]) -> None:
    text, _ = masked(batch, MaskingSettings(words=0.4))
    for (sample, _), ids, word_labels, phrase_labels in zip(batch, *text, strict=True):
        for number, (rank, words) in enumerate(sample.phrases):
            place = 1 + len(sample.words) + number
            if any(word_labels[1 + word] != IGNORED for word in words):
                assert ids[place] == MASK and phrase_labels[place] == rank


@given(batches)
def test_other_phrases_are_not_touched_by_the_guard(batch: list[tuple[Sequences, int]]) -> None:
    text, _ = masked(batch, MaskingSettings(words=0.4, phrases=0.0))
    for (sample, _), ids, word_labels, phrase_labels in zip(batch, *text, strict=True):
        for number, (rank, words) in enumerate(sample.phrases):
            place = 1 + len(sample.words) + number
            if all(word_labels[1 + word] == IGNORED for word in words):
                assert ids[place] == TABLE.words + rank and phrase_labels[place] == IGNORED


@given(batches)
def test_special_tokens_and_padding_are_never_chosen(batch: list[tuple[Sequences, int]]) -> None:
    everything = MaskingSettings(words=1.0, tags=1.0, phrases=1.0)
    texts, tags = arrays([sample for sample, _ in batch])
    text, tag = masked(batch, everything)
    special = texts.ids < MASK
    np.testing.assert_array_equal(text.ids[special], texts.ids[special])
    assert (text.word_labels[special] == IGNORED).all() and (text.phrase_labels[special] == IGNORED).all()
    assert ((text.word_labels != IGNORED) ^ (text.phrase_labels != IGNORED))[~special].all()
    np.testing.assert_array_equal(tag.ids[tags.tag < 0], tags.ids[tags.tag < 0])
    np.testing.assert_array_equal(tag.labels != IGNORED, tags.tag >= 0)


def test_whole_tags_share_one_choice() -> None:
    _, tags, _, tag = many(MaskingSettings(whole_tags=True))
    chosen = (tag.labels[tags.tag >= 0] != IGNORED).reshape(-1, 2)
    assert (chosen[:, 0] == chosen[:, 1]).all()
    assert abs(chosen[:, 0].mean() - 0.25) < 0.02
    of_chosen = (tag.ids[tags.tag >= 0] == MASK).reshape(-1, 2)[chosen[:, 0]]
    assert (of_chosen[:, 0] == of_chosen[:, 1]).all() and abs(of_chosen[:, 0].mean() - 0.8) < 0.04
    _, tags, _, tag = many()
    pieces = (tag.labels[tags.tag >= 0] != IGNORED).reshape(-1, 2)
    assert (pieces[:, 0] != pieces[:, 1]).mean() > 0.3


@given(batches)
def test_the_arguments_stay_as_they_are(batch: list[tuple[Sequences, int]]) -> None:
    texts, tags = arrays([sample for sample, _ in batch])
    before = [array.copy() for array in (*texts, *tags)]
    mask(texts, tags, np.array([key for _, key in batch], np.uint64), TABLE, MaskingSettings(words=1.0, tags=1.0))
    for array, was in zip((*texts, *tags), before, strict=True):
        np.testing.assert_array_equal(array, was)


@given(batches)
def test_unmasked_is_the_same_form_without_masks(batch: list[tuple[Sequences, int]]) -> None:
    texts, tags = arrays([sample for sample, _ in batch])
    text, tag = unmasked(texts, tags)
    np.testing.assert_array_equal(text.ids, texts.ids)
    np.testing.assert_array_equal(tag.ids, tags.ids)
    for labels in (text.word_labels, text.phrase_labels, tag.labels):
        assert (labels == IGNORED).all()


def test_a_key_depends_on_each_of_its_parts() -> None:
    asked = [(7, 0, "d", "a/1", 0), (8, 0, "d", "a/1", 0), (7, 1, "d", "a/1", 0), (7, 0, "e", "a/1", 0)]
    asked += [(7, 0, "d", "a/2", 0), (7, 0, "d", "a/1", 1), (7, 0, "d", "a/11", 0), (7, 0, "da", "/1", 0)]
    assert len({mask_key(*parts) for parts in asked}) == len(asked)


def test_masks_are_the_same_in_every_release() -> None:
    """A change here is an ORDER change in CHANGELOG.md: a resumed run would see other masks."""
    key = mask_key(7, 2, "d", "a/1", 3)
    sample = Sequences(list(range(10, 28)), [(5, [0, 1]), (6, [2])], [[30, 31], [32]])
    text, tag = masked([(sample, key)], MaskingSettings(words=0.3, phrases=0.3, tags=0.5))
    assert key == 4890454520112803000
    assert text.ids[0, :22].tolist() == [
        *[CLS, MASK, 11, 12, 13, 14, 15, 16, MASK, 18, 322, MASK, 21, 22, MASK, MASK, 25, 26, MASK],
        *[MASK, TABLE.words + 6, SEP],  # the first phrase has the first word, which was chosen
    ]
    assert np.flatnonzero(text.word_labels[0] != IGNORED).tolist() == [1, 5, 8, 10, 11, 14, 15, 18]
    assert tag.ids[0, :5].tolist() == [CLS, MASK, 31, 535, SEP]


@pytest.mark.parametrize("name", ["words", "tags", "phrases"])
@pytest.mark.parametrize("value", [-0.1, 1.5, float("nan")])
def test_no_probability_is_a_typed_error(name: str, value: float) -> None:
    with pytest.raises(InputError, match=f"masking probability of {name}"):
        MaskingSettings(**{name: value})
