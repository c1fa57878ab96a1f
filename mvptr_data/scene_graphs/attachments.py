"""Heads that small parsers get wrong, corrected by what words mean: clothes belong to people, and places do nothing.

The parser may hang "in a pink shirt" on the verb, "playing tennis" on the dress, and "white" on the food of a white food
container. Who wears what, who can play, and what is a part of what decide.
"""

from __future__ import annotations

from mvptr_data.scene_graphs.arguments import NOUN_TAGS, PEOPLE, PLURAL_TAGS, is_verb
from mvptr_data.scene_graphs.tokens import ParsedCaption
from mvptr_data.scene_graphs.wordlists import read_words

CLOTHES = read_words("clothes")

NO_PLACES = PEOPLE | CLOTHES
ANIMATE_PARTICIPLES = read_words("animate_participles")
#: What clothes can be said to be doing.
CLOTHES_DO = frozenset(
    {"covering", "featuring", "hanging", "laying", "lying", "matching", "reading", "saying", "showing"}
)
#: Adverbs for the state of what someone has.
STATES = frozenset({"down", "up"})
#: Adjectives that belong to the noun they stand before, wherever that belongs (a hot dog stand).
FIXED_PAIRS = frozenset(
    {
        ("flat", "screen"),
        ("high", "school"),
        ("hot", "dog"),
        ("long", "sleeve"),
        ("short", "sleeve"),
    }
)


def correct_heads(caption: ParsedCaption) -> None:
    """Applies all corrections, in place."""
    words, deps = caption.words, caption.deps
    for token, word in enumerate(words):
        if deps[token] == "amod" and deps[caption.heads[token]] == "compound":
            pass_to_whole(caption, token)
        elif word in STATES:
            attach_state(caption, token)
        elif word == "in" and deps[token] == "prep":
            attach_clothes(caption, token)
        elif word == "wearing" and deps[token] in ("acl", "advcl"):
            attach_wearing(caption, token)
        elif deps[token] == "acl" and caption.tags[token] == "VBG":
            detach_from_clothes(caption, token)
            detach_from_place(caption, token)


def pass_to_whole(caption: ParsedCaption, adjective: int) -> None:
    """In "a white food container" it is the container that is white, unlike a hot dog stand."""
    part = whole = caption.heads[adjective]
    while caption.deps[whole] == "compound":
        whole = caption.heads[whole]
    fixed = (caption.words[adjective], caption.words[part]) in FIXED_PAIRS
    hides_verb = any(word.endswith("ing") for word in caption.words[part + 1 : whole])  # black cow drinking water
    if caption.tags[part] in PLURAL_TAGS or caption.tags[whole] not in NOUN_TAGS or fixed or hides_verb:
        return
    caption.hang(adjective, whole)


def attach_state(caption: ParsedCaption, adverb: int) -> None:
    """In "a dog with its head down" it is the head that is down, unless a place follows."""
    noun = adverb - 1
    if noun < 0 or caption.tags[noun] not in NOUN_TAGS or caption.tags[adverb] not in ("RB", "RP", "IN"):
        return
    holder = caption.heads[noun]
    if caption.words[holder] not in ("with", "has", "have", "having") or caption.deps[noun] not in ("pobj", "dobj"):
        return
    follows = caption.tags[adverb + 1] if adverb + 1 < len(caption) else "."
    if (
        follows not in (".", ",", "CC", "VBG", "VBZ", "VBP")
        or caption.children[adverb]
        or caption.heads[adverb] == adverb
    ):
        return
    caption.hang(adverb, noun)
    caption.deps[adverb] = "advmod"


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
    if caption.is_under(person, token):
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
    """Hangs a participle on the person, or on what the person does, that a preposition relates to the place."""
    while caption.deps[place] == "conj":
        place = caption.heads[place]
    preposition = caption.heads[place]
    if caption.deps[place] != "pobj" or caption.words[preposition] == "of":
        return
    holder = caption.heads[preposition]
    if caption.words[holder] in PEOPLE:
        caption.hang(participle, holder)
    elif is_verb(caption, holder):
        caption.hang(participle, holder)
        caption.deps[participle] = "advcl"
