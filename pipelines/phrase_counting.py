"""Phrase frequencies by a tree of tasks, in bounded memory.

1. count   one task a part of the parsed captions: its phrases, sorted        {folder}/part-*.parquet
2. reduce  one task for each `FAN_IN` files: their sums                       {folder}/level-*.parquet
           and again, until one merge is left                                 phrase_counts.parquet

A part is a bucket of captions or a slice of one, so counting needs one bucket in memory, a merge `FAN_IN` blocks. Both are sums:
the end is the same bytes for any number of parts and workers. Files that are there are not made again.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from mvptr_data.dataset.captions import CaptionStore, read_bucket
from mvptr_data.phrase_counts import FAN_IN, count_phrases, merge_counts, read_counts, read_facts, write_counts
from mvptr_data.storage import Store
from pipelines.cluster import Cluster
from pipelines.console import Step

#: Splits that a vocabulary never sees unless it is asked to (`reference/phrases.md`: training split only).
HELD_OUT = pa.array(["val", "test"])

#: A counts file: the root of its store, and its name there.
Run = tuple[str, str]


class Tally(NamedTuple):
    """What was counted: texts, images they belong to, and mentions (each phrase once a text)."""

    texts: int
    images: int
    mentions: int


class Part(NamedTuple):
    """A slice of a bucket: the images whose first caption lies in the `number`-th of `slices` equal ranges of its rows."""

    bucket: int
    sha256: str
    number: int
    slices: int


class Merge(NamedTuple):
    """Counts files and the name that their sums get."""

    runs: tuple[Run, ...]
    target: str


def cut_parts(captions: CaptionStore, partitions: int | None) -> list[Part]:
    """At least `partitions` parts, as far as there are texts, and at least one a bucket; None is one a bucket."""
    slices = -(-min(partitions or 1, captions.counts["texts"]) // captions.buckets)
    return [
        Part(bucket, sha256, number, slices)
        for bucket, sha256 in enumerate(captions.sha256)
        for number in range(slices)
    ]


def count_parts(
    cluster: Cluster, store: Store, folder: str, parts: Sequence[Part], split: str | None, step: Step
) -> tuple[list[Run], Tally]:
    """Count every part that has no file in `folder` yet. Returns the files and their sum."""
    there = set(store.names(folder))
    tallies = [Tally(**read_facts(store, name)) for part in parts if (name := _part_name(folder, part)) in there]
    step.advance(len(tallies))
    missing = [part for part in parts if _part_name(folder, part) not in there]
    for _, tally in cluster.complete(functools.partial(_count_part, store.root, folder, split), missing):
        tallies.append(tally)
        step.advance()
    runs = [(store.root, _part_name(folder, part)) for part in parts]
    return runs, Tally(*map(sum, zip(*tallies, strict=True)))


def merges_of(runs: int) -> int:
    """How many merges `reduce_counts` needs."""
    merges = groups = -(-runs // FAN_IN)
    while groups > 1:
        groups = -(-groups // FAN_IN)
        merges += groups
    return merges


def reduce_counts(
    cluster: Cluster, runs: Sequence[Run], store: Store, folder: str, target: str, facts: Mapping[str, Any], step: Step
) -> None:
    """Merge `runs`, by way of files in `folder`, into `target`, which gets `facts`."""
    level = 0
    there = set(store.names(folder))
    while len(runs) > FAN_IN:
        level += 1
        groups = [tuple(runs[start : start + FAN_IN]) for start in range(0, len(runs), FAN_IN)]
        merges = [Merge(group, f"{folder}/level-{level}-{number:06d}.parquet") for number, group in enumerate(groups)]
        _merge_all(cluster, store, [merge for merge in merges if merge.target not in there], {}, step)
        runs = [(store.root, merge.target) for merge in merges]
    _merge_all(cluster, store, [Merge(tuple(runs), target)], facts, step)


def _merge_all(cluster: Cluster, store: Store, merges: Sequence[Merge], facts: Mapping[str, Any], step: Step) -> None:
    for _ in cluster.complete(functools.partial(_merge, store.root, facts), merges):
        step.advance()


def _merge(root: str, facts: Mapping[str, Any], merge: Merge) -> None:
    runs: list[Iterator[pa.Table]] = [read_counts(Store(source), name) for source, name in merge.runs]
    write_counts(Store(root), merge.target, merge_counts(runs), facts)


def _part_name(folder: str, part: Part) -> str:
    return f"{folder}/part-{part.bucket:05d}-{part.number:05d}.parquet"


def _count_part(root: str, folder: str, split: str | None, part: Part) -> Tally:
    """Count one part of the captions, those of `split` or all that are not held out."""
    store = Store(root)
    table = read_bucket(store, part.bucket, part.sha256, ["key", "split", "phrases.list.element.words"])
    if part.slices > 1:
        table = table.filter(_rows_of(part, table["key"].combine_chunks()))
    table = table.filter(_in_split(table["split"], split))
    phrases = table["phrases"].combine_chunks()
    counts = count_phrases(pc.struct_field(phrases.flatten(), "words"), pc.list_parent_indices(phrases))
    images = pc.count_distinct(table["key"]).as_py()
    tally = Tally(texts=len(table), images=images, mentions=pc.sum(counts["sentences"]).as_py() or 0)
    write_counts(store, _part_name(folder, part), [counts], tally._asdict())
    return tally


def _rows_of(part: Part, keys: pa.Array) -> pa.Array:
    """Which rows of a bucket, sorted by image key, belong to a slice: an image's captions stay together."""
    rows = np.arange(len(keys))
    begins = np.ones(len(keys), dtype=bool)
    begins[1:] = pc.not_equal(keys[1:], keys[:-1]).to_numpy(zero_copy_only=False)
    first = np.maximum.accumulate(np.where(begins, rows, 0))
    return pa.array(first * part.slices // max(1, len(keys)) == part.number)


def _in_split(splits: pa.ChunkedArray, wanted: str | None) -> pa.ChunkedArray:
    if wanted is not None:
        return pc.fill_null(pc.equal(splits, wanted), False)
    return pc.invert(pc.is_in(splits, value_set=HELD_OUT))
