"""What a template is, and the choices that templates share."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from mvptr_data.abstract_scenes.english import CLOTHES, SETTINGS, WATER, Setting
from mvptr_data.abstract_scenes.mentions import Mention, Speaker, claim
from mvptr_data.abstract_scenes.records import GroundedPhrase, Relation
from mvptr_data.abstract_scenes.sayings import Saying, sayings
from mvptr_data.abstract_scenes.traits import TRAITS

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Draft:
    """A sentence without capital and period, and its claims; equal words may still occur twice, for different things."""

    text: str
    phrases: tuple[GroundedPhrase, ...]


#: Says something about the speaker's scene, or None where the scene has nothing to say in this form.
Template = Callable[[Speaker], Draft | None]


def choose(speaker: Speaker, options: Sequence[T]) -> T:
    """One of the options, all equally likely."""
    return options[int(speaker.random.integers(len(options)))]


def choose_relation(speaker: Speaker, *, only: frozenset[str] | None = None) -> Relation | None:
    """A relation between things of different kinds: first its predicate is drawn, so that rare ones are told as often.

    Things of one kind are not related to each other in words: "a ball next to a ball" would be a self loop (phrases have
    no instances), which the specification drops.
    """
    things = speaker.scene.things
    by_predicate: dict[str, list[Relation]] = {}
    for relation in speaker.scene.relations:
        if things[relation.subject].kind != things[relation.object].kind and (
            only is None or relation.predicate in only
        ):
            by_predicate.setdefault(relation.predicate, []).append(relation)
    return choose(speaker, by_predicate[choose(speaker, sorted(by_predicate))]) if by_predicate else None


def choose_saying(
    speaker: Speaker,
    kind: str,
    relation: str,
    *,
    finite: bool = False,
    reduced: bool = False,
    verbal: bool | None = None,
) -> Saying | None:
    """A predicate for the relation that has the forms asked for, or None."""
    options = [
        saying
        for saying in sayings(kind, relation, speaker.scene.background)
        if (not finite or saying.singular is not None)
        and (not reduced or saying.reduced is not None)
        and (verbal is None or saying.verbal == verbal)
    ]
    return choose(speaker, options) if options else None


def companions(speaker: Speaker) -> list[tuple[str, int, list[int]]]:
    """(predicate, object, subjects) for every two or more things of one kind in one relation to one thing of another."""
    things = speaker.scene.things
    found: dict[tuple[str, int, str], list[int]] = {}
    for relation in speaker.scene.relations:
        kind = things[relation.subject].kind
        if kind != things[relation.object].kind:
            found.setdefault((relation.predicate, relation.object, kind), []).append(relation.subject)
    return [
        (predicate, object_, sorted(subjects))
        for (predicate, object_, _), subjects in found.items()
        if len(subjects) > 1
    ]


def on_the_ground(speaker: Speaker) -> list[int]:
    """Things that plainly stand on the ground: not held, not on other things, and never in the air or on water."""
    lifted = {r.object for r in speaker.scene.relations if r.predicate == "hold"}
    lifted |= {r.subject for r in speaker.scene.relations if r.predicate in ("on", "above")}
    return [
        number
        for number, thing in enumerate(speaker.scene.things)
        if number not in lifted and TRAITS[thing.kind].grounded and not TRAITS[thing.kind].flies
    ]


def in_the_air(speaker: Speaker) -> list[int]:
    """Things that plainly fly: above something, or of a kind that cannot stand, and not held."""
    held = {r.object for r in speaker.scene.relations if r.predicate == "hold"}
    above = {r.subject for r in speaker.scene.relations if r.predicate == "above"}
    return [
        number
        for number, thing in enumerate(speaker.scene.things)
        if number not in held and TRAITS[thing.kind].flies and (number in above or not TRAITS[thing.kind].grounded)
    ]


def place(speaker: Speaker, *, water: bool = False) -> tuple[Setting, Mention]:
    """Where the scene is: a setting, and its noun phrase, which speaks of no thing."""
    setting = WATER if water else choose(speaker, SETTINGS[speaker.scene.background])
    said = (setting.adjective,) if speaker.chance(0.25) else ()
    phrases = tuple(claim(setting.noun, adjective, things=()) for adjective in said)
    return setting, Mention(text=" ".join(("the", *said, setting.noun)), noun=setting.noun, things=(), phrases=phrases)


def who(speaker: Speaker, number: int) -> str:
    """The relative pronoun for a thing."""
    return "who" if speaker.thing(number).kind in CLOTHES else "that"


def joined(*mentions: Mention) -> str:
    """Noun phrases as a list: "a dog", "a dog, a cat and two balls"."""
    texts = [mention.text for mention in mentions]
    return f"{', '.join(texts[:-1])} and {texts[-1]}" if len(texts) > 1 else texts[0]
