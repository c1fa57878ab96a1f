"""Images a second of the VinVL detector by phase, against a literal fp32 translation of the reference.

    python benchmarks/extract.py --quick
    python benchmarks/extract.py --weights vinvl_vg_x152c4.pth --photos FOLDER --json extract.json

Measured are the exact detector (the default: the reference's arithmetic) by phase, and the folded one (`exact=False`) as a whole.
Phases: decode (JPEG to pixels), preprocess (resize, BGR less its mean), trunk (C4), proposals (RPN), RoI (RoIAlign, res5, class
layer), post-process (softmax, per_class), attributes, write (the image's members in a regions tar). The detectors take the
images in turn, so that other work on the machine meets both. On a CPU a second is a CPU-second, of all threads together: the
rates are what one core does. Without `--weights` the network has random ones, on which only post-processing depends.

Where there is a GPU, `detect` is measured in fp16 at 600x800 instead, by batch size, with its share of what the device's
`--tflops` would allow; and a whole `extract-regions` over JPEG files, with the share of the time in which the GPU had nothing to
do, as `nvidia-smi` tells.
"""

from __future__ import annotations

import io
import json
import math
import subprocess
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from harness import Row, arguments, report
from PIL import Image
from vinvl_reference import RULES as LITERAL_RULES
from vinvl_reference import ReferenceDetector

from mvptr_data.abstract_scenes import draw_scene, generate_scene
from mvptr_data.dataset.records import encode_regions
from mvptr_data.dataset.tar import TarWriter
from mvptr_data.detectors import Regions
from mvptr_data.detectors.boxes import order_corners
from mvptr_data.detectors.label_map import LabelMap
from mvptr_data.detectors.vinvl.architecture import X152_C4
from mvptr_data.detectors.vinvl.detector import VinvlDetector, inference_model
from mvptr_data.detectors.vinvl.model import VinvlModel, empty_model
from mvptr_data.detectors.vinvl.options import VinvlOptions
from mvptr_data.detectors.vinvl.pixels import PreparedImage, prepare, to_input
from mvptr_data.detectors.vinvl.postprocess import Limits, class_probabilities, select_regions
from mvptr_data.detectors.vinvl.rpn import propose
from mvptr_data.detectors.vinvl.weights import expected_shapes, load_weights
from pipelines.cluster import ClusterOptions
from pipelines.detector_runner import DetectorChoice
from pipelines.extract_regions import extract_regions

#: Until OpenMP's idle threads sleep.
REST_SECONDS = 0.05
LIMITS = Limits(threshold=0.2, minimum=10, maximum=100)
#: What is compared with the literal translation, and in which order phases are shown.
COMPARED = ("preprocess", "trunk", "proposals", "RoI", "post-process", "attributes")
#: Photographs beside the project, for developers.
PHOTOS = Path(__file__).resolve().parents[2] / "shared" / "data" / "photos"
#: Operations of an image at 600x800 with 300 proposals: trunk and RPN by area (551 + 46 G at 600x1000), res5 1029 G.
GFLOP_600X800 = (551 + 46) * 0.8 + 1029


class Phases:
    """CPU-seconds by phase."""

    def __init__(self) -> None:
        self.seconds: defaultdict[str, float] = defaultdict(float)

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Counts what is done inside towards `name`, with what torch's threads spend on waiting for more work afterwards."""
        start = time.process_time()
        yield
        time.sleep(REST_SECONDS)
        self.seconds[name] += time.process_time() - start


