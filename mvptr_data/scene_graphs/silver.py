"""Silver parses: captions that a larger pipeline has already parsed, read, split and varied for training ours.

One line of the file is a JSON object with parallel lists `words`, `spaces` (is the word followed by one), `tags` (Penn
Treebank), `heads` (indices into `words`; a root points at itself) and `deps` (ClearNLP labels).
"""

from __future__ import annotations

import gzip
import hashlib
import json
import random
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from spacy.tokens import Doc
from spacy.training import Example
from spacy.vocab import Vocab

from mvptr_data.errors import DamagedFileError, InputError

#: One text in this many is held out.
HELD_OUT_EVERY = 25


@dataclass(frozen=True, slots=True, kw_only=True)
class SilverParse:
    """One parsed caption of N tokens; every field but `source` has N entries."""

    source: str
    words: tuple[str, ...]
    spaces: tuple[bool, ...]
    tags: tuple[str, ...]
    heads: tuple[int, ...]
    deps: tuple[str, ...]

    def text(self) -> str:
        """The caption as it was written."""
        return "".join(word + " " * space for word, space in zip(self.words, self.spaces, strict=True))


def read_silver(path: Path) -> Iterator[SilverParse]:
    """Yields the parses of a gzipped JSON-lines file, in file order.

    Raises `InputError` where there is no such file, and `DamagedFileError` naming the line that is no parse.
    """
    if not path.is_file():
        raise InputError(f"no silver parses at {path}", "Give the path of silver.jsonl.gz with --silver.")
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        for number, line in enumerate(lines, start=1):
            try:
                record = json.loads(line)
                columns = {name: tuple(record[name]) for name in ("words", "spaces", "tags", "heads", "deps")}
            except (ValueError, KeyError, TypeError) as error:
                raise DamagedFileError(f"{path}, line {number}: not a silver parse ({error})") from error
            if len({len(column) for column in columns.values()}) != 1:
                raise DamagedFileError(f"{path}, line {number}: its columns differ in length")
            yield merge_hyphens(SilverParse(source=record.get("src", ""), **columns))


def merge_hyphens(parse: SilverParse) -> SilverParse:
    """With words that the teacher split at inner hyphens made one again: double + - + decker is double-decker."""
    if "-" not in parse.words:
        return parse
    group: list[int] = []  # index of the merged token each old token is part of
    for i, word in enumerate(parse.words):
        glued = i > 0 and not parse.spaces[i - 1] and "-" in (word, parse.words[i - 1]) and (i > 1 or word == "-")
        group.append((group[-1] if group else -1) + (not glued))
    count = group[-1] + 1
    parts: list[list[int]] = [[] for _ in range(count)]
    for i, merged in enumerate(group):
        parts[merged].append(i)
    tops = [
        next((i for i in reversed(part) if parse.heads[i] == i or group[parse.heads[i]] != group[i]), part[-1])
        for part in parts
    ]
    return SilverParse(
        source=parse.source,
        words=tuple("".join(parse.words[i] for i in part) for part in parts),
        spaces=tuple(parse.spaces[part[-1]] for part in parts),
        tags=tuple(parse.tags[top] for top in tops),
        heads=tuple(group[parse.heads[top]] for top in tops),
        deps=tuple(parse.deps[top] for top in tops),
    )


def caption_key(text: str) -> str:
    """What the spellings of one caption share: its words in lower case, without periods."""
    return " ".join(text.lower().replace(".", " ").split())


def is_held_out(parse: SilverParse) -> bool:
    """Whether the caption belongs to the held-out share; captions that differ in case or final period share their fate."""
    key = " ".join(strip_final_period(parse).words).lower()
    return int.from_bytes(hashlib.sha256(key.encode()).digest()[:8]) % HELD_OUT_EVERY == 0


def split_silver(path: Path) -> tuple[list[SilverParse], list[SilverParse]]:
    """(training, held-out) parses of the file; no text is in both."""
    training: list[SilverParse] = []
    held_out: list[SilverParse] = []
    for parse in read_silver(path):
        (held_out if is_held_out(parse) else training).append(parse)
    return training, held_out


def frequent_words(parses: Iterable[SilverParse], times: int = 5) -> list[str]:
    """The words in lower case that occur at least so many times, in order of code points."""
    counts = Counter(word.lower() for parse in parses for word in parse.words)
    return sorted(word for word, count in counts.items() if count >= times)


def lower_case(parse: SilverParse) -> SilverParse:
    return replace(parse, words=tuple(word.lower() for word in parse.words))


def strip_final_period(parse: SilverParse) -> SilverParse:
    """Without its last period; unchanged where there is none, or where something hangs on it."""
    last = len(parse.words) - 1
    if last < 1 or parse.words[last] != "." or last in parse.heads:
        return parse
    return SilverParse(
        source=parse.source,
        words=parse.words[:last],
        spaces=(*parse.spaces[: last - 1], False),
        tags=parse.tags[:last],
        heads=parse.heads[:last],
        deps=parse.deps[:last],
    )


def add_final_period(parse: SilverParse) -> SilverParse:
    """With a period at the end that hangs on the last root; unchanged where one is there or there is no single root."""
    roots = [i for i, head in enumerate(parse.heads) if head == i]
    if parse.tags[-1] == "." or len(roots) != 1:
        return parse
    return SilverParse(
        source=parse.source,
        words=(*parse.words, "."),
        spaces=(*parse.spaces[:-1], False, False),
        tags=(*parse.tags, "."),
        heads=(*parse.heads, roots[0]),
        deps=(*parse.deps, "punct"),
    )


def vary(parse: SilverParse, rng: random.Random) -> SilverParse:
    """A random spelling of the same parse: half lower-cased, some in capitals; a final period half of the time.

    This is what makes the parser indifferent to both, so that 'A man riding a wave' and 'a man riding a wave.' have one
    parse.
    """
    parse = strip_final_period(parse) if rng.random() < 0.5 else add_final_period(parse)
    draw = rng.random()
    if draw < 0.5:
        return lower_case(parse)
    if draw < 0.55:
        return replace(parse, words=tuple(word.title() for word in parse.words))
    if draw < 0.60:
        return replace(parse, words=tuple(word.upper() for word in parse.words))
    return parse


def to_doc(parse: SilverParse, vocab: Vocab) -> Doc:
    """The annotated spaCy document."""
    return Doc(
        vocab,
        words=list(parse.words),
        spaces=list(parse.spaces),
        tags=list(parse.tags),
        heads=list(parse.heads),
        deps=list(parse.deps),
    )


def to_example(parse: SilverParse, vocab: Vocab) -> Example:
    """A training example: the bare words and the annotated document."""
    return Example(Doc(vocab, words=list(parse.words), spaces=list(parse.spaces)), to_doc(parse, vocab))
