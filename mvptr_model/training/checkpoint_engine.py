"""What DeepSpeed's engine holds, into checkpoints and out of them.

1. All ranks write into a hidden folder beside the others, for DeepSpeed writes its files in place.
2. Each tells which files it sees, of what size: on network file systems the first may see the others' later.
3. The first reads all back for their digests, makes them durable, and renames the folder: the commit.
4. The oldest ones above `keep` go.

A lost rank, too little memory and a full disk are told as such; none of them makes a checkpoint damaged.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from mvptr_data.errors import DamagedFileError, InputError, MvptrError, OutputError
from mvptr_data.storage import Store, output_errors
from mvptr_model.training.checkpoints import (
    ENGINE,
    FOLDER,
    Checkpoint,
    Place,
    clear_hidden,
    commit,
    hidden_folder,
    remove_oldest,
)
from mvptr_model.training.processes import World, means_lost_rank

if TYPE_CHECKING:
    from deepspeed import DeepSpeedEngine

#: DeepSpeed's form of its files that any number of ranks can load.
UNIVERSAL = "universal"
#: Seconds that the first rank waits to see what others wrote; NFS clients look again after at most 60.
SEEN_WITHIN = 120.0

_ROOM = "Make room there; --resume auto goes on from the checkpoint before."
_SHARED = "Give an output that every rank sees under the same path."
_AGAIN = "The checkpoint is as it was: try again, perhaps on another machine."
_MEMORY = "Take more ranks, or ones with more memory: `mvptr-train plan` counts it."
#: What torch says of files that it could not write to their end, and of memory that there is not.
_TORN = ("PytorchStreamWriter", "inline_container", "iostream error", "file write failed")
_NO_MEMORY = ("can't allocate memory", "CUDA out of memory", "MemoryError", "OutOfMemoryError", "BrokenProcessPool")
_ERRNO = re.compile(r"\[Errno (\d+)\]")
_PROBE_BYTES = 1 << 20


def save_checkpoint(engine: DeepSpeedEngine, output: Path, place: Place, world: World, keep: int) -> Path:
    """Write a checkpoint; all ranks call it together. Returns its folder.

    Raises `OutputError`, and `MvptrError` where memory is too little; then nothing of it stays.
    """
    folder = output / FOLDER / place.name
    hidden = hidden_folder(folder)
    with world.together():
        if world.leads:
            with _room(output):
                clear_hidden(output)
                hidden.mkdir(parents=True)
    try:
        _write_engine(engine, hidden, world)
        world.barrier()
        written = _written(hidden, world)
        with world.together():
            if world.leads:
                _await(hidden, written)
                with _room(output):
                    commit(hidden, folder, place)
                    remove_oldest(output, place.name, keep)
    except BaseException:
        if world.leads:
            shutil.rmtree(hidden, ignore_errors=True)
        raise
    return folder


def needs_universal(place: Place, world: World) -> bool:
    """Whether DeepSpeed's own files are for another number of ranks: those that share out optimizer states."""
    return place.zero > 0 and place.ranks != world.size


def load_checkpoint(engine: DeepSpeedEngine, checkpoint: Checkpoint, world: World) -> None:
    """Give the engine what the checkpoint holds, but for clipping and weight decay: they stay as its configuration says.

    All ranks call it together. Raises `DamagedFileError`, `InputError` where a rank cannot read it, `OutputError` and
    `MvptrError` where disk or memory are too little.
    """
    clipping = getattr(engine.optimizer, "clip_grad", None)
    decay = [group["weight_decay"] for group in engine.optimizer.param_groups]
    with _loadable(checkpoint, world) as (folder, tag):
        try:
            path, _ = engine.load_checkpoint(str(folder), tag=tag)
        except Exception as error:  # it raises all kinds
            if isinstance(error, MvptrError) or (isinstance(error, RuntimeError) and means_lost_rank(error)):
                raise
            _check_machine(error, f"rank {world.rank} loads {checkpoint.folder}")
            if isinstance(error, OSError):
                raise InputError(
                    f"rank {world.rank} cannot read {error.filename or folder}: {error.strerror or error}", _SHARED
                ) from error
            raise DamagedFileError(
                f"{checkpoint.folder} cannot be loaded ({error})", "Go on from another checkpoint."
            ) from error
        if path is None:
            raise InputError(f"rank {world.rank} finds nothing to load in {folder}", _SHARED)
        world.barrier()
    if clipping is not None:
        engine.optimizer.clip_grad = clipping
    for group, own in zip(engine.optimizer.param_groups, decay, strict=True):
        group["weight_decay"] = own


