"""Checkpoints that are whole or are none.

    checkpoints/stage-1-step-00000100/
        engine/...          DeepSpeed's own files: weights, optimizer states, loss scale
        state.json          stage, step, ranks, ZeRO stage, the stream's place (whose seed is the masks', too)
        manifest.json       every file's bytes and sha256; written last, before the folder gets its name

1. All ranks write into a hidden folder beside the others, for DeepSpeed writes its files in place.
2. The first rank reads them back for their digests, makes them durable, and renames the folder: the commit.
3. The oldest ones above `keep` go.

What is not as its manifest promises is passed over. DeepSpeed's files are pickles, so only checkpoints of one's own are to be
gone on from; saved models (`saved_model.py`) hold none.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mvptr_data.dataset.forms import COUNT, OBJECT, Form, check_form
from mvptr_data.errors import DamagedFileError, FormatVersionError, InputError, MvptrError, OutputError
from mvptr_data.storage import Store, output_errors
from mvptr_model.training.processes import World, means_lost_rank

if TYPE_CHECKING:
    from deepspeed import DeepSpeedEngine

CHECKPOINT_VERSION = 1
FOLDER, MANIFEST, STATE = "checkpoints", "manifest.json", "state.json"
#: DeepSpeed's files, and the form of them that any number of ranks can load.
ENGINE, UNIVERSAL = "engine", "universal"

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


def save_checkpoint(engine: DeepSpeedEngine, output: Path, place: Place, world: World, keep: int) -> Path:
    """Write a checkpoint; all ranks call it together. Returns its folder. Raises `OutputError`."""
    folder = output / FOLDER / place.name
    hidden = folder.with_name(f".{place.name}.tmp")
    with world.together():
        if world.leads:
            with output_errors(Store.at(output)):
                folder.parent.mkdir(parents=True, exist_ok=True)
                for left in folder.parent.glob(".stage-*.tmp"):  # by a run that was killed
                    _remove(left)
                hidden.mkdir()
    _write_engine(engine, hidden)
    world.barrier()
    with world.together():
        if world.leads:
            with output_errors(Store.at(output)):
                _commit(hidden, folder, place)
                for old in names(output)[:-keep]:
                    _remove(output / FOLDER / old)
    return folder


def _write_engine(engine: DeepSpeedEngine, folder: Path) -> None:
    try:
        with output_errors(Store.at(folder)):
            engine.save_checkpoint(str(folder), tag=ENGINE, save_latest=False)
    except RuntimeError as error:
        if means_lost_rank(error):
            raise
        # What torch says of a full disk.
        raise OutputError(
            f"cannot write to {folder}: {str(error).splitlines()[0]}",
            "Make room there and run the same command again; it goes on from the checkpoint before.",
        ) from error


def names(output: Path) -> list[str]:
    """The checkpoints of a run, the oldest first, whether sound or not."""
    found = [name for name in Store.at(output).entries(FOLDER) if _NAME.fullmatch(name)]
    return sorted(found, key=_order)


def newest_checkpoint(output: Path, stage: int, say: Callable[[str], None]) -> Checkpoint | None:
    """The newest sound checkpoint of a run's stage, or None; `say` hears why others were passed over.

    Raises `FormatVersionError` for one of another release: it is sound, and what came after it would be lost.
    """
    for name in reversed([name for name in names(output) if _order(name)[0] == stage]):
        try:
            return open_checkpoint(output / FOLDER / name)
        except DamagedFileError as error:
            say(f"passed over {name}: {error}")
    return None


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


def needs_universal(place: Place, world: World) -> bool:
    """Whether DeepSpeed's own files are for another number of ranks: those that share out optimizer states."""
    return place.zero > 0 and place.ranks != world.size


def load_checkpoint(engine: DeepSpeedEngine, checkpoint: Checkpoint, world: World) -> None:
    """Give the engine what the checkpoint holds; all ranks call it together. Raises `DamagedFileError`."""
    with _loadable(checkpoint, world) as (folder, tag):
        try:
            path, _ = engine.load_checkpoint(str(folder), tag=tag)
        except MvptrError:
            raise
        except Exception as error:  # it raises all kinds
            raise DamagedFileError(f"{checkpoint.folder} cannot be loaded ({error})", _REMEDY) from error
        if path is None:
            raise DamagedFileError(f"{checkpoint.folder} holds nothing for rank {world.rank}", _REMEDY)
        world.barrier()


@contextlib.contextmanager
def _loadable(checkpoint: Checkpoint, world: World) -> Iterator[tuple[Path, str]]:
    """Folder and tag for DeepSpeed; the universal form is made for the time of loading."""
    if not needs_universal(checkpoint.place, world):
        yield checkpoint.folder, ENGINE
        return
    hidden = checkpoint.folder.with_name(f".{checkpoint.place.name}.{UNIVERSAL}.tmp")
    with world.together():
        if world.leads:
            _remove(hidden)
            _convert(checkpoint.folder / ENGINE, hidden / UNIVERSAL)
    try:
        yield hidden, UNIVERSAL
    finally:
        if world.leads:
            _remove(hidden)


def _convert(engine: Path, universal: Path) -> None:
    """DeepSpeed's files to its universal form, by its own tool in a process of its own: it starts workers."""
    universal.parent.mkdir()
    command = [sys.executable, "-m", "deepspeed.checkpoint.ds_to_universal", "--inject_missing_state"]
    command += ["--num_extract_workers", "1", "--num_merge_workers", "1"]
    command += ["--input_folder", str(engine), "--output_folder", str(universal)]
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, env=os.environ | {"DS_ACCELERATOR": "cpu"}
    )
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise DamagedFileError(f"{engine} cannot be converted for another number of ranks ({last})", _REMEDY)


def _commit(hidden: Path, folder: Path, place: Place) -> None:
    store = Store.at(hidden)
    store.write_json(STATE, asdict(place))
    store.write_json(MANIFEST, {"version": CHECKPOINT_VERSION, "files": _files(hidden, durable=True)})
    _remove(folder)  # one that was passed over, or the run was begun again before it
    hidden.rename(folder)
    _sync(folder.parent)


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


def _order(name: str) -> tuple[int, int]:
    stage, step = _NAME.fullmatch(name).groups()  # type: ignore[union-attr]
    return int(stage), int(step)


def _remove(folder: Path) -> None:
    """Remove a folder; its manifest first, so that what is half removed is no checkpoint."""
    (folder / MANIFEST).unlink(missing_ok=True)
    shutil.rmtree(folder, ignore_errors=True)


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
