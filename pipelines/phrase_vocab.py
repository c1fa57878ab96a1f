"""Captions to a phrase vocabulary, in bounded memory.

1. parse   `parse_captions`: captions -> captions/*.parquet, once
2. count   one task a bucket: its phrases' frequencies, dealt to partitions   captions/staging/counts-*/
3. reduce  one task a partition: sums over the buckets, the threshold         phrase_vocab.parquet

Another threshold or split counts again without parsing.
"""

from __future__ import annotations

import functools
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from mvptr_data.dataset import layout
from mvptr_data.dataset.captions import CaptionStore, bucket_of, read_bucket
from mvptr_data.dataset.locks import hold_lock
from mvptr_data.dataset.tables import described, open_table, table_writer
from mvptr_data.errors import InputError
from mvptr_data.phrases import PhraseVocabulary, PhraseWords
from mvptr_data.storage import Store, check_shared, digest
from pipelines.cluster import Cluster, ClusterOptions, open_cluster
from pipelines.console import Reporter, reporting
from pipelines.parse_captions import STAGING, ParserChoice, caption_configuration, parsed_captions

#: Parts that phrases are counted in; each is reduced alone, so memory is a 32nd of the distinct phrases.
PARTITIONS = 32

_COUNT_SCHEMA = described(pa.schema([("phrase", pa.list_(pa.string())), ("sentences", pa.int64())]), "captions")
#: Splits that a vocabulary never sees unless it is asked to (`reference/phrases.md`: training split only).
HELD_OUT = frozenset({"val", "test"})


@dataclass(frozen=True, slots=True, kw_only=True)
class VocabularySummary:
    """What was read and counted. `mentions` counts each phrase once a text; `unique` is before the threshold, `kept` after."""

    texts: int
    counted_texts: int
    faults: Mapping[str, int]
    mentions: int
    unique: int
    kept: int
    seconds: float
    vocabulary: PhraseVocabulary


def build_phrase_vocab(
    captions: Sequence[str],
    out: str,
    *,
    min_sentences: int = 50,
    split: str | None = None,
    caption_key: str | None = None,
    parser: ParserChoice | None = None,
    cluster: ClusterOptions | None = None,
    quiet: bool = False,
) -> VocabularySummary:
    """Parse `captions` (paths or URLs) into `out/captions/` and count `out/phrase_vocab.parquet`. Needs no plan and no images.

    `split` names the split whose texts are counted; None counts all that are not `val` or `test`. `caption_key` says where
    the image key of a record is (a field, or a template such as `{filepath}/{filename}`).

    Raises `InputError` (nothing to read), `ConfigurationMismatchError` (`out` holds other captions, or the same ones parsed
    otherwise), `BusyError`, `IncompleteError` (some tasks failed; run again).
    """
    parser, cluster = parser or ParserChoice(), cluster or ClusterOptions()
    if min_sentences < 1:
        raise InputError(f"min_sentences is {min_sentences}", "Give a number of at least 1.")
    if cluster.cluster != "inline":
        check_shared(out, *captions)
    store = Store.at(out)
    with reporting(quiet=quiet) as reporter:
        started = time.monotonic()
        configuration = caption_configuration(captions, caption_key, parser)
        with hold_lock(store, "captions"):
            report = reporter.keep_log(store, "build-phrase-vocab")
            with open_cluster(cluster, report=report) as running:
                stored = parsed_captions(store, reporter, running, captions, configuration, parser)
                counting = {"min_sentences": min_sentences, "split": split, "captions": stored.digest}
                vocabulary, facts = _count(store, reporter, running, stored, counting)
            vocabulary.save(store, layout.PHRASE_VOCAB)
            store.remove_folder(STAGING)
            store.remove_temporaries("captions")  # of workers that were killed, now or in an earlier run
        summary = VocabularySummary(
            texts=stored.counts["texts"],
            faults={name: count for name, count in stored.counts.items() if name != "texts"},
            kept=len(vocabulary),
            seconds=time.monotonic() - started,
            vocabulary=vocabulary,
            **facts,
        )
        reporter.say(
            f"{summary.texts:,} texts ({summary.counted_texts:,} counted): {summary.mentions:,} phrases, "
            f"{summary.unique:,} unique, {summary.kept:,} kept (in at least {min_sentences} texts)"
        )
        if summary.faults:
            listed = ", ".join(f"{name} {count:,}" for name, count in sorted(summary.faults.items()))
            reporter.say(f"faulty records: {listed}; each has a row in {store.path(layout.CAPTION_FAULTS)}")
    return summary