def _write_engine(engine: DeepSpeedEngine, folder: Path, world: World) -> None:
    try:
        with _room(folder):
            engine.save_checkpoint(str(folder), tag=ENGINE, save_latest=False)
    except RuntimeError as error:
        if means_lost_rank(error):
            raise
        _check_machine(error, f"rank {world.rank} writes {folder}")
        if not any(sign in str(error) for sign in _TORN):
            raise
        _probe(folder)
        raise OutputError(f"cannot write to {folder}: a file is not written to its end", _ROOM) from error


def _written(folder: Path, world: World) -> dict[str, int]:
    """Bytes of all files by name. What a rank wrote it sees whole; of the others' it may see less."""
    seen: dict[str, int] = {}
    with world.together():
        for path in folder.rglob("*"):
            if path.is_file():
                seen[path.relative_to(folder).as_posix()] = path.stat().st_size
    found: dict[str, int] = {}
    for rank in range(world.size):
        for name, size in json.loads(world.told(json.dumps(seen), rank)).items():
            found[name] = max(size, found.get(name, 0))
    return found


def _await(folder: Path, written: Mapping[str, int]) -> None:
    """Wait until this rank sees what all have written. Raises `OutputError`."""
    end = time.monotonic() + SEEN_WITHIN
    for name, size in written.items():
        while (seen := _size(folder / name)) != size:
            if time.monotonic() > end:
                raise OutputError(
                    f"{folder / name} has {size:,} bytes for the rank that wrote it, and for the first rank "
                    f"{'is not there' if seen is None else f'{seen:,}'}",
                    _SHARED,
                )
            time.sleep(0.1)


def _size(path: Path) -> int | None:
    try:
        with path.open("rb") as file:  # which makes NFS ask again
            return os.fstat(file.fileno()).st_size
    except FileNotFoundError:
        return None


@contextlib.contextmanager
def _loadable(checkpoint: Checkpoint, world: World) -> Iterator[tuple[Path, str]]:
    """Folder and tag for DeepSpeed; the universal form is made for the time of loading."""
    if not needs_universal(checkpoint.place, world):
        yield checkpoint.folder, ENGINE
        return
    hidden = hidden_folder(checkpoint.folder, f".{UNIVERSAL}")
    try:
        with world.together():
            if world.leads:
                shutil.rmtree(hidden, ignore_errors=True)
                _convert(checkpoint.folder / ENGINE, hidden / UNIVERSAL)
        yield hidden, UNIVERSAL
    finally:
        if world.leads:
            shutil.rmtree(hidden, ignore_errors=True)


def _convert(engine: Path, universal: Path) -> None:
    """DeepSpeed's files to its universal form, by its own tool in a process of its own: it starts workers."""
    with _room(universal.parent):
        universal.parent.mkdir()
    command = [sys.executable, "-m", "deepspeed.checkpoint.ds_to_universal", "--inject_missing_state"]
    command += ["--num_extract_workers", "1", "--num_merge_workers", "1"]
    command += ["--input_folder", str(engine), "--output_folder", str(universal)]
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, env=os.environ | {"DS_ACCELERATOR": "cpu"}
    )
    if not done.returncode:
        return
    what = f"{engine} is converted for another number of ranks"
    if done.returncode < 0:
        name = signal.Signals(-done.returncode).name
        raise MvptrError(f"while {what}, {name} ended it", _AGAIN)
    _check_machine(RuntimeError(done.stderr), what)
    with _room(universal.parent):
        if found := _ERRNO.search(done.stderr):
            number = int(found[1])
            raise OSError(number, os.strerror(number), str(universal))
    _probe(universal.parent)
    last = (done.stderr.strip().splitlines() or ["no message"])[-1]
    raise DamagedFileError(
        f"{engine} cannot be converted for another number of ranks ({last})", "Go on from another checkpoint."
    )


@contextlib.contextmanager
def _room(folder: Path) -> Iterator[None]:
    """`output_errors`, with what mends it here."""
    try:
        with output_errors(Store.at(folder)):
            yield
    except OutputError as error:
        error.mend = _ROOM
        raise


def _probe(folder: Path) -> None:
    """Raises `OutputError` where no more can be written: torch's own errors do not say why."""
    with _room(folder):
        path = folder / "probe"
        try:
            with path.open("wb", buffering=0) as file:
                left = memoryview(bytes(_PROBE_BYTES))
                while left:
                    left = left[file.write(left) :]
                os.fsync(file.fileno())
        finally:
            path.unlink(missing_ok=True)


def _check_machine(error: Exception, what: str) -> None:
    """Raises `MvptrError` where an error is the machine's own: too little memory, or a device that fails."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError) or any(sign in str(error) for sign in _NO_MEMORY):
        raise MvptrError(f"too little memory while {what}", _MEMORY) from error
    if isinstance(error, torch.AcceleratorError):
        raise MvptrError(f"the device fails while {what} ({str(error).splitlines()[0]})", _AGAIN) from error
