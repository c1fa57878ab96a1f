"""One shard of a published data set in another form: a tar of all its fields, or lines of VinVL TSV.

In: the shard's files, as the index names them. Out: files, and last a note of them (`parts/00012.json`): no note, no part.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any

from mvptr_data.dataset.fields import FIELDS, OK, REGIONS, stem
from mvptr_data.dataset.index import IndexRow
from mvptr_data.dataset.records import decode_array, decode_regions
from mvptr_data.dataset.shards import read_rows
from mvptr_data.dataset.tar import TarWriter
from mvptr_data.errors import DamagedFileError
from mvptr_data.keys import encode_key
from mvptr_data.storage import Store, output_errors
from pipelines.vinvl_tsv import features_line, line_id, predictions_line

PARTS = "parts"
_NOTE = re.compile(rf"{PARTS}/(\d{{5,}})\.json")


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportTask:
    """All a worker needs to know. `files`: the TSV files wanted, of `predictions` and `features`; none is a WebDataset tar.

    `inline`: whether the predictions hold the features; `identity` names the data set and the form, so that no part of another
    export is taken for one of this.
    """

    root: str
    target: str
    files: tuple[str, ...]
    inline: bool
    identity: str


@dataclass(frozen=True, slots=True)
class ExportShard:
    """One shard: its number, and its index row in every field that is exported."""

    number: int
    rows: tuple[IndexRow, ...]


def export_part(task: ExportTask, shard: ExportShard) -> dict[str, Any]:
    """Write one shard's files; returns their note. Idempotent: the same bytes whenever and wherever it runs.

    Raises `OutputError` where the target is full or read-only, `DamagedFileError`.
    """
    store, target = Store(task.root), Store(task.target)
    with output_errors(target):  # the data set is only read
        facts = _write_lines(store, target, task, shard) if task.files else _write_tar(store, target, shard)
        note = {"identity": task.identity, "shard": shard.number, **facts}
        target.write_json(_note(shard.number), note)
    return {name: note[name] for name in ("shard", "samples", "bytes")}


def read_note(target: Store, shard: int, identity: str) -> dict[str, Any] | None:
    """The note of a part that is there and belongs to this export; None where it has to be written."""
    try:
        note = target.read_json(_note(shard))
    except (FileNotFoundError, DamagedFileError):
        return None
    if note.get("identity") != identity:
        return None
    return note if all(target.size(name) == size for name, size in note["bytes"].items()) else None


def remove_parts(target: Store, identity: str, files: Sequence[str]) -> None:
    """Remove this export's parts and their notes, then their folder where nothing else is in it.

    A note goes after its part, so that what is left when this breaks off is still known.
    """
    for name in target.names(PARTS):
        if (found := _NOTE.fullmatch(name)) and _identity(target, name) == identity:
            for file in files:
                target.remove(part_name(int(found[1]), file))
            target.remove(name)
    target.remove_empty_folder(PARTS)


def tar_name(shard: int) -> str:
    return f"{shard:05d}.tar"


def part_name(shard: int, file: str) -> str:
    return f"{PARTS}/{shard:05d}.{file}.tsv"


def _identity(target: Store, note: str) -> Any:
    """Whose a note is; None where it is not ours to say."""
    try:
        return target.read_json(note).get("identity")
    except (FileNotFoundError, DamagedFileError):
        return None


def _note(shard: int) -> str:
    return f"{PARTS}/{shard:05d}.json"


def _write_tar(store: Store, target: Store, shard: ExportShard) -> dict[str, Any]:
    """All members of a sample side by side, in order of extension; keys are encoded as in the data set's own tars."""
    name, samples = tar_name(shard.number), 0
    with target.writing(name) as file:
        tar = TarWriter(file)
        for key, members in _samples(store, shard):
            samples += 1
            for member in sorted(members):
                tar.add(f"{encode_key(key)}.{member}", members[member])
        sha256 = tar.close()
    return {"samples": samples, "bytes": {name: tar.bytes}, "sha256": {name: sha256}}


def _write_lines(store: Store, target: Store, task: ExportTask, shard: ExportShard) -> dict[str, Any]:
    """The lines of a shard's regions, a file for each of `task.files`; the note has the ids and the bytes of each line."""
    names: list[str] = []
    lengths: dict[str, list[int]] = {file: [] for file in task.files}
    with ExitStack() as stack:
        files = {file: stack.enter_context(target.writing(part_name(shard.number, file))) for file in task.files}
        for key, members in _samples(store, shard):
            where = f"{store.root} sample {key!r}"
            boxes = decode_array(members["boxes.npy"], f"boxes of {where}")
            features = decode_array(members["features.npy"], f"features of {where}")
            facts = decode_regions(members["regions.json"], f"regions.json of {where}")
            if not len(boxes) == len(features) == len(facts.tags):
                raise DamagedFileError(f"the members of {where} count different regions", "Run `mvptr-data verify`.")
            name = line_id(key)
            names.append(name)
            for which, file in files.items():
                if which == "features":
                    line = features_line(name, boxes, features, facts)
                else:
                    line = predictions_line(name, boxes, features if task.inline else None, facts)
                file.write(line)
                lengths[which].append(len(line))
    return {
        "samples": len(names),
        "bytes": {part_name(shard.number, file): sum(lengths[file]) for file in task.files},
        "keys": names,
        "lines": lengths,
    }


def _samples(store: Store, shard: ExportShard) -> Iterator[tuple[str, dict[str, bytes]]]:
    """(key, member -> bytes) where every exported field is `ok`, in plan order. Raises `DamagedFileError`."""
    with ExitStack() as stack:
        try:
            tars = {row.field: stack.enter_context(store.open(row.file)) for row in shard.rows}
            tables = {row.field: read_rows(store, row.rows_file) for row in shard.rows}
        except FileNotFoundError as error:
            raise DamagedFileError(f"{error.filename} is missing", "Run `mvptr-data verify`.") from error
        for aligned in zip_longest(*tables.values()):
            rows: Mapping[str, Any] = dict(zip(tables, aligned, strict=True))
            if None in aligned or len({(row["position"], row["key"]) for row in aligned}) != 1:
                raise DamagedFileError(
                    f"the fields of shard {shard.number} of {store.root} do not have the same rows",
                    "Run `mvptr-data verify`.",
                )
            if any(row["status"] != OK for row in aligned):
                continue
            members = {}
            for field, row in rows.items():
                for member in FIELDS[field].members:
                    offset, size = (row[f"{stem(member)}_{what}"] for what in ("offset", "size"))
                    tars[field].seek(offset)
                    members[member] = tars[field].read(size)
                    if len(members[member]) != size:
                        raise DamagedFileError(
                            f"the {field} tar of shard {shard.number} ends inside {member} of {row['key']!r}",
                            "Run `mvptr-data verify`.",
                        )
            yield aligned[0]["key"], members


#: The fields that lines of VinVL TSV are made of.
LINE_FIELDS = (REGIONS.name,)
