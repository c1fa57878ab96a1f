from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mvptr_data.dataset.records import Caption, TextPhrase, decode_regions, decode_text, encode_regions, encode_text
from mvptr_data.detectors import Regions
from mvptr_data.errors import DamagedFileError, FormatVersionError, MvptrError
from mvptr_model.stored_facts import Member, read_caption, read_regions

WHERE = "the member of sample 'a/1'"
names = st.text(st.characters(codec="utf-8"), min_size=1, max_size=8)
captions = st.lists(
    st.builds(
        lambda text, words: Caption(
            id="7", text=text, phrases=tuple(TextPhrase(phrase=(a, b), spans=((0, 1), (2, 5))) for a, b in words)
        ),
        names,
        st.lists(st.tuples(names, names), max_size=3),
    ),
    min_size=1,
    max_size=3,
)


def regions_json(tags: list[str], gold_tags: list[str] | None = None, size: int | None = 64) -> bytes:
    count = len(tags)
    found = Regions(
        boxes=np.zeros((count, 4), np.float32),
        features=np.zeros((count, 2048), np.float32),
        scores=np.linspace(0.9, 0.1, count, dtype=np.float32),
        labels=np.arange(1, count + 1, dtype=np.int32),
        tags=tuple(tags),
        attributes=(("red", "tall"),) * count,
        attribute_scores=((0.75, 0.5),) * count,
    )
    return encode_regions(found, size, size, gold_tags)["regions.json"]


def of_regions(data: bytes) -> Member:
    return Member(data, "regions", WHERE)


def of_text(data: bytes) -> Member:
    return Member(data, "text", WHERE)


SOUND_REGIONS = regions_json(["tree", "man"], ["person"])
SOUND_TEXT = encode_text(
    "train",
    [
        Caption(id="1", text="A big é wave", phrases=(TextPhrase(phrase=("wave", "big"), spans=((8, 12), (2, 5))),)),
        Caption(id="2", text="nothing", phrases=()),
    ],
)["text.json"]


@given(st.lists(names, max_size=4), st.none() | st.lists(names, max_size=2), st.sampled_from([None, 64]))
def test_regions_are_what_records_reads(tags: list[str], gold_tags: list[str] | None, size: int | None) -> None:
    data = regions_json(tags, gold_tags, size)
    found, expected = read_regions(of_regions(data)), decode_regions(data, WHERE)
    assert (found.width, found.height) == (expected.width, expected.height)
    assert tuple(found.tags) == expected.tags
    assert (None if found.gold_tags is None else tuple(found.gold_tags)) == expected.gold_tags


@given(captions)
def test_captions_are_what_records_reads(stored: list[Caption]) -> None:
    data = encode_text(None, stored)["text.json"]
    for nth, expected in enumerate(decode_text(data, WHERE)[1]):
        found = read_caption(of_text(data), nth)
        assert found.text == expected.text
        assert [(known.phrase, tuple(known.spans)) for known in found.phrases] == [
            (known.phrase, known.spans) for known in expected.phrases
        ]


@pytest.mark.parametrize("nth", [-1, 2])
def test_a_caption_that_is_not_there_is_a_typed_error(nth: int) -> None:
    with pytest.raises(DamagedFileError, match="the member of sample 'a/1' has 2 captions"):
        read_caption(of_text(SOUND_TEXT), nth)


@given(st.data(), st.booleans())
def test_any_bytes_are_read_or_a_typed_error_that_names_the_sample(data: st.DataObject, text: bool) -> None:
    """Cut anywhere, any byte changed, or something put in between."""
    damaged = bytearray(SOUND_TEXT if text else SOUND_REGIONS)
    for _ in range(data.draw(st.integers(1, 3))):
        place = data.draw(st.integers(0, len(damaged)))
        stop = data.draw(st.sampled_from([place, place + 1, len(damaged)]))
        damaged[place:stop] = data.draw(
            st.sampled_from([b"", b"\xff", b"\\ud800", b"-1", b"9" * 30, b"[" * 2000, b'"'])
        )
    try:
        if text:
            read_caption(of_text(bytes(damaged)), 0)
        else:
            read_regions(of_regions(bytes(damaged)))
    except MvptrError as error:
        assert WHERE in str(error)


