"""Regions to vectors, and vectors to classes (reference page, "RoI").

Shape shorthand: one image; H x W map, C = 1024 channels of C4, P proposals, D = 2048, S = 14 crop cells along a side.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.ops import roi_align

from mvptr_data.detectors.vinvl.architecture import Architecture
from mvptr_data.detectors.vinvl.backbone import MAP_STRIDE
from mvptr_data.detectors.vinvl.layers import Bottleneck, make_stage
from mvptr_data.detectors.vinvl.roi_align import CROP_CELLS, BoxCrops

#: Regions that go through res5 together on a CPU: 64 took 6 % less time than 16, and 100 MB for their crops.
CPU_CHUNK = 64


class RegionHead(nn.Module):
    """RoIAlign, res5 and the mean of its cells; then the class.

    `layout` is that of the convolutions' inputs in memory; `commuted`: pool by `pool_commuted`, which needs folded
    normalization, and not by `pool_plain`.
    """

    layout = torch.contiguous_format
    commuted = False

    def __init__(self, architecture: Architecture) -> None:
        super().__init__()
        self.res5 = make_stage(architecture.trunk[-1].outputs, architecture.res5, architecture.groups, 2)
        self.cls_score = nn.Linear(architecture.res5.outputs, architecture.classes + 1)

    def pool(self, feature_map: Tensor, boxes: Tensor) -> Tensor:
        """C4 [1, C, H, W] of one image and its boxes [P, 4] -> float32 vectors [P, D]."""
        return (self.pool_commuted if self.commuted else self.pool_plain)(feature_map, boxes)

    def classify(self, vectors: Tensor) -> Tensor:
        """[P, D] -> float32 logits [P, 1 + classes]; column 0 is the background."""
        return self.cls_score(vectors.to(self.cls_score.weight.dtype)).float()

    def pool_plain(self, feature_map: Tensor, boxes: Tensor) -> Tensor:
        """Crops of C4 through the whole stage, all boxes at once: the kernels of a convolution change with its batch."""
        source = feature_map.float().contiguous()
        crops = roi_align(source, [boxes], CROP_CELLS, 1 / MAP_STRIDE, sampling_ratio=0, aligned=False)
        return _mean(self.res5(crops.to(feature_map.dtype).contiguous(memory_format=self.layout)))

    def pool_commuted(self, feature_map: Tensor, boxes: Tensor) -> Tensor:
        """Two 1x1 convolutions of the first block go before RoIAlign, once over C4 instead of once for each region.

        They are linear, and so is RoIAlign, so the order does not matter; their biases, which a crop that reaches beyond the
        map must get in full, are added after. The shortcut's stride keeps every second cell: only those are cut.
        """
        first: Bottleneck = self.res5[0]  # type: ignore[assignment]
        rest = self.res5[1:]
        (entries, entry_bias), (shortcuts, shortcut_bias) = (
            _without_bias(convolution, feature_map) for convolution in (first.conv1, first.downsample)
        )  # [H, W, width], [H, W, D]
        crops = BoxCrops(boxes, feature_map.shape[2], feature_map.shape[3], 1 / MAP_STRIDE)
        vectors = []
        for start in range(0, len(boxes), CPU_CHUNK):
            stop = min(start + CPU_CHUNK, len(boxes))
            entered = F.relu_(crops.cut(entries, start, stop).add_(entry_bias))
            beside = crops.cut(shortcuts, start, stop, every=2).add_(shortcut_bias)
            entered, beside = (crop.to(feature_map.dtype).permute(0, 3, 1, 2) for crop in (entered, beside))
            vectors.append(_mean(rest(first.after_entry(entered, beside))))
        return torch.cat(vectors)


def _mean(maps: Tensor) -> Tensor:
    """[P, D, 7, 7] -> float32 [P, D]."""
    return F.adaptive_avg_pool2d(maps.float(), 1).flatten(1)


def _without_bias(convolution: nn.Conv2d | None, feature_map: Tensor) -> tuple[Tensor, Tensor]:
    """What a 1x1 convolution makes of every cell of [1, C, H, W], float32 [H, W, outputs], and the bias it has yet to get."""
    assert convolution is not None and convolution.bias is not None
    cells = F.conv2d(feature_map, convolution.weight)[0].permute(1, 2, 0)
    return cells.float().contiguous(), convolution.bias.float()
