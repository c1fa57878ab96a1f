"""Lemmas: plural nouns and verbs reduce, nothing else."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mvptr_data.scene_graphs.lemmas import Lemmatizer

LEMMAS = Lemmatizer.bundled()

NOUNS = """
men man, women woman, children child, people people, glasses glass, pants pants, shorts shorts, jeans jeans,
clothes clothes, scissors scissors, buses bus, knives knife, wolves wolf, teeth tooth, skis ski, skies sky,
cookies cookie, berries berry, benches bench, dishes dish, boxes box, zebras zebra, sheep sheep,
t-shirts t-shirt, surfboards surfboard, waves wave, leaves leaf, tomatoes tomato, dresses dress,
firemen fireman, giraffes giraffe, selfies selfie
"""
VERBS = """
riding ride, sitting sit, standing stand, laying lay, lying lie, putting put, falling fall, hopping hop,
hoping hope, skiing ski, playing play, held hold, rode ride, worn wear, topped top, tied tie, carried carry,
watches watch, goes go, has have, is be, are be, dressed dress, covered cover, starring star, staring stare,
using use, surrounded surround, parked park, taken take, snowboarding snowboard, flies fly, filled fill,
cut cut, string string
"""


def read_pairs(text: str) -> list[list[str]]:
    """(form, lemma) of a comma-separated list."""
    return [pair.split() for pair in text.replace("\n", " ").split(",")]


@pytest.mark.parametrize(("plural", "singular"), read_pairs(NOUNS))
def test_nouns(plural: str, singular: str) -> None:
    assert LEMMAS.noun(plural) == singular


@pytest.mark.parametrize(("form", "base"), read_pairs(VERBS))
def test_verbs(form: str, base: str) -> None:
    assert LEMMAS.verb(form) == base


@given(st.text(alphabet="abcdeinsg-'", max_size=12))
def test_any_word_has_a_lemma(word: str) -> None:
    assert isinstance(LEMMAS.noun(word), str)
    assert bool(LEMMAS.verb(word)) == bool(word)
