"""Any color mode that Pillow decodes, as 8-bit RGB: transparency over white, 16 bits scaled and not clipped."""

from __future__ import annotations

import numpy as np
from PIL import Image

_WHITE = (255, 255, 255)
_TRANSPARENT_MODES = ("RGBA", "RGBa", "LA", "La", "PA")


def to_rgb(image: Image.Image) -> Image.Image:
    """A decoded image as RGB. Raises `ValueError` for a mode that has no conversion.

    Integers of more than 8 bits and floats have no fixed white; see `to_eight_bits` for what is taken as such.
    """
    if image.mode.startswith("I") or image.mode == "F":
        return Image.fromarray(to_eight_bits(np.asarray(image))).convert("RGB")
    if image.mode in _TRANSPARENT_MODES or "transparency" in image.info:
        colors = image.convert("RGBA")
        opaque = Image.new("RGB", image.size, _WHITE)
        opaque.paste(colors, mask=colors.getchannel("A"))
        return opaque
    return image if image.mode == "RGB" else image.convert("RGB")


def to_eight_bits(values: np.ndarray) -> np.ndarray:
    """Gray values [H, W] of any number type as uint8 [H, W]: black is 0, white is the first of these that holds all values.

    Integers: 65535 (PNG, PGM and most TIFF). Floats: 1, 255, 65535. Values that fit none are stretched from their least to
    their greatest. NaN counts as 0, infinities as the nearest finite float32.
    """
    finite = np.nan_to_num(values.astype(np.float64), nan=0.0, posinf=3.4e38, neginf=-3.4e38)
    low, high = float(finite.min()), float(finite.max())
    whites = (65535.0,) if np.issubdtype(values.dtype, np.integer) else (1.0, 255.0, 65535.0)
    white = next((white for white in whites if low >= 0 and high <= white), None)
    if white is None:
        finite, white = finite - low, high - low
    return np.rint(finite * 255.0 / white if white else finite).astype(np.uint8)
