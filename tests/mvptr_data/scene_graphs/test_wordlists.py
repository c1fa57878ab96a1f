"""The word lists that rules consult."""

from __future__ import annotations

import pytest

from mvptr_data.scene_graphs.wordlists import DIRECTORY, read_words

NAMES = sorted(file.stem for file in DIRECTORY.glob("*.txt"))


@pytest.mark.parametrize("name", NAMES)
def test_entries_are_clean_sorted_and_once(name: str) -> None:
    lines = [line for line in (DIRECTORY / f"{name}.txt").read_text(encoding="utf-8").splitlines() if line[:1] != "#"]
    assert lines == sorted(set(lines))
    assert all(line and line == " ".join(line.lower().split()) for line in lines)
    assert read_words(name) == set(lines)


def test_there_are_lists() -> None:
    assert {"multi_word_prepositions", "quantifiers", "kept_nouns", "people", "clothes"} <= set(NAMES)
