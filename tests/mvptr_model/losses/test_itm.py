"""Eq. 8 against itself, written out; hard negatives: whose, how often, decided by what."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mvptr_model.losses.itm import Pairs, matched_pairs, matching, mismatched_pairs, multinomial, other_images
from mvptr_model.losses.ranks import Peers
from mvptr_model.losses.vsc import Rivals, Similarities

slots = st.lists(st.tuples(st.integers(0, 5), st.booleans()), min_size=1, max_size=9)


def meeting(seed: int, ids: list[int], filled: list[bool]) -> tuple[Similarities, Rivals]:
    torch.manual_seed(seed)
    pairs = len(ids)
    rivals = Rivals.among(Peers.alone(), torch.tensor(ids), torch.tensor(filled, dtype=torch.float32))
    return Similarities(2 * torch.randn(pairs, pairs), 2 * torch.randn(pairs, pairs)), rivals


@given(st.integers(0, 2**16), st.lists(st.tuples(st.integers(0, 1), st.booleans()), min_size=1, max_size=8))
def test_the_mean_entropy_of_what_is_a_pair(seed: int, kinds: list[tuple[int, bool]]) -> None:
    torch.manual_seed(seed)
    logits = torch.randn(len(kinds), 2, dtype=torch.float64)
    entropies = [
        -math.log(math.exp(row[match]) / sum(map(math.exp, row)))
        for row, (match, there) in zip(logits.tolist(), kinds, strict=True)
        if there
    ]
    nowhere = torch.zeros(len(kinds), dtype=torch.int64)
    pairs = Pairs(nowhere, nowhere, torch.tensor([there for _, there in kinds], dtype=torch.float32))
    loss = matching(logits, pairs, torch.tensor([match for match, _ in kinds]))
    assert math.isclose(loss.value.item(), sum(entropies) / max(len(entropies), 1), rel_tol=1e-12, abs_tol=1e-12)


def test_its_gradient() -> None:
    torch.manual_seed(0)
    logits = torch.randn(4, 2, dtype=torch.float64, requires_grad=True)
    pairs = Pairs(torch.arange(4), torch.arange(4), torch.tensor([1.0, 0.0, 1.0, 1.0]))
    matched = torch.tensor([1, 1, 0, 0])
    assert torch.autograd.gradcheck(lambda given: matching(given, pairs, matched).value, logits)


@given(st.integers(0, 2**16), slots, st.booleans(), st.integers(0, 50))
def test_a_negative_is_another_image_of_a_filled_slot(
    seed: int, given_slots: list[tuple[int, bool]], hardest: bool, step: int
) -> None:
    ids, filled = [slot[0] for slot in given_slots], [slot[1] for slot in given_slots]
    found, rivals = meeting(seed, ids, filled)
    for pairs in (
        mismatched_pairs(found, rivals, seed=seed, step=step, hardest=hardest).pairs(),
        other_images(found, rivals, seed=seed, step=step).pairs(),
    ):
        for own, (image, text, weight) in enumerate(zip(*(part.tolist() for part in pairs), strict=True)):
            possible = filled[own] and any(
                there and ids[own] != other for other, there in zip(ids, filled, strict=True)
            )
            assert weight == possible
            if possible:
                assert ids[image] != ids[text]
                assert filled[image]
                assert filled[text]
                assert own in (image, text)


def test_half_take_another_image_and_half_another_text() -> None:
    found, rivals = meeting(3, list(range(8)), [True] * 8)
    images, texts, _ = mismatched_pairs(found, rivals, seed=1, step=2, hardest=False).pairs()
    own = torch.arange(8)
    assert torch.equal(texts[::2], own[::2])
    assert torch.equal(images[1::2], own[1::2])
    assert (images != texts).all()


def test_they_are_drawn_from_the_distributions_of_equation_4() -> None:
    """10,000 draws; each share within 4 standard deviations of its probability."""
    ids, draws = [0, 1, 2, 0, 3], 10_000
    found, rivals = meeting(1, ids, [True] * 5)
    counts = torch.zeros(2, 5, 5)
    for step in range(draws):
        for kind, pairs in enumerate(
            (
                mismatched_pairs(found, rivals, seed=7, step=step, hardest=False).pairs(),
                other_images(found, rivals, seed=7, step=step).pairs(),
            )
        ):
            other = torch.where(pairs.images == rivals.own, pairs.texts, pairs.images)
            counts[kind, rivals.own, other] += 1
    even = torch.arange(5)[:, None] % 2 == 0
    for count, similarity in (
        (counts[0], torch.where(even, found.text_to_image, found.image_to_text)),
        (counts[1], found.text_to_image),
    ):
        p = similarity.masked_fill(torch.tensor(ids)[:, None] == torch.tensor(ids), -torch.inf).softmax(dim=1)
        assert ((count / draws - p).abs() <= 4 * (p * (1 - p) / draws).sqrt()).all()


@pytest.mark.parametrize(("number", "place"), [(0.0, 1), (0.24, 1), (0.25, 3), (1 - 2**-32, 3)])
def test_a_share_of_nothing_is_never_drawn(number: float, place: int) -> None:
    shares = torch.tensor([[0.0, 0.1, 0.0, 0.3, 0.0]], dtype=torch.float64)
    assert multinomial(shares, torch.tensor([number], dtype=torch.float64)).item() == place


def test_the_most_similar_one() -> None:
    found, rivals = meeting(5, [0, 1, 0, 2], [True] * 4)
    images, texts, _ = mismatched_pairs(found, rivals, seed=0, step=0, hardest=True).pairs()
    assert images[0] == max((1, 3), key=lambda k: found.text_to_image[0, k].item())
    assert texts[1] == max((0, 2, 3), key=lambda k: found.image_to_text[1, k].item())


def test_seed_and_step_decide() -> None:
    found, rivals = meeting(3, list(range(64)), [True] * 64)
    chosen = [
        mismatched_pairs(found, rivals, seed=a, step=b, hardest=False).pairs().images
        for a, b in ((1, 2), (1, 3), (2, 2))
    ]
    again = mismatched_pairs(found, rivals, seed=1, step=2, hardest=False).pairs().images
    assert torch.equal(chosen[0], again)
    assert not torch.equal(chosen[0], chosen[1])
    assert not torch.equal(chosen[0], chosen[2])


@pytest.mark.parametrize("largest", [1e4, 3e38])
def test_great_similarities_are_no_trouble(largest: float) -> None:
    _, rivals = meeting(0, [0, 1, 2], [True] * 3)
    great = torch.full((3, 3), -largest)
    great[0, 2] = great[1, 0] = great[2, 1] = largest
    images, texts, _ = mismatched_pairs(Similarities(great, great), rivals, seed=0, step=0, hardest=False).pairs()
    assert list(zip(images.tolist(), texts.tolist(), strict=True)) == [(2, 0), (1, 0), (1, 2)]


def test_matched_pairs_are_ones_own() -> None:
    _, rivals = meeting(0, [4, 4, 1], [True, True, False])
    images, texts, weights = matched_pairs(rivals)
    assert images.tolist() == texts.tolist() == [0, 1, 2]
    assert weights.tolist() == [1, 1, 0]