def altered(data: bytes, change: Callable[[Any], object]) -> bytes:
    value = json.loads(data)
    change(value)
    return json.dumps(value).encode()


@pytest.mark.parametrize(
    "change",
    [
        lambda value: value.pop("tags"),
        lambda value: value.pop("width"),
        lambda value: value.update(tags=[1]),
        lambda value: value.update(tags=None),
        lambda value: value.update(width=None),
        lambda value: value.update(width=0),
        lambda value: value.update(height=-3),
        lambda value: value.update(width=10**30),
        lambda value: value.update(width="64"),
        lambda value: value.update(gold_tags="person"),
    ],
)
def test_misstated_regions_are_typed_errors(change: Callable[[Any], object]) -> None:
    with pytest.raises(DamagedFileError, match="the member of sample 'a/1' lacks or misstates"):
        read_regions(of_regions(altered(SOUND_REGIONS, change)))


@pytest.mark.parametrize("spans", [[[-1, 2]], [[0, 10**12]], [[0]], [[0, 1, 2]], [0, 1], [["0", "1"]], None])
def test_misstated_spans_are_typed_errors(spans: Any) -> None:
    data = altered(SOUND_TEXT, lambda value: value["captions"][0]["phrases"][0].update(spans=spans))
    with pytest.raises(DamagedFileError, match="lacks or misstates"):
        read_caption(of_text(data), 0)


@pytest.mark.parametrize("version", [0, 2, 99, "1", None])
def test_another_version_is_named_even_where_it_holds_other_things(version: Any) -> None:
    for data in (
        altered(SOUND_REGIONS, lambda value: value.update(version=version)),
        json.dumps({"version": version, "boxes": "elsewhere"}).encode(),
    ):
        with pytest.raises(FormatVersionError, match="the member of sample 'a/1' has regions format version"):
            read_regions(of_regions(data))
    with pytest.raises(FormatVersionError, match="has text format version"):
        read_caption(of_text(altered(SOUND_TEXT, lambda value: value.update(version=version))), 0)


@pytest.mark.parametrize("no_text", [b"\xff", b"\\ud800"])
def test_text_that_is_none_is_a_typed_error(no_text: bytes) -> None:
    with pytest.raises(DamagedFileError, match="the member of sample 'a/1' lacks or misstates"):
        read_regions(of_regions(SOUND_REGIONS.replace(b"tree", no_text)))
    with pytest.raises(DamagedFileError, match="the member of sample 'a/1' lacks or misstates"):
        read_caption(of_text(SOUND_TEXT.replace(b"A big", no_text)), 0)


def test_endless_nesting_is_a_typed_error() -> None:
    deep = b'{"deep":' + b"[" * 100_000
    with pytest.raises(DamagedFileError, match="the member of sample 'a/1' lacks or misstates"):
        read_regions(of_regions(SOUND_REGIONS.replace(b"{", deep, 1)))
    with pytest.raises(DamagedFileError, match="the member of sample 'a/1' lacks or misstates"):
        read_caption(of_text(SOUND_TEXT.replace(b"{", deep, 1)), 0)


@pytest.mark.parametrize("data", [b"", b"[]", b"{}", b"null", b"\xff\xfe", b"[" * 100_000, b'{"version": 1'])
def test_what_is_no_object_of_ours_is_a_typed_error(data: bytes) -> None:
    for read in (lambda: read_regions(of_regions(data)), lambda: read_caption(of_text(data), 0)):
        with pytest.raises(MvptrError, match="the member of sample 'a/1'"):
            read()
