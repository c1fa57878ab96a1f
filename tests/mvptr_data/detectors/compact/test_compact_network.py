"""Shapes through the network, and what folding and seeds do to it."""

from __future__ import annotations

import pytest
import torch

from mvptr_data.detectors.compact.detector import inference_model
from mvptr_data.detectors.compact.model import CompactModel, initial_model
from mvptr_data.detectors.compact.names import Names
from mvptr_data.detectors.compact.rpn import ANCHORS_PER_CELL, anchor_boxes, propose

NAMES = Names(kinds=("cat", "dog", "car"), colors=("red", "blue"), sizes=("small", "large"))


def network(seed: int = 0) -> CompactModel:
    return initial_model(NAMES, torch.Generator().manual_seed(seed)).eval()


def pixels(seed: int, *shape: int) -> torch.Tensor:
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(("height", "width"), [(256, 256), (32, 256), (192, 48)])
def test_shapes(height: int, width: int) -> None:
    model = network()
    with torch.inference_mode():
        feature_map = model.feature_map(pixels(1, 2, 3, height, width))
        assert feature_map.shape == (2, 128, height // 8, width // 8)
        objectness, deltas = model.rpn(feature_map)
        count = height // 8 * (width // 8) * ANCHORS_PER_CELL
        assert objectness.shape == (2, count) and deltas.shape == (2, count, 4)
        anchors = anchor_boxes(height // 8, width // 8)
        assert anchors.shape == (count, 4)
        proposals = propose(objectness[0], deltas[0], anchors, width=width, height=height, limit=7)
        assert 1 <= len(proposals) <= 7
        vectors = model.roi.pool(feature_map, [proposals, proposals[:1]])
        assert vectors.shape == (len(proposals) + 1, 2048)
        kinds, steps = model.roi.classify(vectors)
        assert kinds.shape == (len(vectors), 4) and steps.shape == (len(vectors), 4)
        boxes = torch.cat([proposals, proposals[:1]])
        colors, sizes = model.roi.describe(vectors, torch.ones(len(vectors), dtype=torch.long), boxes)
        assert colors.shape == (len(vectors), 2) and sizes.shape == (len(vectors), 2)


def test_anchors_are_centered_on_their_cells_in_row_order() -> None:
    anchors = anchor_boxes(2, 3).reshape(2, 3, ANCHORS_PER_CELL, 4)
    centers = (anchors[..., :2] + anchors[..., 2:]) / 2
    torch.testing.assert_close(centers[1, 2], torch.tensor([20.0, 12.0]).expand(ANCHORS_PER_CELL, 2))


def test_a_seed_decides_every_parameter_and_leaves_the_global_state_alone() -> None:
    before = torch.random.get_rng_state()
    first, again, other = (network(seed).state_dict() for seed in (5, 5, 6))
    assert torch.equal(torch.random.get_rng_state(), before)
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert any(not torch.equal(first[name], other[name]) for name in first)


def with_statistics(model: CompactModel) -> CompactModel:
    """`model` after it has seen a batch, so that its normalization statistics are not the initial ones."""
    model.train()
    with torch.no_grad():
        feature_map = model.feature_map(pixels(2, 4, 3, 64, 64))
        model.rpn(feature_map)
        model.roi.pool(feature_map, [torch.tensor([[0.0, 0.0, 40.0, 50.0], [8.0, 8.0, 30.0, 60.0]])] * 4)
    return model.eval()


def test_folding_changes_nothing_but_rounding() -> None:
    model = with_statistics(network())
    box = [torch.tensor([[3.0, 4.0, 50.0, 60.0]])]
    with torch.inference_mode():
        plain_map = model.feature_map(pixels(3, 1, 3, 64, 64))
        plain = model.roi.pool(plain_map, box)
        folded = inference_model(model, "fp32")
        assert not any(isinstance(part, torch.nn.BatchNorm2d) for part in folded.modules())
        torch.testing.assert_close(folded.feature_map(pixels(3, 1, 3, 64, 64)), plain_map, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(folded.roi.pool(plain_map, box), plain, rtol=1e-4, atol=1e-4)


def test_an_image_in_a_batch_has_the_same_map_as_alone() -> None:
    model = inference_model(with_statistics(network()), "fp32")
    batch = pixels(4, 3, 3, 64, 96)
    with torch.inference_mode():
        together = model.feature_map(batch)
        alone = torch.cat([model.feature_map(image[None]) for image in batch])
    torch.testing.assert_close(together, alone, rtol=1e-5, atol=1e-5)
