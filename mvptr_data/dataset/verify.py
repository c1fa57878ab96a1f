"""Checking one shard of a field against every promise it makes, byte for byte.

Digests, counts, the alignment of keys with the plan, and every member's dtype, shape, finiteness, boxes and spans. What concerns
the data set as a whole is in `verify_whole.py`. Both return findings instead of raising, so that one run tells all that is wrong.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import IO, Any

import numpy as np

from mvptr_data.dataset import layout
from mvptr_data.dataset.fields import FAULT, FIELDS, OK, Field, stem
from mvptr_data.dataset.index import IndexRow
from mvptr_data.dataset.plan import read_keys
from mvptr_data.dataset.receipts import read_receipt
from mvptr_data.dataset.records import FEATURE_SIZE, box_problem, decode_array, decode_regions, decode_text
from mvptr_data.dataset.shards import read_rows
from mvptr_data.dataset.tables import table_sha256
from mvptr_data.dataset.tar import archive_end, member_header, member_padding
from mvptr_data.errors import FAULT_CLASSES, MvptrError
from mvptr_data.keys import encode_key
from mvptr_data.storage import Store

#: Tells whether the vocabulary holds a phrase.
KnownPhrase = Callable[[tuple[str, ...]], bool]


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing that is not as promised. `kind` groups alike ones; `key` is the sample's, where it concerns one."""

    kind: str
    file: str
    message: str
    key: str | None = None


def verify_shard(store: Store, row: IndexRow, known_phrase: KnownPhrase, *, planned: bool = True) -> list[Finding]:
    """One shard of one field, as the index names it. `known_phrase` tells whether the vocabulary holds a phrase.

    `planned`: whether the plan's own shard is sound. Where it is not, nobody can tell whether the keys are the right ones.
    """
    findings = []
    for name, size, sha256 in ((row.file, row.bytes, row.sha256), (row.rows_file, row.rows_bytes, row.rows_sha256)):
        if message := file_problem(store, name, size, sha256):
            findings.append(Finding(kind="digest", file=name, message=message))
    if findings:
        return findings  # what is in a damaged file says nothing more
    return [*_check_receipt(store, row), *verify_contents(store, row, known_phrase, planned=planned)]


def verify_contents(store: Store, row: IndexRow, known_phrase: KnownPhrase, *, planned: bool = True) -> list[Finding]:
    """Whether a shard's parquet is the plan's and its tar the parquet's, whatever their digests and receipt."""
    findings: list[Finding] = []
    try:
        rows = read_rows(store, row.rows_file)
        findings += _check_rows(row, rows, read_keys(store, row.shard) if planned else None)
        with store.open(row.file) as file:
            samples = [item for item in rows if item["status"] == OK]
            findings += _check_members(file, FIELDS[row.field], row.file, samples, known_phrase)
    except FileNotFoundError as error:  # removed since its size was looked at
        findings.append(Finding(kind="damaged", file=row.rows_file, message=f"{error.filename} is missing"))
    except MvptrError as error:
        findings.append(Finding(kind="damaged", file=row.rows_file, message=error.message))
    return findings


def file_problem(store: Store, name: str, size: int | None, sha256: str) -> str | None:
    """Why a file is not what was promised, or None."""
    found = store.size(name)
    if found is None:
        return "the file is missing"
    if size is not None and found != size:
        return f"it has {found:,} bytes, not {size:,}"
    try:
        digest = table_sha256 if size is None else Store.sha256  # only tables have no promised size
        return None if digest(store, name) == sha256 else f"its sha256 is not {sha256[:12]}..."
    except MvptrError as error:  # a folder, a pipe or a device
        return error.message


def _check_receipt(store: Store, row: IndexRow) -> Iterator[Finding]:
    name, promised = layout.receipt(row.field, row.shard), (row.sha256, row.rows_sha256)
    try:
        receipt = read_receipt(store, row.field, row.shard)
    except MvptrError as error:
        yield Finding(kind="receipt", file=name, message=error.message)
        return
    if receipt is None:
        yield Finding(kind="receipt", file=name, message="the receipt is missing")
    elif receipt.generation == row.generation and (receipt.tar.sha256, receipt.rows.sha256) != promised:
        yield Finding(kind="receipt", file=name, message="the receipt and the index promise different files")


def _check_rows(row: IndexRow, rows: list[dict[str, Any]], keys: list[str] | None) -> Iterator[Finding]:
    """The parquet: a row for every planned input, in order, under its key, with a known fate."""

    def finding(kind: str, message: str, key: str | None = None) -> Finding:
        return Finding(kind=kind, file=row.rows_file, key=key, message=message)

    if keys is not None and [item["key"] for item in rows] != keys:  # positions are `read_rows`'s to check
        yield finding("alignment", f"its {len(rows)} rows are not the plan's {len(keys)} keys in order")
    for item in rows:
        if item["status"] == FAULT and item["error_class"] not in FAULT_CLASSES:
            yield finding("rows", f"unknown fault class {item['error_class']!r}", item["key"])
        elif item["status"] not in (OK, FAULT):
            yield finding("rows", f"unknown status {item['status']!r}", item["key"])
    samples = Counter(item["status"] for item in rows)[OK]
    if (len(rows), samples) != (row.inputs, row.samples):
        promised = f"{row.inputs} and {row.samples}"
        yield finding("count", f"{len(rows)} rows with {samples} samples, the index promises {promised}")
    if row.captions is not None and (captions := sum(item["captions"] or 0 for item in rows)) != row.captions:
        yield finding("count", f"{captions} captions, the index promises {row.captions}")