@torch.inference_mode()
def extract(model: VinvlModel, jpeg: bytes, phases: Phases) -> None:
    """One image through the detector, phase by phase."""
    with phases.phase("decode"):
        image = Image.open(io.BytesIO(jpeg)).convert("RGB")
    with phases.phase("preprocess"):
        pixels = to_input([prepare(image).pixels], torch.device("cpu"))
    height, width = pixels.shape[2:]
    with phases.phase("trunk"):
        feature_map = model.feature_maps(pixels)
    with phases.phase("proposals"):
        logits, steps = model.rpn(feature_map)
        anchors = model.rpn.anchors(*feature_map.shape[2:])
        boxes = propose(logits[0], steps[0], anchors, width=width, height=height, limit=VinvlOptions().proposals)
    with phases.phase("RoI"):
        vectors = model.roi.pool(feature_map, boxes)
        class_logits = model.roi.classify(vectors)
    with phases.phase("post-process"):
        kept = select_regions("per_class", boxes, class_probabilities(class_logits), LIMITS)
    with phases.phase("attributes"):
        model.attribute(vectors[kept.indices], kept.labels).softmax(dim=1).topk(16)
    with phases.phase("write"):
        corners = order_corners(boxes[kept.indices]).numpy()
        write(corners, vectors[kept.indices].numpy(), kept.scores.numpy(), (width, height))


@torch.inference_mode()
def extract_literally(detector: ReferenceDetector, jpeg: bytes, phases: Phases) -> None:
    """The same by the literal translation, whose attributes run the region stage again."""
    image = Image.open(io.BytesIO(jpeg)).convert("RGB")
    with phases.phase("preprocess"):
        pixels = detector.preprocess(image)
    with phases.phase("trunk"):
        c4 = detector.trunk(pixels)
    with phases.phase("proposals"):
        boxes, _ = detector.propose(*detector.rpn(c4), width=pixels.shape[3], height=pixels.shape[2])
    with phases.phase("RoI"):
        _, probabilities = detector.classify(c4, boxes)
    with phases.phase("post-process"):
        kept, labels, _ = LITERAL_RULES["per_class"](boxes, probabilities)
    with phases.phase("attributes"):
        detector.attributes(c4, boxes[kept], labels)


def write(boxes: np.ndarray, vectors: np.ndarray, scores: np.ndarray, size: tuple[int, int]) -> None:
    """An image's members into a tar, as a regions shard holds them."""
    count = len(boxes)
    regions = Regions(
        boxes=boxes,
        features=vectors,
        scores=scores,
        labels=np.ones(count, dtype=np.int32),
        tags=("thing",) * count,
        attributes=(("such",),) * count,
        attribute_scores=((0.5,),) * count,
    )
    tar = TarWriter(io.BytesIO())
    for name, data in encode_regions(regions, *size).items():
        tar.add(f"image.{name}", data)
    tar.close()


def rates(exact: VinvlModel, folded: VinvlModel, literal: ReferenceDetector, jpegs: Sequence[bytes]) -> list[Row]:
    """Rows of the detectors over all images; one more, at the start, is not counted."""
    ours, quick, theirs = Phases(), Phases(), Phases()
    extract(exact, jpegs[0], Phases())
    start = time.perf_counter()
    for jpeg in jpegs:
        extract(exact, jpeg, ours)
        extract(folded, jpeg, quick)
        extract_literally(literal, jpeg, theirs)
    elapsed = time.perf_counter() - start
    seconds = {name: value / len(jpegs) for name, value in ours.seconds.items()}
    peer = {name: theirs.seconds[name] / len(jpegs) for name in COMPARED}
    rows = [_row(name, value, peer.get(name)) for name, value in seconds.items()]
    both = ("post-process", "attributes")
    rows.append(
        _row("post-process + attributes", sum(seconds[name] for name in both), sum(peer[name] for name in both))
    )
    rows.append(_row("whole detect", sum(seconds[name] for name in COMPARED), sum(peer.values())))
    rows.append(
        _row("whole detect, folded", sum(quick.seconds[name] for name in COMPARED) / len(jpegs), sum(peer.values()))
    )
    busy = sum(sum(phases.seconds.values()) for phases in (ours, quick, theirs))
    rows.append(Row(name="cores this run had", value=round(busy / elapsed, 1), unit="CPU-s a second"))
    return rows


