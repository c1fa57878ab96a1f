from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mvptr_data.dataset.records import geometry
from mvptr_data.errors import SampleFault
from mvptr_data.sources.feature_lines import LineParts
from mvptr_data.sources.feature_regions import ReadyRegions, make_regions, merge

WIDTH, HEIGHT = 640, 480
RECTS = np.array([[10.5, 20, 200, 300], [0, 0, 640, 480], [600, 400, 639, 479.25]])


def parts(**facts: object) -> LineParts:
    """Three regions with features and rects in an image of known size; `facts` change them."""
    known: dict[str, object] = {
        "count": 3,
        "vectors": np.arange(3 * 2048, dtype=np.float32).reshape(3, 2048),
        "rects": RECTS,
        "size": (WIDTH, HEIGHT),
        "tags": ("man", "sea", "dog"),
        "scores": (0.9, 0.8, 0.7),
    }
    return LineParts(**(known | facts))  # type: ignore[arg-type]


def six(rects: np.ndarray = RECTS) -> np.ndarray:
    return geometry(rects.astype(np.float32), WIDTH, HEIGHT)


def made(given: LineParts, size: tuple[int, int] | None = None, default_tag: str | None = None) -> ReadyRegions:
    return make_regions(given, size=size, default_tag=default_tag)


def test_rects_are_the_boxes() -> None:
    regions = made(parts())
    assert regions.boxes.dtype == np.float32 and (regions.boxes == RECTS.astype(np.float32)).all()
    assert (regions.width, regions.height) == (WIDTH, HEIGHT)
    assert regions.scores.tolist() == np.array([0.9, 0.8, 0.7], np.float32).tolist()
    assert regions.labels.tolist() == [0, 0, 0] and regions.attributes == ((), (), ())


def test_without_rects_the_geometry_is_the_boxes() -> None:
    relative = made(parts(rects=None, geometry=six(), size=None))
    assert (relative.width, relative.height) == (None, None)
    np.testing.assert_allclose(geometry(relative.boxes, None, None), six(), atol=1e-6)
    absolute = made(parts(rects=None, geometry=six(), size=None), size=(WIDTH, HEIGHT))
    assert (absolute.width, absolute.height) == (WIDTH, HEIGHT)
    np.testing.assert_allclose(absolute.boxes, RECTS, rtol=1e-6, atol=1e-4)


def test_the_lines_own_size_counts_before_the_one_given() -> None:
    assert made(parts(), size=(1000, 1000)).width == WIDTH


@given(
    st.integers(16, 6000),
    st.integers(16, 6000),
    st.lists(st.tuples(*[st.floats(0, 1, width=32)] * 4), min_size=1, max_size=20),
)
def test_geometry_comes_back(width: int, height: int, corners: list[tuple[float, ...]]) -> None:
    """The six numbers of what is stored are those of the file, to 1e-6, with and without the image's size."""
    found = np.sort(np.array(corners, np.float32).reshape(-1, 2, 2), axis=1).reshape(-1, 4)
    given_six = geometry(found, None, None)
    count = len(found)
    known = parts(count=count, vectors=np.zeros((count, 2048), np.float32), rects=None, geometry=given_six)
    known = replace(known, tags=("x",) * count, scores=None, size=None)
    for size in (None, (width, height)):
        regions = made(known, size=size)
        np.testing.assert_allclose(geometry(regions.boxes, *(size or (None, None))), given_six, atol=1e-6)
        assert (regions.boxes[:, 2:] >= regions.boxes[:, :2]).all()  # as verify wants it


