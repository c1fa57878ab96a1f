"""Batches without phrases or tags, as if their texts and images had none (MVPTR table 4).

Shape legend: n samples, T places of a text, G places of a tag sequence.
"""

from __future__ import annotations

from dataclasses import replace

import torch

from mvptr_model.batch import Batch
from mvptr_model.configuration import ModelConfiguration
from mvptr_model.masking import IGNORED


def ablated(batch: Batch, configuration: ModelConfiguration) -> Batch:
    """A padded batch with the inputs that the configuration names."""
    if "c" not in configuration.inputs:
        batch = without_phrases(batch)
    return batch if "t" in configuration.inputs else without_tags(batch)


def without_phrases(batch: Batch) -> Batch:
    """Each text as `[CLS] words [SEP]`: its `[SEP]` moves to where its first phrase was."""
    last = (batch.text_lengths - 1)[:, None]
    first_phrase = last - batch.phrase_counts[:, None]
    place = torch.arange(batch.text_ids.shape[1], device=batch.text_ids.device)
    return replace(
        batch,
        text_ids=torch.where(place < first_phrase, batch.text_ids, batch.text_ids.gather(1, last)),
        text_lengths=batch.text_lengths - batch.phrase_counts,
        phrase_counts=torch.zeros_like(batch.phrase_counts),
        phrase_pieces=torch.zeros_like(batch.phrase_pieces),
        phrase_labels=torch.full_like(batch.phrase_labels, IGNORED),
    )


def without_tags(batch: Batch) -> Batch:
    """Each tag sequence as `[CLS] [SEP]`."""
    separator = batch.tag_ids.gather(1, (batch.tag_lengths - 1)[:, None])
    ids = torch.cat([batch.tag_ids[:, :1], separator], dim=1)
    return replace(
        batch,
        tag_ids=ids,
        tag_lengths=torch.full_like(batch.tag_lengths, 2),
        tag_of_piece=torch.full_like(ids, -1),
        tag_labels=torch.full_like(ids, IGNORED),
    )
