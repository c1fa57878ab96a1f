"""The records of a drawn world. All are plain values: equal records mean equal pictures and equal captions."""

from __future__ import annotations

from dataclasses import dataclass

#: Width and height of every picture, in pixels.
CANVAS = 256


@dataclass(frozen=True, slots=True, kw_only=True)
class Thing:
    """One drawn thing.

    `box` is (x1, y1, x2, y2) in pixels, half-open: the tight box of the pixels that no later thing covers. `visible` is
    the share of its drawn pixels that stay uncovered. `left`, `top`, `extent` and `flip` say how the whole thing was
    drawn: its upper left corner, its longer side, and whether it is mirrored.
    """

    kind: str
    color: str
    size: str
    box: tuple[float, float, float, float]
    visible: float
    left: int
    top: int
    extent: int
    flip: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Relation:
    """`subject` stands in `predicate` to `object`; both are indices into the scene's things."""

    subject: int
    predicate: str
    object: int


@dataclass(frozen=True, slots=True, kw_only=True)
class GroundedPhrase:
    """A phrase in lemmas, (object, attribute) or (subject, predicate, object), and the things it speaks of.

    `things` are ascending indices into the scene's things; it is empty for a phrase about the background.
    """

    words: tuple[str, ...]
    things: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class SceneCaption:
    """A sentence about the scene and exactly the phrases it contains, in no particular order. `template` names its form."""

    text: str
    template: str
    phrases: tuple[GroundedPhrase, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """Everything that is known about one picture. `things` run from back to front."""

    seed: int
    index: int
    background: str
    things: tuple[Thing, ...]
    relations: tuple[Relation, ...]
    captions: tuple[SceneCaption, ...]
    width: int = CANVAS
    height: int = CANVAS
