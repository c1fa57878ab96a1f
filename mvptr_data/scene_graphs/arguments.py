"""Who takes part: from the token in an argument's place to the nouns it stands for.

A noun stands for itself and what is joined to it by conjunctions; "a couple of people" for people; who, which and that
for their antecedent; a personal pronoun for the noun it refers to. Everything else stands for nothing, and its tuples
are dropped.
"""

from __future__ import annotations

from collections.abc import Iterator

from mvptr_data.scene_graphs.tokens import ParsedCaption
from mvptr_data.scene_graphs.wordlists import read_words

NOUN_TAGS = frozenset({"NN", "NNS", "NNP", "NNPS"})
PLURAL_TAGS = frozenset({"NNS", "NNPS"})
VERB_TAGS = frozenset({"VB", "VBD", "VBG", "VBN", "VBP", "VBZ"})
ADJECTIVE_TAGS = frozenset({"JJ", "JJR", "JJS"})
RELATIVE_TAGS = frozenset({"WDT", "WP"})

#: Nouns that only count what follows their "of" (rule A7). Group, herd, plate, piece, ... are things of their own.
QUANTIFIERS = read_words("quantifiers")
PEOPLE = read_words("people")

#: Words tagged as nouns that name nothing themselves.
STAND_INS = frozenset({"one", "ones", "other", "others"})

#: Adjectives that can stand for the nouns after their "of" (many of the people); numbers and determiners can as well.
QUANTIFYING_ADJECTIVES = frozenset({"few", "many", "most", "several"})

SINGULAR_PRONOUNS = frozenset({"he", "him", "his", "she", "her", "hers", "it", "its", "himself", "herself", "itself"})
#: Of these, those that stand for no person.
THINGS_PRONOUNS = frozenset({"it", "its", "itself"})
#: Pronouns of one gender, and the nouns they cannot stand for.
MALE_PRONOUNS = frozenset({"he", "him", "his", "himself"})
FEMALE_PRONOUNS = frozenset({"she", "her", "hers", "herself"})
MALE_NOUNS = frozenset(
    {"boy", "brother", "dad", "father", "gentleman", "groom", "guy", "husband", "king", "man", "son"}
)
FEMALE_NOUNS = frozenset({"bride", "daughter", "girl", "lady", "mom", "mother", "queen", "sister", "wife", "woman"})
PLURAL_PRONOUNS = frozenset({"they", "them", "their", "theirs", "themselves"})

#: Prepositions that belong to the last noun of a list only.
SHARED_BY_NONE = frozenset({"for", "of", "to", "with", "without"})
#: Phrases that describe the noun they follow.
PHRASE_LABELS = frozenset({"prep", "acl", "relcl"})

SUBJECT_LABELS = ("nsubj", "nsubjpass")
#: Clauses without a subject of their own that take that of the verb they hang on.
OPEN_LABELS = frozenset({"conj", "xcomp", "advcl", "ccomp", "dep", "parataxis"})


def is_verb(caption: ParsedCaption, token: int) -> bool:
    """Whether the token acts as a verb.

    Participles that the tagger took for nouns count where the parser made them clauses.
    """
    tag = caption.tags[token]
    if tag in VERB_TAGS:
        return True
    return tag == "NN" and caption.deps[token] in ("acl", "advcl", "xcomp") and caption.words[token].endswith("ing")


def quantified(caption: ParsedCaption, token: int) -> int | None:
    """The head of N in "a couple of N"; None where `token` is no quantifier or counts nothing."""
    if caption.words[token] not in QUANTIFIERS:
        return None
    return of_object(caption, token)


def of_object(caption: ParsedCaption, token: int) -> int | None:
    """The object of the "of" that hangs on `token`."""
    for child in caption.children[token]:
        if caption.words[child] == "of" and caption.deps[child] == "prep":
            return caption.child(child, "pobj")
    return None


def thing(caption: ParsedCaption, token: int) -> tuple[int, ...]:
    """The nouns one token stands for, without what is joined to it; empty where there is none."""
    tag = caption.tags[token]
    if tag in NOUN_TAGS:
        if caption.words[token] in STAND_INS or is_absent(caption, token):
            return ()
        counted = quantified(caption, token)
        return (token,) if counted is None else nouns(caption, counted)
    if tag in RELATIVE_TAGS or (caption.words[token] == "that" and tag in ("DT", "IN")):
        return antecedent(caption, token)
    if tag in ("PRP", "PRP$"):
        return referent(caption, token)
    if tag in ("CD", "DT") or caption.words[token] in QUANTIFYING_ADJECTIVES:
        counted = of_object(caption, token)
        return () if counted is None else nouns(caption, counted)
    return ()


