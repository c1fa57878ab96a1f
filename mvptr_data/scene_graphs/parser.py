"""Captions to phrases: the whole way, in batches."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, TypeVar

import numpy as np
from spacy.attrs import SENT_START

from mvptr_data.errors import InputError, SampleFault
from mvptr_data.scene_graphs.backends import Backend, load_backend
from mvptr_data.scene_graphs.facts import Findings, find_profile
from mvptr_data.scene_graphs.graph import Phrase, SceneGraph
from mvptr_data.scene_graphs.lemmas import Lemmatizer
from mvptr_data.scene_graphs.normalize import (
    MAX_CHARACTERS,
    blank_long_words,
    lower_same_length,
    normalize_caption,
    split_sentences,
)
from mvptr_data.scene_graphs.phrases import build_graph, find_phrases
from mvptr_data.scene_graphs.pipeline import OTHER_PIPELINE, cause_of, describe_pipeline, load_pipeline
from mvptr_data.scene_graphs.tokens import DocReader, ParsedCaption

if TYPE_CHECKING:
    from spacy.language import Language
    from spacy.tokens import Doc

#: Longer sentences are parsed in pieces of so many tokens; a caption is read up to so many.
MAX_SENTENCE_TOKENS = 100
MAX_CAPTION_TOKENS = 1_000
#: Captions parsed together. Results do not depend on it.
BATCH_CAPTIONS = 64
#: A parser that fails on this one would fail on all.
TRIAL = "a dog runs on the grass"

Sentences = list[tuple[int, "Doc"]]
T = TypeVar("T")


class CaptionParser:
    """Finds the phrases of captions with a spaCy pipeline and a backend, by default the rules of this package.

    Use `load_parser`. Results are a function of the text alone, whatever the batch it comes in.
    """

    def __init__(self, nlp: Language, *, backend: str, profile: str, source: dict[str, object]) -> None:
        self._lock = Lock()
        self._nlp = nlp
        self._profile = find_profile(profile)
        self._source = source
        self._backend: Backend = load_backend(backend, Lemmatizer.bundled(), self._profile)
        self._reader = DocReader(nlp.vocab.strings)

    def configuration(self) -> dict[str, object]:
        """All that the phrases depend on, fit for JSON; equal configurations give equal phrases."""
        return {**self._backend.configuration(), "profile": self._profile.name, **self._source}

    def phrases(self, texts: Sequence[str]) -> list[list[tuple[str, ...]]]:
        """The phrases of each text, pairs and triples in order of position, each once."""
        return [[phrase.words for phrase in located] for located in self.located_phrases(texts)]

    def located_phrases(self, texts: Sequence[str]) -> list[list[Phrase]]:
        """The same with the spans of their words in `normalize_caption(text)`."""
        return [[] if isinstance(found, SampleFault) else found for found in self.phrases_or_faults(texts)]

    def phrases_or_faults(self, texts: Sequence[str]) -> list[list[Phrase] | SampleFault]:
        """The same, with the reason in the place of a text on which the parser failed: elsewhere it has no phrases."""
        return list(self._read(texts, lambda _, sentences: find_phrases(self._find(sentences))))

    def graphs(self, texts: Sequence[str]) -> list[SceneGraph]:
        """The scene graph of each text; an empty one where the parser failed on it."""
        found = self._read(texts, lambda text, sentences: build_graph(self._find(sentences), text))
        return [
            SceneGraph(text=normalize_caption(text), objects=(), attributes=(), relations=())
            if isinstance(graph, SampleFault)
            else graph
            for text, graph in zip(texts, found, strict=True)
        ]

    def parse(self, texts: Iterable[str]) -> Iterator[ParsedCaption]:
        """The tokens of each text with tags, labels and heads, before any rule; none where the parser failed on it."""
        for caption in self._read(texts, lambda _, sentences: self._reader.read(sentences)):
            yield ParsedCaption([], [], [], []) if isinstance(caption, SampleFault) else caption

    def unread(self, text: str) -> str | None:
        """Why a part of a text gives no phrases: it exceeds a bound. None for a text that is read to its end."""
        normal = normalize_caption(text)
        if len(normal) > MAX_CHARACTERS:
            return f"the text has {len(normal):,} characters; the first {MAX_CHARACTERS:,} are read"
        if len(normal) <= MAX_CAPTION_TOKENS:  # a token has a character
            return None
        with self._lock, self._nlp.memory_zone():
            tokens = sum(len(doc) for _, doc in self._sentences(normal))
        if tokens > MAX_CAPTION_TOKENS:
            return f"the text has {tokens:,} tokens; the first {MAX_CAPTION_TOKENS:,} are read"
        return None

    def _find(self, sentences: Sentences) -> Findings:
        return self._backend.find(self._reader.read(sentences), [doc for _, doc in sentences])

    def _read(self, texts: Iterable[str], reading: Callable[[str, Sentences], T]) -> Iterator[T | SampleFault]:
        """What `reading` makes of each text in normal form and its parsed sentences."""
        remaining = iter(texts)
        while batch := [normalize_caption(text) for text in islice(remaining, BATCH_CAPTIONS)]:
            read: Sequence[T | SampleFault]
            try:
                read = self._read_batch(batch, reading)
            except Exception:  # noqa: BLE001 - of one of them; which one, each alone tells
                read = [self._read_alone(text, reading) for text in batch]
            yield from read

    def _read_batch(self, batch: Sequence[str], reading: Callable[[str, Sentences], T]) -> list[T]:
        # What spaCy remembers of a batch's odd words is freed with it; zones of two threads must not overlap.
        with self._lock, self._nlp.memory_zone():
            pieces = [self._pieces(text) for text in batch]
            docs = iter(self._parsed([doc for caption in pieces for _, doc in caption]))
            return [
                reading(text, [(offset, next(docs)) for offset, _ in caption])
                for text, caption in zip(batch, pieces, strict=True)
            ]

    def _read_alone(self, text: str, reading: Callable[[str, Sentences], T]) -> T | SampleFault:
        """The same of one text, or why there is nothing. What is the machine's fault and no text's is raised."""
        try:
            return self._read_batch([text], reading)[0]
        except (MemoryError, OSError):
            raise
        except Exception as error:  # noqa: BLE001 - rules and libraries may meet what nobody thought of
            return SampleFault("parser_error", f"the caption parser failed: {cause_of(error)}")

    def _parsed(self, docs: list[Doc]) -> list[Doc]:
        """A batch through each component as a whole: a fifth quicker than `nlp.pipe`, which draws it sentence by sentence."""
        for _, component in self._nlp.pipeline:
            docs = list(component.pipe(docs, batch_size=BATCH_CAPTIONS))  # type: ignore[attr-defined]
        return docs

    def _sentences(self, text: str) -> Iterator[tuple[int, Doc]]:
        """The tokenised sentences of a normalised text, with their offsets."""
        readable = blank_long_words(lower_same_length(text[:MAX_CHARACTERS]))
        for offset, sentence in split_sentences(readable):
            yield offset, self._nlp.make_doc(sentence)

    def _pieces(self, text: str) -> Sentences:
        """The same, within the bounds above: long sentences in pieces, and so many tokens."""
        pieces: Sentences = []
        left = MAX_CAPTION_TOKENS
        for offset, doc in self._sentences(text):
            for start in range(0, min(len(doc), left), MAX_SENTENCE_TOKENS):
                end = min(start + MAX_SENTENCE_TOKENS, len(doc), start + left)
                piece = doc if end - start == len(doc) else doc[start:end].as_doc()
                pieces.append((offset + doc[start].idx, as_one_sentence(piece)))
            left -= len(doc)
            if left <= 0:
                break
        return pieces


def as_one_sentence(doc: Doc) -> Doc:
    """Tells the parser not to split it again ("on the street, | a tree stands")."""
    starts = np.full((len(doc), 1), -1, dtype=np.int64)
    starts[:1] = 1
    return doc.from_array([SENT_START], starts.view(np.uint64))  # type: ignore[arg-type]


def load_parser(
    backend: str = "rules", *, profile: str = "paper", spacy_model: str | Path | None = None
) -> CaptionParser:
    """A parser by the name of its backend.

    `backend`: "rules" (ours) or "sng" (SceneGraphParser's). `profile`: "paper" (the specification) or "official"
    (nearest to the authors' vocabulary). `spacy_model`: name or directory of any installed spaCy pipeline with ClearNLP
    labels; None is the bundled one.

    Raises `InputError` for an unknown backend or profile, and for a pipeline that is not installed, is damaged or has no
    such labels; `MissingDependencyError` where what the backend needs is not installed.
    """
    nlp = load_pipeline(spacy_model)
    parser = CaptionParser(nlp, backend=backend, profile=profile, source=describe_pipeline(nlp, spacy_model))
    (found,) = parser.phrases_or_faults([TRIAL])
    if isinstance(found, SampleFault):
        with_model = "" if spacy_model is None else f" with the spaCy pipeline {str(spacy_model)!r}"
        raise InputError(f"the backend {backend!r} cannot be used{with_model}: {found.message}", OTHER_PIPELINE)
    return parser
