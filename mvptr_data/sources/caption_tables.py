"""Captions in Parquet, read a few thousand rows at a time and only the columns that matter."""

from __future__ import annotations

from collections.abc import Iterator
from typing import IO, Any

import pyarrow as pa
import pyarrow.parquet as pq

from mvptr_data.errors import InputError, SampleFault
from mvptr_data.sources.caption_rows import CAPTION_FIELDS, ID_FIELDS, KEY_FIELDS, SPLIT_FIELD, Caption, RowReader

_BATCH_ROWS = 4096


def read_parquet(file: IO[bytes], rows: RowReader) -> Iterator[Caption]:
    """A row a record; fields as in JSONL. Raises `InputError` for a broken file, or one without the columns."""
    try:
        # Here and below no thread of Arrow's: it would hold bytes of Python's, and a process that ends meanwhile is aborted.
        table = pq.ParquetFile(file, pre_buffer=False)
        schema = table.schema_arrow
    except (pa.ArrowException, OSError) as error:
        raise InputError(f"{rows.source} is not a readable Parquet file: {error}", "Get the file again.") from error
    columns = _columns(schema, rows)
    count = 0
    try:
        for batch in table.iter_batches(_BATCH_ROWS, columns=columns, use_threads=False):
            for number, row in enumerate(_rows(batch), start=count):
                if isinstance(row, SampleFault):
                    yield rows.fault(row, None, f"row {number}")
                else:
                    yield from rows.read(row, None, f"row {number}")
            count += batch.num_rows
    except (pa.ArrowException, OSError) as error:
        yield rows.fault(SampleFault("torn_archive", f"the file cannot be read from row {count} on: {error}"), None)


def _rows(batch: pa.RecordBatch) -> Iterator[dict[str, Any] | SampleFault]:
    try:
        yield from batch.to_pylist()
    except UnicodeDecodeError:  # raised before the first row is out; find the rows whose strings are not UTF-8
        for number in range(batch.num_rows):
            try:
                yield batch.slice(number, 1).to_pylist()[0]
            except UnicodeDecodeError as error:
                yield SampleFault("broken_record", f"a text is not UTF-8: {error.reason} at its byte {error.start}")


def _columns(schema: pa.Schema, rows: RowReader) -> list[str]:
    """The columns to read. Raises `InputError` where none can be a key, or none a caption."""
    # Data sets keep whole pictures in a column named image: only texts and numbers name one.
    plain = {field.name for field in schema if not (pa.types.is_nested(field.type) or pa.types.is_binary(field.type))}
    key_fields = rows.rule.fields or KEY_FIELDS
    keys = [name for name in key_fields if name in plain]
    captions = [name for name in CAPTION_FIELDS if name in schema.names]
    if not keys or not captions or (rows.rule.fields and len(keys) < len(key_fields)):
        raise InputError(
            f"{rows.source} lacks a column for image keys ({', '.join(key_fields)}) or captions ({', '.join(CAPTION_FIELDS)}); "
            f"it has {', '.join(schema.names)}",
            "Rename its columns, or name the key's column with --caption-key.",
        )
    others = [name for name in (*ID_FIELDS, SPLIT_FIELD) if name in plain]
    return list(dict.fromkeys([*keys, *captions, *others]))
