"""Parses written by hand, so that tests of rules depend on no trained weights.

One token is `word/TAG/label>head`, head being the index of the token it depends on (its own for a root).
"""

from __future__ import annotations

from mvptr_data.scene_graphs.facts import Findings, find_profile
from mvptr_data.scene_graphs.lemmas import Lemmatizer
from mvptr_data.scene_graphs.phrases import find_phrases
from mvptr_data.scene_graphs.rules import find_facts
from mvptr_data.scene_graphs.tokens import ParsedCaption

LEMMAS = Lemmatizer.bundled()


def read_parse(text: str) -> ParsedCaption:
    """The caption that `text` writes down."""
    words, tags, deps, heads = [], [], [], []
    for token in text.split():
        word, tag, link = token.rsplit("/", 2)
        label, head = link.split(">")
        words.append(word)
        tags.append(tag)
        deps.append(label)
        heads.append(int(head))
    return ParsedCaption(words, tags, deps, heads)


def findings_of(text: str, profile: str = "paper") -> Findings:
    """What the rules find in a parse."""
    return find_facts(read_parse(text), LEMMAS, find_profile(profile))


def phrases_of(text: str, profile: str = "paper") -> set[tuple[str, ...]]:
    """The phrases that the rules find in a parse."""
    return {phrase.words for phrase in find_phrases(findings_of(text, profile))}
