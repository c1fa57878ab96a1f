"""Eq. 1-3 against themselves, written out, with every order tried."""

from __future__ import annotations

import math
from itertools import permutations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from mvptr_model.losses.mcr import Recovery, assignments

#: Masked places of each sample.
counts = st.lists(st.integers(0, 5), min_size=1, max_size=5)
seeds = st.integers(0, 2**16)


def masked(seed: int, places: list[int], candidates: int = 7) -> tuple[Tensor, Tensor, Tensor]:
    """Logits, labels, samples; labels may come twice in a sample."""
    torch.manual_seed(seed)
    logits = 2 * torch.randn(sum(places), candidates, dtype=torch.float64)
    sample = torch.repeat_interleave(torch.tensor(places))
    return logits, torch.randint(candidates, (sum(places),)), sample


def literal(logits: Tensor, labels: Tensor, sample: Tensor, samples: int) -> float:
    """Eq. 1 by brute force, eq. 2 by loops."""
    means = []
    for which in range(samples):
        p = logits[sample == which].softmax(dim=1).tolist()
        y = labels[sample == which].tolist()
        if not y:
            continue
        orders = permutations(range(len(y)))
        best = min(orders, key=lambda alpha: sum(1 - p[i][y[alpha[i]]] for i in range(len(y))))
        means.append(sum(-math.log(p[i][y[best[i]]]) for i in range(len(y))) / len(y))
    return sum(means) / len(means) if means else 0.0


@given(seeds, counts)
def test_the_matched_entropy(seed: int, places: list[int]) -> None:
    logits, labels, sample = masked(seed, places)
    loss = Recovery(logits, labels, sample, len(places), match=True).loss()
    expected = literal(logits, labels, sample, len(places))
    assert math.isclose(loss.value.item(), expected, rel_tol=1e-10, abs_tol=1e-12)


@given(seeds, counts)
def test_without_matching_each_label_stays_at_its_place(seed: int, places: list[int]) -> None:
    logits, labels, sample = masked(seed, places)
    log_p = logits.log_softmax(dim=1)
    means = [
        -sum(log_p[i, labels[i]].item() for i in np.flatnonzero(sample == which)) / count
        for which, count in enumerate(places)
        if count
    ]
    loss = Recovery(logits, labels, sample, len(places), match=False).loss()
    assert math.isclose(loss.value.item(), sum(means) / max(len(means), 1), rel_tol=1e-10, abs_tol=1e-12)


@given(seeds, counts, st.randoms(use_true_random=False))
def test_the_order_of_the_labels_does_not_matter(seed: int, places: list[int], random: np.random.Generator) -> None:
    """ "Cat dog" costs what "dog cat" costs."""
    logits, labels, sample = masked(seed, places)
    shuffled = labels.clone()
    for which in range(len(places)):
        of_it = labels[sample == which].tolist()
        random.shuffle(of_it)
        shuffled[sample == which] = torch.tensor(of_it, dtype=torch.int64)
    one, other = (Recovery(logits, given, sample, len(places), match=True).loss() for given in (labels, shuffled))
    assert torch.allclose(one.value, other.value)
    assert one.accuracy is not None
    assert other.accuracy is not None
    assert torch.equal(one.accuracy, other.accuracy)


@given(seeds, st.integers(1, 6))
def test_assignments_cost_least(seed: int, count: int) -> None:
    cost = np.random.default_rng(seed).random((count, count))
    order = assignments(cost, np.array([count]))
    assert sorted(order) == list(range(count))
    least = min(cost[np.arange(count), list(alpha)].sum() for alpha in permutations(range(count)))
    assert math.isclose(cost[np.arange(count), order].sum(), least)


def test_accuracy_is_that_of_the_matched_labels() -> None:
    logits = torch.tensor([[0.0, 9.0, 0.0], [9.0, 0.0, 0.0], [0.0, 0.0, 9.0], [9.0, 0.0, 0.0]])
    labels, sample = torch.tensor([0, 1, 2, 1]), torch.tensor([0, 0, 1, 2])
    matched, in_place = (Recovery(logits, labels, sample, 3, match=match).loss().accuracy for match in (True, False))
    assert matched is not None
    assert in_place is not None
    assert (matched.item(), in_place.item()) == (0.75, 0.25)


@pytest.mark.parametrize("match", [True, False])
def test_its_gradient(match: bool) -> None:
    logits, labels, sample = masked(3, [2, 0, 3, 1])
    logits.requires_grad_()
    assert torch.autograd.gradcheck(lambda given: Recovery(given, labels, sample, 4, match=match).loss().value, logits)


@pytest.mark.parametrize("candidates", [5, 0])
def test_nothing_masked_is_zero_with_a_gradient_of_zero(candidates: int) -> None:
    weight, bias = torch.ones(candidates, 3, requires_grad=True), torch.ones(candidates, requires_grad=True)
    none = torch.zeros(0, dtype=torch.int64)
    loss = Recovery(torch.ones(0, 3) @ weight.T + bias, none, none, 4, match=True).loss()
    loss.value.backward()
    assert loss.value.item() == 0
    assert bias.grad is not None
    assert not bias.grad.any()


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_what_is_not_finite_passes_through(value: float) -> None:
    """To where a run is stopped, rather than raising on one rank while others wait."""
    logits = torch.randn(3, 5)
    logits[1, 2] = value
    loss = Recovery(logits, torch.tensor([0, 2, 1]), torch.tensor([0, 0, 1]), 2, match=True).loss()
    assert not loss.value.isfinite()