def is_absent(caption: ParsedCaption, noun: int) -> bool:
    """Whether "no" before it says that there is none of it; a "no parking sign" is there."""
    for child in caption.children[noun]:
        if child < noun and caption.words[child] == "no" and caption.deps[child] in ("det", "neg"):
            return caption.deps[child + 1] != "compound" and not caption.words[child + 1].endswith("ing")
    return False


def nouns(caption: ParsedCaption, token: int) -> tuple[int, ...]:
    """The nouns a token in an argument's place stands for: its own, then those of its conjuncts."""
    found = thing(caption, token)
    for child in caption.children[token]:
        if caption.deps[child] == "conj":
            found += nouns(caption, child)
    return found


def described(caption: ParsedCaption, token: int) -> tuple[int, ...]:
    """The nouns that a phrase after them describes: those of a whole list, whichever of them the parser hung it on.

    "A cup and a plate on a table" are both on it. What the last noun of a list has or is of (SHARED_BY_NONE) is its
    alone, and so is whatever follows a list whose other nouns have phrases of their own.
    """
    head = caption.heads[token]
    first = head
    while caption.deps[first] == "conj" and caption.tags[caption.heads[first]] in NOUN_TAGS:
        first = caption.heads[first]
    listed = conjuncts(caption, first)
    if len(listed) < 2 or listed[-1] > token:
        return thing(caption, head)
    if head != first and (
        caption.words[token] in SHARED_BY_NONE or any(has_phrase_after(caption, noun) for noun in listed[:-1])
    ):
        return thing(caption, head)
    return tuple(found for noun in listed for found in thing(caption, noun))


def has_phrase_after(caption: ParsedCaption, noun: int) -> bool:
    return any(child > noun and caption.deps[child] in PHRASE_LABELS for child in caption.children[noun])


def antecedent(caption: ParsedCaption, token: int) -> tuple[int, ...]:
    """The noun that a relative pronoun stands for: the one its relative clause hangs on."""
    heads, deps = caption.heads, caption.deps
    verb = heads[token]
    while deps[verb] != "relcl" and heads[verb] != verb:
        verb = heads[verb]
    if deps[verb] != "relcl" or heads[verb] >= token:
        return ()
    return thing(caption, heads[verb])


def referent(caption: ParsedCaption, pronoun: int) -> tuple[int, ...]:
    """What a personal pronoun refers to: the first noun before it of its number.

    First means breadth first in its own sentence, then in those before. Nouns joined by a conjunction are plural
    together, and "it" is nobody.
    """
    word = caption.words[pronoun]
    plural = word in PLURAL_PRONOUNS
    if not plural and word not in SINGULAR_PRONOUNS:
        return ()
    for token in breadth_first_backwards(caption, pronoun):
        if token >= pronoun or not is_mention(caption, token):
            continue
        is_plural = caption.tags[token] in PLURAL_TAGS or caption.words[token] == "people"
        if not plural and not is_plural and not is_of_another_kind(word, caption.words[token]):
            return (token,)
        if plural:
            joined = [noun for noun in conjuncts(caption, token) if noun < pronoun]
            if is_plural or len(joined) > 1:
                return tuple(joined)
    return ()


def is_of_another_kind(pronoun: str, noun: str) -> bool:
    """Whether the noun names someone whom the pronoun cannot stand for: "it" is nobody, and "his" is no woman's."""
    return (
        (pronoun in THINGS_PRONOUNS and noun in PEOPLE)
        or (pronoun in MALE_PRONOUNS and noun in FEMALE_NOUNS)
        or (pronoun in FEMALE_PRONOUNS and noun in MALE_NOUNS)
    )


def is_mention(caption: ParsedCaption, token: int) -> bool:
    """Whether the token is a noun that a pronoun can refer to: no quantifier, no part of a compound, no participle."""
    return (
        caption.tags[token] in NOUN_TAGS
        and caption.deps[token] not in ("compound", "nmod")
        and not is_verb(caption, token)
        and quantified(caption, token) is None
    )


