"""A published data set in a form that other tools read: WebDataset shards with all fields in one tar, or VinVL TSV.

1. claim   `TARGET/export.json` says what is exported, so that nothing is written over
2. write   one task a shard                              00000.tar ...  or  parts/00000.predictions.tsv ...
3. join    VinVL only: parts to one file, with its index  predictions.tsv, .lineidx ...
4. commit  `export.json` names the files, with digests; `parts/` goes

Started again, a run skips the shards that are there. While the parts are joined, VinVL's files lie on the disk twice.
"""

from __future__ import annotations

import functools
import hashlib
import json
import re
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from mvptr_data.dataset.fields import configuration_differences
from mvptr_data.dataset.index import IndexRow, load_index
from mvptr_data.dataset.locks import hold_lock
from mvptr_data.dataset.manifest import load_manifest
from mvptr_data.errors import (
    ConfigurationMismatchError,
    DamagedFileError,
    FormatVersionError,
    IncompleteError,
    InputError,
)
from mvptr_data.storage import Store, check_shared, digest, output_errors
from pipelines.cluster import Cluster, ClusterOptions, TaskFailure, open_cluster
from pipelines.console import Reporter, reporting
from pipelines.export_parts import (
    LINE_FIELDS,
    PARTS,
    ExportShard,
    ExportTask,
    export_part,
    part_name,
    read_note,
    remove_parts,
    tar_name,
)

EXPORT = "export.json"
#: Of `export.json`, and of the bytes that the same data set gives.
EXPORT_VERSION = 1
FORMATS = ("webdataset", "vinvl-tsv")
#: `--features`: the TSV files, and whether the predictions hold the features.
FEATURE_PLACES: dict[str, tuple[tuple[str, ...], bool]] = {
    "inline": (("predictions",), True),
    "separate": (("predictions", "features"), False),
    "both": (("predictions", "features"), True),
}
#: Beside an export, and what a killed writer of its first file leaves: not the work of others.
_BESIDE = re.compile(rf"locks|logs|\.{re.escape(EXPORT)}\..*\.tmp")
#: What killed writers left of an export's files is a temporary of these.
_OURS = re.compile(
    r"(export\.json|imageid2idx\.json|(predictions|features)\.(tsv|lineidx)|\d{5,}\.(tar|json|\w+\.tsv))\."
)
_BLOCK = 4 << 20
_ELSEWHERE = "Give another target folder."


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportSummary:
    """An export that is there. `files`: name relative to the target -> bytes; `samples` are those exported."""

    files: dict[str, int]
    samples: int
    shards_written: int
    shards_kept: int
    seconds: float


def export_shards(
    out: str,
    target: str,
    *,
    form: Literal["webdataset", "vinvl-tsv"],
    features: Literal["inline", "separate", "both"] = "inline",
    cluster: ClusterOptions | None = None,
    quiet: bool = False,
) -> ExportSummary:
    """Write the published data set `out` into the folder `target` in the form `form`.

    `webdataset`: a tar for each shard with the samples that have every field. `vinvl-tsv`: one `predictions.tsv` of all images
    that have regions; with `features` "separate" or "both" also `features.tsv` (2054 wide) and `imageid2idx.json`.

    Raises `IncompleteError` where nothing is published or a shard could not be done, `DamagedFileError` for shards that are not
    what the index says, `ConfigurationMismatchError` where `target` holds another export, `InputError` where it holds
    anything else, `OutputError` where it cannot be written, `BusyError`.
    """
    cluster = cluster or ClusterOptions()
    if form not in FORMATS or features not in FEATURE_PLACES:
        raise InputError(
            f"there is no format {form!r} with features {features!r}",
            f"Formats are {', '.join(FORMATS)}; features of VinVL TSV may be {', '.join(FEATURE_PLACES)}.",
        )
    if cluster.cluster != "inline":
        check_shared(out, target)
    store, goal = Store.at(out), Store.at(target)
    with reporting(quiet=quiet) as reporter:
        started = time.monotonic()
        manifest = load_manifest(store)
        files, inline = FEATURE_PLACES[features] if form == "vinvl-tsv" else ((), False)
        configuration = {
            "manifest": manifest["digest"],
            "format": form,
            "features": features if form == "vinvl-tsv" else None,
            "export": EXPORT_VERSION,
        }
        identity, written, known = digest(configuration), 0, True
        found = _finished(goal, configuration)
        if found is None or goal.exists(PARTS):
            task = ExportTask(root=store.root, target=goal.root, files=files, inline=inline, identity=identity)
            shards = _shards(store, manifest, list(LINE_FIELDS) if files else list(manifest["fields"]))
            with hold_lock(goal, "export"):
                found = _finished(goal, configuration)  # another process may have written it just before
                if found is None:
                    known = False
                    found, written = _export(goal, reporter, cluster, configuration, task, shards)
                _remove_temporaries(goal)
                remove_parts(goal, identity, files)
        total = sum(facts["bytes"] for facts in found["files"].values())
        what = f"{found['samples']:,} samples in {len(found['files']):,} files, {total / 1e6:,.1f} MB"
        reporter.say(f"{goal.root} has this export already: {what}" if known else f"{what}, in {goal.root}")
    return ExportSummary(
        files={name: facts["bytes"] for name, facts in found["files"].items()},
        samples=found["samples"],
        shards_written=written,
        shards_kept=manifest["shards"] - written,
        seconds=time.monotonic() - started,
    )


