"""Every color mode as RGB, checked by values that can be worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from mvptr_data.sources.color import to_eight_bits, to_rgb


def pixel(image: Image.Image) -> tuple[int, ...]:
    converted = to_rgb(image)
    assert converted.mode == "RGB" and converted.size == image.size
    return converted.getpixel((0, 0))  # type: ignore[return-value]


@pytest.mark.parametrize(
    ("mode", "color", "expected"),
    [
        ("RGB", (1, 2, 3), (1, 2, 3)),
        ("L", 7, (7, 7, 7)),
        ("1", 1, (255, 255, 255)),
        ("RGBA", (200, 0, 0, 255), (200, 0, 0)),
        ("RGBA", (200, 0, 0, 0), (255, 255, 255)),
        ("RGBA", (0, 0, 0, 51), (204, 204, 204)),
        ("LA", (0, 51), (204, 204, 204)),
        ("CMYK", (0, 255, 255, 0), (255, 0, 0)),
        ("CMYK", (0, 0, 0, 255), (0, 0, 0)),
        ("YCbCr", (255, 128, 128), (255, 255, 255)),
        ("HSV", (0, 0, 90), (90, 90, 90)),
        ("I;16", 65535, (255, 255, 255)),
        ("I;16", 257 * 9, (9, 9, 9)),
        ("I;16B", 257 * 9, (9, 9, 9)),
        ("I", 257 * 9, (9, 9, 9)),
        ("F", 0.2, (51, 51, 51)),
    ],
)
def test_modes(mode: str, color: float | tuple[int, ...], expected: tuple[int, ...]) -> None:
    assert pixel(Image.new(mode, (3, 2), color)) == expected


def test_palette_and_its_transparency() -> None:
    image = Image.new("P", (2, 1), 0)
    image.putpalette([10, 20, 30, 40, 50, 60])
    image.putpixel((1, 0), 1)
    assert pixel(image) == (10, 20, 30)
    image.info["transparency"] = 0
    assert pixel(image) == (255, 255, 255)
    image.info["transparency"] = bytes([255, 0])
    assert to_rgb(image).tobytes() == bytes([10, 20, 30, 255, 255, 255])


def test_transparent_color_of_an_opaque_mode() -> None:
    image = Image.new("RGB", (2, 1), (1, 2, 3))
    image.putpixel((1, 0), (9, 9, 9))
    image.info["transparency"] = (1, 2, 3)
    assert to_rgb(image).tobytes() == bytes([255, 255, 255, 9, 9, 9])


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([[0, 65535]], [[0, 255]]),
        ([[-100, 0, 100]], [[0, 128, 255]]),
        ([[0, 1 << 20]], [[0, 255]]),
        ([[7, 7]], [[0, 0]]),
        ([[-5, -5]], [[0, 0]]),
        ([[0.0, 0.5, 1.0]], [[0, 128, 255]]),
        ([[0.0, 127.0, 255.0]], [[0, 127, 255]]),
        ([[0.0, 65535.0]], [[0, 255]]),
        ([[float("nan"), 1.0]], [[0, 255]]),
        ([[float("-inf"), float("inf")]], [[0, 255]]),
    ],
)
def test_more_than_eight_bits(values: list[list[float]], expected: list[list[int]]) -> None:
    integers = all(isinstance(value, int) for value in values[0])
    array = np.array(values, dtype=np.int32 if integers else np.float32)
    assert to_eight_bits(array).tolist() == expected


@given(st.lists(st.integers(0, 65535), min_size=1, max_size=30))
def test_sixteen_bits_keep_their_order_and_lie_within_half_a_step(values: list[int]) -> None:
    eight = to_eight_bits(np.array([values], dtype=np.uint16))[0]
    assert eight.dtype == np.uint8
    assert np.abs(eight * 257.0 - np.array(values)).max() <= 128.5
