from __future__ import annotations

import base64
import json

import numpy as np
import pytest

from mvptr_data.errors import SampleFault
from mvptr_data.sources.feature_lines import FORMS, form_of, read_features, read_mvptr, read_predictions

RANDOM = np.random.default_rng(3)


def table(count: int, width: int = 2054) -> np.ndarray:
    return RANDOM.standard_normal((count, width)).astype("<f4")


def encoded(array: np.ndarray) -> str:
    return base64.b64encode(array.tobytes()).decode()


def features_body(array: np.ndarray, count: int | None = None) -> bytes:
    return f"{len(array) if count is None else count}\t{encoded(array)}".encode()


@pytest.mark.parametrize("width", [2048, 2054])
@pytest.mark.parametrize("count", [1, 3])
def test_features_of_both_widths(width: int, count: int) -> None:
    array = table(count, width)
    parts = read_features(features_body(array))
    assert parts.vectors is not None and (parts.vectors == array[:, :2048]).all()
    assert (parts.geometry is None) == (width == 2048)
    if parts.geometry is not None:
        assert (parts.geometry == array[:, 2048:]).all()


@pytest.mark.parametrize("width", [2048, 2054])
def test_oscars_json_is_the_same_in_one_cell(width: int) -> None:
    """What VinVL's and Oscar's features for captioning come as."""
    array = table(3, width)
    facts = {"num_boxes": 3, "features": encoded(array)}
    parts, plain = read_features(json.dumps(facts).encode()), read_features(features_body(array))
    assert parts.count == 3 and parts.vectors is not None and (parts.vectors == array[:, :2048]).all()
    assert np.array_equal(parts.geometry, plain.geometry) if width == 2054 else parts.geometry is None  # type: ignore[arg-type]


def test_an_image_without_regions_is_one() -> None:
    for parts in (
        read_features(b"0\t"),
        read_features(b'{"num_boxes": 0, "features": ""}'),
        read_mvptr(b'{"feature": "", "predictions": []}'),
        read_predictions(b'{"objects": []}'),
    ):
        assert parts.count == 0 and parts.vectors is not None and parts.vectors.shape == (0, 2048)


def test_the_authors_own_extractor() -> None:
    array = table(2)
    parts = read_mvptr(json.dumps({"feature": encoded(array), "predictions": ["man", " ball "]}).encode())
    assert parts.tags == ("man", "ball") and parts.vectors is not None and (parts.vectors == array[:, :2048]).all()


def test_predictions_with_everything() -> None:
    array = table(2, 2048)
    facts = {
        "image_h": 480,
        "image_w": 640.0,
        "objects": [
            {
                "class": "man",
                "conf": 0.9,
                "rect": [1, 2, 3.5, 4],
                "class_id": 7,
                "attributes": ["tall", "old"],
                "attr_scores": [0.8, 0.1],
                "feature": encoded(array[0]),
            },
            {"class": "ball", "conf": 0.5, "rect": [0, 0, 9, 9], "feature": encoded(array[1])},
        ],
        "gt_objects": [{"class": "person"}, {"class": " "}, {"class": "sports ball"}],
        "relations": None,
    }
    parts = read_predictions(json.dumps(facts).encode())
    assert parts.size == (640, 480) and parts.tags == ("man", "ball") and parts.scores == (0.9, 0.5)
    assert (
        parts.labels == (7, 0)
        and parts.attributes == (("tall", "old"), ())
        and parts.attribute_scores == ((0.8, 0.1), ())
    )
    assert parts.gold_tags == ("person", "sports ball")
    assert parts.rects is not None and parts.rects.tolist() == [[1, 2, 3.5, 4], [0, 0, 9, 9]]
    assert parts.vectors is not None and (parts.vectors == array).all()


def test_a_bare_list_says_what_it_says() -> None:
    parts = read_predictions(b'[{"class": "man", "attributes": ["red"]}, {"class": null}]')
    assert parts.tags == ("man", None) and parts.scores == (None, None) and parts.size is None
    assert parts.rects is None and parts.vectors is None and parts.gold_tags is None
    assert parts.attribute_scores == ((1.0,), ())


def with_nan() -> np.ndarray:
    array = table(2)
    array[1, 2053] = np.nan
    return array


