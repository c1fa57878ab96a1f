"""Normal form, lower case of the same length, sentences."""

from __future__ import annotations

import time
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mvptr_data.scene_graphs import normalize_caption
from mvptr_data.scene_graphs.normalize import (
    FINAL_MARKS,
    MAX_MARKS,
    blank_long_words,
    lower_same_length,
    split_sentences,
)

ANY_TEXT = st.text(st.characters(), max_size=200)  # lone surrogates as well


@given(ANY_TEXT)
def test_normal_form_is_stable_collapsed_and_encodable(text: str) -> None:
    once = normalize_caption(text)
    assert normalize_caption(once) == once
    assert once == unicodedata.normalize("NFC", once)
    assert once == " ".join(once.split())
    once.encode("utf-8")


#: What entities are made of, characters that normal form turns into these, and controls.
ENTITY_TEXT = st.lists(
    st.one_of(
        st.sampled_from("&#;xampquotlgn0123456789 \u0301\u037e\u212a\x00"),
        st.sampled_from(["&amp;", "&#38;", "&#x26;", "&quot;", "&#35;", "&#59;", "&nbsp;", "&#x37e;", "&#769;"]),
    ),
    max_size=40,
).map("".join)


@given(ENTITY_TEXT)
def test_normal_form_is_stable_whatever_entities_make_up(text: str) -> None:
    once = normalize_caption(text)
    assert normalize_caption(once) == once


@pytest.mark.parametrize(
    ("text", "normal"),
    [
        ("a dog &amp; a cat", "a dog & a cat"),
        ("it says &quot;stop&quot;", 'it says "stop"'),
        ("a man&#39;s hat, a man&#x27;s bike", "a man's hat, a man's bike"),
        ("twice: &amp;amp;quot;", 'twice: "'),
        ("a&nbsp;dog &lt;b&gt;", "a dog <b>"),
        ("caf&eacute;", "café"),
        ("no entity: & &; &dog; AT&T; &#65;", "no entity: & &; &dog; AT&T; &#65;"),
        ("a\x00dog\x07 runs\x7f", "a dog runs"),
    ],
)
def test_entities_and_controls(text: str, normal: str) -> None:
    assert normalize_caption(text) == normal


def test_entities_within_entities_take_one_pass() -> None:
    start = time.process_time()
    normalize_caption("&#38;" * 100_000 + "&" + "amp;" * 100_000 + "&&#35;38;" * 100_000)
    assert time.process_time() - start < 5  # it takes half a second


#: Characters of one mark or two, letters with marks of their own, an entity, and what breaks runs.
MARK_TEXT = st.lists(
    st.sampled_from(["\u0301", "\u0327", "\u0344", "\u0f73", "&#769;", "&#x344;", "a", "\u1f82", "\u034f", " "]),
    max_size=120,
).map("".join)


def longest_run_of_marks(text: str) -> int:
    runs = "".join("m" if unicodedata.combining(each) else " " for each in unicodedata.normalize("NFD", text)).split()
    return max(map(len, runs), default=0)


@given(MARK_TEXT)
def test_runs_of_combining_marks_are_broken(text: str) -> None:
    once = normalize_caption(text)
    assert normalize_caption(once) == once == unicodedata.normalize("NFC", once)
    assert longest_run_of_marks(once) <= MAX_MARKS
    if "&" not in text and longest_run_of_marks(text) <= MAX_MARKS:
        assert once == unicodedata.normalize("NFC", " ".join(text.split()))


def test_a_run_of_combining_marks_is_broken_after_thirty() -> None:
    assert normalize_caption("x" + "\u0301" * 70) == "x" + ("\u0301" * 30 + "\u034f") * 2 + "\u0301" * 10
    assert normalize_caption("x" + "\u0301" * 30) == "x" + "\u0301" * 30


@pytest.mark.parametrize("text", ["a" + "\u0301\u0327" * 200_000, "a" + "&#769;&#807;" * 200_000])
def test_combining_marks_take_linear_time(text: str) -> None:
    start = time.process_time()
    normalize_caption(text)
    assert time.process_time() - start < 30  # it takes one second; ordered as one run, two minutes


def test_case_is_kept() -> None:
    assert normalize_caption("  A\tDog \n in Cafe\u0301 ") == "A Dog in Caf\u00e9"


@given(ANY_TEXT)
def test_lower_case_keeps_every_offset(text: str) -> None:
    lowered = lower_same_length(text)
    assert len(lowered) == len(text)
    assert all(low == up or low == up.lower() or low in "σς" for low, up in zip(lowered, text, strict=True))


def test_letters_whose_lower_case_is_longer_stay() -> None:
    assert lower_same_length("İSTANBUL Dog") == "İstanbul dog"


@given(ANY_TEXT)
def test_sentences_are_where_they_say(text: str) -> None:
    normal = normalize_caption(text)
    end = 0
    for offset, sentence in split_sentences(normal):
        assert offset >= end
        assert normal[offset : offset + len(sentence)] == sentence
        assert sentence[-1] not in FINAL_MARKS
        end = offset + len(sentence)


@pytest.mark.parametrize(
    ("text", "sentences"),
    [
        ("a dog. a cat!", ["a dog", "a cat"]),
        ("mr. smith sits", ["mr. smith sits"]),
        ("st. john. j. doe", ["st. john", "j. doe"]),
        ("a dog... runs", ["a dog... runs"]),
        ('he says "stop!" a dog', ['he says "stop!"', "a dog"]),
        ("3.5 dogs", ["3.5 dogs"]),
        ("...", []),
        ("", []),
    ],
)
def test_sentences(text: str, sentences: list[str]) -> None:
    assert [sentence for _, sentence in split_sentences(text)] == sentences


def test_long_words_are_blanked_in_place() -> None:
    text = "a dog " + "(" * 61 + " runs " + "x" * 60
    blanked = blank_long_words(text)
    assert len(blanked) == len(text)
    assert blanked.split() == ["a", "dog", "ø" * 61, "runs", "x" * 60]
