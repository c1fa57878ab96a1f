"""Ways to break a data set: torn, flipped, swapped, of other types, and signed anew by someone who means harm.

`break_one(root, random)` does one of them to one file and says what it did. Half of the time the digests that the change has made
wrong are computed again (`sign`), up to the manifest, so that what is read gets past them.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

#: A folder beside the data set that nobody may touch.
CANARY = "canary"
_DEEP: Any = []
for _ in range(400):
    _DEEP = [_DEEP]
_VALUES: tuple[Any, ...] = (
    None, True, -1, 0, 2**31, 2**63, 2**70, 10**400, 0.5, float("nan"), float("inf"), 1e300, "", "x", [], {}, [1], {"a": []},
    _DEEP, "\ud800", "a\0b", "\u202e", "x" * 100_000, f"../{CANARY}/secret", f"../../{CANARY}/secret", "/etc/passwd",
    f"1/../../../{CANARY}/secret", "memory://x", "s3://no/such", "%2e%2e", "..", "con", "é" * 300, [[0, 1, 2]], [["a"]], "2", 1.0,
)  # fmt: skip
_HEADERS = (
    b"{'descr': '<f4', 'fortran_order': False, 'shape': (1000000000000, 4), }",
    b"{'descr': '|O', 'fortran_order': False, 'shape': (2, 4), }",
    b"{'descr': '<f4', 'fortran_order': False, 'shape': (-2, 4), }",
    b"{'descr': '<f4', 'fortran_order': True, 'shape': (2, 4), }",
    b"{'descr': [('a', '<f4', (1000000000,))], 'fortran_order': False, 'shape': (2,), }",
    b"{'descr': '|S0', 'fortran_order': False, 'shape': (4,), }",
    b"{'descr': '<f4', 'fortran_order': False, 'shape': (2, True), }",
    b"(" * 5000,
    b"__import__('os').system('true')",
)


def break_one(root: Path, random: Random) -> str:
    """Break one file under `root`, by `random` alone; returns what was done, in a line."""
    files = sorted(file for file in root.rglob("*") if file.is_file() and "logs" not in file.parts)
    file = random.choice(files)
    way = random.choice(_WAYS[file.suffix])
    said = way(file, random)
    signed = random.random() < 0.5
    if signed:
        sign(root)
    return (
        f"{file.relative_to(root)}: {way.__name__.strip('_')}{f' {said}' if said else ''}{', signed' if signed else ''}"
    )


def _torn(file: Path, random: Random) -> str:
    data = file.read_bytes()
    at = random.randrange(len(data) + 1)
    file.write_bytes(data[:at])
    return f"at {at}"


def _flipped(file: Path, random: Random) -> str:
    data, places = bytearray(file.read_bytes()), []
    for _ in range(random.choice((1, 1, 1, 2, 8)) if data else 0):
        places.append(random.randrange(8 * len(data)))
        data[places[-1] // 8] ^= 1 << places[-1] % 8
    file.write_bytes(data)
    return f"bits {places}"


def _longer(file: Path, random: Random) -> str:
    """More bytes behind, or a hole of a terabyte: what reads it whole fills the memory."""
    size = file.stat().st_size + random.choice((1, 512, 10_240, 1 << 40))
    os.truncate(file, size)
    return f"to {size}"


def _no_file(file: Path, random: Random) -> str:
    kind = random.choice(("nothing", "a folder", "a pipe", "a loop"))
    file.unlink()
    if kind == "a folder":
        file.mkdir()
    elif kind == "a pipe":
        os.mkfifo(file)
    elif kind == "a loop":
        file.symlink_to(file.name)
    return kind


def _swapped(file: Path, random: Random) -> str:
    """The bytes of another file of its kind."""
    others = sorted(other for other in file.parent.glob(f"*{file.suffix}") if other != file)
    if others:
        shutil.copyfile(other := random.choice(others), file)
        return f"for {other.name}"
    return ""


def _json_value(file: Path, random: Random) -> str:
    with contextlib.suppress(ValueError):
        value = json.loads(file.read_bytes())
        said = _alter(value, random)
        file.write_text(json.dumps(value))
        return said
    return ""


def _json_text(file: Path, random: Random) -> str:
    text = random.choice(
        (b"", b"null", b"[]", b"{}", b"NaN", b"[" * 100_000, b'{"version":' * 900, b"1" * 5000, b"\xff\xfe{")
    )
    file.write_bytes(text)
    return repr(text[:12])


def _column(file: Path, random: Random) -> str:
    """Another type, other values, nulls, or no such column."""
    table = pq.read_table(file)
    name = random.choice(table.column_names)
    kind = random.choice(("type", "null", "gone", "renamed", "values", "values", "values"))
    number = table.column_names.index(name)
    if kind == "gone":
        table = table.remove_column(number)
    elif kind == "renamed":
        table = table.rename_columns([f"../{name}" if one == name else one for one in table.column_names])
    else:
        with contextlib.suppress(pa.ArrowException, OverflowError, TypeError, ValueError):
            table = table.set_column(number, name, _other_column(table[name], kind, random))
    pq.write_table(table, file)
    return f"{name} {kind}"


def _other_column(column: pa.ChunkedArray, kind: str, random: Random) -> pa.Array:
    values = column.to_pylist()
    if kind == "type":
        return pa.array([random.choice(("x", f"../../{CANARY}/secret")) for _ in values], pa.string())
    at = random.randrange(len(values)) if values else 0
    if values:
        values[at] = None if kind == "null" else random.choice((*_VALUES, -1, 2**31 - 1, 2**62, [2**31 - 1] * 3))
    return pa.array(values, column.type)


def _rows(file: Path, random: Random) -> str:
    table = pq.read_table(file)
    kind = random.choice(("reversed", "twice", "none", "fewer", "many"))
    if kind == "reversed":
        table = table.take(np.arange(len(table))[::-1])
    elif kind == "twice":
        table = pa.concat_tables([table, table])
    elif kind == "none":
        table = table.slice(0, 0)
    elif kind == "fewer":
        table = table.slice(0, max(0, len(table) - 1))
    elif len(table):
        table = table.take(np.zeros(300_000, np.int64))
    pq.write_table(table, file)
    return kind


def _bomb(file: Path, random: Random) -> str:
    """Few bytes of Parquet that stand for far more than a memory holds."""
    table = pq.read_table(file)
    texts = [name for name in table.column_names if table.schema.field(name).type == pa.string()]
    if not texts:
        return "none"
    name, count = random.choice(texts), 500
    column = pa.DictionaryArray.from_arrays(pa.array(np.zeros(count, np.int32)), pa.array(["x" * 20_000_000]))
    others = table.take(np.zeros(count, np.int64)) if len(table) else table
    if len(others) == count:
        others = others.set_column(others.column_names.index(name), name, column)
        with pq.ParquetWriter(file, others.schema, compression="zstd", store_schema=False) as writer:
            writer.write_table(others)
            writer.add_key_value_metadata(table.schema.metadata)
    return name


def _description(file: Path, random: Random) -> str:
    """The project's own facts in a table's metadata."""
    table = pq.read_table(file)
    facts = json.loads((table.schema.metadata or {}).get(b"mvptr", b"{}"))
    said = _alter(facts, random)
    text = json.dumps(facts).encode() if random.random() < 0.8 else random.choice((b"", b"[]", b"\xff", b"[" * 9999))
    pq.write_table(table.replace_schema_metadata({b"mvptr": text}), file)
    return said


def _member_header(file: Path, random: Random) -> str:
    """A tar header's name, size or kind; its checksum is right."""
    data = bytearray(file.read_bytes())
    at = data.find(b"ustar") - 257
    if at < 0:
        return ""
    what, start, value = random.choice(
        (
            ("name", 0, f"../../{CANARY}/secret".encode().ljust(100, b"\0")),
            ("name", 0, b"/etc/passwd".ljust(100, b"\0")),
            ("size", 124, b"77777777777\0"),
            ("size", 124, b"\x80" + b"\xff" * 11),
            ("size", 124, b"\xff" * 12),
            ("kind", 156, bytes([random.choice(b"1234567LKxgSD")])),
        )
    )
    data[at + start : at + start + len(value)] = value
    data[at + 148 : at + 156] = b" " * 8
    data[at + 148 : at + 156] = b"%06o\0 " % sum(data[at : at + 512])
    file.write_bytes(data)
    return what


