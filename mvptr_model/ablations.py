"""Batches without phrases or tags, as if their texts and images had none (MVPTR table 4).

Shape legend: n samples.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from mvptr_model.batch import Batch
from mvptr_model.configuration import ModelConfiguration
from mvptr_model.sequences import ranges, starts


def ablated(batch: Batch, configuration: ModelConfiguration) -> Batch:
    """A packed batch with the inputs that the configuration names."""
    if "c" not in configuration.inputs:
        batch = without_phrases(batch)
    return batch if "t" in configuration.inputs else without_tags(batch)


def without_phrases(batch: Batch) -> Batch:
    """Each text as `[CLS] words [SEP]`."""
    kept = ~phrase_places(batch)
    return replace(
        batch,
        text_ids=batch.text_ids[kept],
        text_lengths=batch.text_lengths - batch.phrase_counts,
        phrase_counts=torch.zeros_like(batch.phrase_counts),
        phrase_pieces=batch.phrase_pieces[:0],
        word_labels=batch.word_labels[kept],
        phrase_labels=batch.phrase_labels[kept],
    )


def without_tags(batch: Batch) -> Batch:
    """Each tag sequence as `[CLS] [SEP]`."""
    first = starts(batch.tag_lengths)
    kept = torch.stack([first, first + batch.tag_lengths - 1], dim=1).flatten()
    return replace(
        batch,
        tag_ids=batch.tag_ids[kept],
        tag_lengths=torch.full_like(batch.tag_lengths, 2),
        tag_of_piece=batch.tag_of_piece[kept],
        tag_labels=batch.tag_labels[kept],
    )


def phrase_places(batch: Batch) -> Tensor:
    """bool [sum of `text_lengths`]: where a packed batch's phrases are, the last places before each `[SEP]`."""
    end = starts(batch.text_lengths) + batch.text_lengths - 1
    places = ranges(end - batch.phrase_counts, batch.phrase_counts)
    return torch.zeros_like(batch.text_ids, dtype=torch.bool).index_fill(0, places, True)
