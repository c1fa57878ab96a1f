"""The stacks against transformers' BERT with the same weights; regions; places that nobody looks at."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from transformers import BertConfig, BertModel

from mvptr_model.configuration import ModelConfiguration
from mvptr_model.encoders import Embeddings, Encoder, Encoders, Pooler
from mvptr_model.sequences import Sequences

ROWS, SIZE, LAYERS = 50, 48, 3
SMALL = ModelConfiguration(
    word_rows=ROWS,
    phrase_rows=0,
    hidden_size=SIZE,
    heads=4,
    feed_forward_size=96,
    layers=LAYERS,
    positions=20,
    region_size=10,
)


def bert(deviation: float = 0.2) -> BertModel:
    """A BERT of the same shape, with large enough weights to tell wrong from right."""
    torch.manual_seed(3)
    config = BertConfig(
        vocab_size=ROWS,
        hidden_size=SIZE,
        num_hidden_layers=LAYERS,
        num_attention_heads=4,
        intermediate_size=96,
        max_position_embeddings=20,
        initializer_range=deviation,
    )
    model = BertModel(config).eval()
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=deviation)
    return model


class Ours(nn.Module):
    """Embeddings, one stack and the pooler, under BERT's names."""

    def __init__(self) -> None:
        super().__init__()
        self.embeddings, self.encoder, self.pooler = Embeddings(SMALL), Encoder(SMALL, LAYERS), Pooler(SMALL)


def ours(reference: BertModel) -> Ours:
    model = Ours().eval()
    model.load_state_dict(reference.state_dict())  # key by key
    return model


@pytest.mark.parametrize("segment", [0, 1])
def test_equal_to_bert(segment: int) -> None:
    """Every layer's output, the pooled one, and the gradients of all weights, to 1e-5."""
    reference = bert()
    model = ours(reference)
    lengths = torch.tensor([9, 1, 5])
    ids, mask = torch.randint(ROWS, (3, 9)), torch.arange(9) < lengths[:, None]
    expected = reference(
        ids, attention_mask=mask.long(), token_type_ids=torch.full_like(ids, segment), output_hidden_states=True
    )
    embedded = model.embeddings(ids[mask], lengths, segment)
    found = [embedded, *model.encoder.outputs(embedded, range(LAYERS)).values()]
    assert len(found) == len(expected.hidden_states) == LAYERS + 1
    for layer, states in zip(found, expected.hidden_states, strict=True):
        torch.testing.assert_close(layer.states, states[mask], atol=1e-5, rtol=1e-5)
    pooled = model.pooler(found[-1].first)
    torch.testing.assert_close(pooled, expected.pooler_output, atol=1e-5, rtol=1e-5)

    (pooled.sum() + found[-1].states.square().sum()).backward()
    (expected.pooler_output.sum() + expected.last_hidden_state[mask].square().sum()).backward()
    gradients = {name: parameter.grad for name, parameter in reference.named_parameters()}
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(parameter.grad, gradients[name], atol=1e-4, rtol=1e-4, msg=name)


lengths_of_sequences = st.lists(st.integers(1, 6), min_size=1, max_size=4)


def random_sequences(lengths: list[int]) -> Sequences:
    return Sequences(torch.randn(sum(lengths), SIZE, dtype=torch.float64, requires_grad=True), torch.tensor(lengths))


@given(lengths_of_sequences, st.integers(0, 2**16))
@settings(max_examples=20)
def test_sequences_do_not_see_each_other(lengths: list[int], seed: int) -> None:
    torch.manual_seed(seed)
    encoder, sequences = Encoder(SMALL, 1).double().eval(), random_sequences(lengths)
    together = encoder(sequences).states.split(lengths)
    for number, found in enumerate(together):
        torch.testing.assert_close(encoder(sequences.rows(torch.tensor([number]))).states, found)


@given(lengths_of_sequences, st.integers(0, 2**16))
@settings(max_examples=20)
def test_some_places_only(lengths: list[int], seed: int) -> None:
    """The same states there, the same gradients of everything, and zeros elsewhere; a first place is always there."""
    torch.manual_seed(seed)
    encoder, sequences = Encoder(SMALL, 2).double().eval(), random_sequences(lengths)
    asked = torch.rand(sum(lengths)) < 0.5
    there = asked.index_fill(0, sequences.starts, True)
    some, whole = encoder(sequences, only=asked).states, encoder(sequences).states
    assert not some[~there].any()
    torch.testing.assert_close(some[there], whole[there])
    given_to = [sequences.states, *encoder.parameters()]
    of_some, of_whole = (torch.autograd.grad(found[there].square().sum(), given_to) for found in (some, whole))
    for one, other in zip(of_some, of_whole, strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize("normalized", [True, False])
def test_regions_have_neither_position_nor_segment(normalized: bool) -> None:
    torch.manual_seed(1)
    encoders = Encoders(ModelConfiguration.preset("paper", **{**_sizes(), "region_layernorm": normalized})).eval()
    features, geometry = torch.randn(6, 4), torch.rand(6, 6)
    found = encoders.regions(features, geometry, torch.tensor([4, 2])).states
    projection = encoders.img_embedding
    expected = torch.cat([features, geometry], dim=-1) @ projection.weight.T + projection.bias
    if normalized:
        expected = F.layer_norm(expected, (SIZE,), eps=1e-12)
    torch.testing.assert_close(found, expected)


def test_tags_and_regions_see_each_other() -> None:
    """The visual encoder takes both as one sequence: `[CLS] tags [SEP]`, then regions."""
    torch.manual_seed(1)
    encoders = Encoders(SMALL).eval()
    tags = encoders.tags(torch.tensor([2, 7, 3, 2, 3]), torch.tensor([3, 2]))
    regions = encoders.regions(torch.randn(4, 4), torch.rand(4, 6), torch.tensor([1, 3]))
    encoded_tags, encoded_regions = encoders.image(tags, regions)
    order = [tags.states[:3], regions.states[:1], tags.states[3:], regions.states[1:]]
    expected = encoders.vis_encoder(Sequences(torch.cat(order), torch.tensor([4, 5]))).states
    torch.testing.assert_close(encoded_tags.states, expected[[0, 1, 2, 4, 5]])
    torch.testing.assert_close(encoded_regions.states, expected[[3, 6, 7, 8]])
    assert encoded_regions.lengths.tolist() == [1, 3]


def test_merged_attention_has_one_stack_of_all_layers() -> None:
    losses = ("mcr_v", "mcr_s", "wpg", "itm", "mlm")
    encoders = Encoders(ModelConfiguration.preset("paper", **_sizes(), merged_attention=True, losses=losses))
    assert [len(stack.layer) for stack in (encoders.txt_encoder, encoders.vis_encoder, encoders.mul_encoder)] == [
        0,
        0,
        6,
    ]


def test_dropout_is_for_training_alone() -> None:
    torch.manual_seed(0)
    encoder = Encoder(SMALL, 1)
    sequences = Sequences(torch.randn(4, SIZE), torch.tensor([4]))
    trained = [encoder(sequences).states for _ in range(2)]
    encoder.eval()
    evaluated = [encoder(sequences).states for _ in range(2)]
    assert not torch.equal(*trained)
    assert torch.equal(*evaluated)


def _sizes() -> dict[str, int]:
    names = (
        "word_rows",
        "phrase_rows",
        "hidden_size",
        "heads",
        "feed_forward_size",
        "layers",
        "positions",
        "region_size",
    )
    return {name: getattr(SMALL, name) for name in names}
