"""Heads that small parsers get wrong, corrected by what words mean: clothes belong to people, and places do nothing.

The parser may hang "in a pink shirt" on the verb, and "playing tennis" on the dress. Who wears what, and who can play,
decides both.
"""

from __future__ import annotations

from mvptr_data.scene_graphs.arguments import PEOPLE, is_verb
from mvptr_data.scene_graphs.tokens import ParsedCaption
from mvptr_data.scene_graphs.wordlists import read_words

CLOTHES = read_words("clothes")

NO_PLACES = PEOPLE | CLOTHES
ANIMATE_PARTICIPLES = read_words("animate_participles")
#: What clothes can be said to be doing.
CLOTHES_DO = frozenset(
    {"covering", "featuring", "hanging", "laying", "lying", "matching", "reading", "saying", "showing"}
)


def correct_heads(caption: ParsedCaption) -> None:
    """Applies all corrections, in place."""
    words, deps = caption.words, caption.deps
    for token, word in enumerate(words):
        if word == "in" and deps[token] == "prep":
            attach_clothes(caption, token)
        elif word == "wearing" and deps[token] in ("acl", "advcl"):
            attach_wearing(caption, token)
        elif deps[token] == "acl" and caption.tags[token] == "VBG":
            detach_from_clothes(caption, token)
            detach_from_place(caption, token)


def attach_clothes(caption: ParsedCaption, preposition: int) -> None:
    """In "standing behind a boy in a pink shirt" the shirt is the boy's."""
    worn = caption.child(preposition, "pobj")
    if worn is not None and caption.words[worn] in CLOTHES:
        attach_to_person_before(caption, preposition)


def attach_wearing(caption: ParsedCaption, participle: int) -> None:
    """In "a ball behind the girl wearing a red dress" it is the girl who wears it."""
    if attach_to_person_before(caption, participle):
        caption.deps[participle] = "acl"


def attach_to_person_before(caption: ParsedCaption, token: int) -> bool:
    """Hangs a token on the person named right before it; False where there is none, or that would be a cycle."""
    person = token - 1
    if person < 0 or caption.words[person] not in PEOPLE or caption.heads[token] in (person, token):
        return False
    above = person
    while caption.heads[above] != above:
        above = caption.heads[above]
        if above == token:
            return False
    caption.hang(token, person)
    return True


def detach_from_clothes(caption: ParsedCaption, participle: int) -> None:
    """In "a woman in a white dress playing tennis" it is the woman who plays."""
    worn = caption.heads[participle]
    if caption.words[worn] in CLOTHES and caption.words[participle] not in CLOTHES_DO:
        attach_to_one_in(caption, participle, worn)


def detach_from_place(caption: ParsedCaption, participle: int) -> None:
    """In "people sitting at a table eating cake" it is the people who eat."""
    place = caption.heads[participle]
    if caption.words[participle] in ANIMATE_PARTICIPLES and caption.words[place] not in NO_PLACES:
        attach_to_one_in(caption, participle, place)


def attach_to_one_in(caption: ParsedCaption, participle: int, place: int) -> None:
    """Hangs a participle on the person, or on what the person does, in, on or at something."""
    while caption.deps[place] == "conj":
        place = caption.heads[place]
    preposition = caption.heads[place]
    if caption.deps[place] != "pobj" or caption.words[preposition] not in ("in", "on", "at"):
        return
    holder = caption.heads[preposition]
    if caption.words[holder] in PEOPLE:
        caption.hang(participle, holder)
    elif is_verb(caption, holder):
        caption.hang(participle, holder)
        caption.deps[participle] = "advcl"
