"""Captions: every record of any number of files, in the files' order, with a fault for whatever is none.

Files may be COCO or Karpathy JSON, JSONL, TSV (each also gzipped) or Parquet, on disk or behind a URL, or folders of these.
"""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Callable, Iterator, Sequence
from typing import IO

from mvptr_data.errors import InputError, SampleFault
from mvptr_data.sources.caption_documents import read_document
from mvptr_data.sources.caption_lines import read_jsonl, read_tsv
from mvptr_data.sources.caption_rows import Caption, CaptionFault, CaptionRecord, KeyRule, RowReader
from mvptr_data.sources.caption_tables import read_parquet
from mvptr_data.sources.files import FoundFile, absolute, kind_of, open_file, walk

__all__ = ["CAPTION_SUFFIXES", "CaptionFault", "CaptionRecord", "read_captions"]

#: What is read where a folder is given. A file given by name may have any suffix; its content then tells the format.
CAPTION_SUFFIXES = (".json", ".jsonl", ".ndjson", ".tsv", ".json.gz", ".jsonl.gz", ".ndjson.gz", ".tsv.gz", ".parquet")

_Reader = Callable[[IO[bytes], RowReader], Iterator[Caption]]
_FORMATS: dict[str, _Reader] = {".jsonl": read_jsonl, ".ndjson": read_jsonl, ".tsv": read_tsv}
_GZIP_SIGNATURE = b"\x1f\x8b"
_PARQUET_SIGNATURE = b"PAR1"
_FIRST_LINE_BYTES = 1 << 20


def read_captions(paths: Sequence[str] | str, *, caption_key: str | None = None) -> Iterator[Caption]:
    """`CaptionRecord`s and `CaptionFault`s, streaming.

    `caption_key` says which field names the image, or how fields make its key (`{filepath}/{filename}`); by default it is the
    first of `caption_rows.KEY_FIELDS` that a record has. Keys are made as those of image files are: an image's suffix goes.

    Raises `InputError` for a path that is not there, a given file that cannot be read as a whole (in a folder that is a fault
    of its own), and, at the end, if there was not one caption.
    """
    given = [paths] if isinstance(paths, str) else list(paths)
    if not given:
        raise InputError("no caption file is given", "Name at least one file or folder.")
    rule = KeyRule(caption_key)
    kinds = [(absolute(path), kind_of(absolute(path))) for path in given]
    for name, (_, kind) in zip(given, kinds, strict=True):
        if kind is None:
            raise InputError(f"there is no caption file or folder {name!r}", "Check the path.")
    return _at_least_one(_read_all(kinds, rule), given)


def _read_all(kinds: Sequence[tuple[str, str | None]], rule: KeyRule) -> Iterator[Caption]:
    for path, kind in kinds:
        if kind == "file":
            yield from _read_file(path, rule)
        else:
            for found in walk(path, _is_caption_file):
                yield from _read_found(found, rule)


def _is_caption_file(name: str) -> bool:
    # img2dataset writes 00000_stats.json beside its captions.
    return name.lower().endswith(CAPTION_SUFFIXES) and not name.endswith("_stats.json")


def _read_found(found: FoundFile, rule: KeyRule) -> Iterator[Caption]:
    """A file met in a folder: what would end the run, had it been given by name, is a fault here."""
    rows = RowReader(found.uri, rule)
    if found.problem is not None:
        yield rows.fault(SampleFault("missing_file", found.problem), None)
        return
    try:
        yield from _read_file(found.uri, rule)
    except InputError as error:
        yield rows.fault(SampleFault("broken_record", str(error)), None)


def _read_file(uri: str, rule: KeyRule) -> Iterator[Caption]:
    try:
        with open_file(uri) as file:
            start = file.read(len(_PARQUET_SIGNATURE))
            file.seek(0)
            if not start:
                raise InputError(f"{uri} is empty", "Get the file again.")
            rows = RowReader(uri, rule)
            if start == _PARQUET_SIGNATURE or uri.lower().endswith(".parquet"):
                yield from read_parquet(file, rows)
                return
            text: IO[bytes] = file
            if start.startswith(_GZIP_SIGNATURE):
                text = gzip.GzipFile(fileobj=file)  # type: ignore[assignment]
            yield from _reader(uri, text)(text, rows)
    except OSError as error:
        raise InputError(f"cannot read {uri}: {error}", "Check the path and its permissions.") from error


def _reader(uri: str, file: IO[bytes]) -> _Reader:
    """How to read a text file: by its suffix where that is certain, else by its first line. `file` is left at its start."""
    name = uri.lower().removesuffix(".gz")
    for suffix, reader in _FORMATS.items():
        if name.endswith(suffix):
            return reader
    try:
        first = file.readline(_FIRST_LINE_BYTES).decode("utf-8-sig", "replace").strip()
    except (EOFError, OSError, zlib.error) as error:
        raise InputError(f"{uri} cannot be read: {error}", "Get the file again.") from error
    file.seek(0)
    if _is_row(first):
        return read_jsonl
    if name.endswith(".json") or first.startswith(("{", "[")):
        return read_document
    if "\t" in first:
        return read_tsv
    raise InputError(
        f"{uri} is neither JSON, JSONL, TSV nor Parquet",
        f"Its name should end in one of {', '.join(CAPTION_SUFFIXES)}.",
    )


def _is_row(line: str) -> bool:
    """Whether a first line is a whole record, as in JSONL, and not a whole COCO or Karpathy document."""
    try:
        value = json.loads(line)
    except (ValueError, RecursionError):
        return False
    return isinstance(value, dict) and not isinstance(value.get("images"), list)


def _at_least_one(captions: Iterator[Caption], given: list[str]) -> Iterator[Caption]:
    records = faults = 0
    first = None
    for caption in captions:
        if isinstance(caption, CaptionRecord):
            records += 1
        else:
            faults += 1
            first = first or caption
        yield caption
    if records:
        return
    if first is None:
        raise InputError(
            f"no captions found in {', '.join(given)}", f"Looked for {', '.join(CAPTION_SUFFIXES)} and below folders."
        )
    place = first.source if first.line is None else f"{first.source} line {first.line}"
    raise InputError(
        f"no captions found in {', '.join(given)}: {faults} records, none usable; the first fault: {first.fault_class} in "
        f"{place}: {first.message}",
        "Mend the file, or say with --caption-key which field names the image.",
    )