def _row(name: str, seconds: float, literal: float | None) -> Row:
    """CPU-seconds an image, against those of the literal translation where it has such a phase."""
    peer, ratio = (None, None) if literal is None else (f"literal ({literal:.3f} CPU-s)", round(literal / seconds, 2))
    return Row(
        name=name,
        value=round(1000 / seconds, 1),
        unit=f"images/1000 CPU-s ({seconds:.4f} CPU-s each)",
        peer=peer,
        ratio=ratio,
    )


def sweep(detector: VinvlDetector, rounds: int, tflops: float) -> list[Row]:
    """`detect` at 600x800 by batch size, on the detector's GPU."""
    rng = np.random.default_rng(0)
    rows = []
    for batch in (1, 2, 4, 8, 16, 32):
        detector.batch_size = batch
        images = [
            PreparedImage(pixels=rng.integers(0, 256, (600, 800, 3), dtype=np.uint8), size=(800, 600))
            for _ in range(batch)
        ]
        detector.detect(images)
        torch.cuda.synchronize()
        start = time.perf_counter()
        for _ in range(rounds):
            detector.detect(images)
        torch.cuda.synchronize()
        rate = rounds * batch / (time.perf_counter() - start)
        share = 100 * rate * GFLOP_600X800 / (1000 * tflops)
        rows.append(
            Row(name=f"fp16, batches of {batch}", value=round(rate, 1), unit=f"images/s, {share:.0f} % of roofline")
        )
    return rows


def whole_runs(weights: Path, jpegs: Sequence[bytes], shards: int, size: int, batch: int, folder: Path) -> list[Row]:
    """`extract-regions` on the GPU over so many shards of `size` JPEG files, decoding and writing included, by processes that
    share the GPU."""
    images, label_map = folder / "images", folder / "label_map.json"
    images.mkdir()
    count = shards * size
    for index in range(count):
        (images / f"{index:06}.jpg").write_bytes(jpegs[index % len(jpegs)])
    names = {f"thing {index}": index for index in range(1, X152_C4.classes + 1)}
    attributes = {f"such {index}": index for index in range(1, X152_C4.attributes + 1)}
    label_map.write_text(json.dumps({"label_to_idx": names, "attribute_to_idx": attributes}), encoding="utf-8")
    options = {
        "batch_size": batch,
        "device": "cuda",
        "label_map": str(label_map),
        "precision": "fp16",
        "weights": str(weights),
    }
    rows = []
    for workers in (1, 2):
        with utilization() as percents:
            start = time.perf_counter()
            extract_regions(
                str(images),
                str(folder / f"by-{workers}"),
                detector=DetectorChoice(name="vinvl", options=tuple(options.items())),
                cluster=ClusterOptions(cluster="local", workers=workers),
                samples_per_shard=size,
                quiet=True,
            )
            seconds = time.perf_counter() - start
        busy = [index for index, percent in enumerate(percents) if percent]
        during = percents[busy[0] : busy[-1] + 1] if busy else []  # not while weights are read
        title = f"extract-regions, {count} files, {workers} on the GPU"
        rows.append(Row(name=title, value=round(count / seconds, 1), unit="images/s, all in"))
        if during:
            idle = 100 - sum(during) / len(during)
            rows.append(Row(name="  GPU without work", value=round(idle, 1), unit=f"% of {len(during) / 10:.0f} s"))
    return rows


@contextmanager
def utilization() -> Iterator[list[int]]:
    """What `nvidia-smi` says ten times a second, in percent: in how much of the time before a kernel was running. Filled when the
    block ends."""
    command = ["nvidia-smi", "--query-gpu=utilization.gpu", "--format=csv,noheader,nounits", "--loop-ms=100", "--id=0"]
    percents: list[int] = []
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as asked:
        try:
            yield percents
        finally:
            asked.terminate()
            percents += [int(line) for line in asked.communicate()[0].splitlines() if line.strip().isdigit()]


