"""Small Parquet tables, written atomically and byte-reproducibly, with our own version in their schema's metadata."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import zip_longest
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from mvptr_data.dataset.layout import check_version, version
from mvptr_data.errors import DamagedFileError, MvptrError
from mvptr_data.storage import Store, canonical_json, parse_json

_METADATA_KEY = b"mvptr"
_REMEDY = "Remove it and run the step that wrote it again."
#: Bytes that a table may take in memory whatever its file's size, and for each byte of its file: a few bytes of Parquet can
#: stand for terabytes. Image identities, the largest of our tables, take 8 bytes a sample.
_ANY_TABLE, _A_FILE_BYTE = 1 << 30, 200
#: How Parquet files end.
_MAGIC = b"PAR1"
#: Rows of a piece.
_MOST_ROWS = 1 << 20


def described(schema: pa.Schema, format_name: str, **facts: Any) -> pa.Schema:
    """`schema` with the format's version and `facts` (JSON) in its metadata."""
    return schema.with_metadata(
        {_METADATA_KEY: canonical_json({"format": format_name, "version": version(format_name), **facts})}
    )


def facts_of(schema: pa.Schema, format_name: str, where: str) -> dict[str, Any]:
    """The facts stored by `described`. Raises `FormatVersionError`, `DamagedFileError`."""
    raw = (schema.metadata or {}).get(_METADATA_KEY)
    if raw is None:
        raise DamagedFileError(f"{where} is not a {format_name} table of this project", _REMEDY)
    try:
        facts = parse_json(raw, "its description", "")
    except DamagedFileError as error:
        raise DamagedFileError(f"{where} has a torn description ({error})", _REMEDY) from error
    if facts.get("format") != format_name:
        raise DamagedFileError(f"{where} is a {facts.get('format')!r} table, not {format_name!r}", _REMEDY)
    check_version(format_name, facts.get("version"), where)
    return facts


@contextmanager
def table_writer(store: Store, name: str, schema: pa.Schema) -> Iterator[pq.ParquetWriter]:
    """A Parquet writer whose file appears under `name` only when the block ends well. One `write_table` is one row group."""
    with (
        store.writing(name) as file,
        pq.ParquetWriter(file, schema, compression="zstd", write_page_index=False) as writer,
    ):
        yield writer


def write_table(store: Store, name: str, table: pa.Table, *, row_group_size: int | None = None) -> None:
    """Write one table, atomically; `row_group_size` in rows."""
    with table_writer(store, name, table.schema) as writer:
        writer.write_table(table, row_group_size=row_group_size)


def open_table(store: Store, name: str, format_name: str) -> pq.ParquetFile:
    """Open a table of ours. Raises `DamagedFileError` (unreadable, foreign), `FormatVersionError`, `FileNotFoundError`."""
    where = store.path(name)
    file = store.open(name)
    try:
        # Not `pre_buffer`: a thread of Arrow's would hold bytes of Python's, and a process that ends meanwhile is aborted.
        parquet = pq.ParquetFile(file, pre_buffer=False)
        facts_of(parquet.schema_arrow, format_name, where)
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        file.close()
        raise DamagedFileError(f"{where} is not readable Parquet ({_first_line(error)})", _REMEDY) from error
    except MvptrError:
        file.close()
        raise
    return parquet


def table_sha256(store: Store, name: str) -> str:
    """sha256 (hex) of a table's file. Raises `DamagedFileError` at once where it does not end as Parquet does: of a file that
    has grown to a terabyte, not every byte needs to be read to know that. Raises `FileNotFoundError`.
    """
    with store.open(name) as file:
        file.seek(max(0, file.seek(0, os.SEEK_END) - len(_MAGIC)))
        if file.read() != _MAGIC:
            raise DamagedFileError(f"{store.path(name)} does not end as Parquet does", _REMEDY)
        file.seek(0)
        return hashlib.file_digest(file, "sha256").hexdigest()  # type: ignore[arg-type]


