from __future__ import annotations

from itertools import chain
from pathlib import Path

import numpy as np
import pytest
import torch

from mvptr_data.errors import InputError
from mvptr_model.evaluation.held_out import HeldOut, TextPlace
from mvptr_model.masking import MaskingSettings
from mvptr_model.stream.reader import ShardReader
from tests.mvptr_model.evaluation.small_models import small_model


def test_every_image_and_text_comes_once_in_order(published: Path) -> None:
    saved = small_model(published)
    with ShardReader(str(published)) as reader:
        samples = list(reader)
        every = HeldOut(reader, saved.words, saved.inputs)
        first = HeldOut(reader, saved.words, saved.inputs, captions="first")
        assert every.texts == tuple(
            TextPlace(image, caption) for image, sample in enumerate(samples) for caption in range(len(sample.captions))
        )
        assert first.texts == tuple(TextPlace(image, 0) for image in range(len(samples)))
        assert every.texts_of_images() == [len(sample.captions) for sample in samples]
        known = [
            [phrase.phrase for phrase in samples[text.image].captions[text.caption].phrases[:5]] for text in every.texts
        ]
        for size in (1, 4, 100):
            batches = list(every.text_batches(size))
            assert [len(batch) for batch in batches[:-1]] == [size] * (len(batches) - 1)
            ids = torch.cat([batch.image_ids for batch in batches])
            assert ids.numpy().view(np.uint64).tolist() == [samples[text.image].image_id for text in every.texts]
            assert [phrase for batch in batches for phrase in every.phrases_of(batch)] == list(
                chain.from_iterable(known)
            )
        assert sum(len(batch) for batch in every.image_batches(3)) == len(samples)


def test_masks_do_not_depend_on_batches(published: Path) -> None:
    saved = small_model(published)
    with ShardReader(str(published)) as reader:
        data = HeldOut(reader, saved.words, saved.inputs, masking=MaskingSettings(seed=3))
        labels = [torch.cat([batch.word_labels for batch in data.text_batches(size)]) for size in (2, 50)]
        other = HeldOut(reader, saved.words, saved.inputs, masking=MaskingSettings(seed=4))
        others = torch.cat([batch.word_labels for batch in other.text_batches(50)])
    assert torch.equal(*labels) and not torch.equal(labels[0], others)


def test_another_choice_of_captions_is_refused(published: Path) -> None:
    saved = small_model(published)
    with ShardReader(str(published)) as reader, pytest.raises(InputError, match="'last'"):
        HeldOut(reader, saved.words, saved.inputs, captions="last")  # type: ignore[arg-type]
