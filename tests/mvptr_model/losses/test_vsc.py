"""Eq. 4-5 against themselves, written out; who is nobody's negative."""

from __future__ import annotations

import math

import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from mvptr_model.losses.ranks import Loss, Peers
from mvptr_model.losses.vsc import Rivals, contrastive, similarities

ALONE = Peers.alone()


def loss_of(images: Tensor, texts: Tensor, ids: Tensor, weights: Tensor, scale: Tensor) -> Loss:
    return contrastive(similarities(images, texts, scale, ALONE), Rivals.among(ALONE, ids, weights))


def embeddings(seed: int, pairs: int, size: int = 5) -> tuple[Tensor, Tensor]:
    torch.manual_seed(seed)
    return torch.randn(pairs, size, dtype=torch.float64), torch.randn(pairs, size, dtype=torch.float64)


def literal(images: Tensor, texts: Tensor, ids: list[int], filled: list[bool], tau: float) -> float:
    """Eq. 4 and 5 by loops over the filled slots; a pair of one's own image is left out of eq. 4's sums."""

    def cosine(one: Tensor, other: Tensor) -> float:
        product = sum(a * b for a, b in zip(one.tolist(), other.tolist(), strict=True))
        return product / math.sqrt(sum(a * a for a in one.tolist()) * sum(b * b for b in other.tolist()))

    slots = [slot for slot, there in enumerate(filled) if there]
    u = {(i, j): cosine(images[i], texts[j]) for i in slots for j in slots}

    def rivals(of: int) -> list[int]:
        return [j for j in slots if j == of or ids[j] != ids[of]]

    total = 0.0
    for i in slots:
        v2s = math.exp(u[i, i] / tau) / sum(math.exp(u[i, j] / tau) for j in rivals(i))
        s2v = math.exp(u[i, i] / tau) / sum(math.exp(u[j, i] / tau) for j in rivals(i))
        total += math.log(v2s) + math.log(s2v)
    return -total / (2 * len(slots)) if slots else 0.0


slots = st.lists(st.tuples(st.integers(0, 5), st.booleans()), min_size=1, max_size=7)


@given(st.integers(0, 2**16), slots, st.floats(0.05, 1.0))
def test_the_symmetric_entropy(seed: int, given_slots: list[tuple[int, bool]], tau: float) -> None:
    ids, filled = ([slot[k] for slot in given_slots] for k in (0, 1))
    images, texts = embeddings(seed, len(ids))
    weights = torch.tensor(filled, dtype=torch.float32)
    loss = loss_of(images, texts, torch.tensor(ids), weights, torch.tensor(1 / tau, dtype=torch.float64))
    expected = literal(images, texts, ids, filled, tau)  # type: ignore[arg-type]
    assert math.isclose(loss.value.item(), expected, rel_tol=1e-9, abs_tol=1e-12)


def test_its_gradient() -> None:
    images, texts = embeddings(4, 4)
    scale = torch.tensor(3.0, dtype=torch.float64, requires_grad=True)
    ids, weights = torch.tensor([0, 1, 0, 2]), torch.ones(4)
    given_tensors = (images.requires_grad_(), texts.requires_grad_(), scale)
    assert torch.autograd.gradcheck(lambda v, s, k: loss_of(v, s, ids, weights, k).value, given_tensors)


def test_a_pair_of_the_same_image_pushes_nothing_away() -> None:
    images, texts = embeddings(2, 3)
    texts.requires_grad_()
    loss = loss_of(images, texts, torch.tensor([7, 7, 7]), torch.ones(3), torch.tensor(1.0))
    loss.value.backward()
    assert loss.value.item() == 0
    assert texts.grad is not None
    assert not texts.grad.any()


def test_accuracy_is_recall_at_one_both_ways() -> None:
    texts = torch.eye(3, 4)
    images = torch.tensor([[1.0, 0.0, 0.0, 0.0], [0.9, 0.8, 0.0, 0.0], [0.0, 0.0, 1.0, 0.0]])
    loss = loss_of(images, texts, torch.arange(3), torch.ones(3), torch.tensor(1.0))
    assert loss.accuracy is not None
    # Image 1 is nearer to text 0; every text is nearest to its own image.
    assert math.isclose(loss.accuracy.item(), 5 / 6, rel_tol=1e-6)


def test_one_pair_and_no_pair_are_finite() -> None:
    images, texts = embeddings(1, 1)
    for weight in (1.0, 0.0):
        ids = torch.tensor([3])
        loss = loss_of(images, texts.requires_grad_(), ids, torch.tensor([weight]), torch.tensor(14.0))
        loss.value.backward()
        assert loss.value.item() == 0