def _export(
    goal: Store,
    reporter: Reporter,
    cluster: ClusterOptions,
    configuration: dict[str, Any],
    task: ExportTask,
    shards: Sequence[ExportShard],
) -> tuple[dict[str, Any], int]:
    """Claim the target, write what is missing, and commit; what `export.json` says then, and how many shards were written."""
    _store(goal, configuration, {"finished": False})
    report = reporter.keep_log(goal, "export")
    _remove_temporaries(goal)
    missing = [shard for shard in shards if read_note(goal, shard.number, task.identity) is None]
    if kept := len(shards) - len(missing):
        reporter.say(f"{kept} of {len(shards)} shards are exported and kept")
    if missing:
        with open_cluster(cluster, report=report) as running:
            _write(running, reporter, task, missing)
    notes = [_note(goal, shard, task) for shard in shards]
    files = _join(goal, reporter, task.files, notes) if task.files else _tars(notes)
    facts = {"finished": True, "samples": sum(note["samples"] for note in notes), "files": files}
    _store(goal, configuration, facts)
    return facts, len(missing)


def _remove_temporaries(goal: Store) -> None:
    for folder in ("", PARTS):
        goal.remove_temporaries(folder, lambda base: _OURS.match(base) is not None)


def _finished(goal: Store, configuration: dict[str, Any]) -> dict[str, Any] | None:
    """What `export.json` says of an export that is whole; None where the target is new, or the export is not finished."""
    try:
        found = goal.read_json(EXPORT)
    except FileNotFoundError:
        if strangers := [name for name in goal.entries("") if not _BESIDE.fullmatch(name)]:
            raise InputError(
                f"{goal.root} is not empty, and what it holds ({strangers[0]!r}) is no export of this program",
                _ELSEWHERE,
            ) from None
        return None
    if found.get("version") != EXPORT_VERSION:
        raise FormatVersionError(
            f"{goal.path(EXPORT)} has version {found.get('version')!r}; this release reads {EXPORT_VERSION}", _ELSEWHERE
        )
    if differences := configuration_differences(found.get("configuration"), configuration):
        raise ConfigurationMismatchError(
            f"{goal.root} holds another export (stored -> asked): {'; '.join(differences)}", _ELSEWHERE
        )
    if not found.get("finished"):
        return None
    gone = [name for name, facts in found["files"].items() if goal.size(name) != facts["bytes"]]
    if gone:
        raise DamagedFileError(
            f"{goal.root} lacks {gone[0]} as {EXPORT} promises it", f"Remove {EXPORT} and the files beside it."
        )
    return found


def _store(goal: Store, configuration: dict[str, Any], facts: dict[str, Any]) -> None:
    with output_errors(goal):
        goal.write_json(
            EXPORT,
            {"version": EXPORT_VERSION, "configuration": configuration, "digest": digest(configuration), **facts},
        )


