"""The bundled detector on drawn pictures and on pictures it was never meant for."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence

import numpy as np
import pytest
from PIL import Image

from mvptr_data.abstract_scenes import COLORS, KINDS, SIZES, draw_scene, generate_scene
from mvptr_data.detectors import Detector, Regions, load_detector
from mvptr_data.detectors.compact.evaluate import measure
from mvptr_data.detectors.compact.pixels import network_size
from mvptr_data.detectors.compact.weights import BUNDLED_WEIGHTS
from mvptr_data.errors import InputError


@pytest.fixture(scope="module")
def detector() -> Detector:
    return load_detector("compact")


def drawn(count: int, seed: int = 3) -> list[Image.Image]:
    return [draw_scene(generate_scene(seed, index)) for index in range(count)]


def noise(width: int, height: int, seed: int = 0) -> Image.Image:
    values = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(values)


def same(first: Regions, second: Regions) -> bool:
    """Whether every part is equal, bit for bit."""
    pairs = [(getattr(first, field.name), getattr(second, field.name)) for field in dataclasses.fields(Regions)]
    return all(np.array_equal(a, b) if isinstance(a, np.ndarray) else a == b for a, b in pairs)


def check(regions: Regions, image: Image.Image) -> None:
    """What holds for every image."""
    assert 1 <= len(regions) <= 100
    x1, y1, x2, y2 = regions.boxes.T
    assert (x1 >= 0).all() and (x1 < x2).all() and (x2 <= image.width).all()
    assert (y1 >= 0).all() and (y1 < y2).all() and (y2 <= image.height).all()
    assert np.isfinite(regions.features).all() and np.isfinite(regions.scores).all()
    assert (np.diff(regions.scores) <= 0).all()
    assert [KINDS[label - 1] for label in regions.labels] == list(regions.tags)
    for names, scores in zip(regions.attributes, regions.attribute_scores, strict=True):
        assert len(names) == 2 and len({*names} & {*COLORS}) == 1 and len({*names} & {*SIZES}) == 1
        assert scores[0] >= scores[1] >= 0


def test_it_finds_what_was_drawn() -> None:
    evaluation = measure(BUNDLED_WEIGHTS, pictures=40, seed=424242).evaluation
    assert evaluation.ap50 > 0.85
    assert evaluation.attribute_accuracy > 0.93
    assert evaluation.recall > 0.85 and evaluation.precision > 0.85


@pytest.mark.parametrize(
    "size", [(1, 1), (2, 3), (1000, 10), (10, 1000), (4096, 256), (33, 500), (256, 256), (640, 427), (1333, 800)]
)
def test_any_size_gives_regions_inside_the_image(detector: Detector, size: tuple[int, int]) -> None:
    image = noise(*size)
    (regions,) = detector.detect([image])
    check(regions, image)


def test_a_gray_picture_turned_rgb_and_one_color_alone_give_regions(detector: Detector) -> None:
    gray = drawn(1)[0].convert("L").convert("RGB")
    plain = Image.new("RGB", (300, 200), (127, 127, 127))
    for image, regions in zip([gray, plain], detector.detect([gray, plain]), strict=True):
        check(regions, image)


def test_another_mode_is_refused(detector: Detector) -> None:
    with pytest.raises(ValueError, match="mode 'L'"):
        detector.detect([Image.new("L", (64, 64))])


def test_neighbors_in_a_call_change_nothing(detector: Detector) -> None:
    images = [*drawn(3), noise(300, 100), noise(64, 200), *drawn(1, seed=4)]
    together = detector.detect(images)
    alone = [detector.detect([image])[0] for image in images]
    backwards = detector.detect(images[::-1])[::-1]
    assert all(same(a, b) and same(a, c) for a, b, c in zip(together, alone, backwards, strict=True))


def test_no_images_no_regions(detector: Detector) -> None:
    assert detector.detect([]) == []


def test_boxes_follow_the_images_own_size(detector: Detector) -> None:
    enlarged = drawn(1)[0].resize((1000, 700), Image.Resampling.BICUBIC)
    at_network_size = enlarged.resize((256, 176), Image.Resampling.BILINEAR)  # what the detector itself shrinks it to
    large, small = detector.detect([enlarged, at_network_size])
    assert large.tags == small.tags and np.array_equal(large.features, small.features)
    np.testing.assert_allclose(large.boxes, small.boxes * np.tile([1000 / 256, 700 / 176], 2), rtol=1e-5)


def test_limits_and_threshold_choose_among_the_same_regions() -> None:
    images = drawn(4)
    everything, default, exactly_three = (
        load_detector("compact", **options).detect(images)
        for options in ({"score_threshold": 0.0}, {}, {"min_regions": 3, "max_regions": 3})
    )
    for all_of_them, confident, three in zip(everything, default, exactly_three, strict=True):
        count = max(1, int((all_of_them.scores >= 0.3).sum()))
        assert len(confident) == count and len(three) == 3
        assert np.array_equal(confident.boxes, all_of_them.boxes[:count])
        assert np.array_equal(three.scores, all_of_them.scores[:3])


def test_half_precision_finds_the_same_things(detector: Detector) -> None:
    images = drawn(6)
    half = load_detector("compact", precision="bf16")
    assert tags(half.detect(images)) == tags(detector.detect(images))


def tags(found: Sequence[Regions]) -> list[list[str]]:
    """The confident tags of each picture, in any order."""
    return [sorted(tag for tag, score in zip(r.tags, r.scores, strict=True) if score > 0.6) for r in found]


def test_the_configuration_tells_apart_what_changes_the_output(detector: Detector) -> None:
    configuration = detector.configuration()
    assert json.loads(json.dumps(configuration)) == configuration
    assert configuration == load_detector("compact").configuration()
    for option in (
        {"precision": "bf16"},
        {"score_threshold": 0.2},
        {"nms_iou": 0.4},
        {"proposals": 40},
        {"min_regions": 2},
    ):
        assert load_detector("compact", **option).configuration() != configuration


@pytest.mark.parametrize(
    "option",
    [
        {"max_regions": 1.5},
        {"score_threshold": "abc"},
        {"proposals": True},
        {"precision": "fp8"},
        {"nms_iou": 0.0},
        {"proposals": 0},
        {"score_threshold": 2.0},
        {"min_regions": 0},
    ],
)
def test_options_that_cannot_be_used_are_refused(option: dict[str, object]) -> None:
    with pytest.raises(InputError):
        load_detector("compact", **option)


def test_the_networks_sizes() -> None:
    assert network_size(256, 256) == (256, 256)
    assert network_size(640, 480) == (256, 192)
    assert network_size(427, 640) == (176, 256)
    assert network_size(1000, 10) == (256, 32)
    assert network_size(1, 1) == (256, 256)
