"""The detector behind the interface: a narrow network, any image, every option."""

from __future__ import annotations

import dataclasses
import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from benchmarks.vinvl_reference import RULES, ReferenceDetector
from mvptr_data.detectors import Regions, load_detector
from mvptr_data.detectors.boxes import order_corners
from mvptr_data.detectors.vinvl.agreement import compare, view
from mvptr_data.detectors.vinvl.detector import OPTIONS, VinvlDetector, inference_model
from mvptr_data.detectors.vinvl.weights import load_weights
from mvptr_data.errors import DamagedFileError, InputError
from tests.mvptr_data.detectors.vinvl.alike import Expected, compare_regions
from tests.mvptr_data.detectors.vinvl.small import (
    SMALL,
    picture,
    small_detector,
    small_state,
    write_label_map,
    write_weights,
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("small")


@pytest.fixture(scope="module")
def detector(folder: Path) -> VinvlDetector:
    return small_detector(folder)


def same(first: Regions, second: Regions) -> bool:
    """Whether every part is equal, bit for bit."""
    pairs = [(getattr(first, field.name), getattr(second, field.name)) for field in dataclasses.fields(Regions)]
    return all(np.array_equal(a, b) if isinstance(a, np.ndarray) else a == b for a, b in pairs)


def check(regions: Regions, image: Image.Image) -> None:
    """What holds for every image."""
    assert 1 <= len(regions) <= 100
    x1, y1, x2, y2 = regions.boxes.T
    assert (x1 >= 0).all() and (x1 <= x2).all() and (x2 <= image.width).all()
    assert (y1 >= 0).all() and (y1 <= y2).all() and (y2 <= image.height).all()
    assert np.isfinite(regions.features).all() and np.isfinite(regions.scores).all()
    assert (np.diff(regions.scores) <= 0).all()
    assert [f"thing {label}" for label in regions.labels] == list(regions.tags)
    for names, scores in zip(regions.attributes, regions.attribute_scores, strict=True):
        assert len(names) == len(set(names)) <= 16
        assert list(scores) == sorted(scores, reverse=True) and all(score > 0.05 for score in scores)


@pytest.mark.parametrize("size", [(500, 400), (333, 640)])
def test_regions_are_the_literal_translations_bit_for_bit(folder: Path, size: tuple[int, int]) -> None:
    image = picture(*size, seed=3)
    for rule in RULES:
        literal = ReferenceDetector(small_state(), groups=SMALL.groups).detect(image, rule)
        (found,) = small_detector(folder, postprocess=rule).detect([image])
        assert np.array_equal(found.boxes, order_corners(literal.boxes).numpy())
        for part in ("labels", "scores", "features"):
            assert np.array_equal(getattr(found, part), getattr(literal, part).numpy()), part
        for row, (names, scores) in enumerate(zip(found.attributes, found.attribute_scores, strict=True)):
            expected = literal.attribute_scores[row][: len(scores)].tolist()
            assert list(scores) == expected and (literal.attribute_scores[row][len(scores) :] == 0).all()
            indices = literal.attribute_labels[row][: len(names)].tolist()
            assert list(names) == [f"such {index}" for index in indices]
        assert any(found.attributes)


@pytest.mark.parametrize("size", [(500, 400), (333, 640)])
def test_folded_it_gives_the_same_up_to_roundings(folder: Path, size: tuple[int, int]) -> None:
    """Normalization is folded and RoIAlign comes later: proposals, classes, attributes and order stay."""
    image = picture(*size, seed=3)
    names = [f"such {index}" for index in range(1, SMALL.attributes + 1)]
    for rule in RULES:
        literal = ReferenceDetector(small_state(), groups=SMALL.groups).detect(image, rule)
        (found,) = small_detector(folder, postprocess=rule, exact=False).detect([image])
        parts = {field.name: getattr(literal, field.name).numpy() for field in dataclasses.fields(Expected)}
        differences = compare_regions(found, Expected(**parts), names, rounding=1e-4)
        assert differences.boxes < 1e-2 and differences.features < 1e-3
        assert any(found.attributes)


@pytest.mark.parametrize(
    "size", [(1, 1), (2, 3), (1000, 10), (10, 1000), (5000, 2), (1, 4000), (33, 500), (600, 600), (640, 427)]
)
def test_any_size_gives_regions_inside_the_image(detector: VinvlDetector, size: tuple[int, int]) -> None:
    image = picture(*size)
    (regions,) = detector.detect([image])
    check(regions, image)


def test_one_color_gives_regions(detector: VinvlDetector) -> None:
    image = Image.new("RGB", (300, 200), (127, 127, 127))
    (regions,) = detector.detect([image])
    check(regions, image)


def test_another_mode_is_refused(detector: VinvlDetector) -> None:
    with pytest.raises(ValueError, match="mode 'L'"):
        detector.detect([Image.new("L", (64, 64))])


def test_no_images_no_regions(detector: VinvlDetector) -> None:
    assert detector.detect([]) == []


def test_batched_equals_single(folder: Path) -> None:
    """Bit for bit, whatever the sizes beside each other, and in the order given."""
    sizes = [(640, 480), (480, 640), (320, 240), (1280, 960), (480, 640)]  # three of one size, two of another
    images = [picture(*size, seed=seed) for seed, size in enumerate(sizes)]
    single = small_detector(folder, proposals=40)
    alone = [single.detect([image])[0] for image in images]
    for batch_size in (2, 8):
        together = small_detector(folder, batch_size=batch_size, proposals=40).detect(images[::-1])[::-1]
        assert all(same(a, b) for a, b in zip(alone, together, strict=True))


def test_prepared_images_give_the_same_from_any_thread(detector: VinvlDetector) -> None:
    images = [picture(200 + 40 * seed, 300, seed) for seed in range(4)]
    with ThreadPoolExecutor(4) as pool:
        prepared = list(pool.map(detector.prepare, images))
    mixed = [prepared[0], images[1], prepared[2], prepared[3]]
    found = detector.detect(mixed)
    assert all(same(a, b) for a, b in zip(found, detector.detect(images), strict=True))


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_half_precision_sees_nearly_the_same(folder: Path, precision: str) -> None:
    images = [picture(400, 300)]
    cpu = torch.device("cpu")
    plain, half = (
        inference_model(load_weights(write_weights(folder / "half.pth"), SMALL).model, kind, cpu, exact=False)
        for kind in ("fp32", precision)
    )
    assert half.backbone.stem.weight.dtype != torch.float32 and half.roi.cls_score.weight.dtype == torch.float32
    views = [[view(model, image, cpu) for image in images] for model in (plain, half)]
    agreement = compare(precision, half, *views)
    assert 0 < agreement.relative < 0.05 and agreement.cosine > 0.999 and agreement.recovered > 60
    itself = compare("fp32", plain, views[0], views[0])
    assert itself.largest == 0 and itself.recovered == 100
    (regions,) = small_detector(folder, precision=precision).detect(images[:1])
    check(regions, images[0])


def test_limits_choose_among_the_same_regions(folder: Path, detector: VinvlDetector) -> None:
    image = picture(640, 480)
    (default,) = detector.detect([image])
    (three,) = small_detector(folder, min_regions=1, max_regions=3).detect([image])
    assert len(three) == 3 and np.array_equal(three.features, default.features[:3])
    strict = small_detector(folder, score_threshold=float(default.scores[19])).detect([image])[0]
    assert len(strict) == 20 and np.array_equal(strict.boxes, default.boxes[:20])
    (none_sure,) = small_detector(folder, score_threshold=1.0).detect([image])
    assert len(none_sure) == 10 and np.array_equal(none_sure.boxes, default.boxes[:10])
    (few,) = small_detector(folder, proposals=5).detect([image])
    assert len(few) <= 5


def test_the_configuration_tells_apart_what_changes_the_output(folder: Path, detector: VinvlDetector) -> None:
    configuration = detector.configuration()
    assert json.loads(json.dumps(configuration)) == configuration
    assert configuration == small_detector(folder, batch_size=4).configuration()
    assert configuration["device"] == "cpu" and configuration["short_side"] == 600
    for option in (
        {"precision": "bf16"},
        {"exact": False},
        {"postprocess": "class_agnostic"},
        {"score_threshold": 0.3},
        {"min_regions": 5},
        {"max_regions": 50},
        {"proposals": 100},
    ):
        assert small_detector(folder, **option).configuration() != configuration


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ({"postprocess": "nested"}, "per_class, class_agnostic"),
        ({"precision": "fp8"}, "fp32, fp16, bf16"),
        ({"precision": "fp16", "exact": True}, "Only fp32 can be exact"),
        ({"exact": "yes"}, "exact is 'yes'"),
        ({"score_threshold": "0.2"}, "score_threshold is '0.2'"),
        ({"score_threshold": 1.5}, "0 to 1"),
        ({"max_regions": 5}, "min_regions is 10 and max_regions 5"),
        ({"min_regions": 2.0}, "whole number"),
        ({"proposals": 0}, "at least one box"),
        ({"proposals": True}, "whole number"),
        ({"batch_size": 0}, "batch_size is 0"),
        ({"batch_size": "4"}, "batch_size is '4'"),
        ({"device": "tpu"}, "device is 'tpu'"),
        ({"device": "meta"}, "device is 'meta'"),
        ({"device": "cuda:99"}, "torch sees"),
        ({"scale": 3}, "no option 'scale'"),
    ],
)
def test_options_that_cannot_be_used_are_refused_before_anything_is_read(
    tmp_path: Path, option: dict[str, object], message: str
) -> None:
    files = {"weights": tmp_path / "none.pth", "label_map": tmp_path / "none.json"}
    with pytest.raises(InputError, match=message):
        load_detector("vinvl", **files, **option)


def test_the_released_network_is_what_the_registry_loads(tmp_path: Path) -> None:
    """Weights and label map of another network are refused with both sizes, or by the name that does not fit."""
    labels, weights = write_label_map(tmp_path / "labels.json"), write_weights(tmp_path / "small.pth")
    with pytest.raises(InputError, match="names 40 classes, the weights have 1594"):
        load_detector("vinvl", weights=weights, label_map=labels)
    with pytest.raises(DamagedFileError, match=r"small\.pth"):
        load_detector("vinvl", weights=weights, label_map=write_label_map(labels, 1594, 524))
    assert {"weights", "label_map", "device", "batch_size", "postprocess", "precision"} <= set(OPTIONS)
