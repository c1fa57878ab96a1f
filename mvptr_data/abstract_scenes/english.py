"""The words captions are made of: plurals, numbers, verbs, prepositions, and names of backgrounds.

Every table is keyed by the world's own vocabulary, so that a caption's words can be traced back to what is drawn.
"""

from __future__ import annotations

from dataclasses import dataclass

#: Plurals that are not the kind + "s".
_IRREGULAR_PLURALS = {"box": "boxes"}

#: Words for the numbers of things a scene can hold.
NUMBER_WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight")

#: What a person's color is the color of. A color is never said of the person, only of this.
CLOTHES: dict[str, str] = {"boy": "shirt", "girl": "dress"}

#: size -> the adjective that says it. Of things that are neither small nor large people seldom say the size at all.
SIZE_WORDS: dict[str, str] = {"small": "small", "medium": "medium-sized", "large": "large"}

#: A person's possessive pronoun.
POSSESSIVES: dict[str, str] = {"boy": "his", "girl": "her"}

#: relation -> the prepositions that say it, the plainest first.
WORDINGS: dict[str, tuple[str, ...]] = {
    "above": ("above", "over"),
    "behind": ("behind",),
    "below": ("below",),
    "in front of": ("in front of",),
    "next to": ("next to", "next to", "beside", "near"),
    "on": ("on",),
    "on top of": ("on top of",),
    "under": ("under",),
}


def plural(kind: str) -> str:
    """The plural of a kind's name."""
    return _IRREGULAR_PLURALS.get(kind, f"{kind}s")


def indefinite(words: str) -> str:
    """`words` after "a" or "an"."""
    return f"{'an' if words[0] in 'aeiou' else 'a'} {words}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Verb:
    """How a thing is somewhere. `participle` follows "is"; `present` is the third person singular, or None for verbs that
    are only said with "is" (a car is parked, it does not park)."""

    lemma: str
    participle: str
    present: str | None = None


_STAND = Verb(lemma="stand", participle="standing", present="stands")
_SIT = Verb(lemma="sit", participle="sitting", present="sits")
_FLY = Verb(lemma="fly", participle="flying", present="flies")
_FLOAT = Verb(lemma="float", participle="floating", present="floats")
_GROW = Verb(lemma="grow", participle="growing", present="grows")
_REST = Verb(lemma="rest", participle="resting", present="rests")
_PARK = Verb(lemma="park", participle="parked")
_PERCH = Verb(lemma="perch", participle="perched")

_GROUND = frozenset({"behind", "in front of", "next to", "under"})
_SUPPORT = frozenset({"on", "on top of"})
_AIR = frozenset({"above"})

#: kind -> its verbs and the relations each fits.
_VERBS: dict[str, tuple[tuple[Verb, frozenset[str]], ...]] = {
    "ball": ((_REST, _SUPPORT),),
    "balloon": ((_FLOAT, _AIR),),
    "bird": ((_PERCH, _SUPPORT), (_SIT, _SUPPORT), (_STAND, _GROUND), (_FLY, _AIR)),
    "box": ((_REST, _SUPPORT),),
    "boy": ((_STAND, _GROUND),),
    "car": ((_PARK, _GROUND),),
    "cat": ((_SIT, _GROUND | _SUPPORT),),
    "chair": ((_STAND, _GROUND),),
    "dog": ((_STAND, _GROUND | _SUPPORT),),
    "flower": ((_GROW, _GROUND),),
    "girl": ((_STAND, _GROUND),),
    "house": ((_STAND, _GROUND),),
    "kite": ((_FLY, _AIR),),
    "lamp": ((_STAND, _GROUND | _SUPPORT),),
    "table": ((_STAND, _GROUND),),
    "tree": ((_STAND, _GROUND),),
}


#: Backgrounds with soil, where things can be said to grow.
_GREEN = frozenset({"lake", "meadow"})


def verbs(kind: str, relation: str, background: str) -> tuple[Verb, ...]:
    """The verbs that fit a thing of that kind in that relation and place; empty where only "is" does."""
    return tuple(
        verb for verb, fits in _VERBS.get(kind, ()) if relation in fits and (verb is not _GROW or background in _GREEN)
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """A background in words: where its things are ("on", "beach"), and an adjective it may take."""

    preposition: str
    noun: str
    adjective: str


#: background -> the ways to say that something stands there.
SETTINGS: dict[str, tuple[Setting, ...]] = {
    "beach": (Setting(preposition="on", noun="beach", adjective="sandy"),),
    "lake": (
        Setting(preposition="near", noun="lake", adjective="calm"),
        Setting(preposition="on", noun="grass", adjective="green"),
    ),
    "meadow": (
        Setting(preposition="in", noun="meadow", adjective="green"),
        Setting(preposition="on", noun="grass", adjective="green"),
    ),
    "room": (
        Setting(preposition="in", noun="room", adjective="bright"),
        Setting(preposition="on", noun="floor", adjective="wooden"),
    ),
    "snow": (Setting(preposition="in", noun="snow", adjective="white"),),
    "street": (Setting(preposition="on", noun="street", adjective="gray"),),
}

#: Where boats are.
WATER = Setting(preposition="on", noun="water", adjective="blue")
