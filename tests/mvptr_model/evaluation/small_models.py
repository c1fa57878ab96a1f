"""Small models of the published data set, with weights large enough that no two scores are nearly equal."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from mvptr_model.configuration import ModelConfiguration
from mvptr_model.initialisation.word_piece_training import train_word_pieces
from mvptr_model.inputs import InputSettings
from mvptr_model.model import Mvptr
from mvptr_model.saved_model import SavedModel
from mvptr_model.stream.reader import ShardReader

INPUTS = InputSettings(max_words=24, max_tags=12, max_regions=12)


def small_model(data_set: Path, seed: int = 0, **changes: Any) -> SavedModel:
    """For `data_set`, its word pieces trained on its captions; `changes` of the configuration."""
    with ShardReader(str(data_set)) as reader:
        phrases = reader.vocabulary()
        words = train_word_pieces((caption.text for sample in reader for caption in sample.captions), size=400)
    settings: dict[str, Any] = {
        "hidden_size": 32,
        "heads": 2,
        "feed_forward_size": 64,
        "layers": 2,
        "positions": 64,
        "wpg_layer": 1,
        **changes,
    }
    torch.manual_seed(seed)
    model = Mvptr(
        ModelConfiguration.preset("paper", word_rows=words.size, phrase_rows=len(phrases), **settings)
    ).double()
    for parameter in model.parameters():
        if parameter.ndim > 1:
            torch.nn.init.normal_(parameter, std=0.25)
    return SavedModel(model, words, phrases, INPUTS)
