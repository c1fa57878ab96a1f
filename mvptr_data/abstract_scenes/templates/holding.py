"""Captions about a person who holds something."""

from __future__ import annotations

from mvptr_data.abstract_scenes.english import POSSESSIVES
from mvptr_data.abstract_scenes.mentions import Mention, Speaker, claim
from mvptr_data.abstract_scenes.templates.form import Draft, Template, choose_relation, choose_saying, place

_HOLD = frozenset({"hold"})


def conjoined_verbs(speaker: Speaker) -> Draft | None:
    """A girl is standing in the snow and holding a balloon."""
    relation = choose_relation(speaker, only=_HOLD)
    if relation is None:
        return None
    setting, where = place(speaker)
    person, item = speaker.one(relation.subject, open_end=True), speaker.one(relation.object, final=True)
    text = f"{person.text} is standing {setting.preposition} {where.text} and holding {item.text}"
    claims = (person.relate(f"stand {setting.preposition}", where), *where.phrases, person.relate("hold", item))
    return Draft(text=text, phrases=(*person.phrases, *claims, *item.phrases))


def holder_in_place(speaker: Speaker) -> Draft | None:
    """A boy with a kite is standing on the beach. / A boy who is holding a kite is standing on the beach."""
    relation = choose_relation(speaker, only=_HOLD)
    if relation is None:
        return None
    relative = speaker.chance(0.5)
    saying = choose_saying(speaker, speaker.thing(relation.subject).kind, "hold", finite=relative, reduced=not relative)
    if saying is None:
        return None
    setting, where = place(speaker)
    person, item = speaker.one(relation.subject), speaker.one(relation.object)
    middle = f"who {saying.singular}" if relative else saying.reduced
    text = f"{person.text} {middle} {item.text} is standing {setting.preposition} {where.text}"
    claims = (person.relate(saying.lemma, item), *item.phrases, person.relate(f"stand {setting.preposition}", where))
    return Draft(text=text, phrases=(*person.phrases, *claims, *where.phrases))


def passive(speaker: Speaker) -> Draft | None:
    """A kite is held by a boy. The passive is turned round (R7): (boy, hold, kite)."""
    relation = choose_relation(speaker, only=_HOLD)
    if relation is None:
        return None
    item, person = speaker.one(relation.object), speaker.one(relation.subject, final=True)
    return Draft(
        text=f"{item.text} is held by {person.text}",
        phrases=(*item.phrases, person.relate("hold", item), *person.phrases),
    )


def held_by(speaker: Speaker) -> Draft | None:
    """A kite held by a boy. A participle keeps its side (R7): (kite, hold by, boy)."""
    relation = choose_relation(speaker, only=_HOLD)
    if relation is None:
        return None
    item, person = speaker.one(relation.object), speaker.one(relation.subject, final=True)
    return Draft(
        text=f"{item.text} held by {person.text}",
        phrases=(*item.phrases, item.relate("hold by", person), *person.phrases),
    )


def object_relative_clause(speaker: Speaker) -> Draft | None:
    """The kite that a boy is holding is red."""
    relation = choose_relation(speaker, only=_HOLD)
    if relation is None:
        return None
    thing = speaker.thing(relation.object)
    item = Mention(text=f"the {thing.kind}", noun=thing.kind, things=(relation.object,))
    person = speaker.one(relation.subject, adjectives=())
    attribute = thing.color if speaker.chance(0.75) else speaker.size(relation.object)
    return Draft(
        text=f"{item.text} that {person.text} is holding is {attribute}",
        phrases=(person.relate("hold", item), item.described(attribute)),
    )


def possessive(speaker: Speaker) -> Draft | None:
    """The girl's balloon is red."""
    relation = choose_relation(speaker, only=_HOLD)
    if relation is None:
        return None
    thing = speaker.thing(relation.object)
    person = speaker.one(relation.subject, adjectives=())
    item = Mention(text=thing.kind, noun=thing.kind, things=(relation.object,))
    attribute = thing.color if speaker.chance(0.75) else speaker.size(relation.object)
    return Draft(
        text=f"{person.text}'s {thing.kind} is {attribute}",
        phrases=(person.relate("have", item), item.described(attribute)),
    )


def possessive_pronoun(speaker: Speaker) -> Draft | None:
    """A boy is holding his red kite. Both hold and have are claimed (R1, R6)."""
    relation = choose_relation(speaker, only=_HOLD)
    if relation is None:
        return None
    person = speaker.one(relation.subject)
    thing = speaker.thing(relation.object)
    said = speaker.adjectives(relation.object)
    item = Mention(text=" ".join((*said, thing.kind)), noun=thing.kind, things=(relation.object,))
    claims = tuple(claim(thing.kind, adjective, things=item.things) for adjective in said)
    return Draft(
        text=f"{person.text} is holding {POSSESSIVES[person.noun]} {item.text}",
        phrases=(*person.phrases, person.relate("hold", item), person.relate("have", item), *claims),
    )


#: name -> (template, how often it is tried).
HOLDING: dict[str, tuple[Template, float]] = {
    "conjoined verbs": (conjoined_verbs, 0.7),
    "holder in place": (holder_in_place, 0.7),
    "passive": (passive, 0.4),
    "held by": (held_by, 0.4),
    "object relative clause": (object_relative_clause, 0.3),
    "possessive": (possessive, 0.4),
    "possessive pronoun": (possessive_pronoun, 0.3),
}
