"""A parsed caption as plain lists: what the rules read.

spaCy's Token objects cost a microsecond an attribute; a caption's four columns are read from the Doc in one call
instead.
"""

from __future__ import annotations

from bisect import insort
from collections.abc import Iterable, Sequence

import numpy as np
from spacy.attrs import DEP, HEAD, IDX, ORTH, TAG
from spacy.strings import StringStore
from spacy.tokens import Doc

COLUMNS = [ORTH, TAG, DEP, HEAD, IDX]
#: Words and labels remembered by their hash; the store is emptied when it is full, so that a stream of odd words stays
#: in bounds.
MAX_REMEMBERED = 500_000


class ParsedCaption:
    """N tokens of one caption, over all of its sentences.

    Attributes (lists of N): `words` in lower case, `tags` (Penn Treebank), `deps` (ClearNLP), `heads` (indices; a root
    is its own), `children` (ascending indices), `starts` (code-point offsets into the normalised caption).
    """

    __slots__ = ("children", "deps", "heads", "starts", "subjects", "tags", "words")

    def __init__(
        self, words: list[str], tags: list[str], deps: list[str], heads: list[int], starts: list[int] | None = None
    ) -> None:
        self.words = words
        self.tags = tags
        self.deps = deps
        self.heads = heads
        self.starts = starts if starts is not None else offsets_of(words)
        self.children: list[list[int]] = [[] for _ in heads]
        for token, head in enumerate(heads):
            if head != token:
                self.children[head].append(token)
        #: Subjects of verbs found so far; filled by `arguments.subjects`.
        self.subjects: dict[int, tuple[int, ...]] = {}

    def __len__(self) -> int:
        return len(self.words)

    def span(self, token: int) -> tuple[int, int]:
        """Half-open code-point range of a token in the normalised caption."""
        start = self.starts[token]
        return start, start + len(self.words[token])

    def hang(self, token: int, head: int) -> None:
        """Moves a token, and all that hangs on it, to another head."""
        self.children[self.heads[token]].remove(token)
        self.heads[token] = head
        insort(self.children[head], token)

    def is_under(self, token: int, ancestor: int) -> bool:
        """Whether a token is `ancestor` or hangs on it, however far down."""
        while token != ancestor and self.heads[token] != token:
            token = self.heads[token]
        return token == ancestor

    def child(self, token: int, *labels: str) -> int | None:
        """The first dependent with one of the labels."""
        deps = self.deps
        for child in self.children[token]:
            if deps[child] in labels:
                return child
        return None


def offsets_of(words: Sequence[str]) -> list[int]:
    """Offsets of words that single spaces separate."""
    starts, position = [], 0
    for word in words:
        starts.append(position)
        position += len(word) + 1
    return starts


class DocReader:
    """Turns the Docs of one pipeline into `ParsedCaption`s."""

    def __init__(self, strings: StringStore) -> None:
        self._strings = strings
        self._remembered: dict[int, str] = {}

    def read(self, sentences: Iterable[tuple[int, Doc]]) -> ParsedCaption:
        """One caption of its sentences' (offset, Doc), in order."""
        words: list[str] = []
        tags: list[str] = []
        deps: list[str] = []
        heads: list[int] = []
        starts: list[int] = []
        for offset, doc in sentences:
            columns = doc.to_array(COLUMNS)
            orths, tag_ids, dep_ids, _, positions = columns.T.tolist()
            first = len(words)
            words += self._names(orths)
            tags += self._names(tag_ids)
            deps += self._names(dep_ids)
            # spaCy stores a head as its distance, in an unsigned column.
            distances = columns[:, 3].view(np.int64)
            heads += (distances + np.arange(first, first + len(doc))).tolist()
            starts += [offset + position for position in positions] if offset else positions
        return ParsedCaption(words, tags, deps, heads, starts)

    def _names(self, ids: list[int]) -> list[str]:
        remembered = self._remembered
        try:
            return [remembered[key] for key in ids]
        except KeyError:
            if len(remembered) > MAX_REMEMBERED:
                remembered.clear()
            for key in ids:
                remembered[key] = self._strings[key]
            return [remembered[key] for key in ids]
