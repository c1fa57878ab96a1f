"""The VinVL detector behind the `Detector` interface.

Shape shorthand: P proposals of an image, K regions kept, B images of one network size, C classes with the background, D = 2048.

A GPU works through what it has been sent while the host goes on. So that it always has something to do, the host waits for the
next image's proposals only, and goes on with an image (`VinvlDetector._regions`) while the device computes the next.
"""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Generator, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from mvptr_data.detectors.boxes import order_corners
from mvptr_data.detectors.devices import choose_device
from mvptr_data.detectors.interface import Regions
from mvptr_data.detectors.label_map import LabelMap, load_label_map
from mvptr_data.detectors.vinvl.architecture import X152_C4
from mvptr_data.detectors.vinvl.attributes import rank_attributes, worth_naming
from mvptr_data.detectors.vinvl.hub import LABEL_MAP_FILE, WEIGHTS_FILE, fetch
from mvptr_data.detectors.vinvl.model import VinvlModel
from mvptr_data.detectors.vinvl.options import VinvlOptions
from mvptr_data.detectors.vinvl.pixels import LONG_SIDE_LIMIT, SHORT_SIDE, PreparedImage, prepare, to_input
from mvptr_data.detectors.vinvl.postprocess import Limits, class_probabilities, select_regions
from mvptr_data.detectors.vinvl.rpn import propose
from mvptr_data.detectors.vinvl.weights import LoadedModel, load_weights
from mvptr_data.errors import InputError
from mvptr_data.transfers import Fetched, sent

#: Raised when the same weights and options begin to give other regions.
ALGORITHM_VERSION = 1

#: What `load` takes.
OPTIONS = ("weights", "label_map", "device", "batch_size", *(option.name for option in fields(VinvlOptions)))

#: Images that the trunk takes together unless told, and images that `detect` likes to see at once, by device type. Whoever stops
#: a run waits for a window, and a CPU takes 20 s an image.
BATCH_SIZE = {"cpu": 1, "cuda": 8}
WINDOW = {"cpu": 1, "cuda": 128}

DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}


class VinvlDetector:
    """ResNeXt-152 C4 Faster R-CNN: 2048-d features, classes and attributes of the proposals themselves.

    Only images of one network size share a batch: nothing is padded, so that an image's regions cannot depend on its
    neighbors. On a CPU images go one by one, whatever `batch_size` says: torch picks other kernels, with other last bits, for
    1x1 convolutions of 16 images and more on one thread, and of small maps on several. `batch_size` may be set anew at any
    time, after a device ran out of memory, say.
    """

    name = "vinvl"

    def __init__(
        self,
        loaded: LoadedModel,
        names: LabelMap,
        options: VinvlOptions,
        *,
        device: torch.device,
        batch_size: int | None = None,
    ) -> None:
        self._digest = loaded.digest
        self._names = names
        self._options = options
        self._device = device
        self._model = inference_model(loaded.model, options.precision, device, exact=bool(options.exact))
        self._limits = Limits(
            threshold=options.score_threshold, minimum=options.min_regions, maximum=options.max_regions
        )
        self.batch_size = batch_size or BATCH_SIZE[device.type]
        self.window = WINDOW[device.type]

    def configuration(self) -> dict[str, object]:
        """See `Detector.configuration`. The batch size is not in it: it changes no result on a CPU, roundings on a GPU."""
        return {
            "name": self.name,
            "version": ALGORITHM_VERSION,
            "weights_sha256": self._digest,
            "label_map_sha256": self._names.digest(),
            "short_side": SHORT_SIDE,
            "long_side_limit": LONG_SIDE_LIMIT,
            "device": self._device.type,
            **asdict(self._options),
        }

    def prepare(self, image: Image.Image) -> PreparedImage:
        """`image` at its network size. Raises `ValueError` for an image that is not RGB."""
        return prepare(image)

    @torch.inference_mode()
    def detect(self, images: Sequence[Image.Image | PreparedImage]) -> list[Regions]:
        """See `Detector.detect`; takes images or what `prepare` made of them."""
        prepared = [image if isinstance(image, PreparedImage) else prepare(image) for image in images]
        found: dict[int, Regions] = {}
        begun: dict[int, Generator[None, None, Regions]] = {}
        with full_precision(self._device):
            for batch in self._batches(prepared):
                maps = self._maps([prepared[index] for index in batch])
                for place, index in enumerate(batch):
                    # The device computes this batch's maps, or the regions of the image before this one.
                    _go_on(begun, found, leave=1)
                    begun[index] = self._regions(prepared[index], maps, place)
                    next(begun[index])
            while begun:
                _go_on(begun, found)
        return [found[index] for index in range(len(prepared))]

    def _batches(self, images: Sequence[PreparedImage]) -> Iterator[list[int]]:
        """Which images share a batch: indices of images of one network size."""
        by_size: dict[tuple[int, ...], list[int]] = defaultdict(list)
        for index, image in enumerate(images):
            by_size[image.pixels.shape].append(index)
        step = self.batch_size if self._device.type == "cuda" else 1
        for indices in by_size.values():
            for start in range(0, len(indices), step):
                yield indices[start : start + step]

    def _maps(self, images: Sequence[PreparedImage]) -> _Maps:
        """What the network makes of B images of one network size before it looks at regions."""
        pixels = to_input([image.pixels for image in images], self._device)  # [B, 3, H, W]
        features = self._model.feature_maps(pixels)
        objectness, steps = self._model.rpn(features)
        height, width = pixels.shape[2:]
        return _Maps(
            features=features,
            objectness=objectness,
            steps=steps,
            anchors=self._model.rpn.anchors(*features.shape[2:]),
            width=width,
            height=height,
        )

    def _regions(self, image: PreparedImage, maps: _Maps, place: int) -> Generator[None, None, Regions]:
        """The regions of `image`, whose place in its batch is `place`. Yields where it would wait for the device: twice."""
        # 1. On the device: where things may be, and what they are.
        proposals = propose(
            maps.objectness[place],
            maps.steps[place],
            maps.anchors,
            width=maps.width,
            height=maps.height,
            limit=self._options.proposals,
        )
        vectors = self._model.roi.pool(maps.features[place : place + 1], proposals)  # [P, D]
        probabilities = class_probabilities(self._model.roi.classify(vectors))  # [P, C]
        fetched = Fetched(proposals, probabilities)
        stretch = torch.tensor([image.size[0] / maps.width, image.size[1] / maps.height]).repeat(2)
        del proposals, probabilities, maps
        yield

        # 2. On the host: which of them are regions. On the device: their attributes.
        boxes, probabilities = fetched.get()
        kept = select_regions(self._options.postprocess, boxes, probabilities, self._limits)
        vectors = vectors[sent(kept.indices, self._device)]  # [K, D]
        logits = self._model.attribute(vectors, sent(kept.labels, self._device))
        fetched = Fetched(vectors, *rank_attributes(logits))
        del vectors, logits
        yield

        # 3. On the host: all of it by name, in the image's own pixels.
        features, *ranked = fetched.get()
        attributes, attribute_scores = worth_naming(*ranked)
        return Regions(
            boxes=order_corners(boxes[kept.indices] * stretch).numpy(),
            features=features.numpy(),
            scores=kept.scores.numpy(),
            labels=kept.labels.int().numpy(),
            tags=tuple(self._names.classes[label - 1] for label in kept.labels.tolist()),
            attributes=tuple(tuple(self._names.attributes[index - 1] for index in row) for row in attributes),
            attribute_scores=tuple(map(tuple, attribute_scores)),
        )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Maps:
    """What comes before regions, of B images with N anchors each."""

    features: Tensor  # [B, 1024, H, W]
    objectness: Tensor  # [B, N]
    steps: Tensor  # [B, N, 4]
    anchors: Tensor  # [N, 4]
    #: Of the network's input.
    width: int
    height: int


