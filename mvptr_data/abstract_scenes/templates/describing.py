"""Captions that say what things there are, how many, how they look and where they are."""

from __future__ import annotations

from itertools import combinations

from mvptr_data.abstract_scenes.english import CLOTHES, Verb, verbs
from mvptr_data.abstract_scenes.mentions import Mention, Speaker
from mvptr_data.abstract_scenes.templates.form import (
    Draft,
    Template,
    choose,
    in_the_air,
    joined,
    on_the_ground,
    place,
)

#: Kinds of which it says something that they stand or sit.
_LIVING = frozenset({"boy", "cat", "dog", "girl"})


def _kinds(speaker: Speaker, among: list[int] | None = None) -> dict[str, list[int]]:
    """kind -> its things, in the order of drawing; with `among`, only kinds all of whose things are among them."""
    found: dict[str, list[int]] = {}
    for number, thing in enumerate(speaker.scene.things):
        found.setdefault(thing.kind, []).append(number)
    if among is None:
        return found
    return {kind: numbers for kind, numbers in found.items() if set(numbers) <= set(among)}


def _all_of(speaker: Speaker, numbers: list[int], *, indefinite_only: bool = False) -> Mention:
    """One thing, or all of one kind counted."""
    if len(numbers) > 1:
        return speaker.several(numbers)
    return speaker.one(numbers[0], indefinite_only=indefinite_only)


def _stances(speaker: Speaker, kind: str) -> tuple[Verb, ...]:
    """The verbs for how a thing of that kind is on the ground."""
    return verbs(kind, "next to", speaker.scene.background)


def predicate_adjective(speaker: Speaker) -> Draft | None:
    """The red ball is small."""
    numbers = [n for n, thing in enumerate(speaker.scene.things) if thing.kind not in CLOTHES]
    if not numbers:
        return None
    number = choose(speaker, numbers)
    thing = speaker.thing(number)
    attribute = thing.color if speaker.chance(0.6) else speaker.size(number)
    subject = speaker.the(number, without=attribute)
    if subject is None:
        return None
    return Draft(text=f"{subject.text} is {attribute}", phrases=(*subject.phrases, subject.described(attribute)))


def predicate_adjectives(speaker: Speaker) -> Draft | None:
    """The cat is black and small."""
    numbers = [n for n, thing in enumerate(speaker.scene.things) if thing.kind not in CLOTHES and speaker.unique(n, ())]
    if not numbers:
        return None
    thing = speaker.thing(number := choose(speaker, numbers))
    subject = Mention(text=f"the {thing.kind}", noun=thing.kind, things=(number,))
    attributes = [thing.color, speaker.size(number)]
    if speaker.chance(0.5):
        attributes.reverse()
    return Draft(
        text=f"{subject.text} is {' and '.join(attributes)}",
        phrases=tuple(subject.described(attribute) for attribute in attributes),
    )


def shared_adjective(speaker: Speaker) -> Draft | None:
    """The cat and the box are black."""
    singles = [numbers[0] for kind, numbers in _kinds(speaker).items() if len(numbers) == 1 and kind not in CLOTHES]
    pairs = [(a, b) for a, b in combinations(singles, 2) if speaker.thing(a).color == speaker.thing(b).color]
    if not pairs:
        return None
    mentions = [
        Mention(text=f"the {speaker.thing(number).kind}", noun=speaker.thing(number).kind, things=(number,))
        for number in choose(speaker, pairs)
    ]
    color = speaker.thing(mentions[0].things[0]).color
    return Draft(
        text=f"{joined(*mentions)} are {color}", phrases=tuple(mention.described(color) for mention in mentions)
    )


def counted_adjective(speaker: Speaker) -> Draft | None:
    """The two dogs are black."""
    options = [
        numbers
        for kind, numbers in _kinds(speaker).items()
        if len(numbers) > 1 and kind not in CLOTHES and len({speaker.thing(n).color for n in numbers}) == 1
    ]
    if not options:
        return None
    subject = speaker.several(choose(speaker, options), definite=True)
    color = speaker.thing(subject.things[0]).color
    if color in subject.text.split():
        return None
    return Draft(text=f"{subject.text} are {color}", phrases=(*subject.phrases, subject.described(color)))


def counted(speaker: Speaker) -> Draft | None:
    """There are three red balls."""
    options = [numbers for numbers in _kinds(speaker).values() if len(numbers) > 1]
    if not options:
        return None
    subject = speaker.several(choose(speaker, options))
    return Draft(text=f"{'there are ' if speaker.chance(0.6) else ''}{subject.text}", phrases=subject.phrases)


def conjoined_nouns(speaker: Speaker) -> Draft | None:
    """There is a red ball and a blue box. / Two dogs, a cat and a tree."""
    kinds = sorted(_kinds(speaker).items())
    if len(kinds) < 2:
        return None
    count = 3 if len(kinds) > 2 and speaker.chance(0.35) else 2
    there = speaker.chance(0.4)
    chosen = [kinds[i][1] for i in speaker.random.permutation(len(kinds))[:count]]
    mentions = [_all_of(speaker, numbers, indefinite_only=there) for numbers in chosen]
    start = "" if not there else "there are " if mentions[0].plural else "there is "
    return Draft(
        text=start + joined(*mentions), phrases=tuple(phrase for mention in mentions for phrase in mention.phrases)
    )