def conjuncts(caption: ParsedCaption, noun: int) -> list[int]:
    """The noun and the nouns joined to it, pronouns left out."""
    found = [noun]
    for child in caption.children[noun]:
        if caption.deps[child] == "conj" and caption.tags[child] in NOUN_TAGS:
            found += conjuncts(caption, child)
    return found


def breadth_first_backwards(caption: ParsedCaption, token: int) -> Iterator[int]:
    """Tokens breadth first from the root of the sentence of `token`, then those of earlier sentences, nearest first."""
    roots = [root for root, head in enumerate(caption.heads) if root == head]
    own = token
    while caption.heads[own] != own:
        own = caption.heads[own]
    for root in reversed([root for root in roots if root <= own]):
        level = [root]
        while level:
            yield from level
            level = [child for parent in level for child in caption.children[parent]]


def subjects(caption: ParsedCaption, verb: int) -> tuple[int, ...]:
    """The nouns that a verb is said of; each verb is worked out once.

    Its own subject (of a passive, the one that is acted on), else the noun a participle or relative clause hangs on,
    else the subjects of the verb it is joined to or opens from. "there is" is said of what there is.
    """
    known = caption.subjects.get(verb)
    if known is None:
        caption.subjects[verb] = ()  # a cycle of shared subjects ends here
        known = caption.subjects[verb] = find_subjects(caption, verb)
    return known


def find_subjects(caption: ParsedCaption, verb: int) -> tuple[int, ...]:
    if caption.child(verb, "neg") is not None:  # what someone is not doing is not said of them
        return ()
    own = own_subjects(caption, verb)
    if own:
        return tuple(noun for subject in own for noun in nouns(caption, subject))
    clause = caption.child(verb, "csubj")
    if clause is not None:  # "the boy holding a ball stands", taken for "the boy's holding ..."
        return subjects(caption, clause)
    there = caption.child(verb, "expl")
    if there is not None:
        what = caption.child(verb, "attr", "dobj", "acomp")
        return () if what is None else nouns(caption, what)
    label, head = caption.deps[verb], caption.heads[verb]
    if label == "acl":
        return () if has_to(caption, verb) else described(caption, verb)
    if label == "relcl":
        return thing(caption, head)
    if label in OPEN_LABELS and head != verb:
        return said_of(caption, head)
    return ()


def own_subjects(caption: ParsedCaption, verb: int) -> list[int]:
    """The verb's own subjects; beside another one, a relative pronoun is none (the kite that a boy is holding)."""
    own = [child for child in caption.children[verb] if caption.deps[child] in SUBJECT_LABELS]
    return own if len(own) < 2 else [child for child in own if not is_relative(caption, child)]


def is_relative(caption: ParsedCaption, token: int) -> bool:
    return caption.tags[token] in RELATIVE_TAGS or caption.words[token] == "that"


def said_of(caption: ParsedCaption, token: int) -> tuple[int, ...]:
    """The subjects of a verb, of a predicate adjective's verb, or the noun itself."""
    if is_verb(caption, token):
        return subjects(caption, token)
    if caption.deps[token] in ("acomp", "attr", "oprd"):
        return subjects(caption, caption.heads[token])
    if caption.tags[token] in ADJECTIVE_TAGS and caption.deps[token] in ("amod", "acl"):
        return thing(caption, caption.heads[token])
    head = caption.heads[token]
    if caption.words[token] == "about" and head != token and caption.tags[head] in NOUN_TAGS:  # a man about to jump
        return said_of(caption, head)
    return thing(caption, token) if caption.tags[token] in NOUN_TAGS else ()


def has_to(caption: ParsedCaption, verb: int) -> bool:
    """Whether the verb is an infinitive with "to"."""
    return any(caption.tags[child] == "TO" and caption.deps[child] == "aux" for child in caption.children[verb])


def has_object_before(caption: ParsedCaption, verb: int) -> bool:
    """Whether a relative clause has its own subject and no object: that is the noun it hangs on (the kite he holds)."""
    if caption.deps[verb] != "relcl" or not is_verb(caption, verb):
        return False
    if not any(not is_relative(caption, subject) for subject in own_subjects(caption, verb)):
        return False
    if any(caption.tags[child] == "WRB" for child in caption.children[verb]):  # a table where a cat sits
        return False
    return caption.child(verb, "dobj", "acomp", "attr", "nsubjpass", "ccomp", "xcomp") is None