def random_weights(path: Path) -> Path:
    """A weights file of the network's shapes; the sums along the residual stages grow slowly enough for fp16."""
    generator = torch.Generator().manual_seed(0)
    state = {}
    for name, shape in expected_shapes(empty_model(X152_C4), X152_C4).items():
        if name.endswith("bn3.weight"):
            state[name] = torch.full(shape, 0.2)
        elif len(shape) == 1:
            state[name] = torch.ones(shape) if name.endswith(("running_var", ".weight")) else torch.zeros(shape)
        elif name.endswith("cell_anchors.0"):
            sides = 16 * torch.arange(1, shape[0] + 1)[:, None] * torch.tensor([-1, -1, 1, 1])
            state[name] = sides + 8.0
        else:
            scale = math.sqrt(2 / math.prod(shape[1:])) * (
                0.02 if "stem" in name else 0.1 if "bbox_pred" in name else 1
            )
            state[name] = torch.randn(shape, generator=generator) * scale
    torch.save({"model": state}, path)
    return path


def pictures(folder: Path, count: int) -> list[bytes]:
    """JPEG files of `folder`, or drawn scenes of a photograph's size where it is not there."""
    files = sorted(folder.glob("*.jpg"))[:count]
    if files:
        return [file.read_bytes() for file in files]
    drawn = []
    for index in range(count):
        buffer = io.BytesIO()
        draw_scene(generate_scene(1, index)).resize((640, 480)).save(buffer, "JPEG", quality=90)
        drawn.append(buffer.getvalue())
    return drawn


def main() -> None:
    """Measure, print the table, write the rows."""
    parser = arguments(__doc__)
    parser.add_argument("--weights", type=Path, help="vinvl_vg_x152c4.pth (default: random weights of its shapes)")
    parser.add_argument("--photos", type=Path, default=PHOTOS, help="a folder of JPEG files (default: drawn scenes)")
    parser.add_argument("--images", type=int, default=4, help="how many of them")
    parser.add_argument("--threads", type=int, default=1, help="torch threads")
    parser.add_argument("--tflops", type=float, default=790.0, help="what the GPU can do in fp16 (default: an H200)")
    parser.add_argument(
        "--batch", type=int, default=8, help="images that go through the GPU's trunk together in a whole run"
    )
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    with tempfile.TemporaryDirectory() as folder:
        path = options.weights or random_weights(Path(folder) / "random.pth")
        loaded = load_weights(path, X152_C4)
        if torch.cuda.is_available():
            names = LabelMap(classes=("thing",) * X152_C4.classes, attributes=("such",) * X152_C4.attributes)
            detector = VinvlDetector(loaded, names, VinvlOptions(precision="fp16"), device=torch.device("cuda"))
            title = f"600x800, {torch.cuda.get_device_name()}, {options.tflops:.0f} TFLOP/s, torch {torch.__version__}"
            rows = sweep(detector, 3 if options.quick else 20, options.tflops)
            jpegs = pictures(options.photos, 64)
            shards, size = (2, 128) if options.quick else (5, 1000)
            rows += whole_runs(path, jpegs, shards, size, options.batch, Path(folder))
        else:
            tensors = torch.load(path, weights_only=True, mmap=True)["model"]
            jpegs = pictures(options.photos, 1 if options.quick else options.images)
            title = f"{len(jpegs)} images, fp32, {options.threads} torch threads, torch {torch.__version__}"
            cpu = torch.device("cpu")
            exact = inference_model(loaded.model, "fp32", cpu, exact=True)
            folded = inference_model(load_weights(path, X152_C4).model, "fp32", cpu, exact=False)
            rows = rates(exact, folded, ReferenceDetector(tensors), jpegs)
    report(title, rows, options.json)


if __name__ == "__main__":
    main()
