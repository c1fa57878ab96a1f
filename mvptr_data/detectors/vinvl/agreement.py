"""How far each way to compute is from exact fp32, on photographs of your own.

    python -m mvptr_data.detectors.vinvl.agreement --weights vinvl_vg_x152c4.pth PHOTO...

Shape shorthand: K regions that fp32 keeps, L those of the other precision, D = 2048.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from mvptr_data.detectors.boxes import pairwise_iou
from mvptr_data.detectors.devices import choose_device
from mvptr_data.detectors.vinvl.architecture import X152_C4
from mvptr_data.detectors.vinvl.detector import full_precision, inference_model
from mvptr_data.detectors.vinvl.model import VinvlModel
from mvptr_data.detectors.vinvl.options import PRECISIONS, VinvlOptions
from mvptr_data.detectors.vinvl.pixels import prepare, to_input
from mvptr_data.detectors.vinvl.postprocess import Limits, class_probabilities, select_regions
from mvptr_data.detectors.vinvl.rpn import propose
from mvptr_data.detectors.vinvl.weights import load_weights

#: A region is found again where the other precision gives its label to a box that overlaps it by more than this.
SAME_IOU = 0.9
#: The detector's boxes count their last pixel in; without it a box along the image's edge has no area.
LAST_PIXEL = torch.tensor([0.0, 0.0, 1.0, 1.0])


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class View:
    """What one precision makes of one image: the map, and the regions it keeps."""

    feature_map: Tensor  # [1, C, H, W]
    boxes: Tensor  # [K, 4]
    labels: Tensor  # [K], on the host
    vectors: Tensor  # [K, D]


@dataclass(frozen=True, slots=True, kw_only=True)
class Agreement:
    """One way to compute against exact fp32, over all regions of all images."""

    name: str
    #: Largest difference of a feature of one and the same box, absolute and as a part of the vector's length.
    largest: float
    relative: float
    #: Smallest cosine between the two vectors of one box.
    cosine: float
    #: Share of the regions found again, in percent.
    recovered: float


@torch.inference_mode()
def view(model: VinvlModel, image: Image.Image, device: torch.device) -> View:
    """`image` as the detector with default options sees it."""
    options = VinvlOptions()
    pixels = to_input([prepare(image).pixels], device)
    feature_map = model.feature_maps(pixels)
    objectness, steps = model.rpn(feature_map)
    anchors = model.rpn.anchors(*feature_map.shape[2:])
    height, width = pixels.shape[2:]
    boxes = propose(objectness[0], steps[0], anchors, width=width, height=height, limit=options.proposals)
    vectors = model.roi.pool(feature_map, boxes)
    limits = Limits(threshold=options.score_threshold, minimum=options.min_regions, maximum=options.max_regions)
    probabilities = class_probabilities(model.roi.classify(vectors))
    kept = select_regions(options.postprocess, boxes.cpu(), probabilities.cpu(), limits)
    chosen = kept.indices.to(device)
    return View(feature_map=feature_map, boxes=boxes[chosen], labels=kept.labels, vectors=vectors[chosen])


@torch.inference_mode()
def compare(name: str, model: VinvlModel, plain: Sequence[View], other: Sequence[View]) -> Agreement:
    """The views of `model`, which is called `name`, against the exact views of the same images."""
    differences, lengths, cosines, recovered = [], [], [], []
    for truth, found in zip(plain, other, strict=True):
        vectors = model.roi.pool(found.feature_map, truth.boxes)  # of the boxes that fp32 keeps
        differences.append((vectors - truth.vectors).abs().amax(dim=1))
        lengths.append((vectors - truth.vectors).norm(dim=1) / truth.vectors.norm(dim=1))
        cosines.append(torch.cosine_similarity(vectors.double(), truth.vectors.double()))
        overlap = pairwise_iou(truth.boxes.cpu() + LAST_PIXEL, found.boxes.cpu() + LAST_PIXEL)  # [K, L]
        same = (truth.labels[:, None] == found.labels) & (overlap > SAME_IOU)
        recovered.append(same.any(dim=1))
    return Agreement(
        name=name,
        largest=float(torch.cat(differences).max()),
        relative=float(torch.cat(lengths).max()),
        cosine=float(torch.cat(cosines).min()),
        recovered=100 * float(torch.cat(recovered).float().mean()),
    )


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", type=Path, required=True)
    parser.add_argument("--device", default=None)
    parser.add_argument("photos", type=Path, nargs="+")
    options = parser.parse_args(arguments)
    device = choose_device(options.device)
    images = [Image.open(photo).convert("RGB") for photo in options.photos]
    plain: list[View] = []
    print(f"{'':<12} {'max abs':>9} {'relative':>9} {'cosine':>10} {'recovered':>10}")
    for name, precision, exact in (("fp32 exact", "fp32", True), *((kind, kind, False) for kind in PRECISIONS)):
        model = inference_model(load_weights(options.weights, X152_C4).model, precision, device, exact=exact)
        with full_precision(device):
            views = [view(model, image, device) for image in images]
            plain = plain or views
            row = compare(name, model, plain, views)
        print(
            f"{row.name:<12} {row.largest:>9.1e} {row.relative:>9.1e} {row.cosine:>10.6f} {row.recovered:>8.1f} %",
            flush=True,
        )


if __name__ == "__main__":
    main()
