"""Checkpoints on disk, whole or none; `checkpoint_engine.py` fills them and loads them.

    checkpoints/stage-1-step-00000100/
        engine/...          DeepSpeed's own files: weights, optimizer states, loss scale
        state.json          stage, step, ranks, ZeRO stage, the stream's place (whose seed is the masks', too)
        manifest.json       every file's bytes and sha256; written last, before the folder gets its name

What is not as its manifest promises is passed over. A run that goes on from one removes those after it first: they are damaged,
or of a branch that was left. DeepSpeed's files are pickles, so only checkpoints of one's own are to be gone on from; saved
models (`saved_model.py`) hold none.
"""

from __future__ import annotations

import hashlib
import os
import re
import shlex
import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from mvptr_data.dataset.forms import COUNT, OBJECT, Form, check_form
from mvptr_data.errors import DamagedFileError, FormatVersionError, InputError
from mvptr_data.storage import Store

CHECKPOINT_VERSION = 1
FOLDER, MANIFEST, STATE, ENGINE = "checkpoints", "manifest.json", "state.json", "engine"

_NAME = re.compile(r"stage-([12])-step-(\d{8,})")
_REMEDY = "Go on from another checkpoint."
_STATED = ("stage", "step", "ranks", "zero", "stream")
_STATE_FORM: Form = {**dict.fromkeys(_STATED, COUNT), "stream": OBJECT}


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where a run stands: `step` optimizer steps of stage `stage` are made, by so many `ranks` with ZeRO stage `zero`, and the
    stream is at `stream` (`StreamLoader.state_dict`)."""

    stage: int
    step: int
    ranks: int
    zero: int
    stream: dict[str, Any]

    @property
    def name(self) -> str:
        """Of the checkpoint's folder; names sort by place."""
        return f"stage-{self.stage}-step-{self.step:08d}"


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A checkpoint on disk, verified: its folder, and the place that it was written at."""

    folder: Path
    place: Place


def names(output: Path) -> list[str]:
    """The checkpoints of a run, the oldest first, whether sound or not."""
    found = [name for name in Store.at(output).entries(FOLDER) if _NAME.fullmatch(name)]
    return sorted(found, key=stage_and_step)


def stage_and_step(name: str) -> tuple[int, int]:
    """Of a checkpoint's name; (0, 0) for what is no such name."""
    found = _NAME.fullmatch(name)
    return (int(found[1]), int(found[2])) if found else (0, 0)


def newest_checkpoint(output: Path, stage: int, say: Callable[[str], None]) -> Checkpoint | None:
    """The newest sound checkpoint of a run's stage, or None where it has none; `say` hears why others were passed over.

    Raises `DamagedFileError` where none of them is sound: to begin the stage anew is for people to decide. Raises
    `FormatVersionError` for one of another release: it is sound, and what came after it would be lost.
    """
    found = [name for name in names(output) if stage_and_step(name)[0] == stage]
    for name in reversed(found):
        try:
            return open_checkpoint(output / FOLDER / name)
        except DamagedFileError as error:
            say(f"passed over {name}: {error}")
    if found:
        raise DamagedFileError(
            f"none of the {len(found)} checkpoints of stage {stage} in {output / FOLDER} is sound",
            f"Give another output, or remove {output / FOLDER}/stage-{stage}-* to make the stage again from its start.",
        )
    return None


def remove_after(output: Path, name: str) -> None:
    """Remove the checkpoints after this one, the newest first."""
    for later in reversed(names(output)):
        if stage_and_step(later) > stage_and_step(name):
            remove(output / FOLDER / later)


def remove_oldest(output: Path, name: str, keep: int) -> None:
    """Keep this checkpoint and those before it that make it `keep` with it."""
    earlier = [one for one in names(output) if stage_and_step(one) < stage_and_step(name)]
    for old in earlier[: max(0, len(earlier) - keep + 1)]:
        remove(output / FOLDER / old)


def way_back(output: Path) -> str:
    """What mends a run that diverged, as an error says it."""
    found = names(output)
    if not found:
        return "Give another output, and a lower learning_rate or optimizer.clipping."
    newest = output / FOLDER / found[-1]
    return (
        f"Go on with --resume {shlex.quote(str(newest))}, or an earlier one, and a lower learning_rate or "
        f"optimizer.clipping, or begin another run with it as initial.model."
    )


def open_checkpoint(folder: Path, *, verify: bool = True) -> Checkpoint:
    """The checkpoint in a folder; with `verify` every file of it is read and compared with its digest.

    Raises `InputError`, `DamagedFileError`, `FormatVersionError`.
    """
    store = Store.at(folder)
    if not folder.is_dir():
        raise InputError(f"{folder} is no folder", "Give a checkpoint such as OUT/checkpoints/stage-1-step-00000100.")
    try:
        manifest = store.read_json(MANIFEST)
    except FileNotFoundError as error:
        raise DamagedFileError(f"{folder} has no {MANIFEST}", _REMEDY) from error
    if manifest.get("version") != CHECKPOINT_VERSION:
        raise FormatVersionError(
            f"{folder} has checkpoint version {manifest.get('version')!r}; this release reads {CHECKPOINT_VERSION}",
            "Go on with the release that wrote it.",
        )
    files = manifest.get("files")
    check_form(manifest, {"files": OBJECT}, store.path(MANIFEST), _REMEDY)
    if verify and files != _files(folder):
        raise DamagedFileError(f"{folder} does not have the files that its manifest promises", _REMEDY)
    state = store.read_json(STATE)
    check_form(state, _STATE_FORM, store.path(STATE), _REMEDY)
    return Checkpoint(folder, Place(**{name: state[name] for name in _STATED}))


def hidden_folder(folder: Path, what: str = "") -> Path:
    """Where what becomes a checkpoint, or was one, is not seen as one; `what` tells several apart."""
    return folder.with_name(f".{folder.name}{what}.tmp")


def clear_hidden(output: Path) -> None:
    """Remove what killed runs left."""
    for left in (output / FOLDER).glob(".stage-*.tmp"):
        shutil.rmtree(left, ignore_errors=True)


def commit(hidden: Path, folder: Path, place: Place) -> None:
    """Make the files in `hidden` the checkpoint `folder`, once they have reached the disk. Raises `OSError`."""
    store = Store.at(hidden)
    store.write_json(STATE, asdict(place))
    store.write_json(MANIFEST, {"version": CHECKPOINT_VERSION, "files": _files(hidden, durable=True)})
    aside = hidden_folder(folder, ".old")
    if folder.exists():
        folder.rename(aside)
    hidden.rename(folder)
    _sync(folder.parent)
    shutil.rmtree(aside, ignore_errors=True)


def remove(folder: Path) -> None:
    """Remove a checkpoint, which is none from the first moment on."""
    hidden = hidden_folder(folder, ".old")
    shutil.rmtree(hidden, ignore_errors=True)
    folder.rename(hidden)
    shutil.rmtree(hidden, ignore_errors=True)


def _files(folder: Path, *, durable: bool = False) -> dict[str, dict[str, Any]]:
    """Bytes and sha256 of every file but the manifest, by name; `durable`: what was written is made to reach the disk."""
    found = {}
    for path in sorted(folder.rglob("*")):
        if path.is_dir():
            if durable:
                _sync(path)
        elif path != folder / MANIFEST:
            with path.open("rb") as file:
                if durable:
                    os.fsync(file.fileno())
                sha256 = hashlib.file_digest(file, "sha256").hexdigest()
            found[path.relative_to(folder).as_posix()] = {"bytes": path.stat().st_size, "sha256": sha256}
    return found


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