def _array_header(file: Path, random: Random) -> str:
    data = bytearray(file.read_bytes())
    places = [at for at in range(0, len(data), 512) if data[at : at + 6] == b"\x93NUMPY"]
    if not places:
        return ""
    at, header = random.choice(places), random.choice(_HEADERS)
    header = header[:117].ljust(117) + b"\n"
    data[at + 10 : at + 128] = header
    if random.random() < 0.2:
        data[at + 6 : at + 10] = random.choice((b"\x02\x00\xff\xff", b"\x01\x00\xff\xff", b"\x09\x00\x76\x00"))
    file.write_bytes(data)
    return header[:40].decode(errors="replace")


def _member_json(file: Path, random: Random) -> str:
    """Another value in a member of JSON, of the same length, so that the tar is as sound as before."""
    data = file.read_bytes()
    places = [at for at in range(512, len(data), 512) if data[at : at + 1] == b"{"]
    if not places:
        return ""
    at = random.choice(places)
    end = data.index(b"\0", at)
    value = json.loads(data[at:end])
    said = _alter(value, random)
    text = json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode(errors="surrogatepass")
    if len(text) <= end - at:
        file.write_bytes(data[:at] + text.ljust(end - at) + data[end:])
    return said


def _alter(value: Any, random: Random) -> str:
    """Change one value somewhere in JSON, in place."""
    places: list[tuple[Any, Any]] = []
    pending = [value]
    while pending:
        item = pending.pop()
        inner = list(item.items()) if isinstance(item, dict) else list(enumerate(item))
        places += [(item, name) for name, _ in inner]
        pending += [one for _, one in inner if isinstance(one, dict | list)]
    if not places:
        return "nothing"
    holder, name = random.choice(places)
    if random.random() < 0.15:
        del holder[name]
        return f"{name} gone"
    holder[name] = random.choice(_VALUES)
    return f"{name} = {ascii(holder[name])[:30]}"


