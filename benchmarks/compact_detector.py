"""Pictures a second of the compact detector, by phase, against the same network run plainly.

    python benchmarks/compact_detector.py --quick
    python benchmarks/compact_detector.py --json compact_detector.json

The plain peer is the network as PyTorch gives it: normalization not folded, channels first, fp32, one picture at a time.
Both are measured in one run, in alternating rounds, and the best round counts: other work on the machine only slows down.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import torch
from harness import Row, arguments, best_rates, compared, report
from PIL import Image
from torch import Tensor

from mvptr_data.detectors.compact.detector import CompactDetector, inference_model
from mvptr_data.detectors.compact.model import CompactModel
from mvptr_data.detectors.compact.options import CompactOptions
from mvptr_data.detectors.compact.pictures import labeled_picture
from mvptr_data.detectors.compact.pixels import to_pixels
from mvptr_data.detectors.compact.rpn import anchor_boxes, propose
from mvptr_data.detectors.compact.weights import BUNDLED_WEIGHTS, load_weights

#: World and number of the pictures: not those of training.
SEED, PICTURES = 20212, 16
BATCH = 8
PLAIN = "network, plain fp32, one by one"


def network(model: CompactModel, batches: Sequence[Tensor]) -> None:
    """Pixels to region vectors and their kinds, without the choice among them."""
    for pixels in batches:
        feature_map = model.feature_map(pixels)
        objectness, deltas = model.rpn(feature_map)
        anchors = anchor_boxes(*feature_map.shape[2:])
        height, width = pixels.shape[2:]
        proposals = [
            propose(logits, steps, anchors, width=width, height=height, limit=CompactOptions().proposals)
            for logits, steps in zip(objectness, deltas, strict=True)
        ]
        model.roi.classify(model.roi.pool(feature_map, proposals))


@torch.inference_mode()
def measure(rounds: int) -> list[Row]:
    """All rows, in the order of the table."""
    images = [labeled_picture(SEED, index).image for index in range(PICTURES)]
    photographs = [image.resize((640, 480), Image.Resampling.BICUBIC) for image in images]
    pixels = [to_pixels(image) for image in images]
    single = [picture[None] for picture in pixels]
    batched = [torch.stack(pixels[start : start + BATCH]) for start in range(0, PICTURES, BATCH)]

    plain = load_weights(BUNDLED_WEIGHTS).model
    fp32, bf16 = (inference_model(load_weights(BUNDLED_WEIGHTS).model, precision) for precision in ("fp32", "bf16"))
    detectors = {
        precision: CompactDetector(load_weights(BUNDLED_WEIGHTS), CompactOptions(precision=precision))
        for precision in ("fp32", "bf16")
    }
    found = {precision: detector.detect(images) for precision, detector in detectors.items()}
    against_plain: dict[str, Callable[[], object]] = {
        PLAIN: lambda: network(plain, single),
        "network, fp32, one by one": lambda: network(fp32, single),
        f"network, fp32, batches of {BATCH}": lambda: network(fp32, batched),
        "network, bf16, one by one": lambda: network(bf16, single),
        f"network, bf16, batches of {BATCH}": lambda: network(bf16, batched),
        "whole detect, fp32": lambda: detectors["fp32"].detect(images),
        "whole detect, bf16": lambda: detectors["bf16"].detect(images),
    }
    alone: dict[str, Callable[[], object]] = {
        "resize 640x480 and to tensor": lambda: [to_pixels(image) for image in photographs],
        "to tensor, 256x256": lambda: [to_pixels(image) for image in images],
    }
    jobs = {**alone, **against_plain}
    for job in jobs.values():
        job()  # the first call of each prepares kernels
    counted = {name: (job, float(PICTURES)) for name, job in jobs.items()}
    rates = best_rates(counted, rounds=rounds, clock=time.perf_counter)
    rows = compared(rates, "pictures/s", dict.fromkeys(against_plain, PLAIN))
    after = (
        1000 / rates["whole detect, fp32"]
        - 1000 / rates["network, fp32, one by one"]
        - 1000 / rates["to tensor, 256x256"]
    )
    rows.append(Row(name="rest of detect, fp32: choice, attributes", value=max(after, 0.0), unit="ms/picture"))
    rows.append(Row(name="regions a picture", value=sum(map(len, found["fp32"])) / PICTURES, unit="regions"))
    return rows


def main() -> None:
    """Measure, print the table, write the rows."""
    parser = arguments(__doc__)
    parser.add_argument("--threads", type=int, default=0, help="torch threads (default: torch's own number)")
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    rows = measure(rounds=3 if options.quick else 12)
    report(
        f"{PICTURES} drawn pictures, {torch.get_num_threads()} threads, torch {torch.__version__}", rows, options.json
    )


if __name__ == "__main__":
    main()
