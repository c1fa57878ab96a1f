"""A detectron2 model behind the `Detector` interface.

Shape shorthand: R proposals of an image, K regions kept, C classes without the background, A attributes, D = 2048.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass, fields
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from mvptr_data.detectors.boxes import clip
from mvptr_data.detectors.detectron2.attributes import AttributeHead
from mvptr_data.detectors.detectron2.config_file import read_config
from mvptr_data.detectors.detectron2.names import checked, read_vocabulary
from mvptr_data.detectors.detectron2.network import build_network, run, settings_of
from mvptr_data.detectors.detectron2.options import Detectron2Options
from mvptr_data.detectors.detectron2.postprocess import choose
from mvptr_data.detectors.detectron2.weights import read_weights
from mvptr_data.detectors.devices import choose_device
from mvptr_data.detectors.interface import Regions
from mvptr_data.detectors.label_map import read_names
from mvptr_data.errors import InputError, MissingDependencyError
from mvptr_data.storage import digest

#: Raised when the same model and options begin to give other regions.
ALGORITHM_VERSION = 1
INSTALLATION = "https://detectron2.readthedocs.io/en/latest/tutorials/install.html"
#: What `load` takes.
OPTIONS = (
    *("config", "weights", "classes", "attributes", "label_map", "device"),
    *(option.name for option in fields(Detectron2Options)),
)

_DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}


@dataclass(frozen=True, slots=True, kw_only=True)
class Names:
    """What the network's outputs are called; no attributes where it has no head for them."""

    classes: tuple[str, ...]
    attributes: tuple[str, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Prepared:
    """An image as the network wants it: uint8 [H, W, 3] in the config's channel order, and the size it had, in pixels."""

    pixels: np.ndarray
    width: int
    height: int


class Detectron2Detector:
    """A model of detectron2, one image at a time: images padded to one size would change each other's borders."""

    name = "detectron2"

    def __init__(
        self,
        model: Any,
        head: AttributeHead | None,
        *,
        settings: Any,
        names: Names,
        options: Detectron2Options,
        weights_digest: str,
        device: torch.device,
    ) -> None:
        self._model, self._head = model.to(device), None if head is None else head.to(device)
        self._settings, self._names, self._options = settings, names, options
        self._device, self._weights_digest = device, weights_digest
        self.window = 1 if device.type == "cpu" else 16  # whoever stops a run waits for a window
        heads = settings.MODEL.ROI_HEADS
        self._nms_iou = float(heads.NMS_THRESH_TEST if options.nms_iou is None else options.nms_iou)

    def configuration(self) -> dict[str, object]:
        """See `Detector.configuration`."""
        import detectron2

        model, size = self._settings.MODEL, self._settings.INPUT
        return {
            "name": self.name,
            "version": ALGORITHM_VERSION,
            "detectron2": detectron2.__version__,
            "weights_sha256": self._weights_digest,
            "config_sha256": sha256(f"{model.dump()}\n{size.dump()}".encode()).hexdigest(),
            "names_sha256": digest(asdict(self._names)),
            "heads": model.ROI_HEADS.NAME,
            "shorter_side": size.MIN_SIZE_TEST,
            "longer_side": size.MAX_SIZE_TEST,
            **asdict(self._options),
            "nms_iou": self._nms_iou,
            "device": self._device.type,
        }

    def prepare(self, image: Image.Image) -> Prepared:
        """See `Detector`. Resized as detectron2's `DefaultPredictor` does; raises `ValueError` for an image that is not RGB."""
        from detectron2.data.transforms import ResizeShortestEdge

        if image.mode != "RGB":
            raise ValueError(f"an RGB image is needed, this one is {image.mode}")
        size = self._settings.INPUT
        height, width = image.height, image.width
        if size.MIN_SIZE_TEST > 0:
            height, width = ResizeShortestEdge.get_output_shape(height, width, size.MIN_SIZE_TEST, size.MAX_SIZE_TEST)
        pixels = np.array(image.resize((width, height), Image.Resampling.BILINEAR))
        ordered = np.ascontiguousarray(pixels[:, :, ::-1]) if size.FORMAT == "BGR" else pixels
        return Prepared(ordered, image.width, image.height)

    def detect(self, images: Sequence[Image.Image | Prepared]) -> list[Regions]:
        """See `Detector.detect`. Raises `ValueError` for an image that is not RGB, or where the network's numbers overflow."""
        return [self._regions(image if isinstance(image, Prepared) else self.prepare(image)) for image in images]

    @torch.inference_mode()
    def _regions(self, image: Prepared) -> Regions:
        # 1. What the network says.
        pixels = torch.from_numpy(image.pixels).to(self._device).permute(2, 0, 1).float()
        height, width = pixels.shape[1:]
        dtype = _DTYPES[self._options.precision]
        with self._full_precision(), torch.autocast(self._device.type, dtype=dtype, enabled=dtype != torch.float32):
            found = run(self._model, pixels)

        # 2. Which of it becomes regions.
        proposals, classes, boxes, scores = choose(
            found.boxes, found.probabilities, height=height, width=width, nms_iou=self._nms_iou, options=self._options
        )
        if not len(proposals):
            raise ValueError("the network gives no box with finite numbers inside the image")
        vectors = found.vectors[proposals]
        attributes, attribute_scores = self._attributes(vectors, found.probabilities[proposals].argmax(dim=1))

        # 3. Back to the image's own pixels.
        stretch = boxes.new_tensor([image.width / width, image.height / height]).repeat(2)
        return Regions(
            boxes=clip(boxes * stretch, image.width, image.height).cpu().numpy(),
            features=vectors.cpu().numpy(),
            scores=scores.cpu().numpy(),
            labels=(classes + 1).int().cpu().numpy(),
            tags=tuple(self._names.classes[index] for index in classes.tolist()),
            attributes=attributes,
            attribute_scores=attribute_scores,
        )

    def _full_precision(self) -> AbstractContextManager[None]:
        """fp32 means fp32: cuDNN would round the inputs of fp32 convolutions to TF32."""
        return (
            nullcontext() if self._device.type == "cpu" else torch.backends.cudnn.flags(enabled=True, allow_tf32=False)
        )

    def _attributes(
        self, vectors: Tensor, classes: Tensor
    ) -> tuple[tuple[tuple[str, ...], ...], tuple[tuple[float, ...], ...]]:
        """[K, D], int64 [K] -> the likely attributes of each region, best first, and their probabilities."""
        if self._head is None:
            return ((),) * len(vectors), ((),) * len(vectors)
        values, indices = self._head(vectors, classes).sort(dim=1, descending=True, stable=True)  # [K, A]
        counts = (values >= self._options.attribute_threshold).sum(dim=1).tolist()
        names = self._names.attributes
        return (
            tuple(
                tuple(names[index] for index in row[:count])
                for row, count in zip(indices.tolist(), counts, strict=True)
            ),
            tuple(tuple(row[:count]) for row, count in zip(values.tolist(), counts, strict=True)),
        )


def load(
    *,
    config: str | os.PathLike[str] | None = None,
    weights: str | os.PathLike[str] | None = None,
    classes: str | os.PathLike[str] | None = None,
    attributes: str | os.PathLike[str] | None = None,
    label_map: str | os.PathLike[str] | None = None,
    device: str | None = None,
    **options: Any,
) -> Detectron2Detector:
    """The model of a YAML `config` with the `weights` of a .pth or .safetensors file; see `Detectron2Options` for the rest.

    `classes` and `attributes` are text files with one name a line; `label_map` is JSON with both. Without them detectron2's
    own names of the config's data set are taken. `device` is cuda where there is one, else cpu.

    Raises `MissingDependencyError` where detectron2 is not installed, `InputError` for what cannot be used and
    `DamagedFileError` for files that are torn or do not belong together.
    """
    chosen = Detectron2Options(**options)
    for name, value in (("config", config), ("weights", weights)):
        if value is None:
            raise InputError(f"the detector 'detectron2' needs {name}", f"Give --{name} FILE.")
    _check_installed()
    place = choose_device(device)
    if place.type == "cpu" and chosen.precision == "fp16":
        raise InputError("precision is fp16 on a CPU, where it saves nothing", "Use bf16 or fp32.")
    settings = settings_of(read_config(Path(config or "")))
    tensors, weights_digest = read_weights(Path(weights or ""))
    model, head = build_network(settings, tensors)
    count = settings.MODEL.ROI_HEADS.NUM_CLASSES
    names = Names(
        classes=_names(classes, label_map, count, "classes", settings),
        attributes=_names(attributes, label_map, head.attributes, "attributes", settings) if head else (),
    )
    return Detectron2Detector(
        model, head, settings=settings, names=names, options=chosen, weights_digest=weights_digest, device=place
    )


def _check_installed() -> None:
    if importlib.util.find_spec("detectron2") is None:
        raise MissingDependencyError("detectron2 is not installed here", f"How to install it: {INSTALLATION}")
    try:
        importlib.import_module("detectron2.modeling")
    except ImportError as error:
        raise MissingDependencyError(
            f"detectron2 is installed, but cannot be imported: {error}",
            f"It has to be built for this torch ({torch.__version__}): {INSTALLATION}",
        ) from error


def _names(
    file: str | os.PathLike[str] | None, label_map: str | os.PathLike[str] | None, count: int, what: Any, settings: Any
) -> tuple[str, ...]:
    if file is not None:
        return read_vocabulary(Path(file), count, what)
    if label_map is not None:
        return read_names(Path(label_map), what, count)
    from detectron2.data import MetadataCatalog

    known = "thing_classes" if what == "classes" else "attr_classes"
    for data_set in (*settings.DATASETS.TEST, *settings.DATASETS.TRAIN):
        if data_set in MetadataCatalog.list() and (found := MetadataCatalog.get(data_set).get(known)):
            return checked(tuple(found), count, what, f"detectron2's data set {data_set!r}")
    raise InputError(
        f"nothing says what the model's {count} {what} are called",
        f"Give {what}=FILE with one name a line, or label_map=FILE (JSON).",
    )
