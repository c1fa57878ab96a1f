"""Captions that relate things to each other."""

from __future__ import annotations

from mvptr_data.abstract_scenes.english import CLOTHES
from mvptr_data.abstract_scenes.mentions import Mention, Speaker
from mvptr_data.abstract_scenes.records import Relation
from mvptr_data.abstract_scenes.sayings import Saying
from mvptr_data.abstract_scenes.templates.form import (
    Draft,
    Template,
    choose,
    choose_relation,
    choose_saying,
    companions,
    on_the_ground,
    place,
    who,
)


def _pick(
    speaker: Speaker, *, finite: bool = False, reduced: bool = False, verbal: bool | None = None
) -> tuple[Relation, Saying] | None:
    relation = choose_relation(speaker)
    if relation is None:
        return None
    kind = speaker.thing(relation.subject).kind
    saying = choose_saying(speaker, kind, relation.predicate, finite=finite, reduced=reduced, verbal=verbal)
    return None if saying is None else (relation, saying)


def _said(text: str, subject: Mention, saying: Saying, object_: Mention) -> Draft:
    return Draft(text=text, phrases=(*subject.phrases, subject.relate(saying.lemma, object_), *object_.phrases))


def _noun_first(speaker: Speaker, verbal: bool, *, there: bool = False) -> Draft | None:
    """A noun with its relation directly after it, perhaps after "there is"."""
    picked = _pick(speaker, reduced=True, verbal=verbal)
    if picked is None:
        return None
    relation, saying = picked
    subject = speaker.one(relation.subject, indefinite_only=there)
    object_ = speaker.one(relation.object, final=True)
    return _said(
        f"{'there is ' if there else ''}{subject.text} {saying.reduced} {object_.text}", subject, saying, object_
    )


def noun_preposition_noun(speaker: Speaker) -> Draft | None:
    """A small red ball next to a tree."""
    return _noun_first(speaker, verbal=False)


def participle(speaker: Speaker) -> Draft | None:
    """A kite flying above a house."""
    return _noun_first(speaker, verbal=True)


def there_is_relation(speaker: Speaker) -> Draft | None:
    """There is a dog sitting under a table."""
    return _noun_first(speaker, speaker.chance(0.5), there=True)


def _sentence(speaker: Speaker, verbal: bool) -> Draft | None:
    picked = _pick(speaker, finite=True, verbal=verbal)
    if picked is None:
        return None
    relation, saying = picked
    subject, object_ = speaker.one(relation.subject, open_end=True), speaker.one(relation.object, final=True)
    return _said(f"{subject.text} {saying.singular} {object_.text}", subject, saying, object_)


def copula(speaker: Speaker) -> Draft | None:
    """The red ball is next to a tree."""
    return _sentence(speaker, verbal=False)


def verb(speaker: Speaker) -> Draft | None:
    """A cat sits on top of the box."""
    return _sentence(speaker, verbal=True)


def relative_clause(speaker: Speaker) -> Draft | None:
    """A boy who is holding a kite."""
    picked = _pick(speaker, finite=True)
    if picked is None:
        return None
    relation, saying = picked
    subject, object_ = speaker.one(relation.subject), speaker.one(relation.object)
    text = f"{subject.text} {who(speaker, relation.subject)} {saying.singular} {object_.text}"
    return _said(text, subject, saying, object_)


def relative_then_adjective(speaker: Speaker) -> Draft | None:
    """The dog that is next to a tree is black."""
    picked = _pick(speaker, finite=True)
    if picked is None or speaker.thing(picked[0].subject).kind in CLOTHES:
        return None
    relation, saying = picked
    thing = speaker.thing(relation.subject)
    attribute = thing.color if speaker.chance(0.75) else speaker.size(relation.subject)
    subject = Mention(text=f"the {thing.kind}", noun=thing.kind, things=(relation.subject,))
    object_ = speaker.one(relation.object)
    if not speaker.unique(relation.subject, ()):
        return None
    draft = _said(f"{subject.text} that {saying.singular} {object_.text} is {attribute}", subject, saying, object_)
    return Draft(text=draft.text, phrases=(*draft.phrases, subject.described(attribute)))


