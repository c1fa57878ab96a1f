"""Eq. 6-7 against themselves, written out."""

from __future__ import annotations

import math

import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from mvptr_model.losses.ranks import Peers
from mvptr_model.losses.wpg import Grounding, grounded, grounding

ALONE = Peers.alone()
seeds = st.integers(0, 2**16)


def states(seed: int, pairs: int, *, there: float = 0.6) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Text [q, 5, 3], regions [q, 4, 3], and which places are phrases and regions: some have none."""
    torch.manual_seed(seed)
    text, regions = (torch.randn(pairs, places, 3, dtype=torch.float64) for places in (5, 4))
    return text, regions, torch.rand(pairs, 5) < there, torch.rand(pairs, 4) < there


def cosines(phrase: Tensor, regions: list[Tensor]) -> list[float]:
    return [(phrase @ region / (phrase.norm() * region.norm())).item() for region in regions]


def literal(text: Tensor, regions: Tensor, phrase_mask: Tensor, region_mask: Tensor) -> float | None:
    """Eq. 6 of one pair; None where it is not defined."""
    phrases, found = list(text[phrase_mask]), list(regions[region_mask])
    if not phrases or not found:
        return None
    return sum(max(cosines(phrase, found)) for phrase in phrases) / len(phrases)


@given(seeds, st.integers(1, 5))
def test_the_mean_of_the_greatest_cosines(seed: int, pairs: int) -> None:
    given_states = states(seed, pairs)
    found = grounding(*given_states)
    for pair in range(pairs):
        expected = literal(*(part[pair] for part in given_states))
        assert found.known[pair].item() == (expected is not None)
        assert math.isclose(found.similarity[pair].item(), expected or 0.0, rel_tol=1e-9, abs_tol=1e-12)


@given(seeds, st.integers(1, 4))
def test_one_of_the_three_greatest(seed: int, pairs: int) -> None:
    text, regions, phrase_mask, region_mask = states(seed, pairs)
    draws = torch.rand(pairs, 5, dtype=torch.float64)
    found = grounding(text, regions, phrase_mask, region_mask, draws, best=3)
    for pair in range(pairs):
        there = list(regions[pair][region_mask[pair]])
        chosen = []
        for place in range(5):
            if phrase_mask[pair, place] and there:
                best = sorted(cosines(text[pair, place], there), reverse=True)[:3]
                chosen.append(best[int(draws[pair, place] * len(best))])
        expected = sum(chosen) / len(chosen) if chosen else 0.0
        assert math.isclose(found.similarity[pair].item(), expected, rel_tol=1e-9, abs_tol=1e-12)


@given(
    seeds,
    st.lists(st.tuples(st.integers(0, 4), st.booleans(), st.booleans()), max_size=8),
    st.lists(st.booleans(), min_size=5, max_size=5),
)
def test_the_hinge(seed: int, negatives: list[tuple[int, bool, bool]], known: list[bool]) -> None:
    """Sentences 0 to 4; negatives: (sentence, defined, a pair)."""
    torch.manual_seed(seed)
    own, other = torch.rand(5, dtype=torch.float64), torch.rand(len(negatives), dtype=torch.float64)
    hinges: dict[int, list[float]] = {}
    for similarity, (sentence, defined, pair) in zip(other.tolist(), negatives, strict=True):
        if known[sentence] and defined and pair:
            hinges.setdefault(sentence, []).append(max(0.0, 0.2 + similarity - own[sentence].item()))
    means = [sum(values) / len(values) for values in hinges.values()]
    loss = grounded(
        Grounding(own, torch.tensor(known)),
        Grounding(other, torch.tensor([defined for _, defined, _ in negatives], dtype=torch.bool)),
        torch.tensor([sentence for sentence, _, _ in negatives], dtype=torch.int64),
        torch.tensor([float(pair) for _, _, pair in negatives]),
        ALONE,
    )
    assert math.isclose(loss.value.item(), sum(means) / max(len(means), 1), rel_tol=1e-12, abs_tol=1e-12)


def test_its_gradient() -> None:
    """At a place without a kink: no hinge at 0, no two regions equally near."""
    text, regions, phrase_mask, region_mask = states(0, 3, there=0.9)
    texts, weights = torch.tensor([1, 1, 0]), torch.ones(3)

    def loss(text: Tensor, regions: Tensor) -> Tensor:
        matched = grounding(text, regions, phrase_mask, region_mask)
        apart = grounding(text[texts], regions.flip(0), phrase_mask[texts], region_mask.flip(0))
        return grounded(matched, apart, texts, weights, ALONE).value

    assert torch.autograd.gradcheck(loss, (text.requires_grad_(), regions.requires_grad_()))


def test_no_region_no_phrase_no_negative_is_zero_with_a_gradient_of_zero() -> None:
    for places, phrases in ((0, True), (2, False), (2, True)):
        text = torch.randn(2, 3, 4, requires_grad=True)
        regions = torch.randn(2, places, 4)
        found = grounding(text, regions, torch.full((2, 3), phrases), torch.ones(2, places, dtype=torch.bool))
        loss = grounded(found, found, torch.tensor([1, 0]), torch.zeros(2), ALONE)
        loss.value.backward()
        assert loss.value.item() == 0
        assert text.grad is not None
        assert not text.grad.any()
