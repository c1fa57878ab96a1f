from __future__ import annotations

import json
import tempfile
from pathlib import Path
from random import Random

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mvptr_data.errors import DamagedFileError, InputError
from mvptr_data.phrases import PhraseVocabulary
from mvptr_data.storage import Store

WORDS = st.text("abc ", min_size=1, max_size=4)
COUNTS = st.dictionaries(st.tuples(WORDS, WORDS) | st.tuples(WORDS, WORDS, WORDS), st.integers(1, 5), max_size=20)


@given(COUNTS, st.randoms(use_true_random=False))
def test_the_order_is_total(counts: dict[tuple[str, ...], int], random: Random) -> None:
    items = list(counts.items())
    vocabulary = PhraseVocabulary.from_counts(items, {})
    random.shuffle(items)
    assert PhraseVocabulary.from_counts(items, {}) == vocabulary
    for rank, words in enumerate(vocabulary.phrases):
        assert vocabulary.rank(words) == rank
    keys = [(-counts[words], len(words), words) for words in vocabulary.phrases]
    assert keys == sorted(keys) and len(vocabulary) == len(counts)


def test_frequency_then_pairs_then_code_points() -> None:
    counts = [(("man", "ride", "wave"), 9), (("dog", "black"), 9), (("cat", "black"), 9), (("sky", "blue"), 12)]
    vocabulary = PhraseVocabulary.from_counts(counts, {})
    assert vocabulary.phrases == (("sky", "blue"), ("cat", "black"), ("dog", "black"), ("man", "ride", "wave"))
    assert vocabulary.rank(("wave", "big")) is None


def test_a_vocabulary_comes_back(tmp_path: Path) -> None:
    vocabulary = PhraseVocabulary.from_counts(
        [(("sky", "blue"), 12), (("man", "ride", "wave"), 9)], {"min_sentences": 5}
    )
    vocabulary.save(Store.at(tmp_path), "v.parquet")
    loaded = PhraseVocabulary.load(str(tmp_path / "v.parquet"))
    assert loaded == vocabulary and loaded.configuration["min_sentences"] == 5 and loaded.digest == vocabulary.digest


def test_an_official_vocabulary_keeps_its_ids_holes_included(tmp_path: Path) -> None:
    file = tmp_path / "id2phrase.json"
    file.write_text(
        json.dumps({"30524": ["man", "ride on top of", "surfboard"], "30522": ["wave", "big"], "999": ["bear"]})
    )
    vocabulary = PhraseVocabulary.load(str(file))
    assert vocabulary.phrases == (("bear",), ("wave", "big"), ("man", "ride on top of", "surfboard"))
    assert vocabulary.official_ids == (999, 30522, 30524)
    vocabulary.save(Store.at(tmp_path), "v.parquet")
    assert PhraseVocabulary.load(str(tmp_path / "v.parquet")).official_ids == (999, 30522, 30524)


IDS = st.dictionaries(
    st.integers(0, 90_000), st.lists(WORDS, min_size=1, max_size=3), max_size=20
)  # single objects, holes, the same phrase twice


@given(IDS)
def test_the_authors_form_comes_back_exactly(entries: dict[int, list[str]]) -> None:
    official = {str(number): words for number, words in entries.items()}
    with tempfile.TemporaryDirectory() as folder:
        store = Store.at(folder)
        store.write("id2phrase.json", json.dumps(official).encode())
        vocabulary = PhraseVocabulary.load(f"{folder}/id2phrase.json")
        vocabulary.save(store, "v.parquet")
        PhraseVocabulary.load(f"{folder}/v.parquet").save_official(store, "again.json")
        assert json.loads(store.read("again.json")) == official
        assert list(json.loads(store.read("again.json"))) == sorted(official, key=int)


