"""Readings that captions rule out: tags and labels that contradict each other, decided by what the word can be.

Taggers trained on news take the openings of captions for verbs ("leaves on a tree", "building across the road") and rare
nouns for adjectives ("on a surfboard"). Captions name things and give no commands, so a word in a noun's place that can be
a noun is one.
"""

from __future__ import annotations

from mvptr_data.scene_graphs.arguments import ADJECTIVE_TAGS, NOUN_TAGS, VERB_TAGS
from mvptr_data.scene_graphs.constructions import (
    MODIFIERS,
    free_participle,
    free_verb_from_auxiliary,
    hand_root_to_object,
    open_relative_clause,
    read_as_compound,
    read_as_its,
)
from mvptr_data.scene_graphs.lemmas import Lemmatizer
from mvptr_data.scene_graphs.tokens import ParsedCaption
from mvptr_data.scene_graphs.wordlists import read_words

#: Labels of words that name things; a root may be a verb as well.
NOUN_PLACES = frozenset({"pobj", "dobj", "nsubj", "nsubjpass", "ROOT"})
#: Tags that taggers give to nouns they do not know.
DOUBTFUL_TAGS = ADJECTIVE_TAGS | VERB_TAGS | {"MD", "RB", "RBR", "UH"}
FINITE_TAGS = frozenset({"VB", "VBP", "VBZ", "MD"})
#: Nouns in -ing for things, which captions seldom mean as verbs.
THINGS_IN_ING = read_words("things_in_ing")
#: Verbs in a form that plural nouns have as well: "the path curves" is none of them, "the bus stops" is.
POSTURE_VERBS = read_words("posture_verbs")
PARTICIPLE_TAGS = frozenset({"VBG", "VBN", "VBD"})
#: What is done to things.
TRANSITIVE_PARTICIPLES = read_words("transitive_participles")
#: Dependents that only a verb has.
VERB_DEPENDENTS = frozenset(
    {"nsubj", "nsubjpass", "csubj", "expl", "aux", "auxpass", "neg", "dobj", "dative", "acomp", "xcomp", "prt", "agent"}
)


def correct_readings(caption: ParsedCaption, lemmas: Lemmatizer) -> None:
    """Applies all corrections, in place."""
    for token, tag in enumerate(caption.tags):
        if caption.words[token] in TRANSITIVE_PARTICIPLES and caption.deps[token] in ("compound", "amod"):
            free_participle(caption, token)
        elif tag in NOUN_TAGS:
            if caption.deps[token] == "ROOT":
                correct_noun_root(caption, token, lemmas)
        elif tag in DOUBTFUL_TAGS:
            correct_doubtful(caption, token, lemmas)
        elif caption.words[token] == "it":
            read_as_its(caption, token)


def correct_noun_root(caption: ParsedCaption, root: int, lemmas: Lemmatizer) -> None:
    word = caption.words[root]
    if word.endswith("ing") and word not in THINGS_IN_ING and find_subject(caption, root, lemmas):
        return
    join_compound(caption, root)
    free_verb_from_auxiliary(caption, hand_root_to_object(caption, root))


def correct_doubtful(caption: ParsedCaption, token: int, lemmas: Lemmatizer) -> None:
    """A word in a noun's place that is tagged otherwise, or a root without subject."""
    label, tag = caption.deps[token], caption.tags[token]
    if label == "pcomp" and tag == "VBG":
        read_as_compound(caption, token)
    if tag == "MD":
        find_container(caption, token)
    if label not in NOUN_PLACES and not (label == "conj" and caption.tags[caption.heads[token]] in NOUN_TAGS):
        return
    if is_noun(caption, token, lemmas):
        make_noun(caption, token)
    elif label == "ROOT":
        if open_relative_clause(caption, token):
            return
        if tag in ADJECTIVE_TAGS:
            free_verb_from_auxiliary(caption, hand_root_to_object(caption, token))
        elif tag in PARTICIPLE_TAGS and describes_object(caption, token):
            hand_root_to_object(caption, token)
        elif tag == "VBG" or caption.words[token] in POSTURE_VERBS:
            find_subject(caption, token, lemmas)


def is_noun(caption: ParsedCaption, token: int, lemmas: Lemmatizer) -> bool:
    """Whether a word in a noun's place, tagged otherwise, must be one."""
    word, tag = caption.words[token], caption.tags[token]
    if tag == "VBG":
        return word in THINGS_IN_ING and not has_verb_dependents(caption, token)
    if len(word) < 3 or lemmas.noun(word) not in lemmas.nouns:
        return False
    if tag in FINITE_TAGS:
        return word not in POSTURE_VERBS and not has_verb_dependents(caption, token)
    return tag not in VERB_TAGS and word not in lemmas.adjectives and word not in lemmas.adverbs


