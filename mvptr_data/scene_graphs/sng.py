"""The backend `sng`: SceneGraphParser's rules (Mao, 2018) on the `Doc`s that our pipeline parsed.

SceneGraphParser parses texts itself, with components that ours does without. Here its spaCy backend gets a ready `Doc` in
place of the text, with the parts of speech and lemmas it reads filled in from tags and from our lemma tables; pronouns
have the lemma -PRON-, by which it knew them in spaCy 2. Its entities and relations, which are words, are then found again
among the tokens, so that phrases have our form and their spans.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

from mvptr_data.errors import MissingDependencyError
from mvptr_data.scene_graphs.arguments import NOUN_TAGS
from mvptr_data.scene_graphs.facts import Findings, Profile
from mvptr_data.scene_graphs.lemmas import Lemmatizer
from mvptr_data.scene_graphs.tagset import FORMS_OF_BE, PENN_TO_UNIVERSAL
from mvptr_data.scene_graphs.tokens import ParsedCaption

if TYPE_CHECKING:
    from spacy.tokens import Doc

#: Raised whenever any caption's phrases can change through this module.
ADAPTER_VERSION = 2
#: The lemma by which SceneGraphParser knows pronouns, which it leaves out.
PRONOUN = "-PRON-"
INSTALLATION = "Install it with: pip install SceneGraphParser"


class SngFindings(Findings):
    """Facts whose objects are SceneGraphParser's entities."""

    __slots__ = ("entities",)

    def __init__(self, caption: ParsedCaption, lemmas: Lemmatizer, profile: Profile) -> None:
        super().__init__(caption, lemmas, profile)
        self.entities: list[int] = []

    def objects(self) -> Iterable[int]:
        return self.entities


class SngBackend:
    """Finds what SceneGraphParser finds.

    Raises `MissingDependencyError` at construction where it is not installed.
    """

    def __init__(self, lemmas: Lemmatizer, profile: Profile) -> None:
        self._lemmas = lemmas
        self._profile = profile
        self._parse = load_rules()

    def configuration(self) -> dict[str, object]:
        return {"backend": "sng", "sng_version": version("SceneGraphParser"), "adapter_version": ADAPTER_VERSION}

    def find(self, caption: ParsedCaption, docs: Sequence[Doc]) -> Findings:
        """All attributes and relations of a caption, from its sentences in order."""
        findings = SngFindings(caption, self._lemmas, self._profile)
        first = 0
        for doc in docs:
            self._annotate(doc, findings, first)
            record(findings, first, doc, self._parse(doc))
            first += len(doc)
        return findings

    def _annotate(self, doc: Doc, findings: Findings, first: int) -> None:
        """Fills in the parts of speech and lemmas that SceneGraphParser reads."""
        for token, tag in zip(doc, findings.caption.tags[first:], strict=False):
            universal = PENN_TO_UNIVERSAL.get(tag, ("X", ""))[0]
            is_copula = universal == "VERB" and token.text in FORMS_OF_BE
            token.pos_ = "AUX" if is_copula else universal
            token.lemma_ = PRONOUN if universal == "PRON" else findings.lemma(first + token.i)


def load_rules() -> Callable[[Doc], dict[str, Any]]:
    """SceneGraphParser's `parse`, made to take a parsed `Doc` for its sentence.

    Raises `MissingDependencyError` where the package is not installed, or its import name belongs to another one.
    """
    try:
        version("SceneGraphParser")
        import sng_parser.backends
    except (PackageNotFoundError, ImportError) as error:
        raise MissingDependencyError(
            f"the caption parser 'sng' needs SceneGraphParser, which is not installed ({error}); the package"
            " sng-parser of the same import name reads .sng files and is not it",
            INSTALLATION,
        ) from error
    # Its constructor would load a pipeline; all that `parse` reads of the instance is `nlp`.
    rules = object.__new__(sng_parser.Parser._backend_registry["spacy"])
    rules.nlp = lambda doc: doc
    return rules.parse


def record(findings: SngFindings, first: int, doc: Doc, graph: dict[str, Any]) -> None:
    """Adds one sentence's entities and relations; `first` is the index of its first token in the caption."""
    nouns = [doc[slice(*entity["span_bounds"])].root.i for entity in graph["entities"]]
    for noun in nouns:
        if findings.caption.tags[first + noun] in NOUN_TAGS:
            findings.entities.append(first + noun)
            record_modifiers(findings, first + noun)
    for relation in graph["relations"]:
        subject, target = nouns[relation["subject"]], nouns[relation["object"]]
        tokens = tokens_of(doc, relation["relation"].split(), target)
        findings.say_relation(
            first + subject, relation["lemma_relation"], tuple(first + token for token in tokens), first + target
        )


def record_modifiers(findings: Findings, noun: int) -> None:
    """Modifiers as SceneGraphParser takes them, compounds and numbers among them; articles are none of ours."""
    caption = findings.caption
    for child in caption.children[noun]:
        label = caption.deps[child]
        if label in ("nummod", "amod", "compound"):
            findings.say_attribute(noun, child, caption.words[child])
        if label == "amod":
            for joined in caption.children[child]:
                if caption.deps[joined] == "conj":
                    findings.say_attribute(noun, joined, caption.words[joined])


def tokens_of(doc: Doc, words: Sequence[str], target: int) -> tuple[int, ...]:
    """Where a relation's words stand: each at its place nearest to the object, or to the word after it."""
    tokens: list[int] = []
    near = target
    for word in reversed(words):
        places = [token.i for token in doc if token.text == word]
        near = min(places, key=lambda place: (abs(place - near), place))
        tokens.append(near)
    return tuple(sorted(set(tokens)))
