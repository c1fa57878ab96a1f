"""Errors that the teacher makes again and again in captions, mended before ours learns them.

Its news-trained tagger takes caption openings for commands ("rug in front of a sofa") and "stop sign" for a sentence;
its parser takes the middle of a list for an apposition, and is of two minds where one rides a wave. Held-out parses are
not mended: agreement is with the teacher as it is.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TypeVar

from mvptr_data.scene_graphs.silver import SilverParse
from mvptr_data.scene_graphs.wordlists import read_words

T = TypeVar("T")

#: Verbs of posture and motion that the teacher often takes for plural nouns at the end of a subject (the city bus
#: travels down).
POSTURE_VERBS = read_words("posture_verbs")

NOUN_LABELS = frozenset({"pobj", "compound", "dobj", "nsubj", "nsubjpass"})
#: Activities that an object belongs to: where one flies a kite or rides a wave is where one does it.
ACTIVITIES = read_words("activities")
PLACES = frozenset(["on", "at", "in", "near", "next", "by", "through", "down", "along", "across", "over", "beside"])
#: What is in the sky is there by itself.
SKY = frozenset({"sky", "skies", "air"})

#: Dependents that only a verb has.
VERB_DEPENDENTS = frozenset({"nsubj", "nsubjpass", "dobj", "aux", "auxpass", "xcomp", "prt", "agent", "expl"})


def mend(parse: SilverParse) -> SilverParse:
    """All repairs, in turn."""
    for repair in (mend_verbs, mend_compounds, mend_commands, mend_nouns, mend_participles, mend_lists, mend_places):
        parse = repair(parse)
    return parse


def mend_compounds(parse: SilverParse) -> SilverParse:
    """A noun that is "subject" of the noun after it, with no verb about, modifies it: stop sign, bathroom sink."""
    for token in range(len(parse.words) - 1):
        head = token + 1
        if (
            parse.deps[token] == "nsubj"
            and parse.heads[token] == head
            and parse.tags[token] in ("NN", "NNP")
            and parse.tags[head] in ("NN", "NNP")
            and not parse.words[head].lower().endswith("ing")
            and not labels_of_children(parse, head) & {"aux", "auxpass", "dobj", "prt", "acomp", "xcomp"}
        ):
            heads = tuple(head if old == token else old for old in parse.heads)
            deps = replaced(parse.deps, token, "compound")
            parse = replace(parse, heads=heads, deps=deps)
    return parse


def mend_verbs(parse: SilverParse) -> SilverParse:
    """A singular noun before "rests on", both taken for one compound, is the subject of a verb."""
    for token in range(1, len(parse.words) - 1):
        noun = token - 1
        if (
            parse.words[token].lower() in POSTURE_VERBS
            and parse.tags[token] in ("NNS", "NNPS", "NN")
            and parse.tags[noun] in ("NN", "NNP")
            and parse.heads[noun] == token
            and parse.deps[noun] in ("compound", "nsubj")
            and parse.deps[token] in ("ROOT", "conj", "relcl", "advcl")
            and parse.tags[token + 1] in ("IN", "RP", "RB", "TO")
            and parse.words[token + 1].lower() not in ("of", "while")
        ):
            deps = replaced(replaced(parse.deps, noun, "nsubj"), token, parse.deps[token])
            heads = tuple(noun if head == token and i < noun else head for i, head in enumerate(parse.heads))
            parse = replace(parse, heads=heads, deps=deps, tags=replaced(parse.tags, token, "VBZ"))
    return parse


def mend_commands(parse: SilverParse) -> SilverParse:
    """Captions give no commands: a base verb that opens one is a noun, and modifies a noun right after it."""
    if parse.tags[0] not in ("VB", "VBP") or parse.deps[0] != "ROOT":
        return parse
    if len(parse.words) > 1 and parse.deps[1] == "dobj" and parse.heads[1] == 0 and parse.tags[1].startswith("N"):
        heads = (1, 1, *(1 if head == 0 else head for head in parse.heads[2:]))
        return replace(parse, heads=heads, deps=("compound", "ROOT", *parse.deps[2:]), tags=("NN", *parse.tags[1:]))
    if labels_of_children(parse, 0) & VERB_DEPENDENTS:
        return parse
    return replace(parse, tags=("NN", *parse.tags[1:]))


def mend_nouns(parse: SilverParse) -> SilverParse:
    """A verb's tag in a noun's place, without anything that only verbs have: a noun (next to trash cans)."""
    tags = list(parse.tags)
    for token, (tag, label) in enumerate(zip(parse.tags, parse.deps, strict=True)):
        if (
            tag in ("VB", "VBP", "VBZ")
            and label in NOUN_LABELS
            and not labels_of_children(parse, token) & VERB_DEPENDENTS
        ):
            plural = parse.words[token].lower().endswith("s") and tag == "VBZ"
            tags[token] = "NNS" if plural else "NN"
    return replace(parse, tags=tuple(tags))


def mend_participles(parse: SilverParse) -> SilverParse:
    """A noun's tag on an -ing word that opens a clause: a participle (a man skiing)."""
    tags = tuple(
        "VBG" if tag in ("NN", "NNP") and label in ("acl", "advcl") and word.lower().endswith("ing") else tag
        for word, tag, label in zip(parse.words, parse.tags, parse.deps, strict=True)
    )
    return replace(parse, tags=tags)


