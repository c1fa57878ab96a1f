"""Small random batches and models, for the tests of what learns from them."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mvptr_model.batch import Batch
from mvptr_model.configuration import ModelConfiguration
from mvptr_model.masking import MaskingSettings, Table, Tags, Texts, mask, mask_key
from mvptr_model.model import Mvptr

#: Rows of the special tokens, and sizes: word pieces, phrases, places of a text, phrases of one, tag places, regions.
PAD, CLS, SEP, MASK = 0, 1, 2, 3
WORDS, PHRASES = 40, 9
TEXT, MOST_PHRASES, TAGS, REGIONS = 14, 4, 9, 6

#: Changes to the small configuration: what is computed, and where, differs in each.
VARIETY: dict[str, dict[str, Any]] = {
    "paper": {},
    "official": {"preset": "official"},
    "no tags": {"inputs": ("w", "c", "r"), "losses": ("mcr_s", "vsc", "wpg", "itm", "mlm")},
    "no phrases": {"inputs": ("w", "r", "t"), "losses": ("mcr_v", "vsc", "itm", "mlm")},
    "grounded last": {"wpg_layer": 2},
    "own V'": {"wpg_negatives": "own"},
    "merged": {"merged_attention": True, "losses": ("mcr_v", "mcr_s", "wpg", "itm", "mlm")},
}


def random_batch(
    seed: int,
    pairs: int,
    *,
    images: int | None = None,
    phrases: int = MOST_PHRASES,
    tags: int = TAGS - 2,
    regions: int = REGIONS,
    empty: int = 0,
) -> Batch:
    """A masked batch of so many pairs, of `images` pictures (as many as pairs, by default), the last `empty` slots empty.

    A text has 0 to `phrases` phrases, an image 0 to `tags` tag pieces and 0 to `regions` regions.
    """
    rng = np.random.default_rng(seed)
    text, text_lengths, counts = np.full((pairs, TEXT), PAD), np.full(pairs, 2), np.zeros(pairs, dtype=np.int64)
    pieces = np.zeros((pairs, MOST_PHRASES, TEXT), dtype=bool)
    tag, tag_lengths, tag_of = np.full((pairs, TAGS), PAD), np.full(pairs, 2), np.full((pairs, TAGS), -1)
    region_counts = np.zeros(pairs, dtype=np.int64)
    for slot in range(pairs):
        words, counts[slot], length = 0, 0, 0
        if slot < pairs - empty:
            words, counts[slot] = rng.integers(1, TEXT - 1 - MOST_PHRASES), rng.integers(0, phrases + 1)
            length, region_counts[slot] = rng.integers(0, tags + 1), rng.integers(0, regions + 1)
        rows = [*rng.integers(4, WORDS, words), *(WORDS + rng.choice(PHRASES, counts[slot], replace=False))]
        text_lengths[slot], tag_lengths[slot] = len(rows) + 2, length + 2
        text[slot, : len(rows) + 2] = [CLS, *rows, SEP]
        tag[slot, : length + 2] = [CLS, *rng.integers(4, WORDS, length), SEP]
        tag_of[slot, 1 : length + 1] = np.arange(length)
        for phrase in range(counts[slot]):
            pieces[slot, phrase, rng.integers(1, words + 1)] = True
    keys = np.array([mask_key(seed, 0, "random", str(slot), 0) for slot in range(pairs)], dtype=np.uint64)
    table = Table(words=WORDS, phrases=PHRASES, mask=MASK)
    often = MaskingSettings(words=0.4, tags=0.5, phrases=0.4)
    texts, tagged = mask(Texts(text, text_lengths, counts, pieces), Tags(tag, tag_of), keys, table, often)
    weights = np.ones(pairs, dtype=np.float32)
    weights[pairs - empty :] = 0
    values: dict[str, np.ndarray[Any, Any]] = {
        "text_ids": texts.ids,
        "text_lengths": text_lengths,
        "phrase_counts": counts,
        "phrase_pieces": pieces,
        "word_labels": texts.word_labels,
        "phrase_labels": texts.phrase_labels,
        "tag_ids": tagged.ids,
        "tag_lengths": tag_lengths,
        "tag_of_piece": tag_of,
        "tag_labels": tagged.labels,
        "features": rng.standard_normal((pairs, REGIONS, 4)).astype(np.float16),
        "geometry": rng.random((pairs, REGIONS, 6), dtype=np.float32),
        "region_counts": region_counts,
        "image_ids": rng.permutation(pairs) if images is None else rng.integers(0, images, pairs),
        "weights": weights,
    }
    tensors: dict[str, Any] = {name: torch.from_numpy(value) for name, value in values.items()}
    return Batch(**tensors, packed=False)


def part(batch: Batch, rows: slice | list[int]) -> Batch:
    """Some of a padded batch's slots."""
    values = {field.name: getattr(batch, field.name) for field in fields(Batch)}
    return Batch(**{name: value[rows] if isinstance(value, Tensor) else value for name, value in values.items()})


def small_configuration(preset: str = "paper", **changes: Any) -> ModelConfiguration:
    """Two layers a stack, for the batches above; no dropout, so that results can be compared."""
    small: dict[str, Any] = {
        "word_rows": WORDS,
        "phrase_rows": PHRASES,
        "hidden_size": 24,
        "heads": 3,
        "feed_forward_size": 40,
        "layers": 2,
        "positions": 16,
        "region_size": 10,
        "dropout": 0.0,
        "attention_dropout": 0.0,
        "wpg_layer": 1 if preset == "paper" else 2,
    }
    return ModelConfiguration.preset(preset, **{**small, **changes})


def small_model(configuration: ModelConfiguration | None = None) -> Mvptr:
    """A float64 model with the same weights every time, larger than fresh ones, so that states differ."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        model = Mvptr(configuration or small_configuration()).double()
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.dim() == 2:
                    parameter.mul_(1.5)
    return model