def companions_counted(speaker: Speaker) -> Draft | None:
    """Two dogs are sitting under a blue table. / There are two birds above a house."""
    found = companions(speaker)
    if not found:
        return None
    predicate, number, subjects = choose(speaker, found)
    kind = speaker.thing(subjects[0]).kind
    there = speaker.chance(0.35)
    saying = choose_saying(speaker, kind, predicate, finite=True, reduced=there)
    if saying is None:
        return None
    subject, object_ = speaker.several(subjects), speaker.one(number, final=True)
    middle = saying.reduced if there else saying.plural
    return _said(f"{'there are ' if there else ''}{subject.text} {middle} {object_.text}", subject, saying, object_)


def companions_conjoined(speaker: Speaker) -> Draft | None:
    """A red ball and a blue ball are on the table."""
    found = [
        (predicate, number, subjects)
        for predicate, number, subjects in companions(speaker)
        if len({speaker.thing(s).color for s in subjects}) == len(subjects)
        and speaker.thing(subjects[0]).kind not in CLOTHES
    ]
    if not found:
        return None
    predicate, number, subjects = choose(speaker, found)
    saying = choose_saying(speaker, speaker.thing(subjects[0]).kind, predicate, finite=True)
    if saying is None:
        return None
    named = [speaker.one(s, adjectives=(speaker.thing(s).color,), indefinite_only=True) for s in subjects]
    object_ = speaker.one(number, final=True)
    text = f"{' and '.join(mention.text for mention in named)} {saying.plural} {object_.text}"
    claims = [phrase for mention in named for phrase in (*mention.phrases, mention.relate(saying.lemma, object_))]
    return Draft(text=text, phrases=(*claims, *object_.phrases))


def conjoined_clauses(speaker: Speaker) -> Draft | None:
    """A boy is holding a kite, and a dog is standing next to a tree."""
    first, second = _pick(speaker, finite=True, verbal=True), _pick(speaker, finite=True)
    if first is None or second is None:
        return None
    things = {number for relation, _ in (first, second) for number in (relation.subject, relation.object)}
    kinds = {speaker.thing(number).kind for number in things}
    if len(kinds) < 4:  # a kind named twice would read as the same thing
        return None
    clauses = []
    for relation, saying in (first, second):
        subject, object_ = speaker.one(relation.subject, open_end=True), speaker.one(relation.object)
        clauses.append(_said(f"{subject.text} {saying.singular} {object_.text}", subject, saying, object_))
    link = " while " if speaker.chance(0.4) else ", and "
    return Draft(text=link.join(clause.text for clause in clauses), phrases=clauses[0].phrases + clauses[1].phrases)


def fronted_place(speaker: Speaker) -> Draft | None:
    """In the snow, a dog is standing next to a tree. The verb has two obliques (R2)."""
    picked = _pick(speaker, finite=True, verbal=True)
    if picked is None or picked[0].predicate == "hold" or picked[0].subject not in on_the_ground(speaker):
        return None
    relation, saying = picked
    setting, where = place(speaker)
    subject, object_ = speaker.one(relation.subject, open_end=True), speaker.one(relation.object, final=True)
    clause = _said(f"{subject.text} {saying.singular} {object_.text}", subject, saying, object_)
    stance = subject.relate(f"{saying.lemma.split()[0]} {setting.preposition}", where)
    return Draft(
        text=f"{setting.preposition} {where.text}, {clause.text}", phrases=(*where.phrases, stance, *clause.phrases)
    )


#: name -> (template, how often it is tried).
RELATING: dict[str, tuple[Template, float]] = {
    "noun preposition noun": (noun_preposition_noun, 1.0),
    "participle": (participle, 1.0),
    "there is, related": (there_is_relation, 0.8),
    "copula": (copula, 1.0),
    "verb": (verb, 1.2),
    "relative clause": (relative_clause, 0.8),
    "relative clause, then adjective": (relative_then_adjective, 0.6),
    "companions counted": (companions_counted, 4.0),
    "companions conjoined": (companions_conjoined, 6.0),
    "conjoined clauses": (conjoined_clauses, 0.7),
    "fronted place": (fronted_place, 0.4),
}
