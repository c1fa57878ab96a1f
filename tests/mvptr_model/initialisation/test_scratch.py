"""From nothing: the seed decides all, and phrases are means."""

from __future__ import annotations

import pytest
import torch

from mvptr_data.errors import InputError
from mvptr_data.phrases import PhraseVocabulary
from mvptr_model.initialisation.scratch import from_scratch
from mvptr_model.inputs import InputSettings
from mvptr_model.word_pieces import WordPieces

WORDS = WordPieces(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "man", "surf", "##board", "red"])
PHRASES = PhraseVocabulary.from_counts([(("surfboard", "red"), 9), (("man", "red"), 8)], {})
SMALL = {
    "hidden_size": 16,
    "heads": 2,
    "feed_forward_size": 32,
    "layers": 2,
    "wpg_layer": 1,
    "positions": 16,
    "region_size": 10,
}
INPUTS = InputSettings(max_words=10, max_phrases=4, max_tags=9)


def test_phrases_are_means_and_the_seed_decides() -> None:
    one, same, other = (from_scratch(WORDS, PHRASES, settings=SMALL, inputs=INPUTS, seed=seed) for seed in (1, 1, 2))
    found = one.model.state_dict()
    assert all(torch.equal(tensor, same.model.state_dict()[name]) for name, tensor in found.items())
    fresh = "cls.predictions.transform.dense.weight"
    assert not torch.equal(found[fresh], other.model.state_dict()[fresh])
    table = found["bert.embeddings.word_embeddings.weight"]
    assert len(table) == WORDS.size + 2 and float(table[: WORDS.size].std()) == pytest.approx(
        0.02 * (768 / 16) ** 0.5, rel=0.3
    )
    torch.testing.assert_close(table[9].double(), (table[6].double() + table[7].double() + table[8].double()) / 3)
    torch.testing.assert_close(table[10].double(), (table[5].double() + table[8].double()) / 2)


def test_no_phrases_and_the_official_preset() -> None:
    none = PhraseVocabulary.from_counts([], {})
    found = from_scratch(WORDS, none, settings={**SMALL, "preset": "official", "wpg_layer": 2}, inputs=INPUTS)
    assert found.model.configuration.phrase_rows == 0 and found.model.configuration.tied_decoders is False


def test_rows_are_the_vocabularies() -> None:
    with pytest.raises(InputError, match="phrase_rows is 5, and the vocabulary has 2"):
        from_scratch(WORDS, PHRASES, settings={**SMALL, "phrase_rows": 5}, inputs=INPUTS)
    with pytest.raises(InputError, match="no setting surprise"):
        from_scratch(WORDS, PHRASES, settings={**SMALL, "surprise": 5}, inputs=INPUTS)
