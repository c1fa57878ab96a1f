"""Word pieces of captions: the same bytes for the same captions, in any order and any process."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from random import Random

import pytest

from mvptr_data.errors import InputError
from mvptr_model.initialisation.word_piece_training import SPECIAL, train_word_pieces

CAPTIONS = [
    "A man riding a surfboard on a big wave.",
    "Two men are riding surfboards!",
    "A dog, a surfer and a board in the water",
    "MÁN riding waves",
    "the board of the boarding man",
] * 3


@pytest.fixture(scope="module")
def coco(reference: Callable[[str], Path]) -> list[str]:
    path = reference("data/captions/captions_val2017.json")
    return [item["caption"] for item in json.loads(path.read_text(encoding="utf-8"))["annotations"]][:6000]


def test_rows_are_in_their_places() -> None:
    words = train_word_pieces(CAPTIONS, size=80)
    assert words.pieces[:5] == SPECIAL and words.size == len(set(words.pieces)) == 80
    letters = sorted({letter for text in CAPTIONS for letter in text.lower().replace("á", "a") if letter != " "})
    assert list(words.pieces[5 : 5 + len(letters)]) == letters
    assert list(words.pieces[5 + len(letters) : 5 + 2 * len(letters)]) == [f"##{letter}" for letter in letters]
    assert all(any(piece.removeprefix("##") in text.lower() for text in CAPTIONS) for piece in words.pieces[5:])


def test_captions_become_few_pieces_and_none_is_unknown(coco: list[str]) -> None:
    words = train_word_pieces(coco, size=3000)
    assert words.size == 3000
    pieces = [words.encode(text).ids for text in coco]
    unknown = words.pieces.index("[UNK]")
    assert not any(unknown in one for one in pieces)
    spaces = sum(len(text.split()) for text in coco)
    assert sum(map(len, pieces)) < 1.3 * spaces  # with punctuation
    assert len(words.encode("surfboard").ids) == 1 and len(words.encode("skateboarding").ids) <= 2


def test_order_and_process_change_nothing(coco: list[str], tmp_path: Path) -> None:
    """A hash map's order differs from process to process."""
    (tmp_path / "captions.json").write_text(json.dumps(coco[:2000]))
    code = (
        "import json, sys; from mvptr_model.initialisation.word_piece_training import train_word_pieces;"
        "print('\\n'.join(train_word_pieces(json.load(open(sys.argv[1])), size=1500).pieces))"
    )
    shuffled = coco[:2000]
    Random(1).shuffle(shuffled)
    expected = "\n".join(train_word_pieces(shuffled, size=1500).pieces)
    for seed in ("1", "2"):
        environment = {**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": str(Path(__file__).resolve().parents[3])}
        found = subprocess.run(
            [sys.executable, "-c", code, str(tmp_path / "captions.json")],
            capture_output=True,
            text=True,
            check=True,
            env=environment,
        )
        assert found.stdout.rstrip("\n") == expected


def test_this_vocabulary_stays_this_one() -> None:
    """Pinned: with another release of `tokenizers` it may differ, and models that start from scratch with it."""
    pieces = train_word_pieces(CAPTIONS, size=80).pieces
    assert hashlib.sha256("\n".join(pieces).encode()).hexdigest()[:16] == "82bf8e22d6900be6"


def test_the_alphabet_is_bounded() -> None:
    """Rare characters have no row, and a word that has one is unknown; it does not count as the word without it."""
    letters = {letter for text in CAPTIONS for letter in text.lower().replace("á", "a") if letter != " "}
    texts = [*CAPTIONS * 5, *["wave☃wave", "☃q☃"] * 3]
    words = train_word_pieces(texts, size=200, alphabet=len(letters))
    assert {piece for piece in words.pieces if len(piece) == 1} == letters
    assert not any("☃" in piece or "q" in piece for piece in words.pieces)
    assert "wavewave" not in words.pieces and "wave" in words.pieces
    assert [words.pieces[number] for number in words.encode("☃ man").ids] == ["[UNK]", "man"]


def test_what_cannot_be() -> None:
    with pytest.raises(InputError, match="not one word"):
        train_word_pieces(["", " \t"])
    with pytest.raises(InputError, match=r"no room for the captions' \d+ characters.*at least"):
        train_word_pieces(CAPTIONS, size=20)


def test_pieces_that_come_once_are_not_made() -> None:
    assert (
        train_word_pieces(CAPTIONS[:5], size=500, least=2).size
        < train_word_pieces(CAPTIONS[:5], size=500, least=1).size
    )
