from __future__ import annotations

import io
import json
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from mvptr_data.dataset.records import (
    Caption,
    RegionFacts,
    TextPhrase,
    decode_array,
    decode_regions,
    decode_text,
    encode_array,
    encode_regions,
    encode_text,
    geometry,
)
from mvptr_data.detectors import Regions
from mvptr_data.errors import DamagedFileError, FormatVersionError


def found(count: int) -> Regions:
    random = np.random.default_rng(count)
    return Regions(
        boxes=np.sort(random.uniform(0, 90, (count, 2, 2)), axis=1).reshape(count, 4).astype(np.float32),
        features=random.standard_normal((count, 2048)).astype(np.float32),
        scores=np.linspace(1, 0.1, count, dtype=np.float32),
        labels=np.arange(1, count + 1, dtype=np.int32),
        tags=tuple(f"tag {number}" for number in range(count)),
        attributes=tuple(("red",) * (number % 3) for number in range(count)),
        attribute_scores=tuple((0.5,) * (number % 3) for number in range(count)),
    )


@pytest.mark.parametrize("count", [0, 1, 7])
def test_regions_come_back(count: int) -> None:
    regions = found(count)
    members = encode_regions(regions, 100, 90)
    assert sorted(members) == ["boxes.npy", "features.npy", "regions.json"]
    boxes, features = (decode_array(members[name], name) for name in ("boxes.npy", "features.npy"))
    facts = decode_regions(members["regions.json"], "here")
    assert boxes.dtype == np.float32 and features.dtype == np.float16
    np.testing.assert_array_equal(boxes, regions.boxes)
    np.testing.assert_array_equal(features, regions.features.astype(np.float16))
    assert (facts.width, facts.height, facts.tags, facts.attributes) == (100, 90, regions.tags, regions.attributes)
    assert facts.scores == pytest.approx(regions.scores, abs=1e-6)


def test_features_beyond_float16_and_uneven_counts_are_refused() -> None:
    regions = found(2)
    with pytest.raises(ValueError, match="float16"):
        encode_regions(replace(regions, features=regions.features * 1e6), 100, 90)
    with pytest.raises(ValueError, match="box is NaN"):
        encode_regions(replace(regions, boxes=regions.boxes * np.float32("nan")), 100, 90)
    with pytest.raises(ValueError, match="entries"):
        uneven = {name: getattr(regions, name) for name in Regions.__slots__} | {"tags": ("one",)}
        encode_regions(SimpleNamespace(**uneven), 100, 90)  # type: ignore[arg-type]


CAPTIONS = st.lists(
    st.builds(
        Caption,
        id=st.text(max_size=5),
        text=st.text(max_size=30),
        phrases=st.lists(
            st.builds(
                TextPhrase,
                phrase=st.lists(st.text(max_size=8), min_size=2, max_size=3).map(tuple),
                spans=st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), max_size=3).map(tuple),
            ),
            max_size=3,
        ).map(tuple),
    ),
    max_size=4,
)


@given(st.none() | st.text(max_size=5), CAPTIONS)
def test_text_comes_back(split: str | None, captions: list[Caption]) -> None:
    assert decode_text(encode_text(split, captions)["text.json"], "here") == (split, tuple(captions))


def test_another_version_and_torn_json_are_typed_errors() -> None:
    member = encode_text("train", [])["text.json"]
    newer = json.dumps(json.loads(member) | {"version": 99}).encode()
    with pytest.raises(FormatVersionError, match=r"99.*reads \[1\]"):
        decode_text(newer, "here")
    with pytest.raises(DamagedFileError, match="here"):
        decode_text(member[:-1], "here")
    with pytest.raises(DamagedFileError, match="here"):
        decode_regions(b'{"version": 1}', "here")
    with pytest.raises(DamagedFileError, match="here"):
        decode_array(encode_array(np.zeros(3))[:-1], "here")
    with pytest.raises(DamagedFileError, match="here"):
        decode_regions(b"[" * 100_000, "here")


@pytest.mark.parametrize(
    ("shape", "odd"), [(b"(3,), }", b"(3, },"), (b"(3,), }" + b" " * 11, b"(9" + b"9" * 12 + b",), }")]
)
def test_a_header_that_cannot_be_is_a_typed_error(shape: bytes, odd: bytes) -> None:
    sound = encode_array(np.zeros(3))
    assert shape in sound
    with pytest.raises(DamagedFileError, match="here"):
        decode_array(sound.replace(shape, odd.ljust(len(shape))), "here")


def test_no_pickle_is_read() -> None:
    buffer = io.BytesIO()
    np.save(buffer, np.array([{}], dtype=object), allow_pickle=True)
    with pytest.raises(DamagedFileError, match=r"pickle|Object arrays"):
        decode_array(buffer.getvalue(), "here")


