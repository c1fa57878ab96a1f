"""Rules A1 to A7: (object, attribute). Each takes the findings and the token that carries the attribute.

The numbers are those of the phrase specification: A1 modifiers, A2 compounds, A3 predicate adjectives, A4 numbers, A5
intransitive verbs, A6 copular nouns, A7 quantifiers.
"""

from __future__ import annotations

from collections.abc import Iterator

from mvptr_data.scene_graphs.arguments import (
    ADJECTIVE_TAGS,
    NOUN_TAGS,
    PLURAL_TAGS,
    has_object_before,
    is_absent,
    is_verb,
    nouns,
    quantified,
    subjects,
    thing,
)
from mvptr_data.scene_graphs.facts import Findings

#: Tags that a modifier in an adjective's place can have; articles, pronouns and the like are none.
MODIFIER_TAGS = ADJECTIVE_TAGS | NOUN_TAGS | {"VBN", "VBG", "VBD", "CD", "RB", "FW"}
#: Tags of a predicate adjective.
PREDICATE_TAGS = MODIFIER_TAGS - {"RB", "FW"}
#: Nouns with one form for both numbers, which taggers often take for singular.
NUMBERLESS_NOUNS = frozenset({"people", "sheep", "fish", "deer", "moose", "bison", "cattle", "buffalo", "aircraft"})
ONE = frozenset({"one", "1"})
#: Adverbs that say where something is, as adjectives do; all of them after "is", some of them after a noun as well.
ADNOMINAL_ADVERBS = frozenset({"down", "outdoors", "outside", "overhead", "up"})
PREDICATE_ADVERBS = ADNOMINAL_ADVERBS | {"indoors", "inside", "off", "upright"}
#: Verbs that say nothing of their own (rule A5).
EMPTY_VERBS = frozenset({"be", "have", "do", "get", "seem", "become"})
#: Dependents that make a verb more than intransitive.
COMPLEMENTS = frozenset(
    {"dobj", "agent", "attr", "acomp", "oprd", "xcomp", "ccomp", "dative", "prep", "pobj", "pcomp", "expl"}
)


def modifier(findings: Findings, token: int) -> None:
    """A1: red shirt -> (shirt, red); black and white cat -> both."""
    caption = findings.caption
    noun = caption.heads[token]
    if caption.tags[noun] not in NOUN_TAGS or findings.is_quantifier(noun) or is_absent(caption, noun):
        return
    for word in adjectives(findings, token):
        findings.say_attribute(noun, word, caption.words[word])


def compound(findings: Findings, token: int) -> None:
    """A2: fire hydrant -> (hydrant, fire); one pair for each part."""
    caption = findings.caption
    noun = caption.heads[token]
    if caption.tags[noun] not in NOUN_TAGS or findings.is_quantifier(noun) or is_absent(caption, noun):
        return
    for word in adjectives(findings, token):
        lemma = findings.object_lemma(word) if caption.tags[word] in PLURAL_TAGS else caption.words[word]
        findings.say_attribute(noun, word, lemma)


def predicate_adjective(findings: Findings, token: int) -> None:
    """A3: the dog is black and white -> (dog, black), (dog, white)."""
    caption = findings.caption
    if in_preposition(findings, token):
        return
    for word in adjectives(findings, token):
        if caption.tags[word] in PREDICATE_TAGS:
            for noun in subjects(caption, caption.heads[token]):
                findings.say_attribute(noun, word, caption.words[word])


def predicate_adverb(findings: Findings, token: int) -> None:
    """A3: the cat is outside -> (cat, outside); the same of a noun that the adverb follows (a sky overhead)."""
    caption = findings.caption
    if caption.words[token] not in PREDICATE_ADVERBS or caption.children[token] or in_preposition(findings, token):
        return
    head = caption.heads[token]
    if caption.words[token] in ADNOMINAL_ADVERBS and caption.tags[head] in NOUN_TAGS and head < token:
        described = thing(caption, head)
    elif findings.lemmas.verb(caption.words[head]) == "be" and caption.child(head, *COMPLEMENTS) is None:
        described = subjects(caption, head)
    else:
        return
    for noun in described:
        findings.say_attribute(noun, token, caption.words[token])