_ANY: tuple[Callable[[Path, Random], str], ...] = (_torn, _flipped, _flipped, _longer, _no_file, _swapped)
_WAYS: dict[str, tuple[Callable[[Path, Random], str], ...]] = {
    ".json": (*_ANY, *(_json_value,) * 8, _json_text),
    ".parquet": (*_ANY, *(_column,) * 6, _rows, _rows, _bomb, _description, _description),
    ".tar": (*_ANY, _member_header, _member_header, *(_array_header,) * 3, *(_member_json,) * 4),
}


def sign(root: Path) -> None:
    """Compute again every digest and size that some file of `root` promises of another, as far as they can be read."""
    for field in ("regions", "text"):
        _signed(root / field / "field.json", lambda state: state.update(digest=_digest(state["configuration"])))
        for receipt in sorted((root / field).glob("[0-9]*.json")):
            _signed(receipt, lambda found: _sign_receipt(root, found))
    _signed(
        root / "plan/plan.json", lambda plan: plan.update(sha256=_shas(root, "plan", len(plan["sha256"])), digest=None)
    )
    _signed(root / "captions/captions.json", lambda found: _sign_captions(root, found))
    with contextlib.suppress(Exception):  # an index that is broken cannot be signed
        _sign_index(root)
    _signed(root / "manifest.json", lambda manifest: _sign_manifest(root, manifest))


def _signed(file: Path, change: Callable[[Any], None]) -> None:
    with contextlib.suppress(Exception):  # what is broken cannot be signed
        value = json.loads(_read(file))
        change(value)
        file.write_text(json.dumps(value))


def _read(file: Path) -> bytes:
    if not file.is_file() or file.stat().st_size > 1 << 30:
        raise FileNotFoundError(file)
    return file.read_bytes()


def _sha(file: Path) -> str:
    return hashlib.sha256(_read(file)).hexdigest()


def _shas(root: Path, folder: str, count: int) -> list[str]:
    return [_sha(root / folder / f"{number:05d}.parquet") for number in range(count)]


def _digest(value: Any) -> str:
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()


def _sign_receipt(root: Path, receipt: dict[str, Any]) -> None:
    for which in ("tar", "rows"):
        file = root / receipt[which]["name"]
        receipt[which].update(bytes=len(_read(file)), sha256=_sha(file))
    unsigned = ("version", "digest", "seconds", "environment")
    receipt["digest"] = _digest({name: value for name, value in receipt.items() if name not in unsigned})


def _sign_captions(root: Path, found: dict[str, Any]) -> None:
    found["sha256"] = _shas(root, "captions", len(found["sha256"]))
    found["digest"] = _digest({"configuration": found["configuration"], "sha256": found["sha256"]})


def _sign_index(root: Path) -> None:
    parquet = pq.ParquetFile(io.BytesIO(_read(root / "index.parquet")))
    if parquet.metadata.num_rows > 100:
        return  # a bomb: not even we unpack it
    table = parquet.read()
    rows = table.to_pylist()
    for row in rows:
        for file, size, sha in (("file", "bytes", "sha256"), ("rows_file", "rows_bytes", "rows_sha256")):
            row.update({size: len(_read(root / row[file])), sha: _sha(root / row[file])})
    pq.write_table(pa.Table.from_pylist(rows, table.schema), root / "index.parquet")


def _sign_manifest(root: Path, manifest: dict[str, Any]) -> None:
    manifest["index"]["sha256"] = _sha(root / "index.parquet")
    manifest["order"]["files"] = {name: _sha(root / name) for name in manifest["order"]["files"]}
    manifest["phrase_vocab"]["sha256"] = _sha(root / "text/phrase_vocab.parquet")
    manifest["digest"] = _digest({name: value for name, value in manifest.items() if name != "digest"})
