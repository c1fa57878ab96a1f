"""Stages of the network on their own: proposals, the two ways to pool, geometry that counts the last pixel."""

from __future__ import annotations

from pathlib import Path

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.vinvl_reference import ReferenceDetector
from mvptr_data.detectors.boxes import clip_counted, decode_counted, order_corners
from mvptr_data.detectors.vinvl.rpn import RegionProposalHead, propose
from mvptr_data.detectors.vinvl.weights import load_weights
from tests.mvptr_data.detectors.vinvl.small import ANCHORS, SMALL, write_weights


@settings(max_examples=40)
@given(
    rows=st.integers(1, 25),
    columns=st.integers(1, 25),
    spread=st.sampled_from([0.0, 1.0, 30.0]),
    seed=st.integers(0, 999),
)
def test_proposals_are_those_of_the_literal_translation(rows: int, columns: int, spread: float, seed: int) -> None:
    """Bit for bit, ties of equal and of saturated objectness included."""
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(1, 15, rows, columns, generator=generator) * spread
    steps = torch.randn(1, 60, rows, columns, generator=generator) * 2
    head = RegionProposalHead(SMALL)
    head.cell_anchors = torch.tensor(ANCHORS)
    width, height = columns * 16 - 3, rows * 16 - 5
    literal = ReferenceDetector({"rpn.anchor_generator.cell_anchors.0": torch.tensor(ANCHORS)})
    expected, _ = literal.propose(logits, steps, width=width, height=height)
    found = propose(
        logits.permute(0, 2, 3, 1).flatten(),
        steps.permute(0, 2, 3, 1).reshape(-1, 4),
        head.anchors(rows, columns),
        width=width,
        height=height,
        limit=300,
    )
    assert torch.equal(found, expected)


def test_pooling_before_and_after_the_first_convolutions_is_the_same(tmp_path: Path) -> None:
    """The order is a choice of speed: one for CPUs, one for GPUs. Boxes reach beyond the map, where biases must not fade."""
    model = load_weights(write_weights(tmp_path / "small.pth"), SMALL).model
    generator = torch.Generator().manual_seed(1)
    feature_map = torch.randn(1, 32, 20, 30, generator=generator).relu()
    boxes = torch.tensor(
        [[0.0, 0, 479, 319], [470, 310, 479, 319], [0, 0, 0, 0], [100, 50, 230, 90], [479, 0, 479, 319]]
    )
    model.fold()
    plain, commuted = (pool(feature_map, boxes) for pool in (model.roi.pool_plain, model.roi.pool_commuted))
    assert plain.shape == (5, 2048) and float(plain.std()) > 0.1
    torch.testing.assert_close(commuted, plain, atol=1e-4, rtol=1e-4)


def test_geometry_that_counts_the_last_pixel() -> None:
    boxes = torch.tensor([[0.0, 0, 15, 7]])  # 16 x 8 pixels
    assert torch.equal(decode_counted(torch.zeros(1, 4), boxes), boxes)
    twice = decode_counted(torch.tensor([[0.0, 0, 2, 2]]).log().nan_to_num(neginf=0), boxes)
    assert torch.allclose(twice, torch.tensor([[-8.0, -4, 23, 11]]))
    assert clip_counted(twice, 20, 10).tolist() == [[0, 0, 19, 9]]


def test_only_boxes_that_end_before_they_begin_change() -> None:
    boxes = torch.tensor([[5.0, 5, 5, 9], [1, 2, 3, 4], [98.5, 0, 98.5, 0], [3, 3, 2.5, 3.25]])
    expected = [[5.0, 5, 5, 9], [1, 2, 3, 4], [98.5, 0, 98.5, 0], [3, 3, 3, 3.25]]
    assert order_corners(boxes).tolist() == expected