def test_the_authors_sample_comes_back_exactly(reference, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    file = reference("data/phrases/id2phrase_sample.json")
    PhraseVocabulary.load(str(file)).save_official(Store.at(tmp_path), "id2phrase.json")
    assert json.loads((tmp_path / "id2phrase.json").read_text()) == json.loads(file.read_text())


def test_our_phrases_get_the_rows_after_berts_words(tmp_path: Path) -> None:
    counts = [(("sky", "blue"), 12), (("man", "ride", "wave"), 9), (("dog",), 9)]
    vocabulary = PhraseVocabulary.from_counts(counts, {})
    vocabulary.save_official(Store.at(tmp_path), "id2phrase.json")
    assert json.loads((tmp_path / "id2phrase.json").read_text()) == {
        "30522": ["sky", "blue"],
        "30523": ["dog"],
        "30524": ["man", "ride", "wave"],
    }
    loaded = PhraseVocabulary.load(str(tmp_path / "id2phrase.json"))
    assert loaded.phrases == vocabulary.phrases and loaded.official_ids == (30522, 30523, 30524)


def test_a_vocabulary_is_held_to_its_digest(tmp_path: Path) -> None:
    vocabulary = PhraseVocabulary.from_counts([(("sky", "blue"), 12)], {})
    vocabulary.save(Store.at(tmp_path), "v.parquet")
    table = pq.read_table(tmp_path / "v.parquet")
    other = table.set_column(1, "phrase", pa.array([["sky", "grey"]]))
    pq.write_table(other, tmp_path / "v.parquet")
    with pytest.raises(DamagedFileError, match="digest"):
        PhraseVocabulary.load(str(tmp_path / "v.parquet"))


def test_a_vocabulary_of_version_1_had_no_digest(tmp_path: Path) -> None:
    PhraseVocabulary.from_counts([(("sky", "blue"), 12)], {}).save(Store.at(tmp_path), "v.parquet")
    table = pq.read_table(tmp_path / "v.parquet")
    described = b'{"configuration":{},"format":"phrase_vocab","version":1}'
    pq.write_table(table.replace_schema_metadata({b"mvptr": described}), tmp_path / "v.parquet")
    assert PhraseVocabulary.load(str(tmp_path / "v.parquet")).phrases == (("sky", "blue"),)


def test_the_authors_sample_is_read(reference) -> None:  # type: ignore[no-untyped-def]
    vocabulary = PhraseVocabulary.load(str(reference("data/phrases/id2phrase_sample.json")))
    assert len(vocabulary) > 500
    assert {len(words) for words in vocabulary.phrases} == {1, 2, 3}
    assert min(number for number in vocabulary.official_ids if number is not None) >= 999


@pytest.mark.parametrize(
    "text",
    [
        "{",
        "[]",
        '{"x": ["a", "b"]}',
        '{"1": ["a", "b", "c", "d"]}',
        '{"1": ["a", 2]}',
        '{"1": 5}',
        '{"1": "abc"}',
        '{"01": ["a"]}',
        '{"-1": ["a"]}',
    ],
)
def test_malformed_official_files_are_typed_errors(tmp_path: Path, text: str) -> None:
    (tmp_path / "id2phrase.json").write_text(text)
    with pytest.raises(DamagedFileError, match="id2phrase"):
        PhraseVocabulary.load(str(tmp_path / "id2phrase.json"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"5": ["a", "b"], "6": ["c"], "5": ["d"]}', "'5' occurs more than once"),
        ('{"2147483648": ["a", "b"]}', r"entry 2147483648 .*an id up to 2147483647"),
        (r'{"5": ["\ud800", "b"]}', r"entry 5 .*'\\ud800'.*Unicode"),
        (r'{"5": ["a\tb", "c"], "6": ["a", "b", "c"]}', r"entry 5 .*control characters"),
        (r'{"5": ["a"], "6": ["b\u001b[31m"]}', r"entry 6 .*control characters"),
        (r'{"6": ["b\u0085"]}', r"entry 6 .*control characters"),
    ],
)
def test_entries_that_could_not_be_kept_are_named(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "id2phrase.json").write_text(text)
    with pytest.raises(DamagedFileError, match=message):
        PhraseVocabulary.load(str(tmp_path / "id2phrase.json"))


def test_the_largest_id_comes_back(tmp_path: Path) -> None:
    (tmp_path / "id2phrase.json").write_text('{"2147483647": ["a", "b"]}')
    PhraseVocabulary.load(str(tmp_path / "id2phrase.json")).save(Store.at(tmp_path), "v.parquet")
    assert PhraseVocabulary.load(str(tmp_path / "v.parquet")).official_ids == (2147483647,)


def test_missing_and_unknown_files_are_input_errors(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="build-phrase-vocab"):
        PhraseVocabulary.load(str(tmp_path / "none.parquet"))
    with pytest.raises(InputError, match="not a phrase vocabulary"):
        PhraseVocabulary.load(str(tmp_path / "words.txt"))
