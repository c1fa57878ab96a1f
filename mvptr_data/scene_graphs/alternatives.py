"""Other readings of a parsed caption, each one decision away.

What they vary is what a news-trained parser most often gets wrong in captions: where a preposition, a participle, a
conjunct or a modifier hangs, and whether a word is a noun or a verb. No arcs cross: a transition parser builds no others.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace

from mvptr_data.scene_graphs.arguments import ADJECTIVE_TAGS, NOUN_TAGS, SUBJECT_LABELS, VERB_TAGS
from mvptr_data.scene_graphs.repairs import replaced
from mvptr_data.scene_graphs.silver import SilverParse

#: What may be joined to what by a conjunction: words of one kind.
KINDS = (NOUN_TAGS, VERB_TAGS, ADJECTIVE_TAGS)
#: Labels of what hangs before its noun, and words up to that noun at most.
MODIFIERS = frozenset({"amod", "compound", "nmod", "nummod", "poss"})
LONGEST_NAME = 4

#: Labels, and what else the same word may be to the same head.
OTHER_LABELS = {
    "appos": ("conj",),
    "npadvmod": ("dobj",),
    "agent": ("prep",),
    "advcl": ("acl",),
    "dep": ("dobj", "prep"),
}
#: A token's head and its label.
Arc = tuple[int, str]


def alternatives(parse: SilverParse) -> Iterator[SilverParse]:
    """All parses that differ in one decision; heads near a token come before those further off."""
    for token, label in enumerate(parse.deps):
        if label in ("prep", "advmod", "agent"):
            yield from moved_prepositions(parse, token)
        elif label in ("acl", "advcl", "relcl"):
            yield from moved_clauses(parse, token)
        elif label == "conj":
            yield from moved_conjuncts(parse, token)
        elif label in MODIFIERS:
            yield from moved_modifiers(parse, token)
        for other in OTHER_LABELS.get(label, ()):
            yield replace(parse, deps=replaced(parse.deps, token, other))
        if token and parse.tags[token - 1] in NOUN_TAGS:
            yield from read_as_noun(parse, token) if parse.tags[token] in VERB_TAGS else read_as_verb(parse, token)


def before(parse: SilverParse, token: int, tags: frozenset[str]) -> Iterator[int]:
    """Tokens with such tags before `token`, nearest first."""
    return (other for other in range(token - 1, -1, -1) if parse.tags[other] in tags)


def moved_prepositions(parse: SilverParse, token: int) -> Iterator[SilverParse]:
    """A preposition under each noun, verb or adjective before it.

    Never from a verb to the verb's own subject: where one does something, one is, and our specification says the former.
    """
    for head in before(parse, token, NOUN_TAGS | VERB_TAGS | ADJECTIVE_TAGS):
        if not is_subject(parse, head, parse.heads[token]):
            yield from attached(parse, {token: (head, "prep" if parse.deps[token] == "agent" else parse.deps[token])})


def is_subject(parse: SilverParse, noun: int, verb: int) -> bool:
    """Whether the verb is said of the noun, as its predicate or as a clause that hangs on it."""
    return (parse.heads[noun] == verb and parse.deps[noun] in SUBJECT_LABELS) or (
        parse.heads[verb] == noun and parse.deps[verb] in ("acl", "relcl")
    )


def moved_clauses(parse: SilverParse, token: int) -> Iterator[SilverParse]:
    """A clause under each noun and, unless it is a relative one, each verb before it."""
    relative = parse.deps[token] == "relcl"
    for head in before(parse, token, NOUN_TAGS if relative else NOUN_TAGS | VERB_TAGS):
        label = "relcl" if relative else "acl" if parse.tags[head] in NOUN_TAGS else "advcl"
        yield from attached(parse, {token: (head, label)})


def moved_conjuncts(parse: SilverParse, token: int) -> Iterator[SilverParse]:
    """A conjunct under each word of its kind before it; conjunctions and commas in between go with it."""
    kind = next((tags for tags in KINDS if parse.tags[token] in tags), frozenset[str]())
    first = parse.heads[token]
    for head in before(parse, token, kind):
        joints = [
            other
            for other in range(max(head, first) + 1, token)
            if parse.heads[other] == first and parse.deps[other] in ("cc", "punct")
        ]
        yield from attached(parse, {other: (head, parse.deps[other]) for other in joints} | {token: (head, "conj")})


def moved_modifiers(parse: SilverParse, token: int) -> Iterator[SilverParse]:
    """A modifier under each noun soon after it."""
    for head in range(token + 1, min(token + 1 + LONGEST_NAME, len(parse.words))):
        if parse.tags[head] in NOUN_TAGS:
            yield from attached(parse, {token: (head, parse.deps[token])})


def read_as_verb(parse: SilverParse, token: int) -> Iterator[SilverParse]:
    """A word after a noun that is taken for one name with it is said of it: cat sits, man walking, woman holds umbrella."""
    subject, top = token - 1, name_head(parse, token)
    tag = verb_tag(parse, token)
    if tag is None or parse.heads[subject] not in (token, top) or parse.deps[subject] not in MODIFIERS:
        return
    head, label = parse.heads[top], parse.deps[top]
    is_root = head == top
    changes: dict[int, Arc] = {}
    for other, above in enumerate(parse.heads):
        if above in (token, top) and other not in (subject, token, top):
            changes[other] = (subject if other < subject else token if other > top else top, parse.deps[other])
    if tag in ("VBG", "VBN"):
        changes |= {subject: (subject if is_root else head, label), token: (subject, "acl")}
    elif is_root:
        changes |= {subject: (token, "nsubj"), token: (token, label)}
    else:
        return
    if top != token:
        changes[top] = (token, "dobj")
    yield from attached(replace(parse, tags=replaced(parse.tags, token, tag)), changes)


def name_head(parse: SilverParse, token: int) -> int:
    """The noun that a token and what follows it modify: itself where it modifies none."""
    head = parse.heads[token]
    return head if parse.deps[token] in MODIFIERS and token < head <= token + LONGEST_NAME else token


def verb_tag(parse: SilverParse, token: int) -> str | None:
    """The tag of a noun or adjective as a verb that agrees with the noun before it; None where it cannot be one."""
    word, subject = parse.words[token].lower(), parse.tags[token - 1]
    if parse.tags[token] not in NOUN_TAGS | {"JJ"}:
        return None
    if word.endswith("ing"):
        return "VBG"
    if word.endswith("ed"):
        return "VBN"
    if subject in ("NN", "NNP") and word.endswith("s"):
        return "VBZ"
    return "VBP" if subject in ("NNS", "NNPS") and not word.endswith("s") else None


def read_as_noun(parse: SilverParse, token: int) -> Iterator[SilverParse]:
    """A verb right after its subject is one name with it, and with the object right after: tree leaves, dog leash hook."""
    subject = token - 1
    if parse.heads[subject] != token or parse.deps[subject] not in SUBJECT_LABELS:
        return
    objects = [other for other, head in enumerate(parse.heads) if head == token and parse.deps[other] == "dobj"]
    if len(objects) > 1 or any(other != token + 1 for other in objects):
        return
    top = objects[0] if objects else token
    changes: dict[int, Arc] = {
        other: (top, parse.deps[other]) for other, head in enumerate(parse.heads) if head in (subject, token)
    }
    changes |= {subject: (top, "compound"), token: (top, "compound")}
    changes[top] = (top if parse.heads[token] == token else parse.heads[token], parse.deps[token])
    tag = "NNS" if parse.words[token].lower().endswith("s") and not objects else "NN"
    yield from attached(replace(parse, tags=replaced(parse.tags, token, tag)), changes)


def attached(parse: SilverParse, changes: Mapping[int, Arc]) -> Iterator[SilverParse]:
    """The parse with other arcs for some tokens; nothing where that changes nothing or gives no tree."""
    heads, deps = list(parse.heads), list(parse.deps)
    for token, (head, label) in changes.items():
        heads[token], deps[token] = head, label
    if (tuple(heads), tuple(deps)) != (parse.heads, parse.deps) and is_tree(heads):
        yield replace(parse, heads=tuple(heads), deps=tuple(deps))


def is_tree(heads: Iterable[int]) -> bool:
    """Whether every token is under a root (its own head), and no two arcs cross."""
    above = list(heads)
    for token in range(len(above)):
        for _ in above:
            token = above[token]
        if above[token] != token:
            return False
    arcs = [(min(token, head), max(token, head)) for token, head in enumerate(above) if token != head]
    return not any(a < c < b < d for a, b in arcs for c, d in arcs)