def _count(
    store: Store, reporter: Reporter, cluster: Cluster, captions: CaptionStore, counting: dict[str, Any]
) -> tuple[PhraseVocabulary, dict[str, int]]:
    """Frequencies over all buckets, the threshold, the vocabulary, and how many texts, mentions and unique phrases there were."""
    texts = mentions = unique = 0
    folder = f"{STAGING}/counts-{digest(counting)[:16]}"
    with reporter.step("count", captions.buckets + PARTITIONS, "tasks") as step:
        for _, (in_bucket, of_phrases) in cluster.complete(
            functools.partial(_count_bucket, store.root, folder, counting["split"]), enumerate(captions.sha256)
        ):
            texts, mentions = texts + in_bucket, mentions + of_phrases
            step.advance()
        kept: list[tuple[PhraseWords, int]] = []
        reduce = functools.partial(_reduce_partition, store.root, folder, captions.buckets, counting["min_sentences"])
        for _, (distinct, frequent) in cluster.complete(reduce, range(PARTITIONS)):
            unique += distinct
            kept += frequent
            step.advance()
    facts = {"counted_texts": texts, "mentions": mentions, "unique": unique}
    return PhraseVocabulary.from_counts(kept, {**counting, **facts}), facts


def _counts_name(folder: str, bucket: int) -> str:
    return f"{folder}/{bucket:05d}.parquet"


def _count_bucket(root: str, folder: str, split: str | None, bucket_sha256: tuple[int, str]) -> tuple[int, int]:
    """Count one bucket's phrases; row groups are the partitions. Returns its counted texts and their phrases."""
    store = Store(root)
    bucket, sha256 = bucket_sha256
    table = read_bucket(store, bucket, sha256, ["split", "phrases"])
    counts: Counter[PhraseWords] = Counter()
    texts = 0
    for text_split, phrases in zip(table["split"].to_pylist(), table["phrases"].to_pylist(), strict=True):
        if text_split != split if split is not None else text_split in HELD_OUT:
            continue
        texts += 1
        counts.update({tuple(phrase["words"]) for phrase in phrases})
    parts: list[list[dict[str, Any]]] = [[] for _ in range(PARTITIONS)]
    for words in sorted(counts):
        parts[bucket_of("\t".join(words), PARTITIONS)].append({"phrase": list(words), "sentences": counts[words]})
    with table_writer(store, _counts_name(folder, bucket), _COUNT_SCHEMA) as writer:
        for part in parts:
            writer.write_table(pa.Table.from_pylist(part, _COUNT_SCHEMA), row_group_size=max(1, len(part)))
    return texts, counts.total()


def _reduce_partition(
    root: str, folder: str, buckets: int, min_sentences: int, partition: int
) -> tuple[int, list[tuple[PhraseWords, int]]]:
    """Sum one partition of the phrases over all buckets. Returns the distinct ones and those that are frequent enough."""
    store = Store(root)
    total: Counter[PhraseWords] = Counter()
    for bucket in range(buckets):
        with open_table(store, _counts_name(folder, bucket), "captions") as parquet:
            table = parquet.read_row_group(partition, use_threads=False)
        for words, count in zip(table["phrase"].to_pylist(), table["sentences"].to_pylist(), strict=True):
            total[tuple(words)] += count
    return len(total), [(words, count) for words, count in total.items() if count >= min_sentences]