def there_is(speaker: Speaker) -> Draft | None:
    """There is a small red ball."""
    number = int(speaker.random.integers(len(speaker.scene.things)))
    subject = speaker.one(number, indefinite_only=True, final=True)
    return Draft(text=f"there is {subject.text}", phrases=subject.phrases)


def in_place(speaker: Speaker) -> Draft | None:
    """A boy is standing on the beach. / Two cars are parked on the street. / A dog in the snow."""
    kinds = sorted(_kinds(speaker, on_the_ground(speaker)).items())
    if not kinds:
        return None
    kind, numbers = choose(speaker, kinds)
    setting, where = place(speaker)
    fragment = speaker.chance(0.35)
    subject = speaker.one(numbers[0], open_end=not fragment) if len(numbers) == 1 else speaker.several(numbers)
    be = "are" if subject.plural else "is"
    stances = () if fragment else _stances(speaker, kind)
    verb = choose(speaker, stances) if stances and speaker.chance(0.8) else None
    words = "" if fragment else f"{be} {verb.participle} " if verb else f"{be} "
    predicate = f"{verb.lemma} {setting.preposition}" if verb else setting.preposition
    return Draft(
        text=f"{subject.text} {words}{setting.preposition} {where.text}",
        phrases=(*subject.phrases, subject.relate(predicate, where), *where.phrases),
    )


def conjoined_in_place(speaker: Speaker) -> Draft | None:
    """A dog and a cat are on the beach. Both subjects take the predicate."""
    kinds = sorted(_kinds(speaker, on_the_ground(speaker)).items())
    if len(kinds) < 2:
        return None
    first, second = (_all_of(speaker, kinds[i][1]) for i in speaker.random.permutation(len(kinds))[:2])
    setting, where = place(speaker)
    shared = [verb for verb in _stances(speaker, first.noun) if verb in _stances(speaker, second.noun)]
    verb = choose(speaker, shared) if shared and speaker.chance(0.6) else None
    predicate = f"{verb.lemma} {setting.preposition}" if verb else setting.preposition
    return Draft(
        text=f"{joined(first, second)} are {verb.participle + ' ' if verb else ''}{setting.preposition} {where.text}",
        phrases=(
            *first.phrases,
            *second.phrases,
            first.relate(predicate, where),
            second.relate(predicate, where),
            *where.phrases,
        ),
    )


def on_water(speaker: Speaker) -> Draft | None:
    """A white boat is floating on the water."""
    boats = _kinds(speaker).get("boat")
    if boats is None:
        return None
    setting, where = place(speaker, water=True)
    subject = _all_of(speaker, boats)
    fragment = speaker.chance(0.4)
    be = "" if fragment else "are " if subject.plural else "is "
    return Draft(
        text=f"{subject.text} {be}floating {setting.preposition} {where.text}",
        phrases=(*subject.phrases, subject.relate(f"float {setting.preposition}", where), *where.phrases),
    )


def intransitive(speaker: Speaker) -> Draft | None:
    """A kite is flying. / A boy and a girl are standing."""
    flying = [
        (kind, verbs(kind, "above", speaker.scene.background)[0], numbers)
        for kind, numbers in _kinds(speaker, in_the_air(speaker)).items()
    ]
    standing = [
        (kind, _stances(speaker, kind)[0], numbers)
        for kind, numbers in _kinds(speaker, on_the_ground(speaker)).items()
        if kind in _LIVING
    ]
    options = sorted(flying + standing, key=lambda option: option[0])
    if not options:
        return None
    _, verb, _ = choose(speaker, options)
    mentions = [_all_of(speaker, numbers) for _, other, numbers in options if other is verb][:2]
    be = "are" if len(mentions) > 1 or mentions[0].plural else "is"
    claims = tuple(phrase for mention in mentions for phrase in (*mention.phrases, mention.described(verb.lemma)))
    return Draft(text=f"{joined(*mentions)} {be} {verb.participle}", phrases=claims)


#: name -> (template, how often it is tried).
DESCRIBING: dict[str, tuple[Template, float]] = {
    "predicate adjective": (predicate_adjective, 0.7),
    "predicate adjectives": (predicate_adjectives, 0.5),
    "shared adjective": (shared_adjective, 0.5),
    "counted, with adjective": (counted_adjective, 0.7),
    "counted": (counted, 0.5),
    "conjoined nouns": (conjoined_nouns, 0.7),
    "there is": (there_is, 0.3),
    "in place": (in_place, 0.6),
    "conjoined in place": (conjoined_in_place, 0.5),
    "on water": (on_water, 0.8),
    "intransitive": (intransitive, 0.4),
}
