"""Captions, whatever their form, to parsed captions on disk (`captions/`), in bounded memory.

1. stage   the input is cut into chunks of texts                              captions/staging/texts/
2. parse   one task a chunk: texts -> phrases with spans                      captions/staging/parsed/
3. gather  one task a bucket: its captions from every chunk, sorted           captions/*.parquet

Every file is written whole, so a run that was killed goes on where it was.
"""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from mvptr_data.dataset import layout
from mvptr_data.dataset.captions import CAPTION_SCHEMA, FAULT_SCHEMA, TEXT_COLUMNS, CaptionStore, bucket_of
from mvptr_data.dataset.fields import configuration_differences
from mvptr_data.dataset.tables import described, open_table, read_table, table_writer, write_table
from mvptr_data.errors import ConfigurationMismatchError, InputError, SampleFault
from mvptr_data.scene_graphs import CaptionParser, load_parser, normalize_caption
from mvptr_data.sources.captions import CaptionFault, CaptionRecord, read_captions
from mvptr_data.storage import Store, digest
from pipelines.caption_inputs import CaptionInput, check_unchanged
from pipelines.cluster import Cluster, once_per_process
from pipelines.console import Reporter
from pipelines.parser_faults import add_parser_faults, save_parser_faults

#: Texts in the first chunks and in the largest: small ones spread a small input over all workers, large ones keep the number of
#: files low; a kill loses at most half a minute of parsing.
CHUNK_TEXTS = (2_000, 32_000)
#: Captions of a bucket, about: what a task of write-shards holds in memory (some 300 bytes each).
BUCKET_TEXTS = 200_000
#: Where the steps keep their files until the vocabulary is built.
STAGING = "captions/staging"

_TEXT_SCHEMA = described(pa.schema(TEXT_COLUMNS), "captions")


@dataclass(frozen=True, slots=True, kw_only=True)
class ParserChoice:
    """A caption parser by its options; hashable, so that each process loads it once."""

    options: tuple[tuple[str, Any], ...] = ()

    def load(self) -> CaptionParser:
        """Raises `InputError` for an unknown backend, or a spaCy model that is not installed or lacks what is needed."""
        return load_parser(**dict(self.options))


def caption_configuration(
    inputs: Sequence[CaptionInput], caption_key: str | None, parser: ParserChoice
) -> dict[str, Any]:
    """All that decides the bytes of the parsed captions."""
    return {
        "input": [found.identity for found in inputs],
        "caption_key": caption_key,
        "parser": once_per_process(ParserChoice.load, parser).configuration(),
    }


def parsed_captions(
    store: Store,
    reporter: Reporter,
    cluster: Cluster,
    inputs: Sequence[CaptionInput],
    configuration: dict[str, Any],
    parser: ParserChoice,
) -> CaptionStore:
    """The parsed captions of this configuration: those that are there, or made now.

    Raises `ConfigurationMismatchError` (others are there), `InputError` (nothing to read, or `inputs` changed meanwhile).
    """
    if store.exists(layout.CAPTIONS):
        stored = CaptionStore.load(store)
        if differences := configuration_differences(stored.configuration, configuration):
            raise ConfigurationMismatchError(
                f"{store.root}/captions was made otherwise (stored -> asked): {'; '.join(differences)}",
                "Remove that folder, or give another output folder.",
            )
        reporter.say(f"{stored.counts['texts']:,} texts are parsed already and kept")
        return stored
    # Named by the configuration: a task of an earlier run that still lives on some worker cannot write into this one's.
    folder = f"{STAGING}/{digest(configuration)[:16]}"
    staged = _stage(store, reporter, inputs, configuration, once_per_process(ParserChoice.load, parser), folder)
    chunks, buckets = range(staged["chunks"]), staged["buckets"]
    with reporter.step("parse", staged["counts"]["texts"], "texts") as step:
        missing = [chunk for chunk in chunks if not store.exists(_parsed_name(folder, chunk))]
        step.advance(staged["counts"]["texts"] - sum(staged["rows"][chunk] for chunk in missing))
        for _, count in cluster.complete(
            functools.partial(_parse_chunk, store.root, folder, parser, digest(configuration["parser"]), buckets),
            missing,
        ):
            step.advance(count)
    with reporter.step("gather", buckets, "buckets") as step:
        digests = {}
        for bucket, sha256 in cluster.complete(
            functools.partial(_gather_bucket, store.root, folder, staged["chunks"]), range(buckets)
        ):
            digests[bucket] = sha256
            step.advance()
    captions = CaptionStore(
        configuration=configuration,
        counts=staged["counts"] | add_parser_faults(store, folder),
        sha256=tuple(digests[bucket] for bucket in range(buckets)),
    )
    captions.save(store)
    return captions


