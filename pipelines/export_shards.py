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
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from mvptr_data.dataset import layout
from mvptr_data.dataset.fields import configuration_differences
from mvptr_data.dataset.locks import hold_lock
from mvptr_data.dataset.manifest import load_index, load_manifest
from mvptr_data.errors import (
    ConfigurationMismatchError,
    DamagedFileError,
    FormatVersionError,
    IncompleteError,
    InputError,
)
from mvptr_data.storage import Store, digest
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
    something else, `BusyError`.
    """
    cluster = cluster or ClusterOptions()
    store, goal = Store.at(out), Store.at(target)
    if form not in FORMATS or features not in FEATURE_PLACES:
        raise InputError(
            f"there is no format {form!r} with features {features!r}",
            f"Formats are {', '.join(FORMATS)}; features of VinVL TSV may be {', '.join(FEATURE_PLACES)}.",
        )
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
        if (found := _found(goal, configuration)) is not None and found["finished"]:
            reporter.say(f"{goal.root} has this export already: {found['samples']:,} samples")
            goal.remove_folder(PARTS)
            return ExportSummary(
                files={name: facts["bytes"] for name, facts in found["files"].items()},
                samples=found["samples"],
                shards_written=0,
                shards_kept=manifest["shards"],
                seconds=time.monotonic() - started,
            )
        shards = _shards(store, manifest, list(LINE_FIELDS) if files else list(manifest["fields"]))
        task = ExportTask(root=store.root, target=goal.root, files=files, inline=inline, identity=digest(configuration))
        with hold_lock(goal, "export"):
            _store(goal, configuration, {"finished": False})
            report = reporter.keep_log(goal, "export")
            for folder in ("", PARTS):
                goal.remove_temporaries(folder)
            missing = [shard for shard in shards if read_note(goal, shard.number, task.identity) is None]
            if kept := len(shards) - len(missing):
                reporter.say(f"{kept} of {len(shards)} shards are exported and kept")
            if missing:
                with open_cluster(cluster, report=report) as running:
                    _write(running, reporter, task, missing)
            notes = [_note(goal, shard, task) for shard in shards]
            written = _join(goal, reporter, files, notes) if files else _tars(notes)
            samples = sum(note["samples"] for note in notes)
            _store(goal, configuration, {"finished": True, "samples": samples, "files": written})
            goal.remove_folder(PARTS)
        total = sum(facts["bytes"] for facts in written.values())
        reporter.say(f"{samples:,} samples in {len(written):,} files, {total / 1e6:,.1f} MB, in {goal.root}")
    return ExportSummary(
        files={name: facts["bytes"] for name, facts in written.items()},
        samples=samples,
        shards_written=len(missing),
        shards_kept=len(shards) - len(missing),
        seconds=time.monotonic() - started,
    )


def _found(goal: Store, configuration: dict[str, Any]) -> dict[str, Any] | None:
    """What `export.json` of the target says; None where the target is new."""
    try:
        found = goal.read_json(EXPORT)
    except FileNotFoundError:
        strangers = [name for name in goal.names("") if not name.rsplit("/", 1)[-1].startswith(".")]
        if strangers or goal.exists(layout.PLAN):
            raise InputError(f"{goal.root} holds files that are no export of this program", _ELSEWHERE) from None
        return None
    if found.get("version") != EXPORT_VERSION:
        raise FormatVersionError(
            f"{goal.path(EXPORT)} has version {found.get('version')!r}; this release reads {EXPORT_VERSION}", _ELSEWHERE
        )
    if differences := configuration_differences(found.get("configuration"), configuration):
        raise ConfigurationMismatchError(
            f"{goal.root} holds another export (stored -> asked): {'; '.join(differences)}", _ELSEWHERE
        )
    if found.get("finished"):
        gone = [name for name, facts in found["files"].items() if goal.size(name) != facts["bytes"]]
        if gone:
            raise DamagedFileError(
                f"{goal.root} lacks {gone[0]} as {EXPORT} promises it", f"Remove {EXPORT} and the files beside it."
            )
    return found


def _store(goal: Store, configuration: dict[str, Any], facts: dict[str, Any]) -> None:
    goal.write_json(
        EXPORT,
        {"version": EXPORT_VERSION, "configuration": configuration, "digest": digest(configuration), **facts},
    )


def _shards(store: Store, manifest: dict[str, Any], fields: Sequence[str]) -> list[ExportShard]:
    """Every shard of the index with its rows in `fields`. Raises `DamagedFileError` where one is missing."""
    index = {(row.field, row.shard): row for row in load_index(store, manifest)}
    try:
        return [
            ExportShard(number, tuple(index[field, number] for field in fields)) for number in range(manifest["shards"])
        ]
    except KeyError as error:
        raise DamagedFileError(
            f"the index of {store.root} lacks shard {error.args[0][1]} of {error.args[0][0]}",
            "Run `mvptr-data write-shards` again.",
        ) from error


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
    with goal.writing(name) as out:
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
