"""Writing and reading one shard of one field: a tar of the `ok` samples, a parquet row for every input, a receipt."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import pyarrow as pa

from mvptr_data.dataset import layout
from mvptr_data.dataset.fields import FAULT, FIELDS, OK, Field, stem
from mvptr_data.dataset.receipts import FileFacts, Receipt, write_receipt
from mvptr_data.dataset.rows import field_table
from mvptr_data.dataset.tables import described, write_table
from mvptr_data.dataset.tar import TarWriter
from mvptr_data.errors import SampleFault
from mvptr_data.keys import encode_key
from mvptr_data.storage import Store, output_errors


class ShardWriter:
    """Takes the samples of one shard in plan order. Made by `shard_writer`, which commits it."""

    def __init__(self, store: Store, field: Field, tar: TarWriter) -> None:
        self._store = store
        self._field = field
        self._tar = tar
        self.rows: list[dict[str, Any]] = []

    def add(self, key: str, members: Mapping[str, bytes], facts: Mapping[str, Any]) -> None:
        """Append a sample: `members` by tar extension (exactly the field's), `facts` by column. Raises `OutputError`."""
        if tuple(sorted(members)) != self._field.members:
            raise ValueError(
                f"a {self._field.name} sample has the members {self._field.members}, not {tuple(sorted(members))}"
            )
        row = {"position": len(self.rows), "key": key, "status": OK, **facts}
        name = encode_key(key)
        with output_errors(self._store):
            for member in self._field.members:
                row[f"{stem(member)}_offset"], row[f"{stem(member)}_size"] = self._tar.add(
                    f"{name}.{member}", members[member]
                )
        self.rows.append(row)

    def add_fault(self, key: str, fault: SampleFault, facts: Mapping[str, Any] | None = None) -> None:
        """Record an input that gives no sample."""
        self.rows.append(
            {
                "position": len(self.rows),
                "key": key,
                "status": FAULT,
                "error_class": fault.fault_class,
                "message": fault.message,
                **(facts or {}),
            }
        )


@contextmanager
def shard_writer(
    store: Store,
    field: Field,
    shard: int,
    *,
    configuration_digest: str,
    generation: int = 0,
    seconds: Mapping[str, float] | None = None,
    environment: Mapping[str, str] | None = None,
) -> Iterator[tuple[ShardWriter, list[Receipt]]]:
    """Write a shard; at the block's end tar, parquet and receipt appear, in this order, and the receipt is put in the list.

    `seconds` and `environment` are read at the end, so the caller may fill them meanwhile. An exception leaves nothing behind.
    Raises `OutputError` where the output is full or read-only: no other shard can be written either. The same errors of the
    block's own work pass as they are, because they may be of another disk.
    """
    tar_name, rows_name = (layout.shard_file(field.name, shard, generation, suffix) for suffix in ("tar", "parquet"))
    receipts: list[Receipt] = []
    with ExitStack() as stack:
        with output_errors(store):
            file = stack.enter_context(store.writing(tar_name))
        tar = TarWriter(file)
        writer = ShardWriter(store, field, tar)
        yield writer, receipts
        with output_errors(store):
            tar_facts = FileFacts(name=tar_name, sha256=tar.close(), bytes=tar.bytes)
            stack.close()
    table = pa.Table.from_pylist(writer.rows, described(field.schema, "field", field=field.name, shard=shard))
    with output_errors(store):
        write_table(store, rows_name, table)
    counts, totals = counted(field, writer.rows)
    receipt = Receipt(
        field=field.name,
        shard=shard,
        generation=generation,
        configuration_digest=configuration_digest,
        tar=tar_facts,
        rows=FileFacts(name=rows_name, bytes=store.size(rows_name) or 0, sha256=store.sha256(rows_name)),
        counts=counts,
        totals=totals,
        seconds={phase: round(value, 3) for phase, value in (seconds or {}).items()},
        environment=dict(environment or {}),
    )
    with output_errors(store):
        write_receipt(store, receipt)
    receipts.append(receipt)


def counted(field: Field, rows: Sequence[Mapping[str, Any]]) -> tuple[dict[str, int], dict[str, int]]:
    """What a receipt counts of a shard's rows: inputs, ok and each fault class met; and sums over the samples."""
    faults = Counter(row["error_class"] for row in rows if row["status"] == FAULT)
    counts = {"inputs": len(rows), "ok": len(rows) - faults.total(), **faults}
    return counts, {name: sum(row.get(name) or 0 for row in rows) for name in field.totals}


def read_rows(store: Store, name: str, columns: list[str] | None = None) -> list[dict[str, Any]]:
    """The rows of a shard's parquet file, in plan order; errors as `field_table`. Its folder says which field it is of."""
    return field_table(store, name, FIELDS[name.partition("/")[0]], columns).to_pylist()
