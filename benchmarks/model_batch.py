"""Masked batches of random rows, with as many words, tags and regions as pre-training has."""

from __future__ import annotations

import numpy as np
import torch

from mvptr_model.batch import Batch
from mvptr_model.configuration import ModelConfiguration
from mvptr_model.masking import MaskingSettings, Table, Tags, Texts, mask, mask_key

#: Rows of special tokens, and the first of words, in BERT's vocabulary.
CLS, SEP, MASK, FIRST_WORD = 101, 102, 103, 1000
TEXT, TAGS, REGIONS, PHRASES = 40, 20, 50, 5
#: So that 2 of a text's 12 words and 2 of 18 tag pieces are masked, on average.
OFTEN = MaskingSettings(words=1 / 6, tags=1 / 9, phrases=0.15)


def made_batch(pairs: int, configuration: ModelConfiguration, masking: MaskingSettings = OFTEN) -> Batch:
    """A masked, padded batch."""
    rng = np.random.default_rng(0)
    words, phrases = configuration.word_rows, configuration.phrase_rows
    lengths, counts = rng.integers(12, 20, pairs), rng.integers(1, 4, pairs)
    text, pieces = np.zeros((pairs, TEXT), np.int64), np.zeros((pairs, PHRASES, TEXT), bool)
    for slot, (length, count) in enumerate(zip(lengths, counts, strict=True)):
        spoken = length - 2 - count
        rows = [*rng.integers(FIRST_WORD, words, spoken), *(words + rng.integers(0, phrases, count))]
        text[slot, :length] = [CLS, *rows, SEP]
        for phrase in range(count):
            pieces[slot, phrase, rng.integers(1, 1 + spoken, 2)] = True
    inner = rng.integers(FIRST_WORD, words, (pairs, TAGS - 2))
    tags = np.pad(np.pad(inner, ((0, 0), (1, 0)), constant_values=CLS), ((0, 0), (0, 1)), constant_values=SEP)
    tag_of_piece = np.tile([-1, *range(TAGS - 2), -1], (pairs, 1))
    keys = np.array([mask_key(0, 0, "made", str(slot), 0) for slot in range(pairs)], np.uint64)
    texts, tagged = mask(
        Texts(text, lengths, counts, pieces),
        Tags(tags, tag_of_piece),
        keys,
        Table(words=words, phrases=phrases, mask=MASK),
        masking,
    )
    return Batch(
        text_ids=torch.from_numpy(texts.ids),
        text_lengths=torch.from_numpy(lengths),
        phrase_counts=torch.from_numpy(counts),
        phrase_pieces=torch.from_numpy(pieces),
        word_labels=torch.from_numpy(texts.word_labels),
        phrase_labels=torch.from_numpy(texts.phrase_labels),
        tag_ids=torch.from_numpy(tagged.ids),
        tag_lengths=torch.full((pairs,), TAGS),
        tag_of_piece=torch.from_numpy(tag_of_piece),
        tag_labels=torch.from_numpy(tagged.labels),
        features=torch.from_numpy(rng.standard_normal((pairs, REGIONS, 2048)).astype(np.float16)),
        geometry=torch.from_numpy(rng.random((pairs, REGIONS, 6), np.float32)),
        region_counts=torch.full((pairs,), REGIONS),
        image_ids=torch.arange(pairs),
        weights=torch.ones(pairs),
        packed=False,
    )
