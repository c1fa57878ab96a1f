from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
import torch

from mvptr_model.evaluation.held_out import HeldOut
from mvptr_model.evaluation.language import RecoveredWords, recover_words
from mvptr_model.masking import IGNORED, MaskingSettings
from mvptr_model.stream.reader import ShardReader
from tests.mvptr_model.evaluation.small_models import small_model

CHANGES = (
    {},
    {"inputs": ("w", "r"), "losses": ("vsc", "mlm", "itm")},
    {"merged_attention": True, "losses": ("mcr_v", "mlm", "itm")},
)


@pytest.mark.parametrize("changes", CHANGES, ids=["whole", "words and regions", "merged"])
def test_accuracy_is_the_models_own(published: Path, changes: dict[str, object]) -> None:
    """The model's forward pass tells the accuracy of a batch; of all texts in one batch, that is this one."""
    saved = small_model(published, **changes)
    with ShardReader(str(published)) as reader:
        data = HeldOut(reader, saved.words, saved.inputs, masking=MaskingSettings(seed=5))
        (batch,) = data.text_batches(len(data.texts))
        found = [recover_words(saved.model, data, batch=size) for size in (256, 9)]
    with torch.no_grad():
        outcome = saved.model.eval()(batch, stage=2)
    labels = Counter(batch.word_labels[batch.word_labels != IGNORED].tolist())
    assert found[0] == found[1]
    assert found[0].words == sum(labels.values()) > 50
    assert found[0].accuracy == pytest.approx(outcome.accuracies["mlm"].item())
    assert found[0].chance == pytest.approx(max(labels.values()) / sum(labels.values()))


def test_a_model_that_says_one_word_has_the_share_of_that_word(published: Path) -> None:
    saved = small_model(published)
    with ShardReader(str(published)) as reader:
        data = HeldOut(reader, saved.words, saved.inputs, masking=MaskingSettings(seed=5))
        (batch,) = data.text_batches(len(data.texts))
        word, count = Counter(batch.word_labels[batch.word_labels != IGNORED].tolist()).most_common(1)[0]
        saved.model.cls.predictions.bias.data[word] = 1e6
        found = recover_words(saved.model, data)
    assert found.accuracy == found.chance == count / found.words


def test_nothing_masked_is_nothing_recovered(published: Path) -> None:
    saved = small_model(published)
    with ShardReader(str(published)) as reader:
        found = recover_words(saved.model, HeldOut(reader, saved.words, saved.inputs))
    assert found == RecoveredWords(words=0, accuracy=0.0, chance=0.0)
