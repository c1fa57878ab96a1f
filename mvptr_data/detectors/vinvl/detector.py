"""The VinVL detector behind the `Detector` interface.

Shape shorthand: P proposals of an image, K regions kept, B images of one network size, D = 2048.
"""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, fields
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
from mvptr_data.detectors.vinvl.attributes import best_attributes
from mvptr_data.detectors.vinvl.hub import LABEL_MAP_FILE, WEIGHTS_FILE, fetch
from mvptr_data.detectors.vinvl.model import VinvlModel
from mvptr_data.detectors.vinvl.options import VinvlOptions
from mvptr_data.detectors.vinvl.pixels import LONG_SIDE_LIMIT, SHORT_SIDE, PreparedImage, prepare, to_input
from mvptr_data.detectors.vinvl.postprocess import Kept, Limits, select_regions
from mvptr_data.detectors.vinvl.rpn import propose
from mvptr_data.detectors.vinvl.weights import LoadedModel, load_weights
from mvptr_data.errors import InputError

#: Raised when the same weights and options begin to give other regions.
ALGORITHM_VERSION = 1

#: What `load` takes.
OPTIONS = ("weights", "label_map", "device", "batch_size", *(option.name for option in fields(VinvlOptions)))

#: Images that the trunk takes together unless told, and images that `detect` likes to see at once, by device type.
BATCH_SIZE = {"cpu": 1, "cuda": 8}
WINDOW = {"cpu": 16, "cuda": 128}

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
        by_size: dict[tuple[int, ...], list[int]] = defaultdict(list)
        for index, image in enumerate(prepared):
            by_size[image.pixels.shape].append(index)
        step = self.batch_size if self._device.type == "cuda" else 1
        found: dict[int, Regions] = {}
        with full_precision(self._device):
            for indices in by_size.values():
                for start in range(0, len(indices), step):
                    batch = indices[start : start + step]
                    found.update(zip(batch, self._detect_batch([prepared[index] for index in batch]), strict=True))
        return [found[index] for index in range(len(prepared))]

    def _detect_batch(self, images: Sequence[PreparedImage]) -> list[Regions]:
        """The regions of B images of one network size."""
        pixels = to_input([image.pixels for image in images], self._device)  # [B, 3, H, W]
        feature_maps = self._model.feature_maps(pixels)
        objectness, steps = self._model.rpn(feature_maps)
        anchors = self._model.rpn.anchors(*feature_maps.shape[2:])
        height, width = pixels.shape[2:]
        regions = []
        for index, image in enumerate(images):
            proposals = propose(
                objectness[index], steps[index], anchors, width=width, height=height, limit=self._options.proposals
            )
            vectors = self._model.roi.pool(feature_maps[index : index + 1], proposals)  # [P, D]
            class_logits = self._model.roi.classify(vectors)  # [P, C]
            kept = select_regions(self._options.postprocess, proposals, class_logits, self._limits)
            regions.append(self._regions(image, proposals[kept.indices], vectors[kept.indices], kept, width, height))
        return regions

    def _regions(
        self, image: PreparedImage, boxes: Tensor, vectors: Tensor, kept: Kept, width: int, height: int
    ) -> Regions:
        """Kept boxes [K, 4] in pixels of the network's input and their vectors [K, D] -> the image's regions."""
        attributes, attribute_scores = best_attributes(self._model.attribute(vectors, kept.labels))
        stretch = boxes.new_tensor([image.size[0] / width, image.size[1] / height]).repeat(2)
        labels = kept.labels.cpu()
        return Regions(
            boxes=order_corners(boxes * stretch).cpu().numpy(),
            features=vectors.cpu().numpy(),
            scores=kept.scores.cpu().numpy(),
            labels=labels.int().numpy(),
            tags=tuple(self._names.classes[label - 1] for label in labels.tolist()),
            attributes=tuple(tuple(self._names.attributes[index - 1] for index in row) for row in attributes),
            attribute_scores=tuple(map(tuple, attribute_scores)),
        )


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