def read_table(
    store: Store,
    name: str,
    format_name: str,
    columns: Sequence[str] | None = None,
    *,
    schema: pa.Schema | None = None,
    required: Sequence[str] = (),
) -> pa.Table:
    """Read a whole table of ours; errors as `open_table`.

    With `schema`, the columns read must have its types; those in `required` must have a value in each row.
    """
    with open_table(store, name, format_name) as parquet:
        try:
            table = _read_bounded(parquet, columns, store.path(name), store.size(name) or 0)
            table.validate(full=True)  # a flipped bit may leave text that is not UTF-8
        except (pa.ArrowException, OSError, ValueError) as error:
            raise DamagedFileError(f"{store.path(name)} is torn ({_first_line(error)})", _REMEDY) from error
    if schema is not None:
        check_columns(table, schema if columns is None else _part(schema, columns), store.path(name), required)
    return table


def check_table(store: Store, name: str, format_name: str) -> None:
    """Read a table of ours of any size, a piece at a time, and keep nothing; errors as `open_table`."""
    with open_table(store, name, format_name) as parquet:
        try:
            for batch in parquet.iter_batches(_rows_of_piece(parquet, _ANY_TABLE), use_threads=False):
                batch.validate(full=True)
        except (pa.ArrowException, OSError, ValueError) as error:
            raise DamagedFileError(f"{store.path(name)} is torn ({_first_line(error)})", _REMEDY) from error


def check_columns(table: pa.Table, schema: pa.Schema, where: str, required: Sequence[str] = ()) -> None:
    """Raises `DamagedFileError` where a table has other columns than `schema`, or nulls in those of `required` that it has."""
    found, wanted = ([(item.name, item.type) for item in one] for one in (table.schema, schema))
    if found != wanted:
        other = next(((a, b) for a, b in zip_longest(found, wanted) if a != b), (None, None))
        raise DamagedFileError(f"{where} has the column {_said(other[0])} where {_said(other[1])} should be", _REMEDY)
    for name in required:
        if name in table.column_names and table[name].null_count:
            raise DamagedFileError(f"{where} has rows without {name}", _REMEDY)


def _read_bounded(parquet: pq.ParquetFile, columns: Sequence[str] | None, where: str, file_bytes: int) -> pa.Table:
    """The table; where it might fill the memory, read in pieces, so that it is refused before it does."""
    limit = max(_ANY_TABLE, _A_FILE_BYTE * file_bytes)
    wanted = None if columns is None else list(columns)
    groups = _groups(parquet)
    # A value of a dictionary may be as large as all that is stored, and each row may repeat it.
    if sum(group.num_rows * max(8 * group.num_columns, group.total_byte_size) for group in groups) <= limit:
        return parquet.read(columns=wanted, use_threads=False)
    batches, taken = [], 0
    for batch in parquet.iter_batches(_rows_of_piece(parquet, limit), columns=wanted, use_threads=False):
        taken += batch.nbytes
        if taken > limit:
            raise DamagedFileError(f"{where} has {file_bytes:,} bytes and takes more than {limit:,} in memory", _REMEDY)
        batches.append(batch)
    if not batches:
        raise DamagedFileError(f"{where} has no rows where it promises some", _REMEDY)
    return pa.Table.from_batches(batches).replace_schema_metadata(parquet.schema_arrow.metadata)


def _groups(parquet: pq.ParquetFile) -> list[pq.RowGroupMetaData]:
    """Of a column chunk's own metadata nothing may be asked: a flipped bit there ends the process (pyarrow 26)."""
    return [parquet.metadata.row_group(number) for number in range(parquet.num_row_groups)]


def _rows_of_piece(parquet: pq.ParquetFile, limit: int) -> int:
    """So many rows take no more than `limit` bytes, even where each repeats the largest value that is stored."""
    rows = limit // (2 * max((1, *(group.total_byte_size for group in _groups(parquet)))))
    return max(1, min(rows, _MOST_ROWS))


def _part(schema: pa.Schema, columns: Sequence[str]) -> pa.Schema:
    """`schema` with these columns alone, in this order."""
    return pa.schema([schema.field(name) for name in columns])


def _said(column: tuple[str, pa.DataType] | None) -> str:
    return "none" if column is None else f"{column[0]!r} ({column[1]})"


def _first_line(error: BaseException) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)
