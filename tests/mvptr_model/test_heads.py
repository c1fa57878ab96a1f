"""The heads against transformers' BERT with the same weights; the temperature's limit."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn
from transformers import BertConfig, BertForPreTraining

from mvptr_model.configuration import ModelConfiguration
from mvptr_model.heads import PairHeads, PredictionHead, initial_logit_scale, similarity_scale

ROWS, SIZE = 30, 24
SMALL = ModelConfiguration(word_rows=ROWS, phrase_rows=7, hidden_size=SIZE, heads=3)


@pytest.mark.parametrize("tied", [True, False])
def test_equal_to_bert(tied: bool) -> None:
    torch.manual_seed(2)
    config = BertConfig(vocab_size=ROWS, hidden_size=SIZE, num_hidden_layers=0, num_attention_heads=3)
    reference = BertForPreTraining(config)
    for parameter in reference.parameters():
        nn.init.normal_(parameter, std=0.3)
    heads = PairHeads(ModelConfiguration.preset("paper", **_sizes(), tied_decoders=tied))
    stored = reference.cls.state_dict()
    decoder = stored["predictions.decoder.weight"]
    del stored["predictions.decoder.bias"]  # the same tensor as `predictions.bias`
    if tied:
        del stored["predictions.decoder.weight"]
    heads.load_state_dict(stored)

    states, pooled = torch.randn(4, SIZE), torch.randn(3, SIZE)
    words, matches = reference.cls(states, pooled)
    rows = decoder if tied else torch.zeros(ROWS, SIZE)
    torch.testing.assert_close(heads.predictions(states, rows), words, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(heads.seq_relationship(pooled), matches, atol=1e-5, rtol=1e-5)


def test_a_tied_decoder_trains_the_rows() -> None:
    head = PredictionHead(SMALL, 7, tied=True)
    table = torch.randn(ROWS + 7, SIZE, requires_grad=True)
    head(torch.randn(2, SIZE), table[ROWS:]).square().sum().backward()
    assert table.grad is not None
    assert not table.grad[:ROWS].any()
    assert table.grad[ROWS:].any(dim=1).all()
    assert "decoder.weight" not in head.state_dict()


def test_no_masked_place_gives_no_logits() -> None:
    assert PredictionHead(SMALL, 7, tied=False)(torch.zeros(0, SIZE), torch.zeros(7, SIZE)).shape == (0, 7)


def test_the_temperature_at_first() -> None:
    scale = similarity_scale(initial_logit_scale(0.07), 100.0)
    assert math.isclose(scale.item(), 1 / 0.07, rel_tol=1e-6)


@pytest.mark.parametrize(
    ("start", "wanted", "moves"),
    [(50.0, 1e9, True), (50.0, 1.0, True), (300.0, 1e9, False), (300.0, 1.0, True)],
    ids=["below, up", "below, down", "above, up", "above, down"],
)
def test_the_scale_stays_at_its_limit_and_can_leave_it(start: float, wanted: float, moves: bool) -> None:
    """A step towards `wanted`: above the limit, there is only the way back."""
    logit_scale = nn.Parameter(torch.tensor(math.log(start)))
    scale = similarity_scale(logit_scale, 100.0)
    assert math.isclose(scale.item(), min(start, 100.0), rel_tol=1e-5)
    (scale - wanted).abs().backward()
    assert logit_scale.grad is not None
    step = -logit_scale.grad.item()
    assert (step != 0) == moves
    if moves:
        assert (step > 0) == (wanted > start)


def _sizes() -> dict[str, int]:
    return {"word_rows": ROWS, "phrase_rows": 7, "hidden_size": SIZE, "heads": 3}