@given(
    st.integers(16, 6000), st.integers(16, 6000), st.lists(st.tuples(*[st.floats(0, 1)] * 4), min_size=1, max_size=20)
)
def test_rects_and_geometry_together_give_the_size(width: int, height: int, corners: list[tuple[float, ...]]) -> None:
    """VinVL's own predictions do not say how large the image is; features made from them do."""
    scaled = np.sort(np.array(corners).reshape(-1, 2, 2), axis=1).reshape(-1, 4) * [width, height, width, height]
    rects = scaled.astype(np.float32).astype(np.float64)
    rects[0] = [0, 0, width // 3, height // 3]
    count = len(rects)
    known = parts(count=count, vectors=np.zeros((count, 2048), np.float32), rects=rects, size=None, scores=None)
    known = replace(known, tags=("x",) * count, geometry=geometry(rects.astype(np.float32), width, height))
    regions = made(known)
    assert (regions.width, regions.height) == (width, height)
    np.testing.assert_allclose(regions.boxes, rects, atol=5e-3)


def test_rects_in_parts_of_the_image_stay_so() -> None:
    rects = RECTS / [WIDTH, HEIGHT, WIDTH, HEIGHT]
    regions = made(parts(rects=rects, size=None))
    assert regions.width is None and (regions.boxes == rects.astype(np.float32)).all()
    assert made(parts(rects=rects, size=None, geometry=six())).width is None


def test_regions_are_in_order_of_score_and_equal_ones_stay() -> None:
    regions = made(
        parts(
            scores=(0.5, 0.9, 0.5),
            labels=(1, 2, 3),
            attributes=(("a",), ("b",), ()),
            attribute_scores=((0.1,), (0.2,), ()),
        )
    )
    assert regions.tags == ("sea", "man", "dog") and regions.labels.tolist() == [2, 1, 3]
    assert regions.attributes == (("b",), ("a",), ()) and regions.attribute_scores == ((0.2,), (0.1,), ())
    assert (regions.boxes == RECTS[[1, 0, 2]].astype(np.float32)).all()
    assert regions.features[:, 0].tolist() == [2048, 0, 4096]


def test_many_regions_of_one_score_keep_the_files_order() -> None:
    count = 200
    scores = np.random.default_rng(2).choice([0.25, 0.5, 0.75], count)
    known = parts(count=count, vectors=np.zeros((count, 2048), np.float32), rects=np.tile(RECTS[0], (count, 1)))
    regions = made(replace(known, tags=tuple(map(str, range(count))), scores=tuple(scores.tolist())))
    order = sorted(range(count), key=lambda number: -scores[number])
    assert regions.tags == tuple(map(str, order)) and regions.scores.tolist() == scores[order].tolist()


def test_what_nobody_says_is_settled() -> None:
    regions = made(parts(scores=None, tags=None), default_tag="object")
    assert regions.scores.tolist() == [1, 1, 1] and regions.tags == ("object",) * 3
    assert made(parts(tags=("man", None, "")), default_tag="object").tags == ("man", "object", "object")
    assert made(parts(scores=(None, 0.5, 2.0))).tags == ("dog", "man", "sea")


def test_a_box_without_extent_stays_one() -> None:
    rects = np.array([[5.0, 5, 5, 9], [640, 480, 640, 480], [0, 0, 0, 0]])
    boxes = made(parts(rects=rects)).boxes
    assert (boxes[:, 2:] >= boxes[:, :2]).all()
    np.testing.assert_allclose(geometry(boxes, WIDTH, HEIGHT), six(rects), atol=1e-6)


def test_a_box_that_leaves_its_image_by_less_than_a_pixel_is_cut() -> None:
    rects = RECTS + np.array([-0.5, 0, 0.75, 0.009])
    rects[0, 0] = -0.5
    boxes = made(parts(rects=rects)).boxes
    np.testing.assert_allclose(boxes, np.clip(rects, 0, [WIDTH, HEIGHT] * 2), rtol=1e-6)
    rounded = RECTS + np.array([0, 0, 0, 0.009])  # rounding stays as it is
    assert (made(parts(rects=rounded)).boxes == rounded.astype(np.float32)).all()


UNUSABLE = {
    "no features": parts(vectors=None),
    "no boxes": parts(rects=None),
    "image's size is not known": parts(size=None),
    "3 of 3 regions have no class": parts(tags=None),
    "1 of 3 regions have no class": parts(tags=("man", "", "dog")),
    "leaves its image of 600 x 480": parts(size=(600, 480)),
    "leaves 0..1": parts(rects=RECTS / [WIDTH, HEIGHT, WIDTH, HEIGHT] - [0.5, 0, 0, 0], size=None),
    "ends before it begins": parts(rects=RECTS[:, [2, 1, 0, 3]]),
    "of different boxes": parts(geometry=six(RECTS[::-1])),
    "no geometry: corners": parts(geometry=six() * 600),
    "no geometry: width": parts(geometry=six()[:, [0, 1, 2, 3, 3, 2]]),
    "a score is infinite": parts(scores=(1e300, 0.5, 0.5)),
    "a box is infinite": parts(rects=RECTS * [1, 1, 1e300, 1]),
}


@pytest.mark.parametrize("message", UNUSABLE)
def test_what_cannot_be_used_says_why(message: str) -> None:
    with pytest.raises(SampleFault, match=message) as caught:
        made(UNUSABLE[message])
    assert caught.value.fault_class == "broken_record"


def test_rects_of_an_image_of_no_one_size_are_refused() -> None:
    other = RECTS * [0.99, 1, 1, 1]
    other[0, 2] = 150
    with pytest.raises(SampleFault, match="size is not known"):
        made(parts(rects=other, size=None, geometry=six()))


def test_two_files_have_to_count_the_same_regions() -> None:
    features = parts(rects=None, tags=None, scores=None, geometry=six(), size=None)
    predictions = parts(vectors=None)
    both = merge(features, predictions)
    assert both.tags == predictions.tags and both.vectors is features.vectors and both.geometry is features.geometry
    with pytest.raises(SampleFault, match="of 3 regions, the predictions have 2"):
        merge(features, replace(predictions, count=2))
