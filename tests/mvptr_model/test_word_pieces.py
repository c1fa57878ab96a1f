from __future__ import annotations

import json
import pickle
import string
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import BertWordPieceTokenizer

from mvptr_data.errors import InputError
from mvptr_model import word_pieces
from mvptr_model.word_pieces import WordPieces

SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
LETTERS = string.ascii_lowercase[:20]  # so that some words are unknown
VOCABULARY = [*SPECIAL, "man", "surf", "##board", "fire", "!", "-", "[", "]", *LETTERS, *(f"##{x}" for x in LETTERS)]
WORDS = WordPieces(VOCABULARY)
#: The same vocabulary in the tokenizer that BERT's users know. It takes "[MASK]" in a text for the special token.
BERT = BertWordPieceTokenizer({piece: number for number, piece in enumerate(VOCABULARY)}, lowercase=True)

tricky = st.sampled_from(
    [*"\t\n\x00\x7f’é´ñ中😀\u0301\u00ad\u200b_'", "man", "Surfboard", "fire-man!", "x" * 101, "zebra", " "]
)
texts = st.one_of(
    st.text(st.characters(min_codepoint=32, max_codepoint=126)),
    st.text(),
    st.lists(tricky).map("".join),
    st.lists(tricky).map(" ".join),
)


@given(texts)
def test_texts_are_cut_as_by_berts_tokenizer(text: str) -> None:
    expected = BERT.encode(text.replace("[", "("), add_special_tokens=False)
    found = WORDS.encode(text.replace("[", "("))
    assert found.ids == expected.ids
    assert list(zip(found.offsets[::2], found.offsets[1::2], strict=True)) == expected.offsets


@pytest.mark.parametrize(
    ("text", "pieces", "offsets"),
    [
        ("", [], []),
        ("  \t ", [], []),
        ("A surfboard!", ["a", "surf", "##board", "!"], [0, 1, 2, 6, 6, 11, 11, 12]),
        ("😀 man", ["[UNK]", "man"], [0, 1, 2, 5]),  # code points, not bytes
        ("mán", ["man"], [0, 3]),
        ("m\x00an\tman", ["man", "man"], [0, 4, 5, 8]),  # control characters are nothing, white space parts
        ("z man", ["[UNK]", "man"], [0, 1, 2, 5]),
        ("man" * 34, ["[UNK]"], [0, 102]),
    ],
)
def test_pieces_and_their_offsets(text: str, pieces: list[str], offsets: list[int]) -> None:
    for _ in range(2):  # from the tokenizer, then from memory
        found = WORDS.encode(text)
        assert [VOCABULARY[number] for number in found.ids] == pieces
        assert found.offsets == offsets


def test_special_tokens_in_a_text_are_its_letters() -> None:
    special = {WORDS.pad, WORDS.cls, WORDS.sep, WORDS.mask}
    for text in ("[MASK]", "a [SEP] b", "[CLS]", "[MASK] é"):
        assert not special & set(WORDS.encode(text).ids)


def test_memory_is_bounded_and_forgetting_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(word_pieces, "_REMEMBERED", 3)
    words = WordPieces(VOCABULARY)
    text = " ".join([*LETTERS, "man", "surfboard", *LETTERS])
    assert words.encode(text) == words.encode(text) == WORDS.encode(text)


def test_a_pickled_one_is_the_same() -> None:
    WORDS.encode("a man")
    copied = pickle.loads(pickle.dumps(WORDS))
    assert copied.encode("A surfboard!") == WORDS.encode("A surfboard!")
    assert (copied.size, copied.pieces, copied.mask) == (WORDS.size, WORDS.pieces, WORDS.mask)


def test_a_vocabulary_that_is_none_is_a_typed_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"lack \[MASK\]"):
        WordPieces(["[PAD]", "[UNK]", "[CLS]", "[SEP]"])
    with pytest.raises(InputError, match="'a' comes twice"):
        WordPieces([*SPECIAL, "a", "b", "a"])
    with pytest.raises(InputError, match=r"nowhere\.txt"):
        WordPieces.load(str(tmp_path / "nowhere.txt"))
    (tmp_path / "latin.txt").write_bytes(b"\xff\xfe")
    with pytest.raises(InputError, match=r"latin\.txt"):
        WordPieces.load(str(tmp_path / "latin.txt"))


def test_a_file_has_a_piece_a_line(tmp_path: Path) -> None:
    (tmp_path / "vocab.txt").write_text("\n".join(VOCABULARY) + "\n", encoding="utf-8")
    assert WordPieces.load(str(tmp_path / "vocab.txt")).pieces == tuple(VOCABULARY)


def test_berts_own_vocabulary_on_coco(reference: Callable[[str], Path]) -> None:
    path = str(reference("data/bert/vocab.txt"))
    captions = json.loads(reference("data/captions/captions_val2017.json").read_text(encoding="utf-8"))["annotations"]
    words, bert = WordPieces.load(path), BertWordPieceTokenizer(path, lowercase=True)
    assert words.size == 30_522
    assert words.encode("A man riding a big wave").ids == [1037, 2158, 5559, 1037, 2502, 4400]
    for item in captions[:3000]:
        assert words.encode(item["caption"]).ids == bert.encode(item["caption"], add_special_tokens=False).ids
