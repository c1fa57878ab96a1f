"""What keeps a checkpoint from being written or loaded is told as what it is."""

from __future__ import annotations

import json
import subprocess
import threading
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.distributed as dist

from mvptr_data.errors import DamagedFileError, InputError, MvptrError, OutputError
from mvptr_model.training import checkpoint_engine
from mvptr_model.training.checkpoint_engine import load_checkpoint, save_checkpoint
from mvptr_model.training.checkpoints import Checkpoint, Place, names, open_checkpoint
from mvptr_model.training.processes import World, joined

PLACE = Place(stage=1, step=3, ranks=1, zero=2, stream={})
LOST = RuntimeError("[gloo/transport/tcp/pair.cc:534] Connection closed by peer [127.0.0.1]:1234")
DISK = OSError(28, "No space left on device")


class Engine:
    """Writes one file, or raises."""

    def __init__(self, error: BaseException | None = None) -> None:
        self.error = error
        self.optimizer = SimpleNamespace(clip_grad=1.0, param_groups=[{"weight_decay": 0.1}])

    def save_checkpoint(self, folder: str, tag: str, save_latest: bool) -> None:
        (Path(folder) / tag).mkdir()
        (Path(folder) / tag / "half.pt").write_bytes(b"1234")
        if self.error is not None:
            raise self.error

    def load_checkpoint(self, folder: str, tag: str) -> tuple[str | None, None]:
        if self.error is not None:
            raise self.error
        return None, None


WRITING = [
    (DISK, OutputError, "No space left on device. Make room there"),
    (LOST, RuntimeError, "Connection closed by peer"),
    (torch.OutOfMemoryError("CUDA out of memory."), MvptrError, "too little memory while rank 0 writes"),
    (RuntimeError("[enforce fail at inline_container.cc:858]"), OutputError, "is not written to its end"),
    (RuntimeError("a fault of ours"), RuntimeError, "a fault of ours"),
]
LOADING = [
    (LOST, RuntimeError, "Connection closed by peer"),
    (torch.OutOfMemoryError("CUDA out of memory."), MvptrError, "too little memory while rank 0 loads"),
    (MemoryError(), MvptrError, "too little memory"),
    (torch.AcceleratorError("CUDA error: unspecified launch failure"), MvptrError, "the device fails"),
    (PermissionError(13, "Permission denied", "x.pt"), InputError, "rank 0 cannot read x.pt: Permission denied"),
    (None, InputError, "rank 0 finds nothing to load"),
    (KeyError("optimizer"), DamagedFileError, "cannot be loaded"),
]


@pytest.mark.parametrize(("error", "raised", "said"), WRITING)
def test_what_hinders_writing(tmp_path: Path, error: BaseException, raised: type[Exception], said: str) -> None:
    with joined() as world:
        with pytest.raises(raised, match=said) as found:
            save_checkpoint(Engine(error), tmp_path, PLACE, world, 3)  # type: ignore[arg-type]
        assert isinstance(found.value, MvptrError) == issubclass(raised, MvptrError)
    assert list((tmp_path / "checkpoints").iterdir()) == []


@pytest.mark.parametrize(("error", "raised", "said"), LOADING)
def test_what_hinders_loading(tmp_path: Path, error: BaseException, raised: type[Exception], said: str) -> None:
    with joined() as world, pytest.raises(raised, match=said) as found:
        load_checkpoint(Engine(error), Checkpoint(tmp_path, PLACE), world)  # type: ignore[arg-type]
    assert isinstance(found.value, DamagedFileError) == (raised is DamagedFileError)


@pytest.mark.parametrize(
    ("code", "stderr", "raised", "said"),
    [
        (1, "OSError: [Errno 28] No space left on device", OutputError, "No space left on device"),
        (1, "DefaultCPUAllocator: can't allocate memory: 9 bytes", MvptrError, "too little memory"),
        (-9, "", MvptrError, "SIGKILL ended it"),
        (1, "KeyError: 'param_shapes'", DamagedFileError, "cannot be converted .*KeyError"),
    ],
)
def test_what_hinders_the_conversion(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int, stderr: str, raised: type[Exception], said: str
) -> None:
    def run(*_: Any, **__: Any) -> subprocess.CompletedProcess[str]:
        return subprocess.CompletedProcess([], code, "", stderr)

    monkeypatch.setattr(subprocess, "run", run)
    place = Place(stage=1, step=3, ranks=2, zero=2, stream={})
    (tmp_path / "stage-1-step-00000003").mkdir()
    with joined() as world, pytest.raises(raised, match=said):
        load_checkpoint(Engine(), Checkpoint(tmp_path / "stage-1-step-00000003", place), world)  # type: ignore[arg-type]
    assert [path.name for path in tmp_path.iterdir()] == ["stage-1-step-00000003"]


class TwoRanks(World):
    """Tells the first rank what another one says that it wrote."""

    def told(self, text: str, rank: int = 0) -> str:
        return json.dumps({"engine/other.pt": 6}) if rank else text


def two_ranks() -> World:
    return TwoRanks(0, 2, torch.device("cpu"))


def test_what_others_wrote_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a network file system it is seen late, and small at first."""
    hidden = tmp_path / "checkpoints" / ".stage-1-step-00000003.tmp" / "engine"

    def late() -> None:
        while not (hidden / "half.pt").exists():
            time.sleep(0.01)
        for data in (b"abc", b"abcdef"):
            time.sleep(0.3)
            (hidden / "other.pt").write_bytes(data)

    with joined():
        writing = threading.Thread(target=late)
        writing.start()
        folder = save_checkpoint(Engine(), tmp_path, PLACE, two_ranks(), 3)  # type: ignore[arg-type]
        writing.join()
        open_checkpoint(folder)
        assert json.loads((folder / "manifest.json").read_text())["files"]["engine/other.pt"]["bytes"] == 6
        monkeypatch.setattr(checkpoint_engine, "SEEN_WITHIN", 0.2)
        with pytest.raises(OutputError, match=r"other.pt has 6 bytes for the rank that wrote it.* is not there"):
            save_checkpoint(Engine(), tmp_path, PLACE, two_ranks(), 3)  # type: ignore[arg-type]
    assert names(tmp_path) == [PLACE.name]


def test_an_older_one_of_the_same_name_goes_after_the_new_one_is_there(tmp_path: Path) -> None:
    with joined() as world:
        for stream in ({"a": 1}, {"b": 2}):
            place = Place(stage=1, step=3, ranks=1, zero=2, stream=stream)
            folder = save_checkpoint(Engine(), tmp_path, place, world, 3)  # type: ignore[arg-type]
            assert open_checkpoint(folder).place.stream == stream
            assert [path.name for path in folder.parent.iterdir()] == [place.name]
    assert not dist.is_initialized()