def _check_members(
    file: IO[bytes], field: Field, name: str, samples: Iterable[Mapping[str, Any]], known_phrase: KnownPhrase
) -> Iterator[Finding]:
    """The tar `name`: byte for byte the members of the `ok` rows, in order, where the parquet says, with sound contents."""

    def finding(kind: str, message: str, key: str | None = None) -> Finding:
        return Finding(kind=kind, file=name, key=key, message=message)

    at = 0
    for item in samples:
        contents: dict[str, bytes] = {}
        encoded = encode_key(item["key"])
        for member in field.members:
            offset, size = (item[f"{stem(member)}_{what}"] for what in ("offset", "size"))
            header, padding = member_header(f"{encoded}.{member}", size), member_padding(size)
            if offset != at + len(header) or file.read(len(header)) != header:
                yield finding("alignment", f"the member at {at} is not {encoded}.{member} of {size} bytes", item["key"])
                return
            contents[member] = file.read(size)
            if len(contents[member]) != size or file.read(len(padding)) != padding:
                yield finding("alignment", f"it ends inside or odd behind {encoded}.{member}", item["key"])
                return
            at = offset + size + len(padding)
        for problem in _content_problems(field, contents, item, f"{name}:{encoded}", known_phrase):
            yield finding("content", problem, item["key"])
    end = archive_end(at)
    if file.read(len(end) + 1) != end:
        yield finding("count", f"it does not end behind the last of its rows' members, at {at}")


def _content_problems(
    field: Field, contents: dict[str, bytes], item: Mapping[str, Any], where: str, known_phrase: KnownPhrase
) -> list[str]:
    try:
        return _CONTENT_CHECKS[field.name](contents, item, where, known_phrase)
    except MvptrError as error:
        return [error.message]


def _regions_problems(contents: dict[str, bytes], item: Mapping[str, Any], where: str, _: KnownPhrase) -> list[str]:
    """What is wrong with one image's regions."""
    boxes, features = (decode_array(contents[member], f"{where}.{member}") for member in ("boxes.npy", "features.npy"))
    facts = decode_regions(contents["regions.json"], f"{where}.regions.json")
    count = item["regions"]
    problems = []
    if boxes.dtype != np.float32 or boxes.shape != (count, 4):
        problems.append(f"boxes are {boxes.dtype} {list(boxes.shape)}, not float32 [{count}, 4]")
    elif not np.isfinite(boxes).all():
        problems.append("a box is NaN or infinite")
    else:
        if problem := box_problem(boxes, facts.width, facts.height):
            problems.append(problem)
    if features.dtype != np.float16 or features.shape != (count, FEATURE_SIZE):
        problems.append(f"features are {features.dtype} {list(features.shape)}, not float16 [{count}, {FEATURE_SIZE}]")
    elif not np.isfinite(features).all():
        problems.append("a feature is NaN or infinite")
    if len(facts.scores) != count:
        problems.append(f"regions.json has {len(facts.scores)} scores, not {count}")
    if (facts.width, facts.height) != (item["width"], item["height"]):
        problems.append(
            f"regions.json says {facts.width} x {facts.height}, the parquet {item['width']} x {item['height']}"
        )
    return problems


def _text_problems(
    contents: dict[str, bytes], item: Mapping[str, Any], where: str, known_phrase: KnownPhrase
) -> list[str]:
    """What is wrong with one image's captions."""
    split, captions = decode_text(contents["text.json"], f"{where}.text.json")
    phrases = [(caption, phrase) for caption in captions for phrase in caption.phrases]
    problems = []
    if split != item["split"]:
        problems.append(f"text.json says split {split!r}, the parquet {item['split']!r}")
    if (len(captions), len(phrases)) != (item["captions"], item["phrases"]):
        promised = f"{item['captions']} and {item['phrases']}"
        problems.append(f"{len(captions)} captions with {len(phrases)} phrases, the parquet says {promised}")
    for caption, phrase in phrases:
        if not phrase.spans or not all(0 <= start < end <= len(caption.text) for start, end in phrase.spans):
            problems.append(f"the spans of {phrase.phrase} leave caption {caption.id!r}")
        if not known_phrase(phrase.phrase):
            problems.append(f"the phrase {phrase.phrase} of caption {caption.id!r} is not in the vocabulary")
    return problems


_CONTENT_CHECKS = {"regions": _regions_problems, "text": _text_problems}
