"""Pictures: pure, of the right form, and showing the things where the truth says they are."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mvptr_data.abstract_scenes import BACKGROUNDS, draw_scene, generate_scene
from mvptr_data.abstract_scenes.backdrops import draw_backdrop, plan_backdrop
from mvptr_data.abstract_scenes.sprites import sprite

#: The mean red, green and blue of the first pictures of world 0.
MEANS = [
    (184.23, 188.91, 175.88),
    (181.6, 186.18, 178.87),
    (183.7, 202.22, 201.52),
    (153.27, 177.42, 168.88),
    (169.98, 188.61, 173.41),
    (178.03, 174.38, 183.39),
]

keys = st.tuples(st.integers(0, 2**63), st.integers(0, 2**40))


@given(keys)
@settings(max_examples=20)
def test_pictures_are_pure_and_do_not_read_captions(key: tuple[int, int]) -> None:
    scene = generate_scene(*key)
    picture = draw_scene(scene)
    assert picture.mode == "RGB"
    assert picture.size == (scene.width, scene.height) == (256, 256)
    assert draw_scene(replace(scene, captions=())).tobytes() == picture.tobytes()


@given(keys)
@settings(max_examples=20)
def test_the_nearest_thing_is_seen_whole(key: tuple[int, int]) -> None:
    scene = generate_scene(*key)
    thing = scene.things[-1]
    figure = np.asarray(sprite(thing.kind, thing.color, thing.extent, thing.flip))
    x, y = thing.left, thing.top
    seen = np.asarray(draw_scene(scene))[y : y + figure.shape[0], x : x + figure.shape[1]]
    solid = figure[..., 3] == 255
    assert np.array_equal(seen[solid], figure[..., :3][solid])


@given(keys)
@settings(max_examples=20)
def test_things_change_only_pixels_near_their_boxes(key: tuple[int, int]) -> None:
    scene = generate_scene(*key)
    changed = (np.asarray(draw_scene(scene)) != np.asarray(draw_backdrop(*key))).any(2)
    for thing in scene.things:
        x1, y1, x2, y2 = (int(v) for v in thing.box)
        # 1 pixel of anti-aliased edge about it, and its shadow below.
        changed[max(y1 - 1, 0) : y2 + 9, max(x1 - 1, 0) : x2 + 1] = False
        width, height = sprite(thing.kind, thing.color, thing.extent, thing.flip).size
        changed[thing.top : thing.top + height + 9, thing.left : thing.left + width] = False
    assert not changed.any()


@pytest.mark.parametrize("background", BACKGROUNDS)
def test_backdrops_differ_from_scene_to_scene(background: str) -> None:
    indices = [i for i in range(60) if plan_backdrop(3, i).background == background][:3]
    pictures = [np.asarray(draw_backdrop(3, i), dtype=int) for i in indices]
    assert len(pictures) == 3
    for other in pictures[1:]:
        assert np.abs(pictures[0] - other).mean() > 1
    for picture in pictures:
        assert picture.std() > 5  # never one flat color


def test_horizon_and_shore_are_in_order() -> None:
    for index in range(200):
        drop = plan_backdrop(4, index)
        assert 0 < drop.horizon <= drop.shore < 200
        assert (drop.shore > drop.horizon) == (drop.background in ("beach", "lake"))


def test_pictures_are_the_ones_the_bundled_detector_learned() -> None:
    """Where this fails, pixels have changed: the detector's weights have to be trained again, and the means renewed."""
    means = [np.asarray(draw_scene(generate_scene(0, index))).mean((0, 1)) for index in range(len(MEANS))]
    assert np.allclose(means, MEANS, atol=0.5)
