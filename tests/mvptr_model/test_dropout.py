"""Dropout by 16 bits: how often, how independently, and the way back."""

from __future__ import annotations

import pytest
import torch

from mvptr_model.dropout import Dropout, dropped

#: 4 standard deviations of a share of so many values.
VALUES = 400_000


@pytest.mark.parametrize("p", [0.1, 0.5, 0.9])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_zero_or_larger(p: float, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    found = dropped(torch.ones(VALUES, dtype=dtype), p)
    assert found.dtype == dtype
    share = (found == 0).double().mean().item()
    assert abs(share - p) < 4 * (p * (1 - p) / VALUES) ** 0.5
    torch.testing.assert_close(found[found != 0], torch.full_like(found[found != 0], 1 / (1 - p)), rtol=1e-2, atol=0)


@pytest.mark.parametrize("distance", [1, 2, 3, 4, 8])
def test_values_are_independent(distance: int) -> None:
    """Neighbours, which share a draw of 64 bits, too."""
    torch.manual_seed(1)
    dropped_out = (dropped(torch.ones(VALUES), 0.3) == 0).double()
    both = (dropped_out[:-distance] * dropped_out[distance:]).mean().item()
    assert abs(both - 0.09) < 4 * (0.09 * 0.91 / VALUES) ** 0.5


def test_the_gradient_goes_where_the_values_went() -> None:
    torch.manual_seed(2)
    states = torch.randn(7, 5, dtype=torch.float64, requires_grad=True)
    found = dropped(states, 0.4)
    (gradient,) = torch.autograd.grad(found.sum(), states)
    torch.testing.assert_close(gradient * states, found)
    assert 0 < (gradient == 0).sum() < states.numel()


def test_the_generator_decides() -> None:
    """Equal states of torch's generator, equal values: what makes resuming exact."""
    found = []
    for _ in range(2):
        torch.manual_seed(3)
        found.append([dropped(torch.ones(33), 0.5) for _ in range(2)])
    assert torch.equal(found[0][0], found[1][0])
    assert torch.equal(found[0][1], found[1][1])
    assert not torch.equal(found[0][0], found[0][1])


def test_not_while_evaluating() -> None:
    states = torch.randn(3)
    assert Dropout(0.5).eval()(states) is states
    assert Dropout(0.0)(states) is states
    assert not torch.equal(Dropout(0.99)(states), states)
