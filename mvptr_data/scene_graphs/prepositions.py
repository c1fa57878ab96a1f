"""Prepositions of one or several words, and what they link.

Places that are things of their own stay nouns: "on the side of the road" is park on side, side of road.
"""

from __future__ import annotations

from typing import NamedTuple

from mvptr_data.scene_graphs.tokens import ParsedCaption
from mvptr_data.scene_graphs.wordlists import read_words

#: First word -> the sequences it can open, longest first.
SEQUENCES: dict[str, list[tuple[str, ...]]] = {}
for _phrase in sorted(read_words("multi_word_prepositions"), key=lambda phrase: (-phrase.count(" "), phrase)):
    SEQUENCES.setdefault(_phrase.split()[0], []).append(tuple(_phrase.split()))

#: Tokens with these labels head a prepositional phrase.
PREPOSITION_LABELS = frozenset({"prep", "agent"})
#: Tokens with these tags do as well where they have an object: "to" before whom one gives, particles before a place.
PREPOSITION_TAGS = frozenset({"IN", "TO", "RP", "RB"})
#: With these labels, a word may open a multi-word preposition.
OPENER_LABELS = frozenset({"prep", "advmod", "amod", "acomp", "prt", "attr", "npadvmod", "dep", "acl", "ROOT", "pcomp"})


class Preposition(NamedTuple):
    """A preposition in its caption: the token it depends on, its own tokens, and the head of its object (None:
    stranded).
    """

    governor: int
    tokens: tuple[int, ...]
    object: int | None
    label: str

    def text(self, caption: ParsedCaption) -> str:
        return " ".join([caption.words[token] for token in self.tokens])


def find_prepositions(caption: ParsedCaption) -> list[Preposition]:
    """All prepositions of a caption, in order; a token belongs to one at most."""
    found = []
    deps, words, tags, heads = caption.deps, caption.words, caption.tags, caption.heads
    holders = {heads[token] for token, label in enumerate(deps) if label == "pobj"}
    end = 0  # tokens before it are part of an earlier preposition
    for token, label in enumerate(deps):
        if token < end:
            continue
        alone = label in PREPOSITION_LABELS or (token in holders and tags[token] in PREPOSITION_TAGS)
        if not alone and not (words[token] in SEQUENCES and label in OPENER_LABELS):
            continue
        sequence = sequence_at(caption, token)
        if alone or len(sequence) > 1:
            end = sequence[-1] + 1
            found.append(Preposition(governor_of(caption, token), sequence, object_of(caption, sequence), label))
    return found


def governor_of(caption: ParsedCaption, token: int) -> int:
    """What the preposition at `token` is said of: behind an adverb of place, what that is said of (seen here in a zoo)."""
    head = caption.heads[token]
    if caption.tags[head] == "RB" and caption.deps[head] == "advmod":
        return caption.heads[head]
    return head


def sequence_at(caption: ParsedCaption, token: int) -> tuple[int, ...]:
    """The tokens of the longest multi-word preposition at `token` that has an object, else `token` alone.

    One whose last word opens another is taken with it: up in + in front of -> up in front of.
    """
    words = caption.words
    for sequence in SEQUENCES.get(words[token], ()):
        tokens = tuple(range(token, token + len(sequence)))
        if tuple(words[token : token + len(sequence)]) == sequence and object_of(caption, tokens) is not None:
            return tokens[:-1] + sequence_at(caption, tokens[-1])
    return (token,)


def object_of(caption: ParsedCaption, tokens: tuple[int, ...]) -> int | None:
    """The head of the object: of the last word that has one outside the preposition."""
    for token in reversed(tokens):
        for child in caption.children[token]:
            if caption.deps[child] == "pobj" and child not in tokens:
                return child
    return None
