"""The statistics of `phrase_stats` as tables for people and as CSV files for programs."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from rich.console import Group
from rich.table import Table
from rich.text import Text

from mvptr_data.phrases import PhraseWords
from mvptr_data.storage import Store
from pipelines.counted_vocabulary import describe_counting
from pipelines.phrase_stats import ALL, CorpusStatistics

_GAP = " | "
_COLUMNS = {
    "statistics": "corpus kind texts images mentions unique min_sentences kept kept_mentions mean_frequency median_frequency "
    "per_text per_image",
    "coverage": "corpus vocabulary kind unique unique_known mentions mentions_known known_per_text",
    "frequent": "corpus kind place phrase sentences",
    "frequencies": "corpus kind sentences phrases",
    "lookup": "corpus phrase sentences kept",
}


def write_csv(store: Store, corpora: Sequence[CorpusStatistics]) -> list[str]:
    """Write the numbers as CSV files; returns their names."""
    tables = {
        "statistics": _statistics_rows(corpora),
        "coverage": _coverage_rows(corpora),
        "frequent": _frequent_rows(corpora),
        "frequencies": _frequency_rows(corpora),
        "lookup": _lookup_rows(corpora),
    }
    for name, rows in tables.items():
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(_COLUMNS[name].split())
        writer.writerows([_cell(value) for value in row] for row in rows)
        store.write(f"{name}.csv", text.getvalue().encode())
    return [f"{name}.csv" for name in tables]


def _cell(value: Any) -> Any:
    """Six digits tell all that these numbers mean, and are the same on every machine."""
    return f"{value:.6g}" if isinstance(value, float) else value


def _statistics_rows(corpora: Sequence[CorpusStatistics]) -> Iterator[Sequence[Any]]:
    for corpus in corpora:
        for kind, found in corpus.frequencies.items():
            least = corpus.min_sentences
            kept = found.mentions(least)
            yield (
                *(corpus.name, kind, corpus.texts, corpus.images, found.mentions(), found.unique()),
                *(least, found.unique(least), kept, found.mean(least), found.median(least)),
                *(_ratio(kept, corpus.texts), _ratio(kept, corpus.images)),
            )


def _coverage_rows(corpora: Sequence[CorpusStatistics]) -> Iterator[Sequence[Any]]:
    for corpus in corpora:
        for vocabulary, by_kind in corpus.coverage.items():
            for kind, known in by_kind.items():
                found = corpus.frequencies[kind]
                yield (
                    *(corpus.name, vocabulary, kind, found.unique(), known.unique, found.mentions(), known.mentions),
                    _ratio(known.mentions, corpus.texts),
                )


def _frequent_rows(corpora: Sequence[CorpusStatistics]) -> Iterator[Sequence[Any]]:
    for corpus in corpora:
        for kind, phrases in corpus.frequent.items():
            for place, (words, sentences) in enumerate(phrases, start=1):
                yield corpus.name, kind, place, _GAP.join(words), sentences


def _frequency_rows(corpora: Sequence[CorpusStatistics]) -> Iterator[Sequence[Any]]:
    for corpus in corpora:
        for kind, found in corpus.frequencies.items():
            for sentences, phrases in sorted(found.phrases.items()):
                yield corpus.name, kind, sentences, phrases


def _lookup_rows(corpora: Sequence[CorpusStatistics]) -> Iterator[Sequence[Any]]:
    for corpus in corpora:
        for words, sentences in corpus.sentences.items():
            yield corpus.name, _GAP.join(words), sentences, "yes" if sentences >= corpus.min_sentences else "no"


def _ratio(part: int, whole: int) -> float | None:
    return part / whole if whole else None


def render(corpora: Sequence[CorpusStatistics]) -> Group:
    """The statistics as tables: what was counted, Table 8, Table 5, the most frequent phrases, those looked up."""
    parts: list[Any] = [Text(f"{corpus.name}: {describe_counting(corpus.configuration)}") for corpus in corpora]
    parts += ["", _statistics_table(corpora), "", _coverage_table(corpora)]
    for corpus in corpora:
        parts += ["", _frequent_table(corpus)]
    if any(corpus.sentences for corpus in corpora):
        parts += ["", _lookup_table(corpora)]
    return Group(*parts)


def _table(title: str, first: str, columns: Iterable[str]) -> Table:
    table = Table(title=title, title_justify="left", title_style="bold", box=None, pad_edge=False)
    table.add_column(first, no_wrap=True)
    for column in columns:
        table.add_column(column, justify="right", no_wrap=True)
    return table


def _statistics_table(corpora: Sequence[CorpusStatistics]) -> Table:
    """The rows of the paper's Table 8, and what they are made of."""
    table = _table("Statistics of phrases", "", (corpus.name for corpus in corpora))
    kinds = dict.fromkeys(kind for corpus in corpora for kind in corpus.kinds if kind != ALL)
    found = [(corpus, corpus.frequencies[ALL], corpus.min_sentences) for corpus in corpora]
    rows: dict[str, list[str]] = {
        "texts": [f"{corpus.texts:,}" for corpus in corpora],
        "images": [f"{corpus.images:,}" for corpus in corpora],
        "distinct phrases, rare ones too": [f"{phrases.unique():,}" for _, phrases, _ in found],
        "mentions of them": [f"{phrases.mentions():,}" for _, phrases, _ in found],
        "texts that a kept phrase needs": [f"{least:,}" for _, _, least in found],
        "unique phrases, kept": [f"{phrases.unique(least):,}" for _, phrases, least in found],
    }
    for kind in kinds:
        rows[f"  {kind}s"] = [
            f"{corpus.frequencies[kind].unique(least):,}" if kind in corpus.frequencies else "-"
            for corpus, _, least in found
        ]
    rows |= {
        "all phrases: mentions of those": [f"{phrases.mentions(least):,}" for _, phrases, least in found],
        "mean / median frequency": [
            f"{_number(phrases.mean(least))} / {_number(phrases.median(least))}" for _, phrases, least in found
        ],
        "phrases per image": [
            _number(_ratio(phrases.mentions(least), corpus.images)) for corpus, phrases, least in found
        ],
        "phrases per text": [
            _number(_ratio(phrases.mentions(least), corpus.texts)) for corpus, phrases, least in found
        ],
    }
    for name, cells in rows.items():
        table.add_row(name, *cells)
    return table


