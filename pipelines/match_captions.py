"""Captions meet images: a join by key, bucket by bucket, in bounded memory.

1. keys    the plan's keys are dealt to the captions' buckets                 text/staging/keys/
2. match   one task a bucket: its captions find their image's place           text/staging/matched/
           those that find none are kept                                      captions/unmatched.parquet

`matched_rows` then gives one shard its captions.
"""

from __future__ import annotations

import contextlib
import functools
from operator import itemgetter
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from mvptr_data.dataset import layout
from mvptr_data.dataset.captions import CAPTION_SCHEMA, UNMATCHED_SCHEMA, CaptionStore, bucket_of, read_bucket
from mvptr_data.dataset.plan import Plan, read_rows
from mvptr_data.dataset.tables import described, facts_of, open_table, read_table, table_writer, write_table
from mvptr_data.errors import DamagedFileError
from mvptr_data.storage import Store, digest
from pipelines.cluster import Cluster
from pipelines.console import Reporter

#: Where matching keeps its files until the shards are published.
STAGING = "text/staging"
#: Planned inputs with these faults have no key of their own; captions never meet them.
KEYLESS = frozenset({"unsafe_key", "duplicate_key"})

_KEY_SCHEMA = described(
    pa.schema([("key", pa.string()), ("shard", pa.int32()), ("position", pa.int32()), ("faulty", pa.bool_())]),
    "captions",
)
_MATCHED_SCHEMA = described(
    pa.schema([("shard", pa.int32()), ("position", pa.int32()), *((item.name, item.type) for item in CAPTION_SCHEMA)]),
    "captions",
)
#: Rows in a row group of matched captions: small enough that a shard's task reads little besides its own.
_GROUP_ROWS = 8192
#: Planned keys held before they are dealt out: many small plan shards would else make as many tiny row groups in each bucket.
_HELD_KEYS = 200_000


def match_captions(store: Store, reporter: Reporter, cluster: Cluster, plan: Plan, captions: CaptionStore) -> int:
    """Find every caption's image; nothing is done where that was for this plan and these captions. Returns the unmatched ones."""
    folder, identity = staging(plan, captions), _identity(plan, captions)
    mark = f"{folder}/matched.json"
    done = unmatched_captions(store, plan, captions)
    if done is not None and store.exists(mark):
        return done
    _deal_keys(store, reporter, plan, folder, captions.buckets)
    with reporter.step("match", captions.buckets, "buckets") as step:
        for _ in cluster.complete(functools.partial(_match_bucket, store.root, folder), enumerate(captions.sha256)):
            step.advance()
    unmatched = 0
    schema = described(UNMATCHED_SCHEMA, "captions", matching=identity)
    with table_writer(store, layout.UNMATCHED, schema) as writer:
        for bucket in range(captions.buckets):
            part = read_table(store, _unmatched_name(folder, bucket), "captions")
            writer.write_table(part.replace_schema_metadata(schema.metadata))
            unmatched += len(part)
    store.write_json(mark, {"unmatched": unmatched})
    return unmatched


def unmatched_captions(store: Store, plan: Plan, captions: CaptionStore) -> int | None:
    """How many captions met no image when these captions met this plan; None where they have not yet."""
    try:
        with open_table(store, layout.UNMATCHED, "captions") as parquet:
            facts = facts_of(parquet.schema_arrow, "captions", store.path(layout.UNMATCHED))
            return int(parquet.metadata.num_rows) if facts.get("matching") == _identity(plan, captions) else None
    except (FileNotFoundError, DamagedFileError):
        return None


def staging(plan: Plan, captions: CaptionStore) -> str:
    """Where this match keeps its files. Its own: tasks of an earlier run that still live cannot write into it."""
    return f"{STAGING}/{_identity(plan, captions)[:16]}"


def _identity(plan: Plan, captions: CaptionStore) -> str:
    return digest([plan.digest, captions.digest])


