"""RoIAlign as two matrix products.

Shape shorthand: R boxes of one map, H x W map, C channels, S = 14 crop cells along a side.

A crop cell is the mean of bilinear samples on a regular grid (He et al. 2017). A sample's weight is a factor of its row times
one of its column, so the mean is one too: crop = Y map X^T, with a sparse row of Y for each of the crop's rows and one of X for
each of its columns. On a CPU the two products over the box's own cells take a fraction of the time of torchvision's kernel,
give channels last, and can leave out rows and columns that nobody reads. The result is torchvision's up to rounding.
"""

from __future__ import annotations

import torch
from torch import Tensor

#: Cells along a side of a crop.
CROP_CELLS = 14


def axis_weights(low: Tensor, high: Tensor, cells: int, crop_cells: int = CROP_CELLS) -> Tensor:
    """Ends [R] of intervals in cells of an axis of `cells` -> [R, crop_cells, cells]: how much a crop cell takes of each.

    As torchvision's `roi_align` with `sampling_ratio=0, aligned=False`: an interval is at least one cell long and is sampled
    `ceil(length / crop_cells)` times a crop cell; samples beyond a cell outside the axis count as zero.
    """
    length = (high - low).clamp(min=1)
    samples = (length / crop_cells).ceil()  # [R]
    grid = int(samples.max())
    steps = length / crop_cells
    bins = torch.arange(crop_cells, device=low.device, dtype=low.dtype)
    inner = torch.arange(grid, device=low.device, dtype=low.dtype)
    # [R, S, grid]: where the samples are; those beyond a box's own number weigh nothing.
    at = low[:, None, None] + bins[:, None] * steps[:, None, None] + (inner + 0.5) * (steps / samples)[:, None, None]
    counts = (inner < samples[:, None])[:, None] & (at >= -1) & (at <= cells)
    at = at.clamp(min=0, max=cells - 1)
    before = at.floor()
    share = at - before
    weight = counts / samples[:, None, None]
    weights = low.new_zeros(len(low), crop_cells, cells)
    before = before.long()
    weights.scatter_add_(2, before, (1 - share) * weight)
    weights.scatter_add_(2, (before + 1).clamp(max=cells - 1), share * weight)
    return weights


class BoxCrops:
    """The crops of one image's boxes, cut from any map of that image."""

    def __init__(self, boxes: Tensor, map_height: int, map_width: int, scale: float) -> None:
        """`boxes` [R, 4] in pixels; `scale` map cells a pixel."""
        x1, y1, x2, y2 = (boxes * scale).unbind(1)
        self._rows = axis_weights(y1, y2, map_height)  # [R, S, H]
        self._columns = axis_weights(x1, x2, map_width)  # [R, S, W]
        self._row_ranges = _ranges(self._rows)
        self._column_ranges = _ranges(self._columns)

    def cut(self, source: Tensor, start: int, stop: int, every: int = 1) -> Tensor:
        """`source` [H, W, C] -> the crops of boxes `start` to `stop`, [R, S / every, S / every, C], every `every`-th cell."""
        height, width, channels = source.shape
        table = source.reshape(height, width * channels)
        side = len(range(0, CROP_CELLS, every))
        crops = source.new_empty(stop - start, side, side, channels)
        for index in range(start, stop):
            (top, bottom), (left, right) = self._row_ranges[index], self._column_ranges[index]
            block = table[top:bottom, left * channels : right * channels]
            rows = self._rows[index, ::every, top:bottom] @ block  # [S, w * C]
            columns = self._columns[index, ::every, left:right]
            torch.matmul(columns, rows.view(side, right - left, channels), out=crops[index - start])
        return crops


def _ranges(weights: Tensor) -> list[tuple[int, int]]:
    """[R, S, cells] -> per box, the half-open range of cells that have any weight; one cell where none has."""
    used = weights.ne(0).any(dim=1)  # [R, cells]
    cells = used.shape[1]
    first = used.int().argmax(dim=1)
    last = cells - used.flip(1).int().argmax(dim=1)
    none = ~used.any(dim=1)
    return [
        (0, 1) if empty else (a, b) for a, b, empty in zip(first.tolist(), last.tolist(), none.tolist(), strict=True)
    ]