def _coverage_table(corpora: Sequence[CorpusStatistics]) -> Table:
    """The rows of the paper's Table 5: how much of a corpus a vocabulary knows."""
    columns = ("vocabulary", "unique", "per text", "of mentions", "of phrases")
    table = _table("Phrases of a corpus that a vocabulary knows", "corpus", columns)
    for corpus in corpora:
        found = corpus.frequencies[ALL]
        for vocabulary, by_kind in corpus.coverage.items():
            known = by_kind[ALL]
            table.add_row(
                *(corpus.name, vocabulary, f"{known.unique:,}", _number(_ratio(known.mentions, corpus.texts))),
                *(_share(known.mentions, found.mentions()), _share(known.unique, found.unique())),
            )
    return table


def _frequent_table(corpus: CorpusStatistics) -> Table:
    """The most frequent phrases, a column for each kind."""
    table = Table(title=f"Most frequent of {corpus.name}", title_justify="left", title_style="bold", box=None)
    for kind in corpus.frequent:
        table.add_column(f"{kind}s", no_wrap=True)
        table.add_column("texts", justify="right", no_wrap=True)
    longest = max((len(phrases) for phrases in corpus.frequent.values()), default=0)
    for place in range(longest):
        cells = (
            (_GAP.join(phrases[place][0]), f"{phrases[place][1]:,}") if place < len(phrases) else ("", "")
            for phrases in corpus.frequent.values()
        )
        table.add_row(*(Text(cell) for pair in cells for cell in pair))
    return table


def _lookup_table(corpora: Sequence[CorpusStatistics]) -> Table:
    table = _table("Texts that say (* kept)", "phrase", (corpus.name for corpus in corpora))
    wanted: dict[PhraseWords, None] = dict.fromkeys(words for corpus in corpora for words in corpus.sentences)
    for words in wanted:
        cells = (
            f"{corpus.sentences[words]:,}{' *' if corpus.sentences[words] >= corpus.min_sentences else '  '}"
            for corpus in corpora
        )
        table.add_row(Text(_GAP.join(words)), *cells)
    return table


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:,.4g}" if value < 1000 else f"{value:,.0f}"


def _share(part: int, whole: int) -> str:
    return f"{100 * part / whole:.3g} %" if whole else "-"
