from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from mvptr_data.errors import ConfigurationMismatchError
from mvptr_model.evaluation.grounding import GroundingAccuracy, ground_phrases, known_phrases
from mvptr_model.evaluation.held_out import HeldOut
from mvptr_model.evaluation.language import recover_words
from mvptr_model.evaluation.measure import MeasureSettings, measure
from mvptr_model.evaluation.retrieval import chance, retrieve
from mvptr_model.masking import MaskingSettings
from mvptr_model.saved_model import load_model, save_model
from mvptr_model.stream.reader import ShardReader
from tests.mvptr_model.evaluation.small_models import small_model


def test_it_is_all_three_and_the_same_again(published: Path, tmp_path: Path) -> None:
    saved = small_model(published)
    save_model(tmp_path, saved)
    with ShardReader(str(published)) as reader:
        sample = reader[0]
        caption = next(caption for caption in sample.captions if caption.phrases)
        gold = {(sample.key, caption.text): {phrase.phrase: sample.boxes for phrase in caption.phrases}}
        data = HeldOut(reader, saved.words, saved.inputs)
        masked = HeldOut(reader, saved.words, saved.inputs, masking=MaskingSettings(seed=7))
        settings = MeasureSettings(texts_each=9, images_each=4, mask_seed=7, batch=20)
        found = measure(saved, str(published), gold, settings)
        assert found.retrieved == retrieve(saved.model, data, texts_each=9, images_each=4)
        assert found.grounding == GroundingAccuracy.of(
            ground_phrases(saved.model, data, gold), known_phrases(data, gold)
        )
        assert found.grounding.phrases == len(gold[sample.key, caption.text]) > 0
        assert found.words == recover_words(saved.model, masked)
        assert found.guessed == chance([len(sample.captions) for sample in reader])
        assert (found.images, found.texts) == (len(reader), len(data.texts))
    assert measure(load_model(tmp_path), str(published), gold, settings) == found
    assert measure(saved, str(published), None, settings) == replace(found, grounding=None)


def test_another_vocabulary_is_refused(published: Path) -> None:
    saved = small_model(published)
    reversed_ranks = replace(saved.phrases, phrases=saved.phrases.phrases[::-1])
    others = replace(saved, phrases=reversed_ranks)
    with pytest.raises(ConfigurationMismatchError, match="another phrase vocabulary"):
        measure(others, str(published))
