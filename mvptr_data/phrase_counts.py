"""How many texts contain each phrase, those below any threshold too: sorted files that merge in bounded memory.

1. count   `count_phrases`: the phrases of some texts -> a sorted table, small enough for memory
2. write   `write_counts`: sorted tables -> one file, in row groups of `BLOCK_ROWS`
3. merge   `merge_counts`: up to `FAN_IN` files -> one, all read once from front to back, a block of each in memory

A row is `phrase` (string: its words, joined by tabs) and `sentences` (int64: the texts that contain it). Rows ascend by code
points and no phrase comes twice, so counts of parts of a corpus merge into those of the whole, whatever the parts and their
order. Memory is `FAN_IN` blocks, whatever the number of phrases. Words hold no tab: they are cut from texts whose white
space is collapsed.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from mvptr_data.dataset.tables import described, facts_of, open_table, table_writer
from mvptr_data.errors import DamagedFileError
from mvptr_data.phrases import PhraseWords
from mvptr_data.storage import Store

#: Rows of a row group, of which a merge holds one a file: with the copies that sorting makes, some 270 MB for `FAN_IN` files
#: (`benchmarks/phrase_counts.py`).
BLOCK_ROWS = 1 << 16
#: Files that one merge reads at once.
FAN_IN = 16

_FORMAT = "phrase_counts"
_SCHEMA = pa.schema([("phrase", pa.string()), ("sentences", pa.int64())])
_TAB = "\t"


def join_words(words: PhraseWords) -> str:
    """A phrase as one string; it sorts as the tuple does."""
    return _TAB.join(words)


def split_words(joined: str) -> PhraseWords:
    """The phrase that `join_words` joined."""
    return tuple(joined.split(_TAB))


def word_numbers(phrases: pa.Array) -> pa.Array:
    """int32 [n]: the number of words of each of n joined phrases."""
    return pc.add(pc.count_substring(phrases, _TAB), 1)


def count_phrases(words: pa.Array, texts: pa.Array) -> pa.Table:
    """The distinct phrases of some texts, sorted, with the number of texts that contain each at least once.

    For n phrases as they were found: `words` [n], the list of strings of each, and `texts` [n], the number of its text.
    """
    joined = pc.binary_join(words, _TAB).dictionary_encode()
    distinct = len(joined.dictionary)
    # A phrase said twice in a text is one pair.
    pairs = np.unique(np.asarray(texts, dtype=np.int64) * distinct + np.asarray(joined.indices, dtype=np.int64))
    sentences = np.bincount(pairs % max(1, distinct), minlength=distinct)
    counts = pa.Table.from_arrays([joined.dictionary, pa.array(sentences, pa.int64())], schema=_SCHEMA)
    return counts.take(pc.sort_indices(joined.dictionary))


def write_counts(store: Store, name: str, tables: Iterable[pa.Table], facts: Mapping[str, Any]) -> int:
    """Write tables that follow one another in order; returns the rows. The bytes depend on the rows, not on the tables' cuts."""
    rows = 0
    with table_writer(store, name, described(_SCHEMA, _FORMAT, **facts)) as writer:
        for block in _blocks_of_one_size(tables):
            writer.write_table(block, row_group_size=BLOCK_ROWS)
            rows += len(block)
    return rows


def read_facts(store: Store, name: str) -> dict[str, Any]:
    """What was stored with the counts. Raises `FileNotFoundError`, `DamagedFileError`, `FormatVersionError`."""
    with open_table(store, name, _FORMAT) as parquet:
        facts = facts_of(parquet.schema_arrow, _FORMAT, store.path(name))
    return {key: value for key, value in facts.items() if key not in ("format", "version")}


def count_rows(store: Store, name: str) -> int:
    """How many distinct phrases there are, without reading them; errors as `read_facts`."""
    with open_table(store, name, _FORMAT) as parquet:
        return int(parquet.metadata.num_rows)


