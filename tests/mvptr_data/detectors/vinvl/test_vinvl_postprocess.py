"""The two rules against a loop over all classes, operation by operation."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from benchmarks import vinvl_reference
from mvptr_data.detectors.vinvl.postprocess import RULES, Limits, select_regions


def cases(boxes: int, classes: int, seed: int, *, spread: float, levels: int) -> tuple[Tensor, Tensor]:
    """Boxes that overlap much, and probabilities; few `levels` make ties, a small `spread` makes all scores low."""
    rng = np.random.default_rng(seed)
    low = rng.integers(0, 30, (boxes, 2))
    corners = np.concatenate([low, low + rng.integers(0, 30, (boxes, 2))], axis=1).astype(np.float32)
    logits = rng.normal(size=(boxes, classes + 1)) * spread
    if levels:
        logits = np.round(logits * levels) / levels
    return torch.from_numpy(corners), torch.from_numpy(logits.astype(np.float32)).softmax(dim=1)


def check(rule: str, boxes: Tensor, probabilities: Tensor, limits: Limits) -> None:
    kept = RULES[rule](boxes, probabilities, limits)
    indices, labels, scores = vinvl_reference.RULES[rule](
        boxes, probabilities, limits.threshold, limits.minimum, limits.maximum
    )
    assert kept.indices.tolist() == indices.tolist()
    assert kept.labels.tolist() == labels.tolist()
    assert kept.scores.tolist() == scores.tolist()


@settings(max_examples=150)
@given(
    rule=st.sampled_from(sorted(RULES)),
    boxes=st.integers(1, 40),
    classes=st.integers(1, 12),
    seed=st.integers(0, 2**31),
    spread=st.sampled_from([0.0, 0.3, 1.0, 4.0, 20.0]),
    levels=st.sampled_from([0, 1, 3]),
    threshold=st.sampled_from([0.0, 0.1, 0.2, 0.5, 0.7, 1.0]),
    counts=st.sampled_from([(10, 100), (1, 3), (1, 1), (5, 5), (30, 60)]),
)
def test_the_rules_are_the_references(
    rule: str,
    boxes: int,
    classes: int,
    seed: int,
    spread: float,
    levels: int,
    threshold: float,
    counts: tuple[int, int],
) -> None:
    corners, probabilities = cases(boxes, classes, seed, spread=spread, levels=levels)
    check(rule, corners, probabilities, Limits(threshold=threshold, minimum=counts[0], maximum=counts[1]))


@pytest.mark.parametrize("rule", sorted(RULES))
@pytest.mark.parametrize("spread", [0.5, 3.0])
def test_at_full_size(rule: str, spread: float) -> None:
    corners, probabilities = cases(300, 1594, 5, spread=spread, levels=0)
    check(rule, corners * 12, probabilities, Limits(threshold=0.2, minimum=10, maximum=100))


def test_at_least_ten_regions_where_no_class_is_sure() -> None:
    corners, probabilities = cases(60, 200, 1, spread=0.1, levels=0)
    for rule in RULES:
        kept = RULES[rule](corners, probabilities, Limits(threshold=0.2, minimum=10, maximum=100))
        assert len(kept.scores) == 10 and float(kept.scores.max()) < 0.2
        assert kept.scores.diff().le(0).all()


def test_boxes_that_survive_nowhere_are_no_regions() -> None:
    """Twelve copies of one box with one order of certainty: eleven are suppressed in every class."""
    boxes = torch.tensor([[5.0, 5, 50, 50]]).repeat(12, 1)
    probabilities = torch.linspace(0.9, 0.3, 12)[:, None] * torch.tensor([[0.1, 0.6, 0.3]])
    kept = RULES["per_class"](boxes, probabilities, Limits(threshold=0.2, minimum=10, maximum=100))
    assert kept.indices.tolist() == [0] and kept.labels.tolist() == [1]


def test_torch_has_its_threads_again_after_regions_were_selected() -> None:
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        logits = torch.randn(5, 7, generator=torch.Generator().manual_seed(0))
        select_regions("class_agnostic", torch.rand(5, 4), logits, Limits(threshold=0.2, minimum=1, maximum=3))
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(threads)
