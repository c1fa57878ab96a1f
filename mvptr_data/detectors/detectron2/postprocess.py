"""Which of an image's candidates become regions: detectron2's rule, and bottom-up attention's least number.

Shape shorthand: R proposals, C classes without the background, K regions kept.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torchvision.ops import batched_nms

from mvptr_data.detectors.detectron2.options import Detectron2Options
from mvptr_data.detectors.selection import kept_count


def choose(
    boxes: Tensor, probabilities: Tensor, *, height: int, width: int, nms_iou: float, options: Detectron2Options
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Boxes [R, 4 C] or [R, 4], probabilities [R, C + 1] (the last: background), the size of the network's image in pixels.

    Returns proposals int64 [K], classes int64 [K] from 0, boxes float32 [K, 4] clipped, scores float32 [K], best first. A
    proposal with several likely classes is a region for each, as in detectron2. Below the threshold only its best
    class counts, so those above it are the ones that detectron2 gives.
    """
    # 1. Candidates: pairs of proposal and class.
    valid = boxes.isfinite().all(dim=1) & probabilities.isfinite().all(dim=1)
    scores = probabilities[:, :-1]  # [R, C]
    candidate = scores >= options.score_threshold
    candidate[torch.arange(len(scores), device=scores.device), scores.argmax(dim=1)] = True
    proposals, classes = (candidate & valid[:, None]).nonzero(as_tuple=True)

    # 2. Each with the box of its class, where some of it is inside the image.
    shaped = boxes.view(len(boxes), boxes.shape[1] // 4, 4)  # [R, C or 1, 4]
    chosen = shaped[proposals, classes if shaped.shape[1] > 1 else torch.zeros_like(classes)].float()
    chosen = chosen.clamp(min=0).minimum(chosen.new_tensor([width, height, width, height]))
    inside = (chosen[:, 2:] > chosen[:, :2]).all(dim=1)
    proposals, classes, chosen = proposals[inside], classes[inside], chosen[inside]
    values = scores[proposals, classes].float()

    # 3. One per thing, best first.
    kept = batched_nms(chosen, values, classes, nms_iou)
    count = kept_count(
        values[kept].tolist(),
        threshold=options.score_threshold,
        minimum=options.min_regions,
        maximum=options.max_regions,
    )
    kept = kept[:count]
    return proposals[kept], classes[kept], chosen[kept], values[kept]
