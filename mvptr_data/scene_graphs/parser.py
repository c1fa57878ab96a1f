"""Captions to phrases: the whole way, in batches."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING

import numpy as np
from spacy.attrs import SENT_START

from mvptr_data.errors import InputError
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
from mvptr_data.scene_graphs.pipeline import describe_pipeline, load_pipeline
from mvptr_data.scene_graphs.rules import RULES_VERSION, find_facts
from mvptr_data.scene_graphs.tokens import DocReader, ParsedCaption

if TYPE_CHECKING:
    from spacy.language import Language
    from spacy.tokens import Doc

#: Longer sentences are parsed in pieces of so many tokens; a caption is read up to so many.
MAX_SENTENCE_TOKENS = 100
MAX_CAPTION_TOKENS = 1_000
#: Captions parsed together. Results do not depend on it.
BATCH_CAPTIONS = 128

BACKENDS = ("rules",)


class CaptionParser:
    """Finds the phrases of captions with a spaCy pipeline and the rules of this package.

    Use `load_parser`. Results are a function of the text alone, whatever the batch it comes in.
    """

    def __init__(self, nlp: Language, *, profile: str, source: dict[str, object]) -> None:
        self._lock = Lock()
        self._nlp = nlp
        self._nlp.batch_size = BATCH_CAPTIONS
        self._profile = find_profile(profile)
        self._source = source
        self._lemmas = Lemmatizer.bundled()
        self._reader = DocReader(nlp.vocab.strings)

    def configuration(self) -> dict[str, object]:
        """All that the phrases depend on, fit for JSON; equal configurations give equal phrases."""
        return {"backend": "rules", "rules_version": RULES_VERSION, "profile": self._profile.name, **self._source}

    def phrases(self, texts: Sequence[str]) -> list[list[tuple[str, ...]]]:
        """The phrases of each text, pairs and triples in order of position, each once."""
        return [[phrase.words for phrase in located] for located in self.located_phrases(texts)]

    def located_phrases(self, texts: Sequence[str]) -> list[list[Phrase]]:
        """The same with the spans of their words in `normalize_caption(text)`."""
        return [find_phrases(findings) for _, findings in self._findings(texts)]

    def graphs(self, texts: Sequence[str]) -> list[SceneGraph]:
        """The scene graph of each text."""
        return [build_graph(findings, normalize_caption(text)) for text, findings in self._findings(texts)]

    def parse(self, texts: Iterable[str]) -> Iterator[ParsedCaption]:
        """The tokens of each text with tags, labels and heads, before any rule."""
        remaining = iter(texts)
        while batch := list(islice(remaining, BATCH_CAPTIONS)):
            # What spaCy remembers of a batch's odd words is freed with it; zones of two threads must not overlap.
            with self._lock, self._nlp.memory_zone():
                pieces = [self._pieces(normalize_caption(text)) for text in batch]
                docs = self._nlp.pipe(doc for caption in pieces for _, doc in caption)
                parsed = [self._reader.read((offset, next(docs)) for offset, _ in caption) for caption in pieces]
            yield from parsed

    def _findings(self, texts: Sequence[str]) -> Iterator[tuple[str, Findings]]:
        """Each text as it was given, with what it says."""
        for text, caption in zip(texts, self.parse(texts), strict=True):
            yield text, find_facts(caption, self._lemmas, self._profile)

    def _pieces(self, text: str) -> list[tuple[int, Doc]]:
        """The tokenised sentences of a normalised text, with their offsets, within the bounds above."""
        pieces: list[tuple[int, Doc]] = []
        left = MAX_CAPTION_TOKENS
        readable = blank_long_words(lower_same_length(text[:MAX_CHARACTERS]))
        for offset, sentence in split_sentences(readable):
            doc = self._nlp.make_doc(sentence)
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

    `profile`: "paper" (the specification) or "official" (nearest to the authors' vocabulary). `spacy_model`: name or
    directory of any installed spaCy pipeline with ClearNLP labels; None is the bundled one.

    Raises `InputError` for an unknown backend or profile, and for a pipeline that is not installed or has no such
    labels.
    """
    if backend not in BACKENDS:
        raise InputError(f"there is no caption parser {backend!r}", f"Use one of: {', '.join(BACKENDS)}.")
    find_profile(profile)
    nlp = load_pipeline(spacy_model)
    return CaptionParser(nlp, profile=profile, source=describe_pipeline(nlp, spacy_model))
