"""Images to the network's input (reference page, "Preprocess").

Shape shorthand: B images resized to H x W pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from mvptr_data.transfers import sent

#: The shorter side becomes the first, unless the longer one would pass the second (INPUT.MIN_SIZE_TEST, MAX_SIZE_TEST).
SHORT_SIDE, LONG_SIDE_LIMIT = 600, 1000
#: Taken from blue, green and red, of 0 to 255 (INPUT.PIXEL_MEAN; the spread is 1).
PIXEL_MEAN = (103.530, 116.280, 123.675)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PreparedImage:
    """An image at its network size, and the size it had."""

    #: uint8 [H, W, 3], RGB.
    pixels: np.ndarray
    #: Width and height of the image itself.
    size: tuple[int, int]


def network_size(width: int, height: int) -> tuple[int, int]:
    """Width and height that an image of `width` x `height` pixels is resized to.

    The shorter side becomes 600 or, where the longer one would pass 1000, what brings that near 1000; the longer side is
    truncated, not rounded. An image whose shorter side has that length already stays as it is. The reference fails on an
    image more slender than 2000:1, whose shorter side would become 0; here it becomes 1 and the longer one 1000.
    """
    low, high = min(width, height), max(width, height)
    short = SHORT_SIDE
    if high / low * short > LONG_SIDE_LIMIT:
        short = round(LONG_SIDE_LIMIT * low / high)
    if low == short:
        return width, height
    if short == 0:
        short, long = 1, LONG_SIDE_LIMIT
    else:
        long = int(short * high / low)
    return (short, long) if width < height else (long, short)


def prepare(image: Image.Image) -> PreparedImage:
    """`image` resized; keeps no state, so any thread may call it. Raises `ValueError` for an image that is not RGB."""
    if image.mode != "RGB":
        raise ValueError(f"the detector takes RGB images, got mode {image.mode!r}")
    size = network_size(*image.size)
    resized = image if image.size == size else image.resize(size, Image.Resampling.BILINEAR)
    return PreparedImage(pixels=np.array(resized), size=image.size)


def to_input(pixels: Sequence[np.ndarray], device: torch.device) -> Tensor:
    """B arrays uint8 [H, W, 3] of one size -> float32 [B, 3, H, W], BGR minus its mean, channels last in memory."""
    stacked = torch.empty((len(pixels), *pixels[0].shape), dtype=torch.uint8, pin_memory=device.type == "cuda")
    for row, image in zip(stacked, pixels, strict=True):  # [B, H, W, 3]
        row.copy_(torch.from_numpy(image))
    # The reference scales to 0..1 and back; in float32 each of the 256 values returns exactly.
    blue_first = sent(stacked, device).flip(3).float()
    return blue_first.sub_(sent(torch.tensor(PIXEL_MEAN), device)).permute(0, 3, 1, 2)
