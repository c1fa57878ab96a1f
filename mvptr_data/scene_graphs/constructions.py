"""Constructions that the parser took for others, built anew: what hangs on what, and as what.

Each function looks whether its construction is there, and leaves the tree as it is where it is not.
"""

from __future__ import annotations

from bisect import insort

from mvptr_data.scene_graphs.arguments import NOUN_TAGS, is_verb
from mvptr_data.scene_graphs.tokens import ParsedCaption
from mvptr_data.scene_graphs.wordlists import read_words

#: Labels of words before a noun that describe it.
MODIFIERS = frozenset({"amod", "compound", "nmod", "nummod"})
#: Prepositions that name a place: what follows them is a thing, not an action.
PLACING = frozenset({"at", "behind", "beside", "in", "near", "next", "on", "over", "to", "under"})
ACTIVITIES = read_words("activities")


def hand_root_to_object(caption: ParsedCaption, root: int) -> int:
    """In "brown dirt on a potato", taken for "brown" with an object, it describes that noun; gives the root.

    Nothing but other modifiers may stand between: sliding glass doors.
    """
    noun = caption.child(root, "dobj")
    if noun is None or noun < root or not set(range(root + 1, noun)) <= set(caption.children[noun]):
        return root
    if any(caption.deps[between] not in MODIFIERS for between in range(root + 1, noun)):
        return root
    if caption.tags[root] in NOUN_TAGS and noun != root + 1:
        return root
    take_root(caption, root, noun)
    caption.deps[root] = "compound" if caption.tags[root] in NOUN_TAGS else "amod"
    for child in list(caption.children[root]):
        caption.hang(child, noun)
    return noun


def free_verb_from_auxiliary(caption: ParsedCaption, noun: int) -> None:
    """In "the window has curtains", "has" is no auxiliary: the noun is its object."""
    verb, subject = caption.child(noun, "aux"), caption.child(noun, "nsubj")
    if verb is None or subject is None or verb > noun or caption.words[verb] not in ("has", "have", "had"):
        return
    take_root(caption, noun, verb)
    caption.deps[noun] = "dobj"
    caption.hang(subject, verb)


def open_relative_clause(caption: ParsedCaption, verb: int) -> bool:
    """In "the sofa the man is sitting on", with two subjects of the verb, the first is what the rest describes."""
    subjects = [child for child in caption.children[verb] if caption.deps[child] in ("nsubj", "nsubjpass")]
    if len(subjects) != 2 or not subjects[0] < subjects[1] < verb:
        return False
    first, second = subjects
    start = min(caption.children[second] + [second])
    if start != first + 1 or caption.deps[start] not in ("det", "poss") or caption.tags[first] not in NOUN_TAGS:
        return False
    take_root(caption, verb, first)
    caption.deps[verb] = "relcl"
    return True


def free_participle(caption: ParsedCaption, participle: int) -> None:
    """In "a zebra eating grass", taken for one compound, the zebra eats."""
    doer, done_to = participle - 1, caption.heads[participle]
    if (
        doer < 0
        or caption.tags[doer] not in NOUN_TAGS
        or caption.deps[doer] not in ("compound", "npadvmod")
        or caption.heads[doer] not in (participle, done_to)
        or caption.tags[done_to] not in NOUN_TAGS
        or done_to < participle
    ):
        return
    put_in_place_of(caption, doer, done_to)
    for child in list(caption.children[done_to]):
        if child < doer:
            caption.hang(child, doer)
    caption.hang(participle, doer)
    caption.hang(done_to, participle)
    caption.deps[participle], caption.tags[participle], caption.deps[done_to] = "acl", "VBG", "dobj"


def read_as_compound(caption: ParsedCaption, participle: int) -> None:
    """In "on cutting board", nobody cuts: the board is what the preposition leads to."""
    preposition = caption.heads[participle]
    noun = caption.child(participle, "dobj")
    if (
        caption.child(participle, "nsubj") is not None
        or caption.words[preposition] not in PLACING
        or noun != participle + 1
        or caption.words[participle] in ACTIVITIES
    ):
        return
    caption.hang(noun, preposition)
    caption.deps[noun] = "pobj"
    for child in list(caption.children[participle]):
        caption.hang(child, noun)
    caption.hang(participle, noun)
    caption.deps[participle] = "amod"


def read_as_its(caption: ParsedCaption, pronoun: int) -> None:
    """In "a rope around it's neck", "it's" is "its": after a preposition or "has" no clause begins."""
    verb, before = pronoun + 1, pronoun - 1
    if before < 0 or verb >= len(caption) or caption.words[verb] != "'s" or caption.heads[pronoun] != verb:
        return
    noun = caption.child(verb, "attr")
    if noun is None or noun < verb or not (caption.deps[before] == "prep" or is_verb(caption, before)):
        return
    subject = caption.child(verb, "nsubj")
    if caption.heads[verb] == verb and subject not in (None, pronoun) and caption.is_under(before, subject):
        take_root(caption, verb, subject)
    if caption.heads[verb] == verb or caption.is_under(before, verb):
        return
    caption.hang(noun, before)
    caption.deps[noun] = "pobj" if caption.deps[before] == "prep" else "dobj"
    caption.hang(pronoun, noun)
    caption.hang(verb, noun)
    caption.deps[pronoun], caption.tags[pronoun] = "poss", "PRP$"
    caption.deps[verb], caption.tags[verb] = "case", "POS"


def take_root(caption: ParsedCaption, root: int, child: int) -> None:
    """Makes a root's child the root, and the old root its child."""
    caption.children[root].remove(child)
    caption.heads[child], caption.deps[child] = child, "ROOT"
    caption.heads[root] = child
    insort(caption.children[child], root)


def put_in_place_of(caption: ParsedCaption, token: int, other: int) -> None:
    """Gives a token below `other` its head and label, and hangs `other` on it."""
    head, label = caption.heads[other], caption.deps[other]
    caption.hang(token, other)
    if head == other:
        take_root(caption, other, token)
    else:
        caption.hang(token, head)
        caption.hang(other, token)
    caption.deps[token] = label