GOOD = encoded(table(1, 2048))
BROKEN = {
    ("features", "not 3 regions"): features_body(table(2), 3),
    ("features", "not 2 regions of 2048 or 2054"): features_body(table(2, 2050)),
    ("features", "the number of regions is -1"): b"-1\t",
    ("features", "the number of regions is b'two'"): b"two\t" + GOOD.encode(),
    ("features", "the number of regions is 1000000"): b"1" + b"0" * 400 + b"\t",
    ("features", "num_boxes is None"): json.dumps({"features": GOOD}).encode(),
    ("features", "num_boxes is 1.0"): json.dumps({"num_boxes": 1.0, "features": GOOD}).encode(),
    ("features", "num_boxes is True"): json.dumps({"num_boxes": True, "features": GOOD}).encode(),
    ("features", "a feature is None"): b'{"num_boxes": 1}',
    ("features", "number of regions is 100"): json.dumps({"num_boxes": 10**400, "features": GOOD}).encode(),
    ("features", "not JSON"): b'{"num_boxes": 1, ',
    ("features", "2 cells"): b"1",
    ("features", "4 cells"): b"1\t" + GOOD.encode() + b"\textra",
    ("features", "NaN or infinite"): features_body(with_nan()),
    ("features", "not base64"): b"1\t" + GOOD.encode()[:-8] + b"!!!!" + GOOD.encode()[-4:],
    ("features", "not 1 regions"): b"1\t" + GOOD.encode()[:-400],
    ("mvptr", "not JSON"): b'{"feature": ',
    ("mvptr", "no list 'predictions'"): json.dumps({"feature": GOOD}).encode(),
    ("mvptr", "a prediction is 5"): json.dumps({"feature": GOOD, "predictions": [5]}).encode(),
    ("mvptr", "not 2 regions"): json.dumps({"feature": GOOD, "predictions": ["a", "b"]}).encode(),
    ("mvptr", "a feature is None"): json.dumps({"predictions": ["a"]}).encode(),
    ("predictions", "no list 'objects'"): b'{"image_h": 1}',
    ("predictions", "no list"): b"7",
    ("predictions", "not a JSON object"): b"[5]",
    ("predictions", "1 of 2 objects have no 'feature'"): json.dumps([{"feature": GOOD}, {}]).encode(),
    ("predictions", "1 of 2 objects have no 'rect'"): json.dumps([{}, {"rect": [0, 0, 1, 1]}]).encode(),
    ("predictions", r"not \[x1, y1, x2, y2\]"): json.dumps([{"rect": [0, 0, 1]}]).encode(),
    ("predictions", "a rect is 'a'"): json.dumps([{"rect": [0, 0, "a", 1]}]).encode(),
    ("predictions", "NaN is no number"): b'[{"rect": [0, 0, NaN, 1]}]',
    ("predictions", "conf is '0.5'"): b'[{"conf": "0.5"}]',
    ("predictions", "conf is True"): b'[{"conf": true}]',
    ("predictions", "conf is 10"): b'[{"conf": 1%s}]' % (b"0" * 400),
    ("predictions", "conf is inf, which is too large"): b'[{"conf": 1e999}]',
    ("predictions", "a class_id is inf"): b'[{"class_id": 1e999}]',
    ("predictions", "the image's size is inf"): b'{"objects": [], "image_w": 1e999, "image_h": 5}',
    ("predictions", "a class is 3"): b'[{"class": 3}]',
    ("predictions", "half of a surrogate pair"): b'[{"class": "\\ud83d"}]',
    ("mvptr", "half of a surrogate pair"): b'{"feature": "", "predictions": ["\\udc00"]}',
    ("predictions", "class_id is -4"): b'[{"class_id": -4}]',
    ("predictions", "attributes are 'red'"): b'[{"attributes": "red"}]',
    ("predictions", "1 attributes have the scores"): b'[{"attributes": ["red"], "attr_scores": [1, 2]}]',
    ("predictions", "size is 0 x 5"): b'{"objects": [], "image_w": 0, "image_h": 5}',
    ("predictions", "the image's size is None"): b'{"objects": [], "image_w": 4}',
    ("predictions", "gt_objects are"): b'{"objects": [], "gt_objects": ["man"]}',
    ("predictions", "not JSON"): b'[{"conf": 1' + b"0" * 5000 + b"}]",
    ("predictions", "not JSON: "): b"[" * 100_000,
}


@pytest.mark.parametrize(("form", "message"), BROKEN)
def test_broken_lines_say_what_is_wrong(form: str, message: str) -> None:
    with pytest.raises(SampleFault, match=message) as caught:
        FORMS[form](BROKEN[form, message])
    assert caught.value.fault_class == "broken_record" and len(caught.value.message) < 400


def test_forms_are_told_apart() -> None:
    assert form_of(features_body(table(1))) == "features"
    assert form_of(b'{"num_boxes": 0, "features": ""}') == "features"
    assert form_of(b'{"feature": "", "predictions": []}') == "mvptr"
    assert form_of(b'{"objects": [], "relations": null}') == "predictions"
    assert form_of(b"[]") == "predictions"
    for other in (b"a caption", b"a\tb", b'{"captions": []}', b"5", b""):
        assert form_of(other) is None
