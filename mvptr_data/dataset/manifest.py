"""The manifest and the index: which files are the data set now.

`write-shards` publishes them, with the samples in brief (`samples.py`), the manifest last. Readers open what they name and
nothing else, so files of a newer generation, or of a run still under way, never mix into a training.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import pyarrow as pa

from mvptr_data.dataset import layout
from mvptr_data.dataset.captions import CaptionStore
from mvptr_data.dataset.fields import FIELDS
from mvptr_data.dataset.forms import COUNT, OBJECT, ORDINAL, TEXT, Each, Form, check_form
from mvptr_data.dataset.plan import Plan
from mvptr_data.dataset.receipts import Receipt
from mvptr_data.dataset.samples import ShardSamples, write_samples
from mvptr_data.dataset.tables import described, read_table, table_sha256, write_table
from mvptr_data.errors import DamagedFileError, IncompleteError
from mvptr_data.phrases import PhraseVocabulary
from mvptr_data.storage import Store, digest

_REMEDY = "Run `mvptr-data verify --repair`, or `mvptr-data write-shards` again."
#: Rows of a row group of the index: few enough that a reader bounds its memory by them at no cost (`read_table`).
_ROW_GROUP = 4096
_FIELD: Form = {
    "configuration": OBJECT,
    "configuration_digest": TEXT,
    "shards": ORDINAL,
    "counts": Each(COUNT),
    "totals": Each(COUNT),
    "bytes": COUNT,
    "receipts": TEXT,
}
_MANIFEST: Form = {
    "plan": TEXT,
    "images": COUNT,
    "shards": ORDINAL,
    "samples": COUNT,
    "fields": dict.fromkeys(FIELDS, _FIELD),
    "order": {"files": dict.fromkeys(layout.SAMPLE_FILES, TEXT), "places": TEXT, "digest": TEXT},
    "index": {"name": TEXT, "sha256": TEXT},
    "captions": {"digest": TEXT, "configuration": OBJECT, "counts": Each(COUNT), "unmatched": COUNT},
    "phrase_vocab": {"name": TEXT, "sha256": TEXT, "phrases": COUNT, "digest": TEXT},
}
_INDEX_COLUMNS = pa.schema(
    [
        ("field", pa.string()),
        ("shard", pa.int32()),
        ("generation", pa.int32()),
        ("file", pa.string()),
        ("bytes", pa.int64()),
        ("sha256", pa.string()),
        ("rows_file", pa.string()),
        ("rows_bytes", pa.int64()),
        ("rows_sha256", pa.string()),
        ("inputs", pa.int64()),
        ("samples", pa.int64()),
        ("captions", pa.int64()),
    ]
)


class IndexRow(NamedTuple):
    """One shard of one field. `file` is its tar, `rows_file` its parquet; `samples` counts its `ok` rows."""

    field: str
    shard: int
    generation: int
    file: str
    bytes: int
    sha256: str
    rows_file: str
    rows_bytes: int
    rows_sha256: str
    inputs: int
    samples: int
    captions: int | None


def index_row(receipt: Receipt) -> IndexRow:
    """The index row that a receipt stands for."""
    return IndexRow(
        field=receipt.field,
        shard=receipt.shard,
        generation=receipt.generation,
        file=receipt.tar.name,
        bytes=receipt.tar.bytes,
        sha256=receipt.tar.sha256,
        rows_file=receipt.rows.name,
        rows_bytes=receipt.rows.bytes,
        rows_sha256=receipt.rows.sha256,
        inputs=receipt.counts["inputs"],
        samples=receipt.counts["ok"],
        captions=receipt.totals.get("captions"),
    )


def publish(
    store: Store,
    plan: Plan,
    receipts: Sequence[Receipt],
    *,
    configurations: dict[str, dict[str, Any]],
    samples: Iterable[ShardSamples],
    facts: dict[str, Any],
) -> dict[str, Any]:
    """Write index, samples and manifest for these receipts (every field, every shard); returns the manifest.

    `configurations` by field; `samples` of every shard in order (`shard_samples`); `facts` are further entries.
    """
    rows = [index_row(receipt) for receipt in sorted(receipts, key=lambda receipt: (receipt.field, receipt.shard))]
    table = pa.Table.from_pylist(
        [row._asdict() for row in rows],
        described(_INDEX_COLUMNS, "manifest"),
    )
    write_table(store, layout.INDEX, table, row_group_size=_ROW_GROUP)
    order, count = write_samples(store, samples)
    manifest = {
        "version": layout.version("manifest"),
        "plan": plan.digest,
        "images": plan.images,
        "shards": plan.shards,
        "samples": count,
        "fields": {
            name: _field_entry([r for r in receipts if r.field == name], configuration)
            for name, configuration in configurations.items()
        },
        "order": order,
        "index": {"name": layout.INDEX, "sha256": store.sha256(layout.INDEX)},
        **facts,
    }
    manifest["digest"] = digest(manifest)
    store.write_json(layout.MANIFEST, manifest)
    return manifest


def published_facts(
    store: Store, captions: CaptionStore, vocabulary: PhraseVocabulary, name: str, unmatched: int
) -> dict[str, Any]:
    """What a manifest says of its captions and of its vocabulary, whose file is `name`."""
    return {
        "captions": {
            "digest": captions.digest,
            "configuration": captions.configuration,
            "counts": captions.counts,
            "unmatched": unmatched,
        },
        "phrase_vocab": {
            "name": name,
            "sha256": store.sha256(name),
            "phrases": len(vocabulary),
            "digest": vocabulary.digest,
        },
    }


def load_manifest(store: Store) -> dict[str, Any]:
    """The manifest, its digest checked. Raises `IncompleteError`, `FormatVersionError`, `DamagedFileError`."""
    where = store.path(layout.MANIFEST)
    try:
        manifest: dict[str, Any] = store.read_json(layout.MANIFEST)
    except FileNotFoundError as error:
        raise IncompleteError(
            f"{store.root} has no manifest", f"Run `mvptr-data write-shards {store.root}` first."
        ) from error
    layout.check_version("manifest", manifest.get("version"), where)
    if digest({name: value for name, value in manifest.items() if name != "digest"}) != manifest.get("digest"):
        raise DamagedFileError(f"{where} does not have the digest it promises", _REMEDY)
    check_form(manifest, _MANIFEST, where, _REMEDY)
    if unknown := sorted(manifest["fields"].keys() - FIELDS.keys()):
        raise DamagedFileError(f"{where} names {unknown[0]!r} as a field", _REMEDY)
    if not layout.is_published_vocabulary(name := manifest["phrase_vocab"]["name"]):
        raise DamagedFileError(f"{where} names {name!r} as its phrase vocabulary", _REMEDY)
    return manifest


def load_index(store: Store, manifest: dict[str, Any]) -> list[IndexRow]:
    """The index that this manifest names. Raises `DamagedFileError`, `FormatVersionError`."""
    where = store.path(layout.INDEX)
    try:
        if table_sha256(store, layout.INDEX) != manifest["index"]["sha256"]:
            raise DamagedFileError(f"{where} is not the index its manifest names", _REMEDY)
        required = [name for name in _INDEX_COLUMNS.names if name != "captions"]
        table = read_table(store, layout.INDEX, "manifest", schema=_INDEX_COLUMNS, required=required)
    except FileNotFoundError as error:
        raise DamagedFileError(f"{where} is missing", _REMEDY) from error
    # By column, a third of the time of a dictionary a row: there are 200,000 rows to 10^8 images.
    columns = [table[name].to_pylist() for name in IndexRow._fields]
    rows = list(map(IndexRow._make, zip(*columns, strict=True)))
    for row in rows:
        _check_names(row, where)
    return rows


def _check_names(row: IndexRow, where: str) -> None:
    """A shard's files have the names they must have: an index from elsewhere leads no reader out of its folder."""
    if row.shard < 0 or row.generation < 0:
        raise DamagedFileError(f"{where} has a shard {row.shard} of generation {row.generation}", _REMEDY)
    names = [layout.shard_file(row.field, row.shard, row.generation, suffix) for suffix in ("tar", "parquet")]
    if row.field not in FIELDS or [row.file, row.rows_file] != names:
        raise DamagedFileError(
            f"{where} names {row.file!r} and {row.rows_file!r} for shard {row.shard} of {row.field!r}", _REMEDY
        )


def _field_entry(receipts: Sequence[Receipt], configuration: dict[str, Any]) -> dict[str, Any]:
    counts: dict[str, int] = {}
    totals: dict[str, int] = {}
    for receipt in receipts:
        for sums, part in ((counts, receipt.counts), (totals, receipt.totals)):
            for name, value in part.items():
                sums[name] = sums.get(name, 0) + value
    return {
        "configuration": configuration,
        "configuration_digest": digest(configuration),
        "shards": len(receipts),
        "counts": counts,
        "totals": totals,
        "bytes": sum(receipt.tar.bytes for receipt in receipts),
        "receipts": digest([receipt.digest for receipt in sorted(receipts, key=lambda receipt: receipt.shard)]),
    }
