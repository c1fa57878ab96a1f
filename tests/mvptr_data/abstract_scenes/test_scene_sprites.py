"""What each kind looks like: drawable in every color and size, told apart by shape and by size alone."""

from __future__ import annotations

from itertools import combinations, product

import numpy as np
import pytest
from PIL import Image

from mvptr_data.abstract_scenes import COLORS, KINDS, SIZES
from mvptr_data.abstract_scenes.figures import FIGURES
from mvptr_data.abstract_scenes.sprites import COVERED, mask, sprite
from mvptr_data.abstract_scenes.traits import MISPLACED, TRAITS
from mvptr_data.abstract_scenes.vocabulary import BACKGROUNDS, COLOR_VALUES, SIZE_EXTENTS


def test_vocabulary_is_large_enough_and_every_kind_is_complete() -> None:
    assert len(KINDS) >= 16
    assert len(COLORS) >= 8
    assert len(SIZES) == 3
    assert set(FIGURES) == set(TRAITS) == set(KINDS)
    assert len(set(KINDS)) == len(KINDS)
    assert set(MISPLACED) == set(BACKGROUNDS)


@pytest.mark.parametrize("kind", KINDS)
def test_color_never_moves_an_edge(kind: str) -> None:
    for extent in (extents[0] for extents in SIZE_EXTENTS.values()):
        alphas = [np.asarray(sprite(kind, color, extent, False).getchannel("A")) for color in COLORS]
        assert all(np.array_equal(alphas[0], alpha) for alpha in alphas[1:])
        assert np.array_equal(mask(kind, extent, False), alphas[0] >= COVERED)
        assert np.array_equal(mask(kind, extent, True), mask(kind, extent, False)[:, ::-1])


@pytest.mark.parametrize("kind", KINDS)
def test_masks_are_cut_to_what_is_covered(kind: str) -> None:
    covered = mask(kind, SIZE_EXTENTS["medium"][0], False)
    assert covered[0].any()
    assert covered[-1].any()
    assert covered[:, 0].any()
    assert covered[:, -1].any()


def test_sizes_are_told_apart_by_extent_alone() -> None:
    def longest_sides(size: str) -> list[int]:
        return [max(mask(kind, extent, False).shape) for kind, extent in product(KINDS, SIZE_EXTENTS[size])]

    assert max(longest_sides("small")) * 1.3 < min(longest_sides("medium"))
    assert max(longest_sides("medium")) * 1.3 < min(longest_sides("large"))


def test_kinds_are_told_apart_by_shape() -> None:
    shapes = {}
    for kind in KINDS:
        scaled = Image.fromarray(mask(kind, 102, False)).resize((32, 32))
        shapes[kind] = np.asarray(scaled) > 0
    for a, b in combinations(KINDS, 2):
        shared = (shapes[a] & shapes[b]).sum() / (shapes[a] | shapes[b]).sum()
        assert shared < 0.93, f"{a} and {b} have one outline"


def test_colors_are_told_apart() -> None:
    for a, b in combinations(COLORS, 2):
        distance = np.linalg.norm(np.subtract(COLOR_VALUES[a], COLOR_VALUES[b]))
        assert distance > 90, f"{a} and {b} are {distance:.0f} apart"


@pytest.mark.parametrize("kind", KINDS)
def test_a_thing_shows_its_color(kind: str) -> None:
    for color in COLORS:
        pixels = np.asarray(sprite(kind, color, 102, False))
        body = pixels[pixels[..., 3] == 255][:, :3].astype(int)
        near = np.abs(body - COLOR_VALUES[color]).sum(1) <= 6
        assert near.mean() > 0.13, f"{near.mean():.2f} of a {color} {kind} is {color}"
