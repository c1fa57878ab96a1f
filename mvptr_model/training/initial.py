"""The model that a run begins with."""

from __future__ import annotations

from collections.abc import Callable

import torch

from mvptr_data.dataset.fields import configuration_differences
from mvptr_data.errors import InputError
from mvptr_data.phrases import PhraseVocabulary
from mvptr_data.storage import parse_json
from mvptr_model.configuration import ModelConfiguration
from mvptr_model.initialisation.bert import from_bert
from mvptr_model.initialisation.scratch import from_scratch
from mvptr_model.model import Mvptr
from mvptr_model.saved_model import SavedModel, check_vocabulary
from mvptr_model.stream.reader import ShardReader
from mvptr_model.training.checkpoint_model import load_start
from mvptr_model.training.settings import PretrainSettings
from mvptr_model.word_pieces import WordPieces


def initial_model(settings: PretrainSettings, say: Callable[[str], None]) -> SavedModel:
    """What `settings.initial` names, for the phrases that the data sets were published with; `say` hears what is fresh.

    Raises `InputError` and what the readers of its parts raise.
    """
    initial = settings.initial
    if initial.model is not None:
        return _saved(settings, initial.model)
    phrases = _phrases(settings)
    if initial.word_pieces is not None:
        words = WordPieces.load(initial.word_pieces)
        return from_scratch(words, phrases, settings=settings.model, inputs=settings.inputs, seed=settings.seed)
    assert initial.bert is not None, "InitialSettings has one of the three"
    saved, report = from_bert(
        initial.bert, phrases, settings=settings.model, inputs=settings.inputs, seed=settings.seed
    )
    for line in report.lines():
        say(line)
    return saved


def _phrases(settings: PretrainSettings) -> PhraseVocabulary:
    """Of the first data set; the stream checks that all have the same."""
    return ShardReader(settings.data[0]).vocabulary()


def _saved(settings: PretrainSettings, folder: str) -> SavedModel:
    """The weights of a saved model or a checkpoint under the settings' configuration, which may differ in what has no weights."""
    saved = load_start(folder)
    for root in settings.data:
        check_vocabulary(saved.phrases, root)
    theirs = saved.model.configuration
    ours = settings.configuration(word_rows=theirs.word_rows, phrase_rows=theirs.phrase_rows)
    with torch.device("meta"):
        model = Mvptr(ours)
    weights = saved.model.state_dict()
    if {name: value.shape for name, value in model.state_dict().items()} != {
        name: value.shape for name, value in weights.items()
    }:
        differences = configuration_differences(_values(theirs), _values(ours))
        raise InputError(
            f"the model in {folder} has other weights than the settings ask for (saved -> asked): "
            f"{'; '.join(differences)}",
            "Give the settings under model that it was trained with.",
        )
    model.load_state_dict(weights, assign=True)
    return SavedModel(model, saved.words, saved.phrases, settings.inputs)


def _values(configuration: ModelConfiguration) -> dict[str, object]:
    return parse_json(configuration.to_json(), "the configuration", "")
