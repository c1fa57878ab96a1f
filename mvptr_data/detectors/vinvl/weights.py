"""Weights files: the released one as it is, or safetensors with the same names (reference page, "State dict")."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from mvptr_data.detectors.vinvl.architecture import Architecture
from mvptr_data.detectors.vinvl.layers import NormalizedConv, frozen_normalization
from mvptr_data.detectors.vinvl.model import VinvlModel, empty_model
from mvptr_data.errors import DamagedFileError
from mvptr_data.tensor_files import read_tensors

#: How parts of the model are called in the file.
FILE_NAMES = {
    "backbone.stem": "backbone.body.stem.conv1",
    "backbone.": "backbone.body.",
    "rpn.cell_anchors": "rpn.anchor_generator.cell_anchors.0",
    "rpn.": "rpn.head.",
    "roi.res5.": "roi_heads.box.feature_extractor.head.layer4.",
    "roi.": "roi_heads.box.predictor.",
    "attribute.": "attribute.predictor.",
}
NORM_PARTS = ("weight", "bias", "running_mean", "running_var")
#: The attribute head's own copy of res5, and what it is a copy of: one layer, twice in the file.
COPY, ORIGINAL = "attribute.feature_extractor.", "roi_heads.box.feature_extractor."
#: Box regression of the classes: in the file, without use for features.
BOX_REGRESSION = "roi_heads.box.predictor.bbox_pred"


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadedModel:
    """A network in fp32 and the sha256 (hex) of the file it came from."""

    model: VinvlModel
    digest: str


def load_weights(path: Path, architecture: Architecture) -> LoadedModel:
    """The network in `path`.

    Raises `InputError` where the file cannot be opened, and `DamagedFileError` where it is torn, is no weights file, or
    its names and shapes are not those of the network.
    """
    found, digest = read_tensors(path)
    tensors = _without_copy(path, found)
    model = empty_model(architecture)
    _check(path, tensors, expected_shapes(model, architecture))
    model.load_state_dict(_state(path, tensors, model), assign=True)
    return LoadedModel(model=model.requires_grad_(False), digest=digest)


def file_name(name: str) -> str:
    """The name in the file of a module or buffer of the model."""
    ours = next(prefix for prefix in FILE_NAMES if name.startswith(prefix))
    return FILE_NAMES[ours] + name.removeprefix(ours)


def norm_names(name: str) -> tuple[str, str]:
    """The names in the file of a convolution's weight and, without its last part, of the normalization behind it."""
    stem, _, last = file_name(name).rpartition(".")
    if last == "downsample":
        return f"{stem}.downsample.0.weight", f"{stem}.downsample.1"
    return f"{stem}.{last}.weight", f"{stem}.{last.replace('conv', 'bn')}"


def expected_shapes(model: VinvlModel, architecture: Architecture) -> dict[str, tuple[int, ...]]:
    """Every name that a file must have, the copy of res5 aside, and its shape."""
    shapes: dict[str, tuple[int, ...]] = {}
    for name, module in model.named_modules():
        if isinstance(module, NormalizedConv):
            weight, norm = norm_names(name)
            shapes[weight] = tuple(module.weight.shape)
            shapes.update({f"{norm}.{part}": (module.out_channels,) for part in NORM_PARTS})
        elif isinstance(module, (nn.Conv2d, nn.Linear, nn.Embedding)):
            shapes.update(
                {f"{file_name(name)}.{part}": tuple(value.shape) for part, value in module.named_parameters()}
            )
    shapes[file_name("rpn.cell_anchors")] = tuple(model.rpn.cell_anchors.shape)
    boxes = 4 * (architecture.classes + 1)
    shapes[f"{BOX_REGRESSION}.weight"] = (boxes, architecture.res5.outputs)
    shapes[f"{BOX_REGRESSION}.bias"] = (boxes,)
    return shapes


def _without_copy(path: Path, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The tensors less the attribute head's copy of res5, which must be one."""
    kept = {}
    for name, value in tensors.items():
        if not name.startswith(COPY):
            kept[name] = value
            continue
        original = tensors.get(ORIGINAL + name.removeprefix(COPY))
        if original is None or not torch.equal(original, value):
            raise DamagedFileError(
                f"{name!r} in {str(path)!r} is not equal to its original under {ORIGINAL!r}",
                "In VinVL's weights the two heads share this stage; this detector runs it once.",
            )
    return kept


def _check(path: Path, tensors: Mapping[str, Tensor], expected: Mapping[str, tuple[int, ...]]) -> None:
    """Raises `DamagedFileError` where names or shapes are not those expected."""
    mend = "Give weights of VinVL's X152-C4 detector (vinvl_vg_x152c4.pth)."
    for what, names in (
        ("lacks", sorted(expected.keys() - tensors.keys())),
        ("has, unexpectedly,", sorted(tensors.keys() - expected.keys())),
    ):
        if names:
            more = f" and {len(names) - 1} more" if len(names) > 1 else ""
            raise DamagedFileError(f"{str(path)!r} {what} {names[0]!r}{more}", mend)
    for name, shape in expected.items():
        if tuple(tensors[name].shape) != shape or not tensors[name].is_floating_point():
            found = f"{tensors[name].dtype} {tuple(tensors[name].shape)}".removeprefix("torch.")
            raise DamagedFileError(f"{name!r} in {str(path)!r} is {found}, the network has {shape}", mend)


def _state(path: Path, tensors: Mapping[str, Tensor], model: VinvlModel) -> dict[str, Tensor]:
    """The model's state dict, in fp32 and memory of its own."""
    state: dict[str, Tensor] = {}
    for name, module in model.named_modules():
        if isinstance(module, NormalizedConv):
            weight, norm = norm_names(name)
            parts = {part: tensors[f"{norm}.{part}"].float() for part in NORM_PARTS}
            state[f"{name}.weight"] = tensors[weight].float().clone()
            state[f"{name}.scale"], state[f"{name}.shift"] = frozen_normalization(parts)
        elif isinstance(module, (nn.Conv2d, nn.Linear, nn.Embedding)):
            for part, _ in module.named_parameters():
                state[f"{name}.{part}"] = tensors[f"{file_name(name)}.{part}"].float().clone()
    state["rpn.cell_anchors"] = tensors[file_name("rpn.cell_anchors")].float().clone()
    for name, value in state.items():
        if not value.isfinite().all():
            raise DamagedFileError(
                f"{str(path)!r} gives numbers that are not finite for {name!r}",
                "Its bytes are damaged: fetch it again.",
            )
    return state
