"""Noun phrases: the words for some things of a scene, and what those words claim about them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mvptr_data.abstract_scenes.english import CLOTHES, NUMBER_WORDS, SIZE_WORDS, indefinite, plural
from mvptr_data.abstract_scenes.records import GroundedPhrase, Scene, Thing

#: How often a size is said before the noun.
_SIZE_SAID: dict[str, float] = {"small": 0.45, "medium": 0.08, "large": 0.45}


def claim(*words: str, things: Sequence[int]) -> GroundedPhrase:
    """A phrase about `things`, each once and ascending."""
    return GroundedPhrase(words=tuple(words), things=tuple(sorted(set(things))))


@dataclass(frozen=True, slots=True, kw_only=True)
class Mention:
    """A noun phrase: its words, the lemma of its noun, whether it is plural, the things it speaks of, and its claims."""

    text: str
    noun: str
    things: tuple[int, ...]
    phrases: tuple[GroundedPhrase, ...] = ()
    plural: bool = False

    def relate(self, predicate: str, other: Mention) -> GroundedPhrase:
        """The phrase (self, predicate, other)."""
        return claim(self.noun, predicate, other.noun, things=(*self.things, *other.things))

    def described(self, attribute: str) -> GroundedPhrase:
        """The phrase (self, attribute)."""
        return claim(self.noun, attribute, things=self.things)


class Speaker:
    """Makes noun phrases about one scene, varied by a random stream."""

    def __init__(self, scene: Scene, random: np.random.Generator) -> None:
        self.scene = scene
        self.random = random

    def chance(self, probability: float) -> bool:
        return bool(self.random.random() < probability)

    def thing(self, number: int) -> Thing:
        return self.scene.things[number]

    def size(self, number: int) -> str:
        """The adjective for a thing's size."""
        return SIZE_WORDS[self.thing(number).size]

    def adjectives(self, number: int) -> tuple[str, ...]:
        """Attributes to say before the noun: none, size, color, or both in this order. Persons take a color only with
        their clothes, and of sizes only "small"."""
        thing = self.thing(number)
        person = thing.kind in CLOTHES
        size = self.chance(_SIZE_SAID[thing.size]) and (not person or thing.size == "small")
        color = self.chance(0.6) and not person
        return (*((self.size(number),) if size else ()), *((thing.color,) if color else ()))

    def one(
        self,
        number: int,
        *,
        adjectives: Sequence[str] | None = None,
        indefinite_only: bool = False,
        final: bool = False,
        open_end: bool = False,
    ) -> Mention:
        """A noun phrase for one thing.

        `adjectives` fixes what stands before the noun; otherwise it is drawn. `indefinite_only` keeps "the" away. Words
        may follow the noun only where they cannot be taken to belong to anything else: `final` (the sentence ends here)
        and `open_end` (a finite verb follows) say so.
        """
        thing = self.thing(number)
        said = tuple(adjectives if adjectives is not None else self.adjectives(number))
        words = " ".join((*said, thing.kind))
        phrases = [claim(thing.kind, adjective, things=(number,)) for adjective in said]
        definite = not indefinite_only and self.unique(number, said) and self.chance(0.35)
        text = f"the {words}" if definite else indefinite(words)
        if adjectives is None and (final or open_end):
            tail, claims = self._tail(number, said, final)
            text, phrases = text + tail, phrases + claims
        return Mention(text=text, noun=thing.kind, things=(number,), phrases=tuple(phrases))

    def _tail(self, number: int, said: Sequence[str], final: bool) -> tuple[str, list[GroundedPhrase]]:
        """Words after the noun: a person's clothes, or a relative clause with a color not yet said."""
        thing = self.thing(number)
        clothes = CLOTHES.get(thing.kind)
        if clothes is not None:
            if not self.chance(0.4):
                return "", []
            wearing = self.chance(0.5)
            text = f" {'wearing' if wearing else 'in'} a {thing.color} {clothes}"
            relation = claim(thing.kind, "wear" if wearing else "in", clothes, things=(number,))
            return text, [relation, claim(clothes, thing.color, things=(number,))]
        if final and thing.color not in said and self.chance(0.12):
            return f" that is {thing.color}", [claim(thing.kind, thing.color, things=(number,))]
        return "", []

    def unique(self, number: int, said: Sequence[str]) -> bool:
        """Whether no other thing of the scene fits the words."""
        kind = self.thing(number).kind
        fits = [
            t
            for t in self.scene.things
            if t.kind == kind and all(word in (t.color, SIZE_WORDS[t.size]) for word in said)
        ]
        return len(fits) == 1

    def the(self, number: int, *, without: str = "") -> Mention | None:
        """A noun phrase with "the" that only this thing fits and that does not say the attribute `without`; None if there
        is no such phrase."""
        thing = self.thing(number)
        size = self.size(number)
        sayable = [()] if thing.kind in CLOTHES else [(), (thing.color,), (size,), (size, thing.color)]
        options = [said for said in sayable if without not in said and self.unique(number, said)]
        if not options:
            return None
        said = options[int(self.random.integers(len(options)))]
        phrases = tuple(claim(thing.kind, adjective, things=(number,)) for adjective in said)
        return Mention(text=" ".join(("the", *said, thing.kind)), noun=thing.kind, things=(number,), phrases=phrases)

    def several(self, numbers: Sequence[int], *, definite: bool = False) -> Mention:
        """A counted noun phrase for two or more things of one kind: "two dogs", "three red balls", "a couple of cats".

        Attributes are said only if all share them. `definite` puts "the" before the number.
        """
        things = [self.thing(number) for number in numbers]
        kind = things[0].kind
        looks = [(SIZE_WORDS[things[0].size], {t.size for t in things}, _SIZE_SAID[things[0].size])]
        looks.append((things[0].color, {t.color for t in things}, 0.75))
        said = [word for word, values, odds in looks if len(values) == 1 and kind not in CLOTHES and self.chance(odds)]
        couple = len(numbers) == 2 and not definite and self.chance(0.15)
        count = NUMBER_WORDS[len(numbers)]
        start = ("a couple of",) if couple else ("the", count) if definite else (count,)
        text = " ".join((*start, *said, plural(kind)))
        claimed = ["couple" if couple else count, *said]
        phrases = tuple(claim(kind, attribute, things=numbers) for attribute in claimed)
        return Mention(text=text, noun=kind, things=tuple(numbers), phrases=phrases, plural=True)
