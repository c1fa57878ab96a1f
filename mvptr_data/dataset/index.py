"""The index: a row for each shard of each field, naming its files with their sizes and digests.

It is kept by column, and a row is made when it is asked for: a data set of 10^8 images has 200,000 rows, and every rank of a
training opens it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple, overload

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from mvptr_data.dataset import layout
from mvptr_data.dataset.fields import FIELDS
from mvptr_data.dataset.receipts import Receipt
from mvptr_data.dataset.tables import described, read_table, table_sha256, write_table
from mvptr_data.errors import DamagedFileError
from mvptr_data.storage import Store

_REMEDY = "Run `mvptr-data verify --repair`, or `mvptr-data write-shards` again."
#: Rows of a row group: few enough that a reader bounds its memory by them at no cost (`read_table`).
_ROW_GROUP = 4096
_COLUMNS = pa.schema(
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


class Index(Sequence[IndexRow]):
    """The rows of an index, in the file's order."""

    def __init__(self, table: pa.Table) -> None:
        """`table` has the columns of `IndexRow`."""
        self._columns = [table[name].combine_chunks() for name in IndexRow._fields]
        self._places = _places(table)
        self._sorted = np.argsort(self._places, kind="stable")

    def __len__(self) -> int:
        return len(self._places)

    @overload
    def __getitem__(self, number: int) -> IndexRow: ...
    @overload
    def __getitem__(self, number: slice) -> Sequence[IndexRow]: ...
    def __getitem__(self, number: int | slice) -> IndexRow | Sequence[IndexRow]:
        if isinstance(number, slice):
            return [self[place] for place in range(*number.indices(len(self)))]
        if not -len(self) <= number < len(self):
            raise IndexError(f"row {number} of {len(self)}")
        return IndexRow._make(column[number % len(self)].as_py() for column in self._columns)

    def __iter__(self) -> Iterator[IndexRow]:
        columns: list[list[Any]] = [column.to_pylist() for column in self._columns]
        return map(IndexRow._make, zip(*columns, strict=True))

    def of(self, field: str, shard: int) -> IndexRow | None:
        """The row of one shard of a field, the first where there are several."""
        wanted = _place(field, shard)
        found = int(np.searchsorted(self._places, wanted, sorter=self._sorted))
        if found == len(self) or self._places[self._sorted[found]] != wanted:
            return None
        return self[int(self._sorted[found])]

    def is_whole(self, fields: Iterable[str], shards: int) -> bool:
        """Whether it has each of so many shards of each field once, and no other row."""
        wanted = [_place(field, 0) + np.arange(shards) for field in sorted(fields)]
        return np.array_equal(self._places[self._sorted], np.concatenate(wanted) if wanted else np.zeros(0, np.int64))


def write_index(store: Store, receipts: Iterable[Receipt]) -> None:
    """Write the index of these receipts."""
    rows = sorted(map(index_row, receipts), key=lambda row: (row.field, row.shard))
    table = pa.Table.from_pylist([row._asdict() for row in rows], described(_COLUMNS, "manifest"))
    write_table(store, layout.INDEX, table, row_group_size=_ROW_GROUP)


def load_index(store: Store, manifest: dict[str, Any]) -> Index:
    """The index that this manifest names. Raises `DamagedFileError`, `FormatVersionError`."""
    where = store.path(layout.INDEX)
    try:
        if table_sha256(store, layout.INDEX) != manifest["index"]["sha256"]:
            raise DamagedFileError(f"{where} is not the index its manifest names", _REMEDY)
        required = [name for name in _COLUMNS.names if name != "captions"]
        table = read_table(store, layout.INDEX, "manifest", schema=_COLUMNS, required=required)
    except FileNotFoundError as error:
        raise DamagedFileError(f"{where} is missing", _REMEDY) from error
    _check_names(table, where)
    return Index(table)


def _check_names(table: pa.Table, where: str) -> None:
    """A shard's files have the names they must have: an index from elsewhere leads no reader out of its folder."""
    for name in ("shard", "generation"):
        if len(table) and (least := pc.min(table[name]).as_py()) < 0:
            raise DamagedFileError(f"{where} has a {name} {least}", _REMEDY)
    known = pc.is_in(table["field"], pa.array(FIELDS))
    tars, rows = (
        pc.equal(table[name], shard_files(table, end)) for name, end in (("file", "tar"), ("rows_file", "parquet"))
    )
    bad = pc.index(pc.and_(known, pc.and_(tars, rows)), False).as_py()
    if bad >= 0:
        row = {name: table[name][bad].as_py() for name in ("field", "shard", "file", "rows_file")}
        raise DamagedFileError(
            f"{where} names {row['file']!r} and {row['rows_file']!r} for shard {row['shard']} of {row['field']!r}",
            _REMEDY,
        )


def shard_files(table: pa.Table, suffix: str) -> pa.ChunkedArray:
    """`layout.shard_file` of each row's field, shard and generation, none of them negative."""
    shard = pc.utf8_lpad(pc.cast(table["shard"], pa.string()), width=5, padding="0")
    generation = pc.cast(table["generation"], pa.string())
    mark = pc.if_else(pc.equal(table["generation"], 0), "", pc.binary_join_element_wise(".g", generation, ""))
    return pc.binary_join_element_wise(table["field"], "/", shard, mark, f".{suffix}", "")


def _place(field: str, shard: int) -> int:
    """A number for each shard of each field: fields by name, then shards."""
    return (sorted(FIELDS).index(field) << 32) + shard


def _places(table: pa.Table) -> NDArray[np.int64]:
    """int64 [rows]: `_place` of each."""
    fields = pc.index_in(table["field"], pa.array(sorted(FIELDS))).to_numpy().astype(np.int64)
    return (fields << 32) + table["shard"].to_numpy()
