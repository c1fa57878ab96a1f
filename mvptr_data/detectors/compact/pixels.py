"""Images to the network's input."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from mvptr_data.detectors.compact.backbone import SIZE_DIVISOR

#: The longer side of the network's input, in pixels: that of the pictures it was trained on.
NETWORK_SIZE = 256
#: The shorter side's least length: room for the smallest anchors in a very slender picture.
MIN_SIDE = 32


def network_size(width: int, height: int) -> tuple[int, int]:
    """Width and height that an image of `width` x `height` pixels is resized to.

    The longer side becomes 256 and the other keeps the aspect ratio, rounded to a multiple of 16. Pictures more slender
    than 8:1 are stretched to a shorter side of 32.
    """
    scale = NETWORK_SIZE / max(width, height)
    sides = (max(MIN_SIDE, round(side * scale / SIZE_DIVISOR) * SIZE_DIVISOR) for side in (width, height))
    resized_width, resized_height = sides
    return resized_width, resized_height


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PreparedPicture:
    """An image at its network size, uint8 [3, H, W], and the width and height it had."""

    pixels: Tensor
    size: tuple[int, int]


def prepare(image: Image.Image) -> PreparedPicture:
    """What the network takes of an image, and a hundredth of a photograph's memory. Raises as `to_pixels`."""
    return PreparedPicture(pixels=to_pixels(image), size=image.size)


def to_pixels(image: Image.Image) -> Tensor:
    """RGB image -> uint8 [3, H, W] at its network size. Raises `ValueError` for another mode."""
    if image.mode != "RGB":
        raise ValueError(f"the detector takes RGB images, got mode {image.mode!r}")
    size = network_size(*image.size)
    if image.size != size:
        image = image.resize(size, Image.Resampling.BILINEAR)
    return torch.from_numpy(np.asarray(image).copy()).permute(2, 0, 1)