def read_counts(store: Store, name: str) -> Iterator[pa.Table]:
    """The rows in order, a row group at a time; errors as `read_facts`."""
    with open_table(store, name, _FORMAT) as parquet:
        try:
            # Not `iter_batches`: it fetches all row groups of the file before it gives out the first.
            for group in range(parquet.num_row_groups):
                block = parquet.read_row_group(group, use_threads=False)
                block.validate(full=True)
                yield block
        except (pa.ArrowException, OSError) as error:
            raise DamagedFileError(
                f"{store.path(name)} is torn ({str(error).splitlines()[0]})", "Count the captions again."
            ) from error


def merge_counts(runs: Sequence[Iterator[pa.Table]]) -> Iterator[pa.Table]:
    """The sums of sorted counts, sorted; each run yields its tables in order.

    Of all blocks in memory, the one that ends first says how far the sums are certain: no run has anything before that still to
    come. Those rows are summed and given out, the block is used up, the next of its run takes its place.
    """
    heads = [_next_block(run) for run in runs]
    while live := [head for head in heads if head is not None]:
        certain = min(head["phrase"][-1].as_py() for head in live)
        cuts = [0 if head is None else _rows_until(head["phrase"], certain) for head in heads]
        yield _sums([head.slice(0, cut) for head, cut in zip(heads, cuts, strict=True) if head is not None and cut])
        heads = [_rest(head, cut, run) for head, cut, run in zip(heads, cuts, runs, strict=True)]


def frequent_phrases(store: Store, name: str, min_sentences: int) -> Iterator[tuple[PhraseWords, int]]:
    """The phrases that at least `min_sentences` texts contain, with their counts, by code points."""
    for block in read_counts(store, name):
        kept = block.filter(pc.greater_equal(block["sentences"], min_sentences))
        for phrase, sentences in zip(kept["phrase"].to_pylist(), kept["sentences"].to_pylist(), strict=True):
            yield split_words(phrase), sentences


def _sums(tables: Sequence[pa.Table]) -> pa.Table:
    """The rows of sorted tables as one sorted table, equal phrases added up."""
    if len(tables) == 1:
        return tables[0]
    table = pa.concat_tables(tables).combine_chunks()
    table = table.take(pc.sort_indices(table["phrase"])).combine_chunks()
    [phrases] = table["phrase"].chunks
    is_first = np.ones(len(phrases), dtype=bool)
    is_first[1:] = pc.not_equal(phrases[1:], phrases[:-1]).to_numpy(zero_copy_only=False)
    firsts = np.flatnonzero(is_first)
    sentences = np.add.reduceat(table["sentences"].to_numpy(), firsts)
    return pa.Table.from_arrays([phrases.take(pa.array(firsts)), pa.array(sentences, pa.int64())], schema=_SCHEMA)


def _next_block(run: Iterator[pa.Table]) -> pa.Table | None:
    return next((table for table in run if len(table)), None)


def _rows_until(phrases: pa.ChunkedArray, last: str) -> int:
    """How many of the sorted phrases are at most `last`."""
    return bisect_right(range(len(phrases)), last, key=lambda row: phrases[row].as_py())


def _rest(head: pa.Table | None, cut: int, run: Iterator[pa.Table]) -> pa.Table | None:
    """What is left of a run's block after `cut` rows, else its next block, else None."""
    return head.slice(cut) if head is not None and cut < len(head) else _next_block(run)


def _blocks_of_one_size(tables: Iterable[pa.Table]) -> Iterator[pa.Table]:
    """The same rows in tables of `BLOCK_ROWS`; the last one may be shorter."""
    waiting: list[pa.Table] = []
    rows = 0
    for table in tables:
        waiting.append(table.replace_schema_metadata(None))
        rows += len(table)
        while rows >= BLOCK_ROWS:
            joined = pa.concat_tables(waiting)
            yield joined.slice(0, BLOCK_ROWS).combine_chunks()
            waiting, rows = [joined.slice(BLOCK_ROWS)], rows - BLOCK_ROWS
    if rows:
        yield pa.concat_tables(waiting).combine_chunks()
