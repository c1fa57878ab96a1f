"""Rules R1 to R8: (subject, predicate, object). Each takes the findings and what carries the relation.

The numbers are those of the phrase specification: R1 objects, R2 obliques, R3 participles (their subject is the noun
they follow: see `arguments.subjects`), R4 prepositions between nouns, R5 copula and preposition, R6 possession, R7
agents, R8 passives without one.
"""

from __future__ import annotations

from mvptr_data.scene_graphs.arguments import (
    ADJECTIVE_TAGS,
    NOUN_TAGS,
    described,
    has_object_before,
    is_verb,
    nouns,
    said_of,
    subjects,
    thing,
)
from mvptr_data.scene_graphs.facts import Findings
from mvptr_data.scene_graphs.prepositions import Preposition

PARTICLES = frozenset({"up", "down", "out", "off", "over", "away", "around", "back", "by", "along", "together"})


def direct_object(findings: Findings, token: int) -> None:
    """R1 and R3: a man riding a wave -> (man, ride, wave)."""
    caption = findings.caption
    verb = caption.heads[token]
    if is_verb(caption, verb) and caption.tags[token] not in ("IN", "TO"):
        relate_object(findings, verb, nouns(caption, token))


def relate_object(findings: Findings, verb: int, objects: tuple[int, ...]) -> None:
    """(subject, verb [particle], object)."""
    predicate, tokens = verb_words(findings, verb)
    relate(findings, subjects(findings.caption, verb), predicate, tokens, objects)


def relative_object(findings: Findings, verb: int) -> None:
    """R1 with the object before its clause: the bike the man is riding -> (man, ride, bike)."""
    caption = findings.caption
    if has_object_before(caption, verb) and not any(
        preposition.governor == verb for preposition in findings.prepositions
    ):
        relate_object(findings, verb, thing(caption, caption.heads[verb]))


def prepositional(findings: Findings, preposition: Preposition) -> None:
    """R2 to R5, R7 and R8, by what the preposition hangs on."""
    caption = findings.caption
    governor = preposition.governor
    objects = objects_of(findings, preposition)
    if not objects:
        return
    if is_verb(caption, governor):
        if preposition.label == "agent":
            agent(findings, preposition, objects)
        elif findings.lemmas.verb(caption.words[governor]) == "be":
            relate(findings, subjects(caption, governor), preposition.text(caption), preposition.tokens, objects)
        elif findings.profile.relates_agentless_passives or not is_passive(findings, governor):
            oblique(findings, preposition, objects)
    elif caption.tags[governor] in NOUN_TAGS:
        noun_preposition(findings, preposition, objects)
    elif caption.tags[governor] in ADJECTIVE_TAGS:
        adjective_preposition(findings, preposition, objects)
    else:
        relate(findings, thing(caption, governor), preposition.text(caption), preposition.tokens, objects)


def oblique(findings: Findings, preposition: Preposition, objects: tuple[int, ...]) -> None:
    """R2, R3, R8: a boy sitting at a table -> (boy, sit at, table)."""
    predicate, tokens = verb_words(findings, preposition.governor)
    relate(
        findings,
        subjects(findings.caption, preposition.governor),
        f"{predicate} {preposition.text(findings.caption)}",
        tokens + preposition.tokens,
        objects,
    )


def noun_preposition(findings: Findings, preposition: Preposition, objects: tuple[int, ...]) -> None:
    """R4: a plate of food -> (plate, of, food). The "of" of a quantifier (rule A7) relates nothing."""
    caption = findings.caption
    governor = preposition.governor
    if findings.is_quantifier(governor) and caption.words[preposition.tokens[0]] == "of":
        return
    relate(findings, described(caption, preposition.tokens[0]), preposition.text(caption), preposition.tokens, objects)


