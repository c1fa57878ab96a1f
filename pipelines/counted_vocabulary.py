"""A phrase vocabulary with the counts it was made from: what can be merged, and what has statistics."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from mvptr_data.dataset import layout
from mvptr_data.errors import DamagedFileError, IncompleteError
from mvptr_data.phrase_counts import read_counts
from mvptr_data.phrases import PhraseVocabulary
from mvptr_data.storage import Store

#: Corpora named where a vocabulary is described.
SHOWN_CORPORA = 5
_REMEDY = "Run build-phrase-vocab (or merge-phrase-vocabs) again, and keep phrase_counts.parquet beside its vocabulary."


@dataclass(frozen=True, slots=True, kw_only=True)
class CountedVocabulary:
    """`vocabulary`, and in `store` the counts of all phrases, the rare ones too. `name` is the folder's, for people."""

    name: str
    store: Store
    vocabulary: PhraseVocabulary

    @property
    def facts(self) -> dict[str, Any]:
        """How it was counted: `parser`, `split`, `corpora`, `min_sentences`, ..."""
        return dict(self.vocabulary.configuration)

    def total(self, what: str) -> int:
        """The `texts`, `images` or `mentions` of all its corpora. An image of two corpora counts twice."""
        return sum(corpus[what] for corpus in self.vocabulary.configuration["corpora"])

    def counts(self) -> Iterator[pa.Table]:
        """Every phrase with its frequency, as `read_counts` gives them."""
        return read_counts(self.store, layout.PHRASE_COUNTS)


def describe_counting(configuration: Mapping[str, Any]) -> str:
    """What a vocabulary was counted on, and how, in one line; "" for one that nobody counted here."""
    if "corpora" not in configuration:
        return ""
    corpora = [
        f"{', '.join(found['name'] for found in corpus['inputs'])} ({corpus['texts']:,} texts of {corpus['images']:,} images)"
        for corpus in configuration["corpora"]
    ]
    listed = ", ".join(corpora[:SHOWN_CORPORA])
    if len(corpora) > SHOWN_CORPORA:
        listed += f" and {len(corpora) - SHOWN_CORPORA:,} more"
    split = configuration["split"] or "all but val and test"
    parser = " ".join(str(configuration["parser"].get(name)) for name in ("backend", "profile", "spacy_model"))
    return f"{listed}; split: {split}; parser: {parser}"


def vocabulary_path(path: str) -> str:
    """The vocabulary that `path` means: itself, or the one in the folder."""
    return path if path.endswith((".parquet", ".json")) else f"{path.rstrip('/')}/{layout.PHRASE_VOCAB}"


def load_counted(path: str) -> CountedVocabulary:
    """The vocabulary in a folder, or at a path, with the counts beside it.

    Raises `InputError` (there is none), `IncompleteError` (its counts are not there), `DamagedFileError` (they are another's).
    """
    file = vocabulary_path(path)
    vocabulary = PhraseVocabulary.load(file)
    store = Store.at(file.rpartition("/")[0] or ".")
    try:
        sha256 = store.sha256(layout.PHRASE_COUNTS)
    except FileNotFoundError as error:
        raise IncompleteError(f"{file} has no {layout.PHRASE_COUNTS} beside it", _REMEDY) from error
    if sha256 != vocabulary.configuration.get("counts"):
        raise DamagedFileError(f"{store.path(layout.PHRASE_COUNTS)} is not what {file} was made from", _REMEDY)
    return CountedVocabulary(name=store.root.rpartition("/")[2], store=store, vocabulary=vocabulary)
