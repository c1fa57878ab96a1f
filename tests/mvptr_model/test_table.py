"""The table's uses and gradient against plain slices and look-ups."""

from __future__ import annotations

import pytest
import torch

from mvptr_model.table import Table

WORDS, ROWS, SIZE = 5, 8, 3
TEXT, TAGS = torch.tensor([2, 6, 2, 0]), torch.tensor([2, 4])


@pytest.mark.parametrize("uses", [(1, 1, 1), (0, 1, 1), (1, 0, 0), (0, 0, 1)], ids=str)
def test_equal_to_separate_uses(uses: tuple[int, int, int]) -> None:
    """Decoders' and look-ups' values, and the sum of their gradients, where some are not used at all."""
    torch.manual_seed(0)
    weight = torch.randn(ROWS, SIZE, dtype=torch.float64, requires_grad=True)
    states = torch.randn(2, SIZE, dtype=torch.float64)
    table = Table.of(weight, WORDS, TEXT, TAGS)
    found = [states @ table.words.T, states @ table.phrases.T, torch.cat([table.rows(TEXT), table.rows(TAGS)])]
    expected = [states @ weight[:WORDS].T, states @ weight[WORDS:].T, weight[torch.cat([TEXT, TAGS])]]
    for one, other in zip(found, expected, strict=True):
        assert torch.equal(one, other)
    gradients = [
        torch.autograd.grad(sum(value.square().sum() for value, use in zip(all_, uses, strict=True) if use), weight)[0]
        for all_ in (found, expected)
    ]
    torch.testing.assert_close(*gradients)


def test_nothing_used() -> None:
    """No gradient rather than one of zeros."""
    weight = torch.randn(ROWS, SIZE, requires_grad=True)
    table = Table.of(weight, WORDS, TEXT)
    other = torch.ones((), requires_grad=True)
    (other + 0 * table.ids.sum()).backward()
    assert weight.grad is None