def adjective_preposition(findings: Findings, preposition: Preposition, objects: tuple[int, ...]) -> None:
    """R4 and R5 through an adjective: a bowl full of fruit -> (bowl, full of, fruit)."""
    caption = findings.caption
    adjective = preposition.governor
    relate(
        findings,
        said_of(caption, adjective),
        f"{caption.words[adjective]} {preposition.text(caption)}",
        (adjective, *preposition.tokens),
        objects,
    )


def possessive(findings: Findings, token: int) -> None:
    """R6: a boy's bike -> (boy, have, bike); his bike -> the same for the noun he stands for."""
    caption = findings.caption
    if caption.tags[token] in NOUN_TAGS:
        mark = caption.child(token, "case")
        evidence = () if mark is None else (mark,)
    else:
        evidence = (token,)
    relate(findings, possessors(findings, token), "have", evidence, thing(caption, caption.heads[token])[:1])


def possessors(findings: Findings, token: int) -> tuple[int, ...]:
    """Who has it: for "whose", the noun its relative clause hangs on."""
    caption = findings.caption
    if caption.tags[token] == "WP$":
        verb = caption.heads[caption.heads[token]]
        return thing(caption, caption.heads[verb]) if caption.deps[verb] == "relcl" else ()
    return nouns(caption, token)


def agent(findings: Findings, preposition: Preposition, agents: tuple[int, ...]) -> None:
    """R7: the piano is played by a woman -> (woman, play, piano).

    A bare participle keeps its order: a bridge surrounded by trees -> (bridge, surround by, tree).
    """
    caption = findings.caption
    verb = preposition.governor
    if not is_finite_passive(findings, verb):
        oblique(findings, preposition, agents)
        return
    predicate, tokens = verb_words(findings, verb)
    relate(findings, agents, predicate, tokens, subjects(caption, verb))


def is_passive(findings: Findings, verb: int) -> bool:
    """Whether the verb is said of what it is done to."""
    caption = findings.caption
    return caption.tags[verb] == "VBN" and (is_finite_passive(findings, verb) or caption.deps[verb] == "acl")


def is_finite_passive(findings: Findings, verb: int) -> bool:
    """Whether a form of "be" makes the verb passive, its own or that of the verb it is joined to."""
    caption = findings.caption
    if caption.child(verb, "auxpass", "nsubjpass") is not None:
        return True
    head = caption.heads[verb]
    return (
        caption.deps[verb] == "conj"
        and head < verb
        and caption.tags[verb] == "VBN"
        and is_finite_passive(findings, head)
    )


def verb_words(findings: Findings, verb: int) -> tuple[str, tuple[int, ...]]:
    """The verb's lemma with its particle, and their tokens: standing up -> "stand up"."""
    caption = findings.caption
    lemma = findings.lemmas.verb(caption.words[verb])
    particle = caption.child(verb, "prt")
    if particle is None or caption.words[particle] not in PARTICLES:
        return lemma, (verb,)
    if any(particle in preposition.tokens for preposition in findings.prepositions):
        return lemma, (verb,)
    return f"{lemma} {caption.words[particle]}", (verb, particle)


def objects_of(findings: Findings, preposition: Preposition) -> tuple[int, ...]:
    """The nouns a preposition leads to; one left without an object in a relative clause leads to the clause's noun."""
    caption = findings.caption
    if preposition.object is not None:
        return nouns(caption, preposition.object)
    verb = preposition.governor
    subject = caption.child(verb, "nsubj", "nsubjpass")
    if caption.deps[verb] != "relcl" or subject is None or caption.children[preposition.tokens[-1]]:
        return ()
    antecedents = thing(caption, caption.heads[verb])
    return () if set(antecedents) & set(nouns(caption, subject)) else antecedents


def relate(
    findings: Findings, sources: tuple[int, ...], predicate: str, tokens: tuple[int, ...], targets: tuple[int, ...]
) -> None:
    """The relation between all sources and all targets."""
    for source in sources:
        for target in targets:
            findings.say_relation(source, predicate, tokens, target)
