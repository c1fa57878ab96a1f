"""What the network is given."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from benchmarks.vinvl_reference import ReferenceDetector
from mvptr_data.detectors.vinvl.pixels import network_size, prepare, to_input
from tests.mvptr_data.detectors.vinvl.small import picture

sides = st.integers(1, 5000)


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        ((586, 640), (600, 655)),  # 655.29: cut, not rounded
        ((640, 425), (903, 600)),
        ((600, 600), (600, 600)),
        ((1500, 600), (1000, 400)),
        ((600, 901), (600, 901)),
        ((1000, 333), (1000, 333)),  # the shorter side has its length already
        ((1, 1), (600, 600)),
        ((3, 1), (999, 333)),
        ((100_000, 10), (1000, 1)),  # the reference would give it a side of 0
        ((10, 100_000), (1, 1000)),
    ],
)
def test_the_networks_sizes(size: tuple[int, int], expected: tuple[int, int]) -> None:
    assert network_size(*size) == expected


@given(sides, sides)
def test_every_size_has_pixels_and_is_turned_alike(width: int, height: int) -> None:
    resized = network_size(width, height)
    assert min(resized) >= 1 and min(resized) <= 600
    assert max(resized) <= 2000  # a shorter side of 1.5 rounds to 2 and takes the longer one with it
    assert network_size(height, width) == resized[::-1]


@pytest.mark.parametrize("size", [(586, 640), (640, 425), (1300, 400), (90, 70)])
def test_pixels_are_those_of_the_literal_translation(size: tuple[int, int]) -> None:
    image = picture(*size)
    expected = ReferenceDetector({}).preprocess(image)
    found = to_input([prepare(image).pixels], torch.device("cpu"))
    assert torch.equal(found, expected)
    assert found.is_contiguous(memory_format=torch.channels_last)


def test_a_prepared_image_remembers_its_size() -> None:
    prepared = prepare(picture(50, 40))
    assert prepared.size == (50, 40)
    assert prepared.pixels.shape == (600, 750, 3) and prepared.pixels.dtype == np.uint8


def test_another_mode_is_refused() -> None:
    with pytest.raises(ValueError, match="mode 'L'"):
        prepare(Image.new("L", (64, 64)))
