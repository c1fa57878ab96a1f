"""The specification's gold examples, end to end with the bundled parser."""

from __future__ import annotations

import pytest

from mvptr_data.scene_graphs import CaptionParser
from tests.mvptr_data.scene_graphs.gold_phrases import accept_alternatives, read_gold

GOLD = read_gold()


def test_the_table_is_whole() -> None:
    assert len(GOLD) == 34
    assert sum(len(phrases) for _, phrases in GOLD) == 96


@pytest.mark.parametrize("number", range(1, 35))
def test_gold_caption(bundled_parser: CaptionParser, number: int) -> None:
    caption, expected = GOLD[number - 1]
    assert accept_alternatives(number, set(bundled_parser.phrases([caption])[0])) == expected


def test_phrase_f1_over_the_table(bundled_parser: CaptionParser) -> None:
    found = [
        accept_alternatives(number, set(phrases))
        for number, phrases in enumerate(bundled_parser.phrases([caption for caption, _ in GOLD]), start=1)
    ]
    right = sum(len(phrases & expected) for phrases, (_, expected) in zip(found, GOLD, strict=True))
    said = sum(map(len, found))
    wanted = sum(len(expected) for _, expected in GOLD)
    assert 2 * right / (said + wanted) >= 0.95


def test_official_profile_of_quantifiers(official_parser: CaptionParser) -> None:
    couple, bunch = official_parser.phrases([GOLD[19][0], GOLD[20][0]])
    assert ("people", "a") in couple
    assert ("people", "couple") not in couple
    assert ("banana", "a") in bunch
