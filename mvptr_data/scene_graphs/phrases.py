"""Findings to phrases and to scene graphs."""

from __future__ import annotations

from mvptr_data.scene_graphs.facts import Findings
from mvptr_data.scene_graphs.graph import Phrase, SceneAttribute, SceneGraph, SceneObject, SceneRelation


def find_phrases(findings: Findings) -> list[Phrase]:
    """The phrases of a caption in order of position.

    That is by the start of the first token, then that of the last, then words. A phrase said more than once is listed
    at its first place.
    """
    caption = findings.caption
    starts = caption.starts
    found: list[tuple[int, int, tuple[str, ...], tuple[int, ...]]] = []
    words: tuple[str, ...]
    for noun, word, token in findings.attributes:
        tokens: tuple[int, ...] = (noun, token) if noun < token else (token, noun)
        words = (findings.object_lemma(noun), word)
        found.append((starts[tokens[0]], starts[tokens[-1]], words, tokens))
    for subject, predicate, evidence, noun in findings.relations:
        tokens = tuple(sorted({subject, noun, *evidence}))
        words = (findings.object_lemma(subject), predicate, findings.object_lemma(noun))
        found.append((starts[tokens[0]], starts[tokens[-1]], words, tokens))
    if findings.profile.names_objects:
        found += [
            (starts[token], starts[token], (findings.object_lemma(token),), (token,)) for token in things(findings)
        ]
    found.sort()
    phrases: dict[tuple[str, ...], Phrase] = {}
    for _, _, words, tokens in found:
        if words not in phrases:
            phrases[words] = Phrase(words, tuple([caption.span(token) for token in tokens]))
    return list(phrases.values())


def build_graph(findings: Findings, text: str) -> SceneGraph:
    """The scene graph of a normalised caption."""
    caption = findings.caption
    attributes = sorted(set(findings.attributes))
    relations = sorted(set(findings.relations))
    tokens = things(findings)
    index = {token: position for position, token in enumerate(tokens)}
    return SceneGraph(
        text=text,
        objects=tuple(SceneObject(lemma=findings.object_lemma(token), span=caption.span(token)) for token in tokens),
        attributes=tuple(
            SceneAttribute(of=index[fact.noun], word=fact.word, span=caption.span(fact.token)) for fact in attributes
        ),
        relations=tuple(
            SceneRelation(
                subject=index[fact.subject],
                predicate=fact.predicate,
                object=index[fact.object],
                spans=tuple(caption.span(token) for token in fact.tokens),
            )
            for fact in relations
        ),
    )


def things(findings: Findings) -> list[int]:
    """The tokens of all objects, ascending: those that a fact is about, and those that are only named."""
    found = {fact.noun for fact in findings.attributes}
    found |= {noun for fact in findings.relations for noun in (fact.subject, fact.object)}
    return sorted(found.union(findings.objects()))
