"""Captions as text: normal form, lower case of the same length, sentences."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator

#: Characters of a caption that are read; what follows is ignored. COCO's longest caption has 253.
MAX_CHARACTERS = 10_000

#: Longer runs without a space (addresses, ornaments) are read as one unknown word: tokenizers take cubic time over
#: "((((((".
LONG_WORD = re.compile(r"\S{61,}")

LONE_SURROGATE = re.compile("[\ud800-\udfff]")

#: A sentence ends at a mark before a space, unless the mark is part of an ellipsis.
SENTENCE_END = re.compile(r"(?:[!?]+|(?<!\.)\.)[\"')\]]*(?= )")

#: Words whose period ends no sentence, besides single letters.
ABBREVIATIONS = frozenset({"dr", "etc", "jr", "mr", "mrs", "ms", "mt", "sr", "st", "vs"})

#: What a sentence may end in without meaning anything more.
FINAL_MARKS = " .!?…"


def normalize_caption(text: str) -> str:
    """NFC, white space collapsed to single spaces and stripped, lone surrogates (no text, and not encodable) as U+FFFD.

    Case is kept. Idempotent; all spans of this package are code-point offsets into its result.
    """
    return " ".join(unicodedata.normalize("NFC", LONE_SURROGATE.sub("\ufffd", text)).split())


def lower_same_length(text: str) -> str:
    """Lower case, character by character, keeping the few whose lower case is longer: offsets stay valid."""
    lowered = text.lower()
    if len(lowered) == len(text):
        return lowered
    return "".join(low if len(low := character.lower()) == 1 else character for character in text)


def blank_long_words(text: str) -> str:
    """The text with each long word replaced by as many of a letter that no phrase is written with."""
    return LONG_WORD.sub(lambda word: "ø" * len(word.group()), text)


def split_sentences(text: str) -> Iterator[tuple[int, str]]:
    """Yields (offset, sentence) of a normalised text.

    The marks at a sentence's end are left out: "a cat." and "a cat" are one sentence.
    """
    start = 0
    for end in [
        *(match.end() for match in SENTENCE_END.finditer(text) if not after_abbreviation(text, match)),
        len(text),
    ]:
        sentence = text[start:end].rstrip(FINAL_MARKS)
        if sentence:
            yield start, sentence
        start = end + 1


def after_abbreviation(text: str, mark: re.Match[str]) -> bool:
    """Whether the period at `mark` belongs to the word before it (mr. smith, j. smith)."""
    word = text[text.rfind(" ", 0, mark.start()) + 1 : mark.start()].lower()
    return mark.group() == "." and (word in ABBREVIATIONS or (len(word) == 1 and word.isalpha()))
