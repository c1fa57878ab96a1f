"""Scene graphs and phrases as records.

Spans are half-open code-point ranges [start, end) into the normalised caption (`normalize_caption`), one for each
token.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

Span = tuple[int, int]


class Phrase(NamedTuple):
    """A phrase concept: (object, attribute) or (subject, predicate, object), and where the caption says it.

    `spans` are ascending, without repetition; "have" that a possessive says lies on the possessive ("her", "'s").
    """

    words: tuple[str, ...]
    spans: tuple[Span, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class SceneObject:
    """A thing the caption names: one noun's lemma."""

    lemma: str
    span: Span


@dataclass(frozen=True, slots=True, kw_only=True)
class SceneAttribute:
    """An attribute of the object at index `of` in the graph's objects."""

    of: int
    word: str
    span: Span


@dataclass(frozen=True, slots=True, kw_only=True)
class SceneRelation:
    """A relation between two objects, by index in the graph's objects; `spans` are those of the predicate."""

    subject: int
    predicate: str
    object: int
    spans: tuple[Span, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class SceneGraph:
    """What a caption says: `text` is normalised, `objects` are in order of position; a word said twice is two objects."""

    text: str
    objects: tuple[SceneObject, ...]
    attributes: tuple[SceneAttribute, ...]
    relations: tuple[SceneRelation, ...]