def _shards(store: Store, manifest: dict[str, Any], fields: Sequence[str]) -> list[ExportShard]:
    """Every shard of the index with its rows in `fields`. Raises `DamagedFileError` where one is missing."""
    index = load_index(store, manifest)

    def row(field: str, number: int) -> IndexRow:
        found = index.of(field, number)
        if found is None:
            raise DamagedFileError(
                f"the index of {store.root} lacks shard {number} of {field}", "Run `mvptr-data write-shards` again."
            )
        return found

    return [ExportShard(number, tuple(row(field, number) for field in fields)) for number in range(manifest["shards"])]


def _write(cluster: Cluster, reporter: Reporter, task: ExportTask, missing: list[ExportShard]) -> None:
    failures: dict[int, str] = {}
    with reporter.step("export", sum(shard.rows[0].samples for shard in missing), "images") as step:
        for shard, outcome in cluster.run_tasks(functools.partial(export_part, task), missing):
            if isinstance(outcome, TaskFailure):
                failures[shard.number] = outcome.reason
                reporter.say(f"shard {shard.number} failed: {outcome.reason}")
                continue
            reporter.record(f"shard {shard.number}: {outcome}")
            step.advance(shard.rows[0].samples)
    if failures:
        raise IncompleteError(
            f"{len(failures)} shards could not be exported ({', '.join(map(str, sorted(failures)))}): "
            f"{next(iter(failures.values()))}",
            "The others are safe; run the same command again, with --cluster inline to see the first error whole.",
        )


def _note(goal: Store, shard: ExportShard, task: ExportTask) -> dict[str, Any]:
    note = read_note(goal, shard.number, task.identity)
    if note is None:
        raise IncompleteError(f"shard {shard.number} of {goal.root} was changed by someone else", "Run it again.")
    return note


def _tars(notes: Sequence[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """The files of a WebDataset export: they are where they belong already."""
    names = [tar_name(note["shard"]) for note in notes]
    return {
        name: {"bytes": note["bytes"][name], "sha256": note["sha256"][name], "samples": note["samples"]}
        for name, note in zip(names, notes, strict=True)
    }


def _join(
    goal: Store, reporter: Reporter, files: Sequence[str], notes: Sequence[dict[str, Any]]
) -> dict[str, dict[str, Any]]:
    """The parts as one file for each of `files`, beside it the byte offset of each line; for features also the ids' numbers."""
    written = {}
    for file in files:
        lengths = [length for note in notes for length in note["lines"][file]]
        with reporter.step(f"join {file}", len(notes), "parts") as step:

            def pieces(file: str = file, step: Any = step) -> Iterator[bytes]:
                for note in notes:
                    with goal.open(part_name(note["shard"], file)) as part:
                        while piece := part.read(_BLOCK):
                            yield piece
                    step.advance()

            written[f"{file}.tsv"] = _stream(goal, f"{file}.tsv", pieces())
        written[f"{file}.lineidx"] = _stream(goal, f"{file}.lineidx", _offsets(lengths))
    if "features" in files:
        keys = (key for note in notes for key in note["keys"])
        written["imageid2idx.json"] = _stream(goal, "imageid2idx.json", _numbers(keys))
    return written


def _stream(goal: Store, name: str, pieces: Iterator[bytes]) -> dict[str, Any]:
    """Write a file from pieces; its facts."""
    sha256, size = hashlib.sha256(), 0
    with output_errors(goal), goal.writing(name) as out:
        for piece in pieces:
            out.write(piece)
            sha256.update(piece)
            size += len(piece)
    return {"bytes": size, "sha256": sha256.hexdigest()}


def _offsets(lengths: Sequence[int]) -> Iterator[bytes]:
    """A row with the offset of each line."""
    position = 0
    for length in lengths:
        yield b"%d\n" % position
        position += length


def _numbers(keys: Iterator[str]) -> Iterator[bytes]:
    """`{"id": line, ...}`, in pieces: there may be tens of millions."""
    yield b"{"
    for number, key in enumerate(keys):
        yield f"{', ' if number else ''}{json.dumps(key)}: {number}".encode()
    yield b"}\n"
