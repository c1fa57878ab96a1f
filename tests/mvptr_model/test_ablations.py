"""Table 4: each of its rows, each loss alone, and batches without phrases or tags."""

from __future__ import annotations

import pytest
import torch

from mvptr_model.ablations import ablated, phrase_places, without_phrases, without_tags
from mvptr_model.configuration import FIRST_STAGE_LOSSES, LOSSES
from mvptr_model.masking import IGNORED
from mvptr_model.sequences import Sequences
from tests.mvptr_model.random_batches import SEP, random_batch, small_configuration, small_model

MERGED = ("mcr_v", "mcr_s", "wpg", "mlm", "itm")
#: The rows of table 4: inputs, losses, merged attention.
TABLE_4 = {
    "full": ("wcrt", LOSSES, False),
    "no MCR^v": ("wcrt", ("mcr_s", "vsc", "wpg", "mlm", "itm"), False),
    "no tags": ("wcr", ("mcr_s", "vsc", "wpg", "mlm", "itm"), False),
    "no MCR^s, no WPG": ("wcrt", ("mcr_v", "vsc", "mlm", "itm"), False),
    "no phrases": ("wrt", ("mcr_v", "vsc", "mlm", "itm"), False),
    "merged attention": ("wcrt", MERGED, True),
}


@pytest.mark.parametrize("row", TABLE_4.values(), ids=TABLE_4)
@pytest.mark.parametrize("stage", [1, 2])
def test_table_4(row: tuple[str, tuple[str, ...], bool], stage: int) -> None:
    inputs, losses, merged = row
    model = small_model(small_configuration(inputs=tuple(inputs), losses=losses, merged_attention=merged))
    outcome = model(random_batch(0, 5), stage=stage)
    outcome.total.backward()
    expected = set(losses) & set(FIRST_STAGE_LOSSES if stage == 1 else LOSSES)
    assert outcome.losses.keys() == expected
    assert outcome.accuracies.keys() == expected - {"wpg"}
    for name, value in outcome.losses.items():
        assert value.isfinite(), name
        assert value > 0, name
    assert all(0 <= accuracy <= 1 for accuracy in outcome.accuracies.values())
    deep = [parameter.grad is not None for parameter in model.bert.mul_encoder.parameters()]
    assert all(deep) == any(deep) == (merged or stage == 2)


@pytest.mark.parametrize("loss", LOSSES)
def test_each_loss_alone(loss: str) -> None:
    model = small_model(small_configuration(losses=(loss,)))
    outcome = model(random_batch(0, 5), stage=2)
    full = small_model()(random_batch(0, 5), stage=2)
    assert outcome.losses.keys() == {loss}
    if loss not in ("itm", "wpg"):  # whose negatives depend on what VSC learned
        torch.testing.assert_close(outcome.total, full.losses[loss])  # type: ignore[index]


def test_texts_without_phrases() -> None:
    batch = random_batch(4, 6, empty=1)
    plain = without_phrases(batch.without_padding())
    ids, labels = (Sequences(values, plain.text_lengths).padded()[0] for values in (plain.text_ids, plain.word_labels))
    for slot in range(6):
        words = int(batch.text_lengths[slot] - batch.phrase_counts[slot])
        assert plain.text_lengths[slot] == words
        assert ids[slot, :words].tolist() == [*batch.text_ids[slot, : words - 1].tolist(), SEP]
        assert torch.equal(labels[slot, :words], batch.word_labels[slot, :words])
    assert not phrase_places(plain).any()
    assert not len(plain.phrase_pieces)
    assert (plain.phrase_labels == IGNORED).all()


def test_images_without_tags() -> None:
    batch = random_batch(4, 6)
    plain = without_tags(batch.without_padding())
    assert plain.tag_ids.tolist() == [int(batch.tag_ids[0, 0]), SEP] * 6
    assert plain.tag_lengths.tolist() == [2] * 6
    assert plain.tag_of_piece.tolist() == [-1] * 12
    assert (plain.tag_labels == IGNORED).all()


def test_nothing_is_taken_from_a_full_model() -> None:
    batch = random_batch(0, 3).without_padding()
    assert ablated(batch, small_configuration()) is batch
