"""Which anchors and proposals train, and towards what."""

from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st

from mvptr_data.detectors.boxes import pairwise_iou
from mvptr_data.detectors.compact.rpn import anchor_boxes
from mvptr_data.detectors.compact.targets import (
    ANCHOR_BACKGROUND_IOU,
    ANCHOR_HARD,
    ANCHOR_RANDOM,
    ANCHOR_THING_IOU,
    ANCHOR_THINGS,
    REGION_THING_IOU,
    REGION_THINGS,
    REGIONS,
    Truth,
    match_anchors,
    sample_anchors,
    sample_regions,
)

boxes = st.builds(
    lambda x, y, w, h: [x, y, x + w, y + h],
    st.integers(0, 150),
    st.integers(0, 150),
    st.integers(4, 100),
    st.integers(4, 100),
)
# Two equal boxes would claim the same best anchor, which no drawn scene has.
truths = st.lists(boxes, min_size=1, max_size=6, unique_by=tuple).map(
    lambda rows: torch.tensor(rows, dtype=torch.float32)
)


@given(truth=truths)
def test_anchors_are_things_by_overlap_and_every_thing_has_one(truth: torch.Tensor) -> None:
    anchors = anchor_boxes(32, 32)
    nearest, roles = match_anchors(anchors, truth)
    best = pairwise_iou(anchors, truth).max(dim=1).values
    own = pairwise_iou(anchors, truth).argmax(dim=0)
    assert (roles[best >= ANCHOR_THING_IOU] == 1).all() and (roles[own] == 1).all()
    elsewhere = torch.ones(len(anchors), dtype=torch.bool)
    elsewhere[own] = False
    assert (roles[elsewhere & (best < ANCHOR_BACKGROUND_IOU)] == 0).all()
    assert (roles[elsewhere & (best >= ANCHOR_BACKGROUND_IOU) & (best < ANCHOR_THING_IOU)] == -1).all()
    if len(set(own.tolist())) == len(truth):
        assert set(nearest[roles == 1].tolist()) == set(range(len(truth)))


@given(truth=truths, seed=st.integers(0, 2**31))
def test_sampled_anchors_keep_the_hardest_background(truth: torch.Tensor, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    anchors = anchor_boxes(32, 32)
    _, roles = match_anchors(anchors, truth)
    logits = torch.randn(len(anchors), generator=generator)
    things, background = sample_anchors(roles, logits, generator)
    assert (roles[things] == 1).all() and (roles[background] == 0).all()
    assert len(things) == min(ANCHOR_THINGS, int((roles == 1).sum()))
    assert len(set(background.tolist())) == ANCHOR_HARD + ANCHOR_RANDOM
    hardest = logits[roles == 0].sort(descending=True).values[:ANCHOR_HARD]
    assert set(hardest.tolist()) <= set(logits[background].tolist())


@given(truth=truths, seed=st.integers(0, 2**31))
def test_sampled_regions_are_labeled_by_the_thing_they_overlap(truth: torch.Tensor, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    things = len(truth)
    labels = torch.arange(1, things + 1)
    full = Truth(boxes=truth, kinds=labels, colors=labels - 1, sizes=torch.zeros(things, dtype=torch.long))
    proposals = anchor_boxes(32, 32)[torch.randperm(9216, generator=generator)[:60]]
    sampled, nearest, kinds = sample_regions(proposals, full, width=256, height=256, generator=generator)
    overlap = pairwise_iou(sampled, truth).max(dim=1).values
    assert len(sampled) <= REGIONS and 1 <= int((kinds > 0).sum()) <= REGION_THINGS
    assert ((overlap >= REGION_THING_IOU) == (kinds > 0)).all()
    assert (kinds[kinds > 0] == nearest[kinds > 0] + 1).all()