def mend_lists(parse: SilverParse) -> SilverParse:
    """In "a stove, a sink and a refrigerator" the second is joined to the first.

    It explains nothing, nor is it joined to what there is "with a stove".
    """
    for token, label in enumerate(parse.deps):
        if label not in ("appos", "conj") or "conj" not in labels_of_children(parse, token):
            continue
        left = min([child for child, head in enumerate(parse.heads) if head == token and child < token], default=token)
        first = left - 2  # the word before the comma
        if (
            first < 0
            or parse.words[left - 1] != ","
            or not (parse.tags[first].startswith("N") and parse.tags[token].startswith("N"))
            or is_under(parse, first, token)
            or (label == "conj" and not is_with(parse, first, parse.heads[token]))
        ):
            continue
        heads = tuple(
            first if other == token or (other == left - 1 and label == "conj") else head
            for other, head in enumerate(parse.heads)
        )
        parse = replace(parse, heads=heads, deps=replaced(parse.deps, token, "conj"))
    return parse


def is_with(parse: SilverParse, noun: int, whole: int) -> bool:
    """Whether the noun is what the whole is "with"."""
    preposition = parse.heads[noun]
    return parse.words[preposition].lower() == "with" and parse.heads[preposition] == whole


def mend_places(parse: SilverParse) -> SilverParse:
    """The place after an activity's object is the activity's: flying kites at the beach."""
    for token, label in enumerate(parse.deps):
        thing = parse.heads[token]
        verb = parse.heads[thing]
        if (
            label in ("prep", "advmod")
            and parse.words[token].lower() in PLACES
            and token == thing + 1
            and parse.deps[thing] == "dobj"
            and parse.words[verb].lower() in ACTIVITIES
            and not any(word.lower() in SKY for word in parse.words[token : token + 5])
        ):
            parse = replace(parse, heads=replaced(parse.heads, token, verb))
    return parse


def labels_of_children(parse: SilverParse, token: int) -> set[str]:
    return {
        label
        for label, head, child in zip(parse.deps, parse.heads, range(len(parse.heads)), strict=True)
        if head == token != child
    }


def is_under(parse: SilverParse, token: int, ancestor: int) -> bool:
    while parse.heads[token] != token:
        token = parse.heads[token]
        if token == ancestor:
            return True
    return False


def replaced(values: tuple[T, ...], index: int, value: T) -> tuple[T, ...]:
    return (*values[:index], value, *values[index + 1 :])
