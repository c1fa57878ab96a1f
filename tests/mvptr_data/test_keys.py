from __future__ import annotations

import hashlib
import re
from urllib.parse import unquote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mvptr_data.errors import SampleFault
from mvptr_data.keys import MAX_ENCODED_BYTES, check_key, encode_key, key_of

TEXT = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=40)


@pytest.mark.parametrize(
    ("path", "key"),
    [
        ("a/1.jpg", "a/1"),
        ("x.v2.jpg", "x.v2"),
        ("a.b/c", "a.b/c"),
        (".hidden", ".hidden"),
        ("a/.hidden.png", "a/.hidden"),
        ("trailing.", "trailing."),
        ("cafe\u0301.jpg", "caf\u00e9"),
    ],
)
def test_a_key_is_the_path_without_its_last_suffix(path: str, key: str) -> None:
    assert key_of(path) == key


@pytest.mark.parametrize(
    "key", ["1", "a/1", "x.v2", "a b", "..x", "x..", "a/...", "été/über", "-", "a\xa0b", "עברית", "a\u200db"]
)
def test_ordinary_keys_pass(key: str) -> None:
    assert check_key(key) == key


@pytest.mark.parametrize(
    "key",
    [
        *(
            "",
            "/a",
            "../a",
            "a/../b",
            "a/..",
            ".",
            "a//b",
            "a/",
            "\\\\host",
            "a\\..\\b",
            "C:/x",
            "a\nb",
            "a\x00",
            "\udcff",
        ),
        *("a\x7f", "a\x80b", "\x9b2J", "\x9f", "gpj.\u202egnp", "\u202aa", "a\u2066b", "\u2069"),
    ],
)
def test_unsafe_keys_are_faults(key: str) -> None:
    with pytest.raises(SampleFault) as caught:
        check_key(key)
    assert caught.value.fault_class == "unsafe_key"


@given(TEXT)
def test_encoding_is_reversible_safe_and_short(key: str) -> None:
    name = encode_key(key)
    assert re.fullmatch(r"[A-Za-z0-9_/%-]+", name)
    assert len(name) <= MAX_ENCODED_BYTES
    if name != hashlib.sha256(key.encode()).hexdigest():
        assert unquote(name, errors="strict") == key


@given(st.sets(TEXT, max_size=30))
def test_encoding_is_injective(keys: set[str]) -> None:
    assert len({encode_key(key) for key in keys}) == len(keys)


def test_a_long_key_is_named_by_its_digest() -> None:
    key = "a/" + "x" * MAX_ENCODED_BYTES
    assert encode_key(key) == hashlib.sha256(key.encode()).hexdigest()
    assert encode_key("x" * MAX_ENCODED_BYTES) == "x" * MAX_ENCODED_BYTES