@given(
    hnp.arrays(np.float32, (3, 4), elements=st.floats(0, 1000, width=32)), st.integers(1, 2000), st.integers(1, 2000)
)
def test_geometry_is_the_six_numbers_of_the_image(boxes: NDArray[np.float32], width: int, height: int) -> None:
    x1, y1, x2, y2 = boxes.astype(np.float64).T
    expected = np.stack(
        [x1 / width, y1 / height, x2 / width, y2 / height, (x2 - x1) / width, (y2 - y1) / height], axis=1
    )
    result = geometry(boxes, width, height)
    assert result.dtype == np.float32
    np.testing.assert_allclose(result, expected, rtol=1e-5, atol=1e-4)


def test_boxes_without_image_size_are_fractions_already() -> None:
    boxes = np.array([[0.1, 0.2, 0.5, 0.9]], dtype=np.float32)
    np.testing.assert_allclose(geometry(boxes, None, None), [[0.1, 0.2, 0.5, 0.9, 0.4, 0.7]], rtol=1e-6)


@pytest.mark.parametrize(
    "header",
    [
        b"{'descr': '<f4', 'fortran_order': False, 'shape': (1000000000000, 4), }",
        b"{'descr': '<f4', 'fortran_order': False, 'shape': (-3,), }",
        b"{'descr': '|S0', 'fortran_order': False, 'shape': (3,), }",
        b"{'descr': [('a', '<f4', (1000000000,))], 'fortran_order': False, 'shape': (3,), }",
        b"{'descr': '<f4', 'fortran_order': False, 'shape': 3, }",
        b"__import__('os').system('true')",
        b"(" * 100,
        b"[" * 100,
    ],
)
def test_a_header_that_promises_something_else_is_a_typed_error(header: bytes) -> None:
    sound = encode_array(np.zeros(3, np.float32))
    with pytest.raises(DamagedFileError, match="here is not a readable"):
        decode_array(sound[:10] + header.ljust(117) + b"\n" + sound[128:], "here")


@given(st.integers(0, 200), st.integers(0, 255), st.binary(max_size=9))
def test_any_byte_of_an_array_may_be_another(place: int, value: int, more: bytes) -> None:
    data = bytearray(encode_array(np.arange(12, dtype=np.float32).reshape(3, 4)))
    data[place % len(data)] = value
    for torn in (bytes(data), bytes(data[:place]), bytes(data) + more):
        try:
            found = decode_array(torn, "here")
        except DamagedFileError as error:
            assert "here" in str(error)
        else:
            assert found.nbytes < 200 and found.flags.writeable


@given(hnp.arrays(st.sampled_from([np.float32, np.float16, np.int64]), hnp.array_shapes(min_dims=0, min_side=0)))
def test_arrays_come_back_in_either_order(array: NDArray[np.float32]) -> None:
    np.testing.assert_array_equal(decode_array(encode_array(array), "here"), array)
    buffer = io.BytesIO()
    np.lib.format.write_array(buffer, np.asfortranarray(array), version=(1, 0))
    np.testing.assert_array_equal(decode_array(buffer.getvalue(), "here"), array)


ODD = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=3)
    | st.sampled_from([10**400, float("nan"), "\ud800", "../../x"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
)


@given(st.data())
def test_any_value_of_a_member_may_be_another(data: st.DataObject) -> None:
    """Sound JSON with a value of another kind anywhere: a typed error, or a record whose values have their types."""
    known = TextPhrase(phrase=("red", "dog"), spans=((0, 3), (4, 7)))
    caption = Caption(id="1", text="red dog", phrases=(known,))
    text = json.loads(encode_text("train", [caption])["text.json"])
    regions = json.loads(encode_regions(found(4), 100, 90, ["dog"])["regions.json"])
    for value, decode in ((text, decode_text), (regions, decode_regions)):
        holder = value
        while isinstance(inner := holder[name := data.draw(st.sampled_from(_names(holder)))], dict | list):
            if not inner or data.draw(st.booleans()):
                break
            holder = inner
        holder[name] = data.draw(ODD)
        try:
            decoded = decode(json.dumps(value).encode(), "here")
        except (DamagedFileError, FormatVersionError) as error:
            assert "here" in str(error)
        else:
            repr(decoded).encode()
            assert isinstance(decoded, RegionFacts) or isinstance(decoded[0], str | None)
            assert all(map(_is_usable, [decoded.scores, decoded.labels] if isinstance(decoded, RegionFacts) else []))


def _names(holder: dict | list) -> list:
    return sorted(holder) if isinstance(holder, dict) else list(range(len(holder)))


def _is_usable(numbers: tuple[float, ...]) -> bool:
    return bool(np.isfinite(np.array(numbers, np.float64)).all())
