"""What the rules find in one caption, in token indices, and the switches they obey."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import NamedTuple

from mvptr_data.errors import InputError
from mvptr_data.scene_graphs.arguments import PLURAL_TAGS, VERB_TAGS, quantified
from mvptr_data.scene_graphs.lemmas import Lemmatizer
from mvptr_data.scene_graphs.prepositions import Preposition, find_prepositions
from mvptr_data.scene_graphs.tokens import ParsedCaption

#: What an object may be written with; one letter at least.
OBJECT = re.compile(r"[0-9'./-]*[a-z][a-z0-9'./-]*")
#: What an attribute may be written with; digits alone are one.
ATTRIBUTE = re.compile(r"[a-z0-9'./-]*[a-z0-9][a-z0-9'./-]*")


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    """Which of two readings of the specification is followed."""

    name: str
    #: A7 gives (people, couple), or with False the article: (people, a).
    quantifier_is_attribute: bool
    #: Keep tuples whose subject and object are the same word.
    keeps_self_loops: bool
    #: R8: a passive without an agent relates its subject to its obliques.
    relates_agentless_passives: bool


PROFILES = {
    profile.name: profile
    for profile in (
        Profile(name="paper", quantifier_is_attribute=True, keeps_self_loops=False, relates_agentless_passives=True),
        Profile(
            name="official", quantifier_is_attribute=False, keeps_self_loops=True, relates_agentless_passives=False
        ),
    )
}


def find_profile(name: str) -> Profile:
    """The profile of that name; `InputError` naming the known ones where there is none."""
    if name not in PROFILES:
        raise InputError(f"there is no phrase profile {name!r}", f"Use one of: {', '.join(PROFILES)}.")
    return PROFILES[name]


class AttributeFact(NamedTuple):
    """(object, attribute): the object's token, the attribute's word and its token."""

    noun: int
    word: str
    token: int


class RelationFact(NamedTuple):
    """(subject, predicate, object): the tokens of the nouns, the predicate's words and their tokens."""

    subject: int
    predicate: str
    tokens: tuple[int, ...]
    object: int


class Findings:
    """One caption under analysis: its tokens, its prepositions, and the facts found so far."""

    __slots__ = ("attributes", "caption", "lemmas", "prepositions", "profile", "relations")

    def __init__(self, caption: ParsedCaption, lemmas: Lemmatizer, profile: Profile) -> None:
        self.caption = caption
        self.lemmas = lemmas
        self.profile = profile
        self.prepositions: list[Preposition] = find_prepositions(caption)
        self.attributes: list[AttributeFact] = []
        self.relations: list[RelationFact] = []

    def lemma(self, token: int) -> str:
        """Plural nouns and verbs reduced, every other word as it is."""
        tag = self.caption.tags[token]
        word = self.caption.words[token]
        if tag in PLURAL_TAGS:
            return self.lemmas.noun(word)
        return self.lemmas.verb(word) if tag in VERB_TAGS else word

    def object_lemma(self, noun: int) -> str:
        word = self.caption.words[noun]
        return self.lemmas.noun(word) if self.caption.tags[noun] in PLURAL_TAGS else word

    def say_attribute(self, noun: int, token: int, word: str) -> None:
        """Records (noun, word) unless either is no word."""
        if noun != token and ATTRIBUTE.fullmatch(word) and OBJECT.fullmatch(self.caption.words[noun]):
            self.attributes.append(AttributeFact(noun, word, token))

    def say_relation(self, subject: int, predicate: str, tokens: tuple[int, ...], noun: int) -> None:
        """Records (subject, predicate, noun) unless one of the nouns is no word.

        With profile `paper` they must be different words as well.
        """
        words = self.caption.words
        if not (OBJECT.fullmatch(words[subject]) and OBJECT.fullmatch(words[noun])):
            return
        if self.profile.keeps_self_loops or (subject != noun and self.object_lemma(subject) != self.object_lemma(noun)):
            self.relations.append(RelationFact(subject, predicate, tokens, noun))

    def is_quantifier(self, token: int) -> bool:
        return quantified(self.caption, token) is not None