def _keys_name(folder: str, bucket: int) -> str:
    return f"{folder}/keys/{bucket:05d}.parquet"


def _matched_name(folder: str, bucket: int) -> str:
    return f"{folder}/matched/{bucket:05d}.parquet"


def _unmatched_name(folder: str, bucket: int) -> str:
    return f"{folder}/unmatched/{bucket:05d}.parquet"


def _deal_keys(store: Store, reporter: Reporter, plan: Plan, folder: str, buckets: int) -> None:
    """Spread (key, shard, position) over the captions' buckets, `_HELD_KEYS` in memory at a time.

    Of inputs with one key, one without a fault comes first: it is the one captions mean.
    """
    with contextlib.ExitStack() as stack, reporter.step("keys", plan.images, "images") as step:
        writers = [
            stack.enter_context(table_writer(store, _keys_name(folder, bucket), _KEY_SCHEMA))
            for bucket in range(buckets)
        ]
        parts: list[list[dict[str, Any]]] = [[] for _ in range(buckets)]

        def flush() -> None:
            for writer, part in zip(writers, parts, strict=True):
                if part:
                    writer.write_table(pa.Table.from_pylist(part, _KEY_SCHEMA))
                    part.clear()

        for shard in range(plan.shards):
            for row in read_rows(store, shard):
                if row["fault"] not in KEYLESS:
                    place = {"shard": shard, "position": row["position"], "faulty": row["fault"] is not None}
                    parts[bucket_of(row["key"], buckets)].append({"key": row["key"], **place})
            if sum(map(len, parts)) >= _HELD_KEYS:
                flush()
            step.advance(plan.rows[shard])
        flush()


def _match_bucket(root: str, folder: str, bucket_sha256: tuple[int, str]) -> None:
    """Join one bucket's captions to its keys."""
    store = Store(root)
    bucket, sha256 = bucket_sha256
    captions = read_bucket(store, bucket, sha256)
    order = [(name, "ascending") for name in ("faulty", "shard", "position")]
    keys = read_table(store, _keys_name(folder, bucket), "captions").sort_by(order)
    place = pc.index_in(captions["key"], keys["key"].combine_chunks())
    known = pc.is_valid(place)
    found = captions.filter(known)
    places = keys.select(["shard", "position"]).take(place.filter(known))
    columns = {name: places[name] for name in ("shard", "position")} | {
        name: found[name] for name in found.column_names
    }
    matched = pa.table(columns).select(_MATCHED_SCHEMA.names)
    in_order = pc.sort_indices(
        matched.select(["shard", "position", "number"]),
        sort_keys=[(name, "ascending") for name in ("shard", "position", "number")],
    )
    write_table(
        store, _matched_name(folder, bucket), matched.take(in_order).cast(_MATCHED_SCHEMA), row_group_size=_GROUP_ROWS
    )
    write_table(
        store,
        _unmatched_name(folder, bucket),
        captions.filter(pc.invert(known)).select(UNMATCHED_SCHEMA.names).cast(UNMATCHED_SCHEMA),
    )


def matched_rows(store: Store, folder: str, buckets: int, shard: int) -> list[dict[str, Any]]:
    """One shard's captions from every bucket, in order of position and number; row groups of other shards are not read."""
    rows: list[dict[str, Any]] = []
    for bucket in range(buckets):
        with open_table(store, _matched_name(folder, bucket), "captions") as parquet:
            groups = [group for group in range(parquet.num_row_groups) if _may_hold(parquet, group, shard)]
            table = parquet.read_row_groups(groups, use_threads=False)
        rows += table.filter(pc.equal(table["shard"], shard)).to_pylist()
    return sorted(rows, key=itemgetter("position", "number"))


def _may_hold(parquet: pq.ParquetFile, group: int, shard: int) -> bool:
    statistics = parquet.metadata.row_group(group).column(0).statistics
    return statistics is None or not statistics.has_min_max or statistics.min <= shard <= statistics.max