def make_noun(caption: ParsedCaption, token: int) -> None:
    """Tags a word as a noun; clauses that hung on it as on a verb then describe it."""
    word = caption.words[token]
    caption.tags[token] = "NNS" if word.endswith("s") and not word.endswith("ss") else "NN"
    make_descriptions(caption, token)


def make_descriptions(caption: ParsedCaption, noun: int) -> None:
    for child in caption.children[noun]:
        if child > noun and caption.deps[child] in ("advcl", "ccomp", "xcomp") and caption.tags[child] in VERB_TAGS:
            caption.deps[child] = "acl"


def has_verb_dependents(caption: ParsedCaption, token: int, besides: int = -1) -> bool:
    """Whether it has dependents, `besides` left out, that nouns do not; participles may be taken for complements."""
    return any(
        child != besides
        and caption.deps[child] in VERB_DEPENDENTS
        and not (caption.deps[child] == "xcomp" and caption.tags[child] == "VBG")
        for child in caption.children[token]
    )


def join_compound(caption: ParsedCaption, noun: int) -> None:
    """A noun right before another one, "subject" of it without any verb about, is part of a compound: butter knives."""
    before = noun - 1
    if (
        before >= 0
        and caption.heads[before] == noun
        and caption.deps[before] == "nsubj"
        and caption.tags[before] in NOUN_TAGS
        and caption.words[noun] != "side"  # side by side
        and not has_verb_dependents(caption, noun, besides=before)
    ):
        caption.deps[before] = "compound"
        for child in list(caption.children[before]):
            caption.hang(child, noun)
        make_descriptions(caption, noun)


def find_container(caption: ParsedCaption, can: int) -> None:
    """In "a trash can next to a wall", "can" is no auxiliary, since no verb in its base form follows."""
    noun, verb = can - 1, caption.heads[can]
    if caption.words[can] != "can" or noun < 0 or caption.tags[noun] not in NOUN_TAGS or caption.heads[noun] != verb:
        return
    if verb == can or caption.tags[verb] not in PARTICIPLE_TAGS or caption.child(verb, "auxpass") is not None:
        return
    caption.tags[can], caption.deps[can] = "NN", caption.deps[noun]
    caption.hang(noun, can)
    caption.deps[noun] = "compound"
    for child in list(caption.children[noun]):
        caption.hang(child, can)


def find_subject(caption: ParsedCaption, verb: int, lemmas: Lemmatizer) -> bool:
    """In "a brown train riding on tracks" with "train" as part of a compound, it is the subject. Whether it was found."""
    noun = verb - 1
    if (
        noun < 0
        or caption.heads[noun] != verb
        or not (caption.tags[noun] in NOUN_TAGS or is_noun_before_verb(caption, noun, lemmas))
        or caption.child(verb, "nsubj", "nsubjpass", "csubj", "expl") is not None
    ):
        return False
    caption.deps[noun] = "nsubj"
    if caption.tags[noun] == "JJ":
        caption.tags[noun] = "NN"
    caption.tags[verb] = "VBG" if caption.words[verb].endswith("ing") else "VBZ"
    for child in list(caption.children[verb]):
        if child < noun and caption.deps[child] in MODIFIERS | {"det", "poss"}:
            caption.hang(child, noun)
    return True


def is_noun_before_verb(caption: ParsedCaption, word: int, lemmas: Lemmatizer) -> bool:
    """Whether an adjective can be a noun, and none follows that it could describe: light reflecting on water."""
    return (
        caption.tags[word] == "JJ"
        and caption.words[word] in lemmas.nouns
        and caption.tags[caption.heads[word]] == "VBG"
        and caption.child(caption.heads[word], "dobj") is None
    )


def describes_object(caption: ParsedCaption, participle: int) -> bool:
    """Whether a root participle has no noun before it, and describes the one after it.

    "Parked cars", "a clear drinking glass"; in "holding a glass" and "girl holding a glass" it is a verb.
    """
    before = [child for child in caption.children[participle] if child < participle]
    if any(
        caption.deps[child] not in ("amod", "det", "nummod") or caption.tags[child] in NOUN_TAGS for child in before
    ):
        return False
    return (bool(before) or caption.tags[participle] != "VBG") and caption.child(participle, "dobj") is not None
