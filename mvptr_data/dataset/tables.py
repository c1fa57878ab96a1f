"""Small Parquet tables, written atomically and byte-reproducibly, with our own version in their schema's metadata."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from mvptr_data.dataset.layout import check_version, version
from mvptr_data.errors import DamagedFileError, MvptrError
from mvptr_data.storage import Store, canonical_json

_METADATA_KEY = b"mvptr"
_REMEDY = "Remove it and run the step that wrote it again."


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
        facts: dict[str, Any] = dict(json.loads(raw))
    except (ValueError, TypeError, RecursionError) as error:
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
        parquet = pq.ParquetFile(file)
        facts_of(parquet.schema_arrow, format_name, where)
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        file.close()
        raise DamagedFileError(f"{where} is not readable Parquet ({str(error).splitlines()[0]})", _REMEDY) from error
    except MvptrError:
        file.close()
        raise
    return parquet


def read_table(store: Store, name: str, format_name: str, columns: Sequence[str] | None = None) -> pa.Table:
    """Read a whole table of ours; errors as `open_table`."""
    with open_table(store, name, format_name) as parquet:
        try:
            table = parquet.read(columns=list(columns) if columns is not None else None, use_threads=False)
            table.validate(full=True)  # a flipped bit may leave text that is not UTF-8
            return table
        except (pa.ArrowException, OSError) as error:
            raise DamagedFileError(f"{store.path(name)} is torn ({str(error).splitlines()[0]})", _REMEDY) from error
