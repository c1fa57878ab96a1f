from __future__ import annotations

import json
import os
import resource
import shutil
import signal
from pathlib import Path

import pytest

from mvptr_data.errors import DamagedFileError, FormatVersionError, InputError, OutputError
from mvptr_data.storage import Store
from mvptr_model.training.checkpoints import (
    names,
    newest_checkpoint,
    open_checkpoint,
    remove_after,
    remove_oldest,
)
from mvptr_model.training.pretrain import pretrain
from mvptr_model.training.processes import StoppedError
from tests.mvptr_model.training.conftest import Settings
from tests.mvptr_model.training.curve import Heard, places


@pytest.fixture
def checkpoint(small: Settings) -> Path:
    """One that a run has written after its second step."""
    settings = small(stages=[{"stage": 1, "steps": 3}], checkpoints={"minutes": None, "steps": 2})
    pretrain(settings)
    return Path(settings.output) / "checkpoints" / "stage-1-step-00000002"


def test_it_holds_where_the_run_was(checkpoint: Path) -> None:
    place = open_checkpoint(checkpoint).place
    assert (place.stage, place.step, place.ranks, place.zero, place.stream["samples"]) == (1, 2, 1, 2, 32)
    assert place.name == checkpoint.name
    manifest = json.loads((checkpoint / "manifest.json").read_text())
    files = {path.relative_to(checkpoint).as_posix() for path in checkpoint.rglob("*") if path.is_file()}
    assert manifest["files"].keys() == files - {"manifest.json"}


def test_what_is_not_as_promised_is_damaged(checkpoint: Path, tmp_path: Path) -> None:
    store = Store.at(checkpoint)
    manifest = store.read_json("manifest.json")

    def refused(match: str, error: type[Exception] = DamagedFileError) -> None:
        with pytest.raises(error, match=match):
            open_checkpoint(checkpoint)

    state = store.read("state.json")
    for broken in (b"{}", b"[]", state.replace(b'"stage": 1', b'"stage": "1"')):
        store.write("state.json", broken)
        refused("files that its manifest promises")
    store.write("state.json", state)
    (checkpoint / "engine" / "extra.pt").touch()
    refused("files that its manifest promises")
    (checkpoint / "engine" / "extra.pt").unlink()
    open_checkpoint(checkpoint)
    store.write_json("manifest.json", manifest | {"version": 99})
    refused("version 99", FormatVersionError)
    store.write_json("manifest.json", {"version": 1, "files": []})
    refused("files")
    store.write("manifest.json", b'{"version": 1, "fi')
    refused("not JSON")
    store.remove("manifest.json")
    refused("has no manifest.json")
    with pytest.raises(InputError, match="is no folder"):
        open_checkpoint(tmp_path / "nowhere")


def test_names_are_in_the_order_of_the_run(tmp_path: Path) -> None:
    for name in ("stage-2-step-00000001", "stage-1-step-00000010", "stage-1-step-123456789", "stage-1-step-00000009"):
        (tmp_path / "checkpoints" / name).mkdir(parents=True)
    for name in (".stage-1-step-00000011.tmp", "stage-3-step-00000001", "stage-1-step-9", "notes.txt"):
        (tmp_path / "checkpoints" / name).mkdir()
    found = [name.removeprefix("stage-") for name in names(tmp_path)]
    assert found == ["1-step-00000009", "1-step-00000010", "1-step-123456789", "2-step-00000001"]
    said: list[str] = []
    with pytest.raises(DamagedFileError, match="none of the 3 checkpoints of stage 1"):
        newest_checkpoint(tmp_path, 1, said.append)
    assert len(said) == 3
    assert names(tmp_path / "nowhere") == []
    assert newest_checkpoint(tmp_path / "nowhere", 1, said.append) is None


def test_the_one_just_written_is_never_removed(tmp_path: Path) -> None:
    def left(keep: int) -> list[int]:
        for step in (4, 5, 6, 7):
            (tmp_path / "checkpoints" / f"stage-1-step-{step:08d}").mkdir(parents=True, exist_ok=True)
        remove_oldest(tmp_path, "stage-1-step-00000005", keep)
        return [int(name[-1]) for name in names(tmp_path)]

    assert [left(keep) for keep in (1, 2, 5)] == [[5, 6, 7], [4, 5, 6, 7], [4, 5, 6, 7]]
    remove_after(tmp_path, "stage-1-step-00000005")
    assert [int(name[-1]) for name in names(tmp_path)] == [4, 5]
    assert not list((tmp_path / "checkpoints").glob(".*"))


def test_a_full_disk_ends_the_run_with_the_last_checkpoint(small: Settings) -> None:
    """No file may grow beyond 20 kB from the third step on."""
    settings = small(stages=[{"stage": 1, "steps": 6}], checkpoints={"steps": 2, "minutes": None})
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)

    def fill() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, limits[1]))

    try:
        with pytest.raises(
            OutputError, match=r"cannot write to .*: File too large. Make room there; --resume auto goes on"
        ):
            pretrain(settings, listener=Heard({(1, 3): fill}))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert not list((Path(settings.output) / "checkpoints").glob(".*"))
    assert names(Path(settings.output)) == ["stage-1-step-00000002"]
    pretrain(settings)
    assert places(settings.output) == [(1, step) for step in range(1, 7)]
    assert not list((Path(settings.output) / "checkpoints").glob(".*"))


def test_a_link_in_the_place_of_a_run_is_followed(small: Settings, tmp_path: Path) -> None:
    """The disk that a run is on may change while it rests."""
    settings = small(stages=[{"stage": 1, "steps": 4}])
    with pytest.raises(StoppedError):
        pretrain(settings, listener=Heard({(1, 1): lambda: os.kill(os.getpid(), signal.SIGTERM)}))
    shutil.move(settings.output, tmp_path / "elsewhere")
    Path(settings.output).symlink_to(tmp_path / "elsewhere")
    pretrain(settings)
    assert places(settings.output) == [(1, step) for step in range(1, 5)]
