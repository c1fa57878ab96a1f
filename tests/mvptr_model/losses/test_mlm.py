"""Eq. 9 against itself, written out."""

from __future__ import annotations

import math

import torch
from hypothesis import given
from hypothesis import strategies as st

from mvptr_model.losses.mlm import masked_words


@given(st.integers(0, 2**16), st.integers(1, 8), st.integers(1, 9))
def test_the_mean_of_minus_log_p_of_the_masked_words(seed: int, count: int, words: int) -> None:
    torch.manual_seed(seed)
    logits, labels = 3 * torch.randn(count, words, dtype=torch.float64), torch.randint(words, (count,))
    entropies, right = [], 0
    for row, label in zip(logits.tolist(), labels.tolist(), strict=True):
        entropies.append(-math.log(math.exp(row[label]) / sum(map(math.exp, row))))
        right += row[label] == max(row)
    loss = masked_words(logits, labels)
    assert loss.accuracy is not None
    assert math.isclose(loss.value.item(), sum(entropies) / count, rel_tol=1e-12, abs_tol=1e-12)
    assert math.isclose(loss.accuracy.item(), right / count, rel_tol=1e-6)


def test_its_gradient() -> None:
    torch.manual_seed(1)
    logits, labels = torch.randn(4, 5, dtype=torch.float64, requires_grad=True), torch.tensor([0, 4, 4, 2])
    assert torch.autograd.gradcheck(lambda given: masked_words(given, labels).value, logits)


def test_nothing_masked_is_zero_with_a_gradient_of_zero() -> None:
    states = torch.ones(0, 3, requires_grad=True)
    weight = torch.ones(7, 3, requires_grad=True)
    loss = masked_words(states @ weight.T, torch.zeros(0, dtype=torch.int64))
    loss.value.backward()
    assert loss.value.item() == 0
    assert weight.grad is not None
    assert not weight.grad.any()


def test_half_precision_is_widened() -> None:
    logits = torch.tensor([[11.0, 0.0]], dtype=torch.bfloat16)
    expected = math.log1p(math.exp(-11.0))  # lost in bfloat16
    assert math.isclose(masked_words(logits, torch.tensor([0])).value.item(), expected, rel_tol=1e-2)
