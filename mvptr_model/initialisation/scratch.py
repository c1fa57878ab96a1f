"""A model from nothing but its vocabularies, for small configurations and for work without the net."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from mvptr_data.phrases import PhraseVocabulary
from mvptr_model.initialisation.weights import configured, fresh_model, phrase_rows
from mvptr_model.inputs import InputSettings
from mvptr_model.saved_model import SavedModel
from mvptr_model.word_pieces import WordPieces


def from_scratch(
    words: WordPieces,
    phrases: PhraseVocabulary,
    *,
    settings: Mapping[str, Any] | None = None,
    inputs: InputSettings | None = None,
    seed: int = 0,
) -> SavedModel:
    """A fresh model, `settings` as for `configured`. A phrase's row is the mean of its word pieces' rows.

    The same arguments give the same weights. Raises `InputError`.
    """
    model = fresh_model(configured(settings or {}, words, phrases), seed)
    table = model.bert.embeddings.word_embeddings.weight
    with torch.no_grad():
        table[words.size :] = phrase_rows(table[: words.size], words, phrases)
    return SavedModel(model, words, phrases, inputs or InputSettings())
