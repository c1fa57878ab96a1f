"""Captions in lines: JSONL and TSV, read one line at a time, so that a file may have any length."""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterator
from typing import IO

from mvptr_data.errors import InputError, SampleFault
from mvptr_data.sources.caption_rows import CAPTION_FIELDS, KEY_FIELDS, ROW_FIELDS, Caption, RowReader
from mvptr_data.storage import is_url


def read_jsonl(file: IO[bytes], rows: RowReader) -> Iterator[Caption]:
    """A JSON object a line. A line that cannot be parsed is a fault; the next one is read all the same."""
    for line, text in _lines(file):
        if isinstance(text, SampleFault):
            yield rows.fault(text, line)
            continue
        try:
            row = json.loads(text)
        except (ValueError, RecursionError) as error:  # ValueError: no JSON, or a number of over 4,300 digits
            yield rows.fault(SampleFault("broken_record", f"the line is not JSON: {error}"), line)
        else:
            yield from rows.read(row, line)


def read_tsv(file: IO[bytes], rows: RowReader) -> Iterator[Caption]:
    """Cells between tabs, taken as they are (no quoting).

    The first line that is not blank is a header if it names an image key and a caption. Without one there are two columns:
    `caption url` if the first line with two cells ends in a URL (Conceptual Captions), else `key caption`. Raises
    `InputError` for half a header, and where the caption key was given by name and there is none.
    """
    columns: list[str] | None = None
    is_first = True
    for line, text in _lines(file):
        if isinstance(text, SampleFault):
            yield rows.fault(text, line)
            continue
        cells = text.split("\t")
        if is_first:
            is_first = False
            columns = _header(cells, rows)
            if columns is not None:
                continue
        if columns is None and rows.rule.fields:
            raise InputError(
                f"{rows.source} has no header that names {', '.join(rows.rule.fields)} and a caption",
                f"Name its columns in its first line ({', '.join(CAPTION_FIELDS)} hold captions), or leave --caption-key out.",
            )
        if columns is None and len(cells) == 2:
            columns = ["caption", "url"] if is_url(cells[1]) and not is_url(cells[0]) else ["key", "caption"]
        if columns is None or len(cells) != len(columns):
            wanted = 2 if columns is None else len(columns)
            yield rows.fault(SampleFault("broken_record", f"the line has {len(cells)} cells, not {wanted}"), line)
            continue
        # An empty cell of a column that may be absent says nothing; the key and caption must be there, though.
        named = zip(columns, cells, strict=True)
        yield from rows.read({name: cell for name, cell in named if cell or name in CAPTION_FIELDS}, line)


def _header(cells: list[str], rows: RowReader) -> list[str] | None:
    """The names of the columns, if these cells are names; known ones in lower case."""
    key_fields = rows.rule.fields
    names = [cell.strip().lower() if cell.strip().lower() in ROW_FIELDS else cell.strip() for cell in cells]
    has_key = all(field in names for field in key_fields) if key_fields else any(name in KEY_FIELDS for name in names)
    if any(name in CAPTION_FIELDS for name in names):
        return names if has_key else None
    if names[0] in KEY_FIELDS:
        raise InputError(
            f"{rows.source}: its header ({', '.join(names)}) names an image key and no caption",
            f"Name the captions' column one of {', '.join(CAPTION_FIELDS)}.",
        )
    return None


def _lines(file: IO[bytes]) -> Iterator[tuple[int, str | SampleFault]]:
    """Numbered lines from 1, blank ones left out. A torn or damaged file ends in a fault."""
    number = 0
    while True:
        try:
            raw = file.readline()
        except (EOFError, OSError, zlib.error) as error:
            yield number + 1, SampleFault("torn_archive", f"the file cannot be read from here on: {error}")
            return
        if not raw:
            return
        number += 1
        try:
            text = raw.decode()
        except UnicodeDecodeError as error:
            yield (
                number,
                SampleFault("broken_record", f"the line is not UTF-8: {error.reason} at its byte {error.start}"),
            )
            continue
        text = text.rstrip("\r\n").removeprefix("\ufeff")
        if text and not text.isspace():
            yield number, text