def _go_on(begun: dict[int, Generator[None, None, Regions]], found: dict[int, Regions], leave: int = 0) -> None:
    """Each image's next step, but for the `leave` newest; images that are done move to `found`."""
    for index, steps in [*begun.items()][: len(begun) - leave]:
        try:
            next(steps)
        except StopIteration as end:
            found[index] = end.value
            del begun[index]


def inference_model(model: VinvlModel, precision: str, device: torch.device, *, exact: bool) -> VinvlModel:
    """`model` made ready, in place, on its device.

    `exact` leaves it as loaded, which is the reference's arithmetic. Otherwise normalization is folded, maps are channels last,
    a CPU pools after the first convolutions of res5, and the wide convolutions compute in `precision`: scores and box steps of
    the anchors, RoIAlign, the class and attribute layers, decoding, suppression and every softmax stay in fp32. They are
    under 1 % of the work, and what they decide cannot be half right.
    """
    model.to(device)
    if exact:
        return model
    model.fold()
    model.to(memory_format=torch.channels_last)
    for convolutions in (model.backbone, model.rpn.conv, model.roi.res5):
        convolutions.to(dtype=DTYPES[precision])
    model.roi.layout = torch.channels_last
    model.roi.commuted = device.type == "cpu"
    return model


def full_precision(device: torch.device) -> AbstractContextManager[None]:
    """fp32 means fp32: left alone, cuDNN rounds the inputs of fp32 convolutions to TF32."""
    return nullcontext() if device.type == "cpu" else torch.backends.cudnn.flags(enabled=True, allow_tf32=False)


def load(
    *,
    weights: str | os.PathLike[str] | None = None,
    label_map: str | os.PathLike[str] | None = None,
    device: str | None = None,
    batch_size: int | None = None,
    **options: Any,
) -> VinvlDetector:
    """The detector with the released weights and label map, or with those in the files given; see `VinvlOptions`.

    What is not given is fetched from the Hugging Face hub (`hub.py`), once. `device` is "cpu", "cuda" or "cuda:N"; without
    it, CUDA where there is one. `batch_size` images of one size go through the trunk together.
    """
    checked = VinvlOptions(**options)
    if batch_size is not None and (type(batch_size) is not int or batch_size < 1):
        raise InputError(f"batch_size is {batch_size!r}", "Give a whole number from 1.")
    chosen = choose_device(device)
    names = load_label_map(
        Path(label_map) if label_map else fetch(LABEL_MAP_FILE, "label_map"),
        classes=X152_C4.classes,
        attributes=X152_C4.attributes,
    )
    loaded = load_weights(Path(weights) if weights else fetch(WEIGHTS_FILE, "weights"), X152_C4)
    return VinvlDetector(loaded, names, checked, device=chosen, batch_size=batch_size)
