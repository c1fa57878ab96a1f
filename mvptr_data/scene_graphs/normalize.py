"""Captions as text: normal form, lower case of the same length, sentences."""

from __future__ import annotations

import html
import re
import unicodedata
from collections.abc import Iterator

#: Characters of a caption that are read; what follows is ignored. COCO's longest caption has 253.
MAX_CHARACTERS = 10_000

#: Longer runs without a space (addresses, ornaments) are read as one unknown word: tokenizers take cubic time over
#: "((((((".
LONG_WORD = re.compile(r"\S{61,}")

#: Characters in a row that can hold more combining marks than MAX_MARKS: each stands for two at most, and up to three go
#: with the letter before.
MANY_MARKS = re.compile("[\u0300-\U0010ffff]{14}")
#: Combining marks in a row, and the character that breaks longer runs: Unicode's stream-safe text (UAX 15). Ordering the
#: marks of one run takes quadratic time.
MAX_MARKS = 30
JOINER = "\u034f"

LONE_SURROGATE = re.compile("[\ud800-\udfff]")
#: Control characters that are no white space.
CONTROL = re.compile("[\x00-\x08\x0e-\x1b\x7f-\x84\x86-\x9f]")

#: An ampersand as HTML spells it, escaped once or more often (&amp;, &amp;amp;).
AMPERSAND = re.compile(r"&(?:(?:amp|AMP|#0*38|#[xX]0*26);)+")
#: Any other character that HTML spells out.
ENTITY = re.compile(r"&(?:#[0-9]{1,7}|#[xX][0-9a-fA-F]{1,6}|[A-Za-z][A-Za-z0-9]{1,31});")
#: What entities are written with: one of these out of an entity could make up another one with what stands around it.
ENTITY_CHARACTER = re.compile(r"[&#;0-9A-Za-z]")

#: A sentence ends at a mark before a space, unless the mark is part of an ellipsis.
SENTENCE_END = re.compile(r"(?:[!?]+|(?<!\.)\.)[\"')\]]*(?= )")

#: Words whose period ends no sentence, besides single letters.
ABBREVIATIONS = frozenset({"dr", "etc", "jr", "mr", "mrs", "ms", "mt", "sr", "st", "vs"})

#: What a sentence may end in without meaning anything more.
FINAL_MARKS = " .!?…"


def normalize_caption(text: str) -> str:
    """NFC, HTML entities as the characters they stand for, white space and controls as single spaces, stripped.

    Lone surrogates (no text, and not encodable) become U+FFFD; after 30 combining marks in a row stands U+034F. Case is
    kept. Idempotent; all spans of this package are code-point offsets into its result. Takes linear time.
    """
    text = compose(LONE_SURROGATE.sub("\ufffd", text))
    if "&" in text:
        text = compose(resolve_entities(text))
    return " ".join(CONTROL.sub(" ", text).split())


def compose(text: str) -> str:
    """NFC, with runs of combining marks broken before."""
    return unicodedata.normalize("NFC", break_marks(text) if MANY_MARKS.search(text) else text)


def break_marks(text: str) -> str:
    """The text with U+034F before each combining mark that would be the 31st of its run."""
    pieces: list[str] = []
    run = 0
    for character in text:
        parts = unicodedata.normalize("NFD", character)
        marks = sum(unicodedata.combining(part) != 0 for part in parts)
        if marks < len(parts):  # a letter, whose marks come last
            run = 0
        elif run + marks > MAX_MARKS:
            pieces.append(JOINER)
            run = 0
        run += marks
        pieces.append(character)
    return "".join(pieces)


def resolve_entities(text: str) -> str:
    """The text with its HTML entities resolved, in one pass whatever their nesting (&amp;quot; is a quotation mark).

    Entities for letters, digits, # and ; stay, because resolving them could take a pass for every character.
    """
    return ENTITY.sub(resolve_entity, AMPERSAND.sub("&", text))


def resolve_entity(entity: re.Match[str]) -> str:
    character = unicodedata.normalize("NFC", html.unescape(entity.group()))
    return entity.group() if not character or ENTITY_CHARACTER.search(character) else character


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
