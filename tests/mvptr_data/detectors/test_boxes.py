"""Box geometry, against its definitions."""

from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from mvptr_data.detectors.boxes import clip, decode, encode, pairwise_iou

coordinates = st.integers(-400, 400)
extents = st.integers(1, 300)
boxes = st.builds(lambda x, y, w, h: [x, y, x + w, y + h], coordinates, coordinates, extents, extents)
box_lists = st.lists(boxes, min_size=1, max_size=6)
weights = st.sampled_from([(1.0, 1.0, 1.0, 1.0), (10.0, 10.0, 5.0, 5.0)])


def tensor(rows: list[list[int]]) -> Tensor:
    return torch.tensor(rows, dtype=torch.float32)


def pixels_of(box: list[int]) -> set[tuple[int, int]]:
    x1, y1, x2, y2 = box
    return {(x, y) for x in range(x1, x2) for y in range(y1, y2)}


@given(pairs=st.lists(st.tuples(boxes, boxes), min_size=1, max_size=6), weights=weights)
def test_decode_undoes_encode(
    pairs: list[tuple[list[int], list[int]]], weights: tuple[float, float, float, float]
) -> None:
    # Steps are bounded at 1000 / 16 times the reference's size; keep the references within that.
    box, reference = (tensor([pair[side] for pair in pairs]) for side in (0, 1))
    reference[:, 2:] = torch.maximum(reference[:, 2:], reference[:, :2] + 10)
    again = decode(encode(box, reference, weights), reference, weights)
    torch.testing.assert_close(again, box, rtol=1e-4, atol=2e-2)


def test_a_box_is_no_step_from_itself() -> None:
    box = tensor([[3, 4, 50, 60]])
    assert encode(box, box).abs().max() == 0


def test_a_step_moves_by_the_references_size() -> None:
    moved = decode(torch.tensor([[0.5, -1.0, 0.0, 0.0]]), tensor([[10, 20, 30, 60]]))
    torch.testing.assert_close(moved, torch.tensor([[20.0, -20.0, 40.0, 20.0]]))


def test_a_wild_step_stays_finite() -> None:
    assert decode(torch.tensor([[0.0, 0.0, 1e4, 1e4]]), tensor([[0, 0, 10, 10]])).isfinite().all()


small = st.integers(0, 12)
small_boxes = st.builds(lambda x, y, w, h: [x, y, x + w, y + h], small, small, small, small)


@given(first=st.lists(small_boxes, min_size=1, max_size=4), second=st.lists(small_boxes, min_size=1, max_size=4))
def test_iou_is_what_counting_pixels_gives(first: list[list[int]], second: list[list[int]]) -> None:
    iou = pairwise_iou(tensor(first), tensor(second))
    for row, one in enumerate(first):
        for column, other in enumerate(second):
            union = pixels_of(one) | pixels_of(other)
            expected = len(pixels_of(one) & pixels_of(other)) / len(union) if union else 0.0
            assert abs(iou[row, column].item() - expected) < 1e-6


anywhere = st.floats(-1e6, 1e6, width=32)


@given(
    corners=st.lists(st.tuples(anywhere, anywhere, anywhere, anywhere), min_size=1, max_size=6),
    width=st.integers(1, 40_000),
    height=st.integers(1, 40_000),
)
def test_clipped_boxes_lie_inside_and_are_not_empty(corners: list[tuple[float, ...]], width: int, height: int) -> None:
    inside = clip(torch.tensor(corners), width, height).numpy()
    assert (inside >= 0).all()
    assert (inside[:, 0] < inside[:, 2]).all() and (inside[:, 1] < inside[:, 3]).all()
    assert (inside[:, 2] <= width).all() and (inside[:, 3] <= height).all()


@given(rows=box_lists)
def test_boxes_inside_are_left_alone(rows: list[list[int]]) -> None:
    box = tensor(rows) + 400
    assert torch.equal(clip(box, 1200, 1200), box)
