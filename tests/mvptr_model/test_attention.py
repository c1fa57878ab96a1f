"""Each way to attend against the formula, one sequence and one head at a time."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from mvptr_model.attention import Attend, nested, padded

HEADS, SIZE = 2, 4
#: Places of each sequence, and how many of them ask.
sizes_of = st.lists(st.integers(1, 6).flatmap(lambda all_: st.tuples(st.just(all_), st.integers(1, all_))), min_size=1)


def literal(queries: Tensor, keys: Tensor, values: Tensor, sizes: list[tuple[int, int]]) -> Tensor:
    """softmax(q k / sqrt(d)) v."""
    found, query, place = [], 0, 0
    for all_, asking in sizes:
        seen = [
            (queries[query : query + asking, head] @ keys[place : place + all_, head].T / math.sqrt(SIZE)).softmax(-1)
            @ values[place : place + all_, head]
            for head in range(HEADS)
        ]
        found.append(torch.stack(seen, dim=1))
        query, place = query + asking, place + all_
    return torch.cat(found)


@pytest.mark.parametrize("way", [padded, nested])
@settings(max_examples=20, deadline=None)
@given(sizes=sizes_of, seed=st.integers(0, 2**16))
def test_equal_to_the_formula(way: Callable[..., Attend], sizes: list[tuple[int, int]], seed: int) -> None:
    """What is seen, and its gradients, to 1e-10."""
    torch.manual_seed(seed)
    places, asking = (sum(pair[part] for pair in sizes) for part in (0, 1))
    given_to = [
        torch.randn(count, HEADS, SIZE, dtype=torch.float64, requires_grad=True) for count in (asking, places, places)
    ]
    lengths, asked = (torch.tensor([pair[part] for pair in sizes]) for part in (0, 1))
    attend = way(lengths, torch.device("cpu"), asked)
    found, expected = attend(*given_to, 0.0), literal(*given_to, sizes)
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10)
    weights = torch.randn_like(expected)
    gradients = (torch.autograd.grad((states * weights).sum(), given_to) for states in (found, expected))
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("way", [padded, nested])
def test_dropout(way: Callable[..., Attend]) -> None:
    """Weights, each by itself, are 0 or 1 / (1 - p) times as large."""
    torch.manual_seed(0)
    lengths, chance, count = torch.tensor([50, 30]), 0.25, 80
    queries, keys = torch.zeros(2, count, HEADS, SIZE).unbind()
    attend = way(lengths, torch.device("cpu"))
    seen = attend(queries, keys, torch.ones(count, HEADS, SIZE), chance)  # the sum of weights that are left
    assert seen.std() > 0
    assert torch.isclose(seen.mean(), torch.tensor(1.0), atol=0.05)
    left = seen[:50] * 50 * (1 - chance)
    torch.testing.assert_close(left, left.round(), rtol=0, atol=1e-3)