def number(findings: Findings, token: int) -> None:
    """A4: two boys -> (boy, two); a number after its noun, or before a singular one, counts nothing."""
    caption = findings.caption
    noun = caption.heads[token]
    if token < noun and is_counted(findings, token, noun):
        for counted in thing(caption, noun)[:1]:
            findings.say_attribute(counted, token, caption.words[token])


def is_counted(findings: Findings, number: int, noun: int) -> bool:
    """Whether the number is that of the noun: it is plural or has lost its ending (two giraffe), unlike "two door car"."""
    caption = findings.caption
    if caption.tags[noun] in PLURAL_TAGS or caption.words[noun] in NUMBERLESS_NOUNS:
        return True
    return (
        caption.words[number] not in ONE
        and caption.deps[noun] not in ("compound", "nmod", "amod")
        and not any(word.endswith("ed") for word in caption.words[number + 1 : noun])  # two wheeled cart
    )


def intransitive(findings: Findings, token: int) -> None:
    """A5: a woman is smiling -> (woman, smile). A verb whose object stands before its clause is not intransitive."""
    caption = findings.caption
    if caption.deps[token] in ("aux", "auxpass", "amod", "compound") or not is_verb(caption, token):
        return
    if any(caption.deps[child] in COMPLEMENTS for child in caption.children[token]):
        return
    if any(preposition.governor == token for preposition in findings.prepositions):
        return
    if has_object_before(caption, token):
        return
    # A past participle of two words is an adjective whatever its tag: the chair is medium-sized.
    is_adjective = caption.tags[token] == "VBN" and "-" in caption.words[token]
    verb = caption.words[token] if is_adjective else findings.lemmas.verb(caption.words[token])
    if verb not in EMPTY_VERBS:
        for noun in subjects(caption, token):
            findings.say_attribute(noun, token, verb)


def copular_noun(findings: Findings, token: int) -> None:
    """A6: the man is a baseball player -> (man, player). "there is" says nothing of what there is."""
    caption = findings.caption
    verb = caption.heads[token]
    if caption.child(verb, "expl") is not None or findings.lemmas.verb(caption.words[verb]) != "be":
        return
    for value in nouns(caption, token):
        for noun in subjects(caption, verb):
            findings.say_attribute(noun, value, findings.object_lemma(value))
    if caption.tags[token] in ADJECTIVE_TAGS or caption.tags[token] == "CD":
        predicate_adjective(findings, token)


def quantifier(findings: Findings, token: int) -> None:
    """A7: a couple of people -> (people, couple), or with profile `official` (people, a)."""
    caption = findings.caption
    counted = quantified(caption, token)
    if counted is None:
        return
    for noun in thing(caption, counted):
        if findings.profile.quantifier_is_attribute:
            findings.say_attribute(noun, token, findings.object_lemma(token))
            continue
        article = caption.child(token, "det")
        if article is not None and caption.words[article] == "a":
            findings.say_attribute(noun, article, "a")


def adjectives(findings: Findings, token: int) -> Iterator[int]:
    """The modifier at `token` and those joined to it; nothing that a preposition holds (next, close)."""
    caption = findings.caption
    if (
        caption.tags[token] in MODIFIER_TAGS
        and caption.words[token] != "about"  # about to leave
        and not in_preposition(findings, token)
    ):
        yield token
    for child in caption.children[token]:
        if caption.deps[child] == "conj":
            yield from adjectives(findings, child)


def in_preposition(findings: Findings, token: int) -> bool:
    return any(token in preposition.tokens for preposition in findings.prepositions)
