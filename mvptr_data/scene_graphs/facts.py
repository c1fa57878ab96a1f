"""What the rules find in one caption, in token indices, and the switches they obey."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

from mvptr_data.errors import InputError
from mvptr_data.scene_graphs.arguments import NOUN_TAGS, PLURAL_TAGS, VERB_TAGS, is_absent, is_verb, quantified
from mvptr_data.scene_graphs.lemmas import Lemmatizer
from mvptr_data.scene_graphs.prepositions import Preposition, find_prepositions
from mvptr_data.scene_graphs.tokens import ParsedCaption

#: What an object may be written with; one letter at least.
OBJECT = re.compile(r"[0-9'./-]*[a-z][a-z0-9'./-]*")
#: What a predicate may be written with: words as objects are.
PREDICATE = re.compile(rf"{OBJECT.pattern}(?: {OBJECT.pattern})*")
#: What an attribute may be written with; digits alone are one.
ATTRIBUTE = re.compile(r"[a-z0-9'./-]*[a-z0-9][a-z0-9'./-]*")


#: Labels of nouns that say what another noun is like.
MODIFIER_LABELS = frozenset({"compound", "nmod", "amod", "npadvmod"})


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
    #: An object alone is a phrase of one word.
    names_objects: bool


PROFILES = {
    profile.name: profile
    for profile in (
        Profile(
            name="paper",
            quantifier_is_attribute=True,
            keeps_self_loops=False,
            relates_agentless_passives=True,
            names_objects=False,
        ),
        Profile(
            name="official",
            quantifier_is_attribute=False,
            keeps_self_loops=True,
            relates_agentless_passives=False,
            names_objects=True,
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
        """Records (subject, predicate, noun) unless one of the nouns or of the predicate's words is no word.

        With profile `paper` the nouns must be different words as well.
        """
        words = self.caption.words
        if not (OBJECT.fullmatch(words[subject]) and OBJECT.fullmatch(words[noun]) and PREDICATE.fullmatch(predicate)):
            return
        if self.profile.keeps_self_loops or (subject != noun and self.object_lemma(subject) != self.object_lemma(noun)):
            self.relations.append(RelationFact(subject, predicate, tokens, noun))

    def is_quantifier(self, token: int) -> bool:
        return quantified(self.caption, token) is not None

    def objects(self) -> Iterable[int]:
        """The tokens that name a thing, whether or not a fact is said of it."""
        return [token for token in range(len(self.caption)) if self._is_object(token)]

    def _is_object(self, token: int) -> bool:
        """Whether it is a noun which is no quantifier and no part of a compound, a participle or a preposition."""
        caption = self.caption
        return (
            caption.tags[token] in NOUN_TAGS
            and not self._is_modifier(token)
            and OBJECT.fullmatch(caption.words[token]) is not None
            and not is_verb(caption, token)
            and not self.is_quantifier(token)
            and not is_absent(caption, token)
            and not any(token in preposition.tokens for preposition in self.prepositions)
        )

    def _is_modifier(self, token: int) -> bool:
        """Whether it stands for a property: part of a compound, joined to one, or a bare noun after "is" (is metal)."""
        caption = self.caption
        while caption.deps[token] == "conj":
            token = caption.heads[token]
        label = caption.deps[token]
        return label in MODIFIER_LABELS or (label == "attr" and self._is_bare_property(token))

    def _is_bare_property(self, token: int) -> bool:
        caption = self.caption
        return not caption.children[token] and caption.child(caption.heads[token], "nsubj") is not None
