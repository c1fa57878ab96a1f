"""RoIAlign by products against torchvision's kernel."""

from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st
from torchvision.ops import roi_align

from mvptr_data.detectors.vinvl.roi_align import CROP_CELLS, BoxCrops

corner = st.floats(-40, 700, allow_nan=False, width=32)
box = st.tuples(corner, corner, corner, corner)


@given(st.lists(box, min_size=1, max_size=5), st.integers(1, 40), st.integers(1, 40), st.integers(0, 2**31))
def test_crops_are_torchvisions(boxes: list[tuple[float, ...]], height: int, width: int, seed: int) -> None:
    """Boxes of any kind: reversed, beyond the map, larger than it, less than a pixel."""
    source = torch.randn(1, 3, height, width, generator=torch.Generator().manual_seed(seed))
    given_boxes = torch.tensor(boxes)
    expected = roi_align(source, [given_boxes], CROP_CELLS, 1 / 16, sampling_ratio=0, aligned=False)
    crops = BoxCrops(given_boxes, height, width, 1 / 16)
    cells = source[0].permute(1, 2, 0).contiguous()
    found = crops.cut(cells, 0, len(boxes)).permute(0, 3, 1, 2)
    torch.testing.assert_close(found, expected, atol=2e-5, rtol=0)
    thinned = crops.cut(cells, 0, len(boxes), every=2).permute(0, 3, 1, 2)
    torch.testing.assert_close(thinned, expected[:, :, ::2, ::2], atol=2e-5, rtol=0)


def test_part_of_the_boxes() -> None:
    source = torch.randn(20, 30, 4, generator=torch.Generator().manual_seed(0))
    boxes = torch.tensor([[0.0, 0, 100, 50], [30, 40, 200, 300], [5, 5, 479, 319]])
    crops = BoxCrops(boxes, 20, 30, 1 / 16)
    assert torch.equal(crops.cut(source, 1, 3), crops.cut(source, 0, 3)[1:])
