"""What a phrase vocabulary holds and how much of a corpus it knows: the numbers of the paper's Tables 5 and 8.

Everything is found in one pass over the counts of each corpus, the rare phrases included, in bounded memory:

1. how many phrases there are of each frequency      -> unique, kept, mean, median, any other threshold (Table 8)
2. how many of them, and of their mentions, each vocabulary knows                                       (Table 5)
3. the most frequent of each kind

`phrase_report` prints them, `phrase_figure` draws them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from mvptr_data.errors import InputError
from mvptr_data.phrase_counts import join_words, split_words, word_numbers
from mvptr_data.phrases import KINDS, PhraseVocabulary, PhraseWords, order_key
from mvptr_data.sources.files import absolute
from mvptr_data.storage import Store
from pipelines.counted_vocabulary import CountedVocabulary, load_counted, vocabulary_path

#: Phrases of every kind together.
ALL = "all"


@dataclass(frozen=True, slots=True)
class Frequencies:
    """`phrases[sentences]`: how many phrases are said in exactly so many texts."""

    phrases: Mapping[int, int]

    def unique(self, at_least: int = 1) -> int:
        return sum(phrases for sentences, phrases in self.phrases.items() if sentences >= at_least)

    def mentions(self, at_least: int = 1) -> int:
        """Each phrase once a text."""
        return sum(sentences * phrases for sentences, phrases in self.phrases.items() if sentences >= at_least)

    def mean(self, at_least: int = 1) -> float | None:
        """Texts a phrase; None where there is no phrase."""
        unique = self.unique(at_least)
        return self.mentions(at_least) / unique if unique else None

    def median(self, at_least: int = 1) -> float | None:
        """The middle phrase's texts, or the mean of the two in the middle; None where there is no phrase."""
        kept = sorted((sentences, phrases) for sentences, phrases in self.phrases.items() if sentences >= at_least)
        if not kept:
            return None
        ends = np.cumsum([phrases for _, phrases in kept])
        middle = ((ends[-1] - 1) // 2, ends[-1] // 2)
        return float(np.mean([kept[np.searchsorted(ends, place, side="right")][0] for place in middle]))


@dataclass(frozen=True, slots=True, kw_only=True)
class Coverage:
    """The part of a corpus that a vocabulary knows: different phrases, and mentions (each phrase once a text)."""

    unique: int
    mentions: int


@dataclass(frozen=True, slots=True, kw_only=True)
class CorpusStatistics:
    """All that is known of one corpus. `kinds` are "all" and those it has.

    `frequencies` by kind; `frequent` by kind, the most frequent first, with their texts; `coverage` by vocabulary's name and
    kind; `sentences` of the phrases that were looked up. `configuration` is the vocabulary's: parser, split, corpora, ...
    """

    name: str
    texts: int
    images: int
    min_sentences: int
    configuration: Mapping[str, Any]
    frequencies: Mapping[str, Frequencies]
    frequent: Mapping[str, Sequence[tuple[PhraseWords, int]]]
    coverage: Mapping[str, Mapping[str, Coverage]]
    sentences: Mapping[PhraseWords, int]

    @property
    def kinds(self) -> tuple[str, ...]:
        return tuple(self.frequencies)


def phrase_statistics(
    sources: Sequence[str], *, against: Sequence[str] = (), lookup: Sequence[PhraseWords] = (), top: int = 30
) -> list[CorpusStatistics]:
    """The statistics of the vocabularies in `sources`, folders of build-phrase-vocab or merge-phrase-vocabs, with their counts.

    Each is held against the vocabularies of all of them and of `against` (ours or the authors' id2phrase.json). `lookup`:
    phrases whose frequency is wanted; `top`: how many of the most frequent of each kind.

    Raises `InputError` (none is given, or one twice), and what `load_counted` does.
    """
    if not sources:
        raise InputError("no phrase vocabulary is given", "Name at least one.")
    places = Counter(_place(path) for path in (*sources, *against))
    if repeated := [place for place, times in places.items() if times > 1]:
        raise InputError(f"{', '.join(repeated)} is given more than once", "Name each vocabulary once.")
    corpora = [load_counted(source) for source in sources]
    vocabularies = [corpus.vocabulary for corpus in corpora]
    vocabularies += [PhraseVocabulary.load(vocabulary_path(path)) for path in against]
    names = _names(
        [corpus.name for corpus in corpora] + [_stem(path) for path in against],
        [corpus.store.root for corpus in corpora] + list(against),
    )
    known = {
        name: pa.array([join_words(words) for words in vocabulary.phrases], pa.string())
        for name, vocabulary in zip(names, vocabularies, strict=True)
    }
    return [_measure(name, corpus, known, lookup, top) for name, corpus in zip(names, corpora, strict=False)]


def _place(path: str) -> str:
    """Where a vocabulary's file is, however it was named. Raises `InputError` for a path that is not UTF-8."""
    folder, slash, file = vocabulary_path(absolute(path)).rpartition("/")
    return Store.at(folder or slash or ".").path(file)


def _stem(path: str) -> str:
    """How people call a vocabulary: its folder, or the authors' file."""
    folder, _, file = vocabulary_path(path).rpartition("/")
    return file if file.endswith(".json") else folder.rpartition("/")[2]


def _names(short: Sequence[str], full: Sequence[str]) -> Sequence[str]:
    """Short names where they tell all apart, else full ones."""
    return short if len(set(short)) == len(short) else full


def _measure(
    name: str, corpus: CountedVocabulary, known: Mapping[str, pa.Array], lookup: Sequence[PhraseWords], top: int
) -> CorpusStatistics:
    counted = _Tally(known, lookup, top)
    for block in corpus.counts():
        counted.add(block)
    kinds = [kind for kind in KINDS.values() if counted.frequencies[kind]]
    return CorpusStatistics(
        name=name,
        texts=corpus.total("texts"),
        images=corpus.total("images"),
        min_sentences=corpus.facts["min_sentences"],
        configuration=corpus.facts,
        frequencies={ALL: Frequencies(sum((counted.frequencies[kind] for kind in kinds), Counter()))}
        | {kind: Frequencies(counted.frequencies[kind]) for kind in kinds},
        frequent={kind: tuple(counted.frequent[kind]) for kind in kinds},
        coverage={vocabulary: counted.coverage(vocabulary, kinds) for vocabulary in known},
        sentences=counted.sentences,
    )


class _Tally:
    """The sums over blocks of counts, by kind."""

    def __init__(self, known: Mapping[str, pa.Array], lookup: Iterable[PhraseWords], top: int) -> None:
        self.frequencies: dict[str, Counter[int]] = {kind: Counter() for kind in KINDS.values()}
        self.frequent: dict[str, list[tuple[PhraseWords, int]]] = {kind: [] for kind in KINDS.values()}
        self.sentences = dict.fromkeys(lookup, 0)
        self._known = known
        self._top = top
        self._covered: Counter[tuple[str, str, str]] = Counter()
        self._wanted = pa.array([join_words(words) for words in self.sentences], pa.string())

    def add(self, block: pa.Table) -> None:
        for words, sentences in _pairs(block.filter(pc.is_in(block["phrase"], value_set=self._wanted))):
            self.sentences[words] = sentences
        numbers = word_numbers(block["phrase"])
        for number, kind in KINDS.items():
            of_kind = block.filter(pc.equal(numbers, number))
            if len(of_kind):
                self._add_kind(kind, of_kind)

    def _add_kind(self, kind: str, block: pa.Table) -> None:
        values, phrases = np.unique(block["sentences"].to_numpy(), return_counts=True)
        self.frequencies[kind].update(dict(zip(values.tolist(), phrases.tolist(), strict=True)))
        for vocabulary, phrases_known in self._known.items():
            found = block["sentences"].filter(pc.is_in(block["phrase"], value_set=phrases_known))
            self._covered[vocabulary, kind, "unique"] += len(found)
            self._covered[vocabulary, kind, "mentions"] += pc.sum(found).as_py() or 0
        best = self.frequent[kind]
        # Blocks come by code points: of equal ones, those that are there already stay.
        bar = best[-1][1] if len(best) == self._top and best else 0
        best += _pairs(block.filter(pc.greater(block["sentences"], bar)))
        best.sort(key=lambda item: order_key(*item))
        del best[self._top :]

    def coverage(self, vocabulary: str, kinds: Sequence[str]) -> dict[str, Coverage]:
        """What the vocabulary knows, of each of the kinds and of all."""
        groups = {ALL: kinds} | {kind: [kind] for kind in kinds}
        return {
            name: Coverage(
                unique=sum(self._covered[vocabulary, kind, "unique"] for kind in group),
                mentions=sum(self._covered[vocabulary, kind, "mentions"] for kind in group),
            )
            for name, group in groups.items()
        }


def _pairs(counts: pa.Table) -> Iterator[tuple[PhraseWords, int]]:
    for phrase, sentences in zip(counts["phrase"].to_pylist(), counts["sentences"].to_pylist(), strict=True):
        yield split_words(phrase), sentences
