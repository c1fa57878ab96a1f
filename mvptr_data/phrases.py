"""The phrase vocabulary: which phrases are concepts, in which order (MVPTR 3.1.1; `reference/phrases.md`, "Counting and order").

A phrase's frequency is the number of texts that contain it at least once. Phrases of at least `min_sentences` texts are kept, in
a total order (frequency descending, pairs before triples, code points), so a vocabulary depends on neither the input's order nor
the number of workers. A phrase's rank counts from 0; its embedding row is the word vocabulary's size plus the rank.

The configuration says what was counted (`pipelines/phrase_vocab.py` fills it in): `parser`, `split`, `min_sentences`, `corpora`
(of each its input files with their digests, its texts, images and mentions), `unique` phrases before the threshold, and
`counts`, the sha256 of the `phrase_counts.parquet` beside it, which holds the rare phrases too (`phrase_counts.py`).
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any

import pyarrow as pa

from mvptr_data.dataset.tables import described, facts_of, open_table, read_table, write_table
from mvptr_data.errors import DamagedFileError, InputError
from mvptr_data.storage import Store, digest

PhraseWords = tuple[str, ...]

KINDS = {1: "object", 2: "attribute", 3: "relation"}
#: Word pieces of BERT uncased: the authors' ids of phrases begin after them.
BERT_WORDS = 30_522
#: The largest id that the column holds.
MAX_OFFICIAL_ID = (1 << 31) - 1
_COLUMNS = pa.schema(
    [
        ("rank", pa.int32()),
        ("phrase", pa.list_(pa.string())),
        ("kind", pa.string()),
        ("sentences", pa.int64()),
        ("official_id", pa.int32()),
    ]
)


#: Control characters, of which a tab would join words (`phrase_counts`), and halves of surrogate pairs, which have no bytes.
_NO_TEXT = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]")


def order_key(words: PhraseWords, sentences: int) -> tuple[int, int, PhraseWords]:
    """Sorts a vocabulary: frequency descending, pairs before triples, code points."""
    return -sentences, len(words), words


@dataclass(frozen=True, slots=True, kw_only=True)
class PhraseVocabulary:
    """Phrases by rank. `sentences` and `official_ids` align with `phrases`; None where unknown (the official file has none)."""

    phrases: tuple[PhraseWords, ...]
    sentences: tuple[int | None, ...]
    official_ids: tuple[int | None, ...]
    configuration: Mapping[str, Any]
    _ranks: dict[PhraseWords, int] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        ranks = {words: rank for rank, words in reversed(list(enumerate(self.phrases)))}
        if len(ranks) != len(self.phrases) and "official" not in self.configuration:
            raise ValueError("a phrase occurs twice in the vocabulary")
        object.__setattr__(self, "_ranks", ranks)

    def __len__(self) -> int:
        return len(self.phrases)

    @property
    def digest(self) -> str:
        """Names the phrases and their ranks (and official ids); how they were counted is not part of it."""
        return digest([self.phrases, self.official_ids])

    def rank(self, words: PhraseWords) -> int | None:
        """A phrase's rank, or None for a phrase that is no concept."""
        return self._ranks.get(words)

    @classmethod
    def from_counts(
        cls, counts: Iterable[tuple[PhraseWords, int]], configuration: Mapping[str, Any]
    ) -> PhraseVocabulary:
        """From (phrase, sentences) pairs in any order; the caller has applied the threshold."""
        ordered = sorted(counts, key=lambda item: order_key(*item))
        return cls(
            phrases=tuple(words for words, _ in ordered),
            sentences=tuple(count for _, count in ordered),
            official_ids=(None,) * len(ordered),
            configuration=configuration,
        )

    def save(self, store: Store, name: str) -> None:
        """Write it as Parquet, with its digest and the counting configuration in the schema's metadata."""
        columns = [
            pa.array(range(len(self)), pa.int32()),
            pa.array([list(words) for words in self.phrases], pa.list_(pa.string())),
            pa.array([KINDS[len(words)] for words in self.phrases], pa.string()),
            pa.array(self.sentences, pa.int64()),
            pa.array(self.official_ids, pa.int32()),
        ]
        schema = described(_COLUMNS, "phrase_vocab", configuration=dict(self.configuration), digest=self.digest)
        write_table(store, name, pa.Table.from_arrays(columns, schema=schema))

    def save_official(self, store: Store, name: str) -> None:
        """Write it in the form of the authors' id2phrase.json: {"<id>": [str, ...]}, by id.

        A vocabulary that came from such a file has its ids again, holes included. One of ours gets `BERT_WORDS` + rank, single
        objects too: the rows that its phrases have in a model with BERT's words.
        """
        numbers = [BERT_WORDS + rank if number is None else number for rank, number in enumerate(self.official_ids)]
        entries = sorted(zip(numbers, self.phrases, strict=True))
        store.write(name, json.dumps({str(number): list(words) for number, words in entries}).encode())

    @classmethod
    def load(cls, path: str) -> PhraseVocabulary:
        """Ours (`phrase_vocab.parquet`) or the authors' (`id2phrase.json`: {"<id>": [str, ...]}), told by the suffix.

        Raises `InputError` (no such file, another suffix), `DamagedFileError`, `FormatVersionError`.
        """
        folder, slash, name = path.rpartition("/")
        store = Store.at(folder or slash or ".")
        suffix = PurePosixPath(name).suffix
        if suffix not in (".parquet", ".json"):
            raise InputError(
                f"{path} is not a phrase vocabulary", "Give a phrase_vocab.parquet or the authors' id2phrase.json."
            )
        try:
            return cls._load_parquet(store, name) if suffix == ".parquet" else cls._load_official(store, name)
        except FileNotFoundError as error:
            raise InputError(
                f"there is no phrase vocabulary at {path}",
                "Build one with `mvptr-data build-phrase-vocab CAPTIONS OUT`.",
            ) from error

    @classmethod
    def _load_parquet(cls, store: Store, name: str) -> PhraseVocabulary:
        with open_table(store, name, "phrase_vocab") as parquet:
            facts = facts_of(parquet.schema_arrow, "phrase_vocab", store.path(name))
        table = read_table(store, name, "phrase_vocab", schema=_COLUMNS, required=("rank", "phrase", "kind"))
        configuration, phrases = facts.get("configuration", {}), table["phrase"].to_pylist()
        sound = all(len(words) in KINDS and all(words) for words in phrases) and isinstance(configuration, dict)
        if not sound or ("official" not in configuration and len(set(map(tuple, phrases))) != len(phrases)):
            raise DamagedFileError(
                f"{store.path(name)} has a phrase twice, one not of 1 to 3 words, or no configuration",
                "Run build-phrase-vocab again.",
            )
        if table["rank"].to_pylist() != list(range(len(table))):
            raise DamagedFileError(
                f"the ranks in {store.path(name)} are not 0, 1, 2, ...", "Run build-phrase-vocab again."
            )
        vocabulary = cls(
            phrases=tuple(map(tuple, phrases)),
            sentences=tuple(table["sentences"].to_pylist()),
            official_ids=tuple(table["official_id"].to_pylist()),
            configuration=configuration,
        )
        if facts.get("digest", vocabulary.digest) != vocabulary.digest:  # version 1 has none
            raise DamagedFileError(
                f"{store.path(name)} does not have the digest it promises", "Run build-phrase-vocab again."
            )
        return vocabulary

    @classmethod
    def _load_official(cls, store: Store, name: str) -> PhraseVocabulary:
        try:
            found = json.loads(store.read(name), object_pairs_hook=_each_once)
            if any(not isinstance(words, list) for words in found.values()):
                raise TypeError("a phrase is not a list of words")
            if unusual := [number for number in found if str(abs(int(number))) != number]:
                raise ValueError(f"{unusual[0]!r} is no id")
            entries = sorted((int(number), tuple(words)) for number, words in found.items())
        except (ValueError, AttributeError, TypeError, RecursionError) as error:
            raise DamagedFileError(
                f"{store.path(name)} is not of the form {{'<id>': [word, ...]}} ({error})",
                "Give the authors' id2phrase.json.",
            ) from error
        for number, words in entries:
            if number > MAX_OFFICIAL_ID or len(words) not in KINDS or not all(map(_is_word, words)):
                raise DamagedFileError(
                    f"entry {number} of {store.path(name)} is {list(words)!r}: it needs an id up to {MAX_OFFICIAL_ID}, "
                    f"and 1 to 3 strings of Unicode text without control characters",
                    "Give the authors' id2phrase.json.",
                )
        return cls(
            phrases=tuple(words for _, words in entries),
            sentences=(None,) * len(entries),
            official_ids=tuple(number for number, _ in entries),
            configuration={"official": name},
        )


def _each_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object; raises `ValueError` where a name comes twice, of which one would be lost."""
    found = dict(pairs)
    if len(found) != len(pairs):
        [(name, _)] = Counter(name for name, _ in pairs).most_common(1)
        raise ValueError(f"{name!r} occurs more than once")
    return found


def _is_word(word: Any) -> bool:
    return isinstance(word, str) and bool(word) and _NO_TEXT.search(word) is None
