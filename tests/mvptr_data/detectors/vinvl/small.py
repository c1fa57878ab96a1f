"""A narrow network of VinVL's design with random weights, for tests that need no photographs and no large file."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor

from mvptr_data.detectors.devices import choose_device
from mvptr_data.detectors.label_map import load_label_map
from mvptr_data.detectors.vinvl.architecture import Architecture, Stage
from mvptr_data.detectors.vinvl.detector import VinvlDetector
from mvptr_data.detectors.vinvl.model import empty_model
from mvptr_data.detectors.vinvl.options import VinvlOptions
from mvptr_data.detectors.vinvl.weights import COPY, ORIGINAL, expected_shapes, load_weights

SMALL = Architecture(
    stem=8,
    trunk=(
        Stage(blocks=1, width=8, outputs=16),
        Stage(blocks=2, width=16, outputs=24),
        Stage(blocks=2, width=24, outputs=32),
    ),
    res5=Stage(blocks=2, width=32, outputs=2048),
    groups=4,
    classes=40,
    attributes=12,
    label_width=8,
    attribute_width=16,
)


def small_state(seed: int = 0) -> dict[str, Tensor]:
    """Every tensor that a file for `SMALL` has, by its name there, the copy of res5 included."""
    generator = torch.Generator().manual_seed(seed)
    state = {}
    for name, shape in expected_shapes(empty_model(SMALL), SMALL).items():
        values = torch.randn(shape, generator=generator)
        if name.endswith("running_var"):
            values = 0.5 + values.abs()
        elif name.endswith("cell_anchors.0"):
            values = torch.tensor(ANCHORS)
        elif len(shape) == 1:
            values = 1 + 0.1 * values if ".bn" in name and name.endswith("weight") else 0.1 * values
        elif "bbox_pred" in name:
            values *= 0.1 / math.sqrt(shape[1])
        else:
            values *= math.sqrt(2 / math.prod(shape[1:]))
        if "stem.conv1" in name:
            values /= 64  # pixels run to 255
        if "cls_score.weight" in name or "attr_score.weight" in name:
            values -= values.mean(
                dim=1, keepdim=True
            )  # features are positive: what all regions share should decide little
            values *= 6
        state[name] = values
    copies = {COPY + name.removeprefix(ORIGINAL): value for name, value in state.items() if name.startswith(ORIGINAL)}
    return {**state, **copies}


#: The reference page's anchors.
ANCHORS = [
    *([-15.0, -4, 30, 19], [-38, -16, 53, 31], [-84, -40, 99, 55], [-176, -88, 191, 103], [-360, -184, 375, 199]),
    *([-8.0, -8, 23, 23], [-24, -24, 39, 39], [-56, -56, 71, 71], [-120, -120, 135, 135], [-248, -248, 263, 263]),
    *([-3.0, -14, 18, 29], [-14, -36, 29, 51], [-36, -80, 51, 95], [-80, -168, 95, 183], [-168, -344, 183, 359]),
]


def write_weights(path: Path, state: dict[str, Tensor] | None = None) -> Path:
    """A weights file in the released form."""
    torch.save({"model": state or small_state(), "iteration": 3}, path)
    return path


def write_safetensors(path: Path, state: dict[str, Tensor] | None = None) -> Path:
    """The same in safetensors, where two names cannot share a tensor."""
    save_file({name: value.clone() for name, value in (state or small_state()).items()}, path)
    return path


def write_label_map(path: Path, classes: int = SMALL.classes, attributes: int = SMALL.attributes) -> Path:
    """A label map in the released form."""
    content = {
        "label_to_idx": {f"thing {index}": index for index in range(1, classes + 1)},
        "attribute_to_idx": {f"such {index}": index for index in range(1, attributes + 1)},
    }
    path.write_text(json.dumps(content), encoding="utf-8")
    return path


def small_detector(
    folder: Path, *, device: str = "cpu", batch_size: int | None = None, **options: object
) -> VinvlDetector:
    """The small network behind the interface; its files are made in `folder` where they are not there."""
    weights, label_map = folder / "small.pth", folder / "labels.json"
    if not weights.exists():
        write_weights(weights)
        write_label_map(label_map)
    return VinvlDetector(
        load_weights(weights, SMALL),
        load_label_map(label_map, classes=SMALL.classes, attributes=SMALL.attributes),
        VinvlOptions(**options),  # type: ignore[arg-type]
        device=choose_device(device),
        batch_size=batch_size,
    )


def picture(width: int, height: int, seed: int = 0) -> Image.Image:
    """Coarse colored noise: something for a network to tell apart."""
    values = np.random.default_rng(seed).integers(0, 256, (7, 9, 3), dtype=np.uint8)
    return Image.fromarray(values).resize((width, height), Image.Resampling.BICUBIC)