def _stage(
    store: Store,
    reporter: Reporter,
    inputs: Sequence[CaptionInput],
    configuration: dict[str, Any],
    parser: CaptionParser,
    folder: str,
) -> dict[str, Any]:
    """Cut the input into chunks, or find that this was done. Returns chunks, rows of each, buckets, counts."""
    mark = f"{folder}/staged.json"
    if store.exists(mark):
        staged = store.read_json(mark)
        reporter.say(f"going on with {staged['chunks']} staged chunks")
        return dict(staged)
    store.remove_folder(STAGING)
    paths = [found.path for found in inputs]
    counts: Counter[str] = Counter(texts=0)
    rows: list[int] = []
    with reporter.step("read", 0, "texts") as step, table_writer(store, layout.CAPTION_FAULTS, FAULT_SCHEMA) as writer:
        records = read_captions(paths, caption_key=configuration["caption_key"])
        numbered = _sift(records, counts, _Faults(writer, counts), parser)
        while chunk := list(islice(numbered, _chunk_size(len(rows)))):
            write_table(store, _texts_name(folder, len(rows)), pa.Table.from_pylist(chunk, _TEXT_SCHEMA))
            rows.append(len(chunk))
            step.advance(len(chunk))
    if not rows:
        raise InputError(f"not one caption of {', '.join(paths)} has text", "Look at what the files hold.")
    check_unchanged(inputs)  # what was read must be what the configuration names
    # From the number of texts alone, so that any machine makes the same buckets.
    buckets = 1 << (counts["texts"] // BUCKET_TEXTS).bit_length()
    staged = {
        "chunks": len(rows),
        "rows": rows,
        "buckets": buckets,
        "counts": dict(counts),
    }
    store.write_json(mark, staged)
    return staged


def _chunk_size(chunk: int) -> int:
    """Doubles every eight chunks."""
    return min(CHUNK_TEXTS[1], CHUNK_TEXTS[0] << min(chunk // 8, 16))


class _Faults:
    """The table of the records that could not be used, or not to their end; written 1,000 rows at a time."""

    def __init__(self, writer: pq.ParquetWriter, counts: Counter[str]) -> None:
        self._writer, self._counts = writer, counts
        self._waiting: list[dict[str, Any]] = []

    def add(self, *, error_class: str, message: str, key: str | None, source: str | None, line: int | None) -> None:
        self._counts[error_class] += 1
        self._waiting.append(
            {"error_class": error_class, "message": message, "key": key, "source": source, "line": line}
        )
        if len(self._waiting) == 1000:
            self.flush()

    def add_text(self, record: CaptionRecord, error_class: str, message: str) -> None:
        """For a text whose place in the input nobody remembers any more."""
        message = f"caption {record.caption_id}: {message}"
        self.add(error_class=error_class, message=message, key=record.key, source=None, line=None)

    def flush(self) -> None:
        if self._waiting:
            self._writer.write_table(pa.Table.from_pylist(self._waiting, FAULT_SCHEMA))
            self._waiting.clear()


def _sift(
    records: Iterator[CaptionRecord | CaptionFault], counts: Counter[str], faults: _Faults, parser: CaptionParser
) -> Iterator[dict[str, Any]]:
    """Rows of usable texts, numbered. A text that the parser does not read to its end is used and has a row among the faults."""
    for record in records:
        if isinstance(record, CaptionFault):
            found = asdict(record)
            faults.add(error_class=found.pop("fault_class"), **found)
            continue
        text = normalize_caption(record.text)
        if not text:
            faults.add_text(record, "empty_caption", "the caption has no text")
            continue
        if reason := parser.unread(text):
            faults.add_text(record, "long_caption", reason)
        yield {"number": counts["texts"], **asdict(record), "text": text}
        counts["texts"] += 1
    faults.flush()


def _texts_name(folder: str, chunk: int) -> str:
    return f"{folder}/texts/{chunk:06d}.parquet"


def _parsed_name(folder: str, chunk: int) -> str:
    return f"{folder}/parsed/{chunk:06d}.parquet"


def _parse_chunk(root: str, folder: str, choice: ParserChoice, parser_digest: str, buckets: int, chunk: int) -> int:
    """Parse one chunk; its row groups are the buckets, in order, so that gathering reads only its own. Returns the texts."""
    store = Store(root)
    parser = once_per_process(ParserChoice.load, choice)
    if digest(parser.configuration()) != parser_digest:
        raise ConfigurationMismatchError(
            "a worker's caption parser is not the one this run was started with",
            "Give all workers the same release and models, and start them again.",
        )
    rows = read_table(store, _texts_name(folder, chunk), "captions").to_pylist()
    texts = list(dict.fromkeys(row["text"] for row in rows))  # region captions repeat: each is parsed once
    found = dict(zip(texts, parser.phrases_or_faults(texts), strict=True))
    faults = [(row, fault) for row in rows if isinstance(fault := found[row["text"]], SampleFault)]
    save_parser_faults(store, folder, chunk, faults)
    for row in rows:
        phrases = found[row["text"]]
        row["phrases"] = [
            {"words": list(phrase.words), "spans": [list(span) for span in phrase.spans]}
            for phrase in (() if isinstance(phrases, SampleFault) else phrases)
        ]
    by_bucket: list[list[dict[str, Any]]] = [[] for _ in range(buckets)]
    for row in rows:
        by_bucket[bucket_of(row["key"], buckets)].append(row)
    with table_writer(store, _parsed_name(folder, chunk), CAPTION_SCHEMA) as writer:
        for bucket in by_bucket:
            writer.write_table(pa.Table.from_pylist(bucket, CAPTION_SCHEMA), row_group_size=max(1, len(bucket)))
    return len(rows)


def _gather_bucket(root: str, folder: str, chunks: int, bucket: int) -> str:
    """Collect one bucket from every chunk, sorted by key and number. Returns the file's sha256."""
    store = Store(root)
    parts = []
    for chunk in range(chunks):
        with open_table(store, _parsed_name(folder, chunk), "captions") as parquet:
            parts.append(parquet.read_row_group(bucket, use_threads=False))
    table = pa.concat_tables(parts)
    # Sorted by index, because Arrow cannot sort nested columns themselves.
    order = pc.sort_indices(table.select(["key", "number"]), sort_keys=[("key", "ascending"), ("number", "ascending")])
    write_table(
        store, layout.caption_bucket(bucket), table.take(order).replace_schema_metadata(CAPTION_SCHEMA.metadata)
    )
    return store.sha256(layout.caption_bucket(bucket))
