from __future__ import annotations

import tempfile
import tracemalloc
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from random import Random

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mvptr_data import phrase_counts
from mvptr_data.errors import DamagedFileError
from mvptr_data.phrase_counts import (
    count_phrases,
    count_rows,
    frequent_phrases,
    join_words,
    merge_counts,
    read_counts,
    read_facts,
    split_words,
    write_counts,
)
from mvptr_data.storage import Store

WORDS = st.text("abé 𝄞", min_size=1, max_size=3)
PHRASE = st.lists(WORDS, min_size=1, max_size=3).map(tuple)
#: A corpus: the phrases of each text, as they were found.
TEXTS = st.lists(st.lists(PHRASE, max_size=4), max_size=12)


def counted(texts: list[list[tuple[str, ...]]]) -> pa.Table:
    words = [list(phrase) for text in texts for phrase in text]
    numbers = [number for number, text in enumerate(texts) for _ in text]
    return count_phrases(pa.array(words, pa.list_(pa.string())), pa.array(numbers, pa.int64()))


def expected(texts: list[list[tuple[str, ...]]]) -> list[tuple[tuple[str, ...], int]]:
    """By the definition: the number of texts that contain a phrase at least once; in order of code points."""
    return sorted(Counter(phrase for text in texts for phrase in set(text)).items())


def rows(tables: Iterator[pa.Table]) -> list[tuple[tuple[str, ...], int]]:
    return [(split_words(row["phrase"]), row["sentences"]) for table in tables for row in table.to_pylist()]


@given(TEXTS)
def test_a_phrase_counts_once_a_text_and_rows_ascend(texts: list[list[tuple[str, ...]]]) -> None:
    assert rows(iter([counted(texts)])) == expected(texts)


@given(st.lists(PHRASE, max_size=20))
def test_joined_phrases_sort_as_their_words_and_come_back(phrases: list[tuple[str, ...]]) -> None:
    assert [split_words(joined) for joined in sorted(map(join_words, phrases))] == sorted(phrases)


@given(TEXTS, st.integers(1, 5), st.integers(1, 4), st.randoms(use_true_random=False))
def test_parts_merge_into_the_whole_whatever_the_parts_and_blocks(
    texts: list[list[tuple[str, ...]]], parts: int, block: int, random: Random
) -> None:
    dealt: list[list[list[tuple[str, ...]]]] = [[] for _ in range(parts)]
    for text in texts:
        random.choice(dealt).append(text)

    def blocks(table: pa.Table) -> Iterator[pa.Table]:
        for start in range(0, max(1, len(table)), block):  # an empty table is a run too
            yield table.slice(start, block)

    assert rows(merge_counts([blocks(counted(part)) for part in dealt])) == expected(texts)


@given(TEXTS, st.integers(1, 5), st.randoms(use_true_random=False))
def test_the_bytes_depend_on_neither_grouping_nor_order(
    texts: list[list[tuple[str, ...]]], parts: int, random: Random
) -> None:
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(phrase_counts, "BLOCK_ROWS", 3)
        store = Store.at(folder)
        write_counts(store, "whole", [counted(texts)], {"of": "texts"})
        runs = []
        for number in range(parts):
            write_counts(store, f"{number}", [counted(texts[number::parts])], {})
            runs.append(f"{number}")
        while len(runs) > 1:  # any two at a time
            random.shuffle(runs)
            one, other, *runs = runs
            merged = f"{one}+{other}"
            write_counts(store, merged, merge_counts([read_counts(store, one), read_counts(store, other)]), {})
            runs.append(merged)
        assert write_counts(store, "merged", read_counts(store, runs[0]), {"of": "texts"}) == len(expected(texts))
        assert store.read("merged") == store.read("whole")
        assert count_rows(store, "merged") == len(expected(texts)) and read_facts(store, "merged") == {"of": "texts"}


def test_row_groups_are_of_one_size_however_tables_were_cut(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(phrase_counts, "BLOCK_ROWS", 4)
    store = Store.at(tmp_path)
    table = counted([[(f"w{number:02d}", "x")] for number in range(11)])
    write_counts(store, "one", [table], {})
    write_counts(store, "many", [table.slice(0, 3), table.slice(3, 0), table.slice(3, 6), table.slice(9)], {})
    assert [len(block) for block in read_counts(store, "many")] == [4, 4, 3]
    assert store.read("one") == store.read("many")


def test_a_block_is_read_without_the_rest_of_its_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(phrase_counts, "BLOCK_ROWS", 1_000)
    store, random = Store.at(tmp_path), Random(0)
    write_counts(store, "counts", [counted([[(f"{random.getrandbits(64):x}", "x")] for _ in range(100_000)])], {})
    tracemalloc.start()  # sees what Python's files hand to Arrow
    try:
        assert len(next(read_counts(store, "counts"))) == 1_000
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert most < (tmp_path / "counts").stat().st_size / 4


def test_the_threshold_is_inclusive(tmp_path: Path) -> None:
    store = Store.at(tmp_path)
    texts = [[("a", "b"), ("c", "d", "e")], [("a", "b")], [("c",)]]
    write_counts(store, "counts", [counted(texts)], {})
    assert list(frequent_phrases(store, "counts", 2)) == [(("a", "b"), 2)]
    assert list(frequent_phrases(store, "counts", 1)) == expected(texts)


def test_a_flipped_byte_is_a_damaged_file(tmp_path: Path) -> None:
    store = Store.at(tmp_path)
    write_counts(store, "counts", [counted([[(f"w{number}", "x")] for number in range(1000)])], {})
    found = bytearray(store.read("counts"))
    found[40:80] = bytes(40)
    store.write("counts", bytes(found))
    with pytest.raises(DamagedFileError, match="counts"):
        list(read_counts(store, "counts"))
