"""A word-piece vocabulary of captions: those of data sets, and of caption files of any form.

A caption of `val` or `test` is never looked at unless that split is asked for, as for phrase vocabularies.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from mvptr_data.dataset import layout
from mvptr_data.dataset.captions import CaptionStore, read_bucket
from mvptr_data.errors import InputError
from mvptr_data.scene_graphs import normalize_caption
from mvptr_data.sources.captions import CaptionRecord, read_captions
from mvptr_data.storage import Store, is_url, output_errors
from mvptr_model.initialisation.word_piece_training import ALPHABET, SIZE, train_word_pieces
from mvptr_model.saved_model import WORDS, piece_lines
from mvptr_model.word_pieces import WordPieces
from pipelines.console import Step, reporting
from pipelines.phrase_counting import HELD_OUT


@dataclass(frozen=True, slots=True, kw_only=True)
class WordPieceSummary:
    """What was made at `path` from `texts` captions; `left_out` of other splits, `faults` records that gave no caption."""

    path: str
    words: WordPieces
    texts: int
    left_out: int
    faults: int


def write_word_pieces(
    sources: Sequence[str],
    out: str,
    *,
    size: int = SIZE,
    alphabet: int = ALPHABET,
    least: int = 2,
    split: str | None = None,
    caption_key: str | None = None,
    quiet: bool = False,
) -> WordPieceSummary:
    """Train word pieces on the captions of `sources` and write them to `out`, a file, or a folder that gets a vocab.txt.

    Each source is a data set that has its captions, or what `build-phrase-vocab` takes. The same captions, in any order, give
    the same bytes. Raises `InputError`, `IncompleteError`, `DamagedFileError`, `OutputError`.
    """
    path = f"{out.rstrip('/')}/{WORDS}" if out.endswith("/") or (not is_url(out) and Path(out).is_dir()) else out
    folder, slash, name = path.rpartition("/")
    counts: Counter[str] = Counter()
    with reporting(quiet=quiet) as reporter:
        with reporter.step("read", 0, "texts") as step:
            texts = _texts(sources, split, caption_key, counts, step)
            words = train_word_pieces(texts, size=size, alphabet=alphabet, least=least)
        store = Store.at(folder or slash or ".")
        with output_errors(store):
            store.write(name, piece_lines(words))
    return WordPieceSummary(
        path=path, words=words, texts=counts["texts"], left_out=counts["left_out"], faults=counts["faults"]
    )


def _texts(
    sources: Sequence[str], split: str | None, caption_key: str | None, counts: Counter[str], step: Step
) -> Iterator[str]:
    if not sources:
        raise InputError("no captions are given", "Name a data set, or caption files.")
    held_out = frozenset(HELD_OUT.to_pylist())
    for source in sources:
        store = Store.at(source)
        is_data_set = store.exists(layout.CAPTIONS) or store.exists(layout.MANIFEST)
        for found, text in _of_data_set(store) if is_data_set else _of_files(source, caption_key, counts):
            if found in held_out if split is None else found != split:
                counts["left_out"] += 1
                continue
            counts["texts"] += 1
            step.advance()
            yield text


def _of_data_set(store: Store) -> Iterator[tuple[str | None, str]]:
    """The split and the text of each caption."""
    captions = CaptionStore.load(store)
    for bucket, sha256 in enumerate(captions.sha256):
        table = read_bucket(store, bucket, sha256, ["split", "text"])
        yield from zip(table["split"].to_pylist(), table["text"].to_pylist(), strict=True)


def _of_files(source: str, caption_key: str | None, counts: Counter[str]) -> Iterator[tuple[str | None, str]]:
    for record in read_captions(source, caption_key=caption_key):
        if isinstance(record, CaptionRecord):
            yield record.split, normalize_caption(record.text)
        else:
            counts["faults"] += 1
