"""What is removed is in test_retry_and_add.py; here, when and how it can be removed."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import fsspec
import pytest
from click.testing import CliRunner

from mvptr_data.dataset.lock_files import Slice
from mvptr_data.dataset.locks import hold_lock
from mvptr_data.errors import BusyError
from mvptr_data.storage import Store
from pipelines.cli import main
from pipelines.collect_garbage import collect_garbage

LEFT = "regions/.00001.tar.1-ff.tmp"


def test_a_dry_run_needs_no_lock(data_set: Path) -> None:
    (data_set / LEFT).write_bytes(b"left")
    with hold_lock(Store.at(data_set), "regions", Slice(1, 3)):
        before = sorted(path.name for path in (data_set / "locks").iterdir())
        assert collect_garbage(str(data_set), dry_run=True, younger_than=0).names == (LEFT,)
        assert sorted(path.name for path in (data_set / "locks").iterdir()) == before
        with pytest.raises(BusyError):
            collect_garbage(str(data_set), younger_than=0)
    assert collect_garbage(str(data_set), younger_than=0).bytes == 4


def test_ages_on_a_remote_store(data_set: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    memory = fsspec.filesystem("memory")
    memory.put(str(data_set), "/garbage", recursive=True)
    memory.pipe(f"/garbage/{LEFT}", b"left")
    try:
        garbage = collect_garbage("memory://garbage", dry_run=True)
        assert (garbage.names, garbage.young, garbage.ageless) == ((), 1, 0)

        def unknown(_: object, path: str) -> None:
            raise NotImplementedError(path)

        monkeypatch.setattr(type(memory), "modified", unknown)
        garbage = collect_garbage("memory://garbage", dry_run=True)
        assert (garbage.names, garbage.young, garbage.ageless) == ((LEFT,), 0, 1)
        said = CliRunner().invoke(main, ["gc", "memory://garbage", "--dry-run"]).output
        assert "does not say when files were written: 1" in said
    finally:
        memory.rm("/garbage", recursive=True)


def test_the_command_says_what_it_leaves(data_set: Path) -> None:
    (data_set / LEFT).write_bytes(b"left")
    os.utime(data_set / LEFT, (0, 0))
    (data_set / "text/.00001.tar.1-ff.tmp").write_bytes(b"being written")
    said = CliRunner().invoke(main, ["gc", str(data_set)]).output
    assert said.splitlines() == [
        LEFT,
        "1 files, freed 0.0 MB",
        "1 more were written in the last 60 minutes and stay (--min-age)",
    ]
    assert CliRunner().invoke(main, ["gc", str(data_set), "--min-age", "0"]).output.startswith("text/.00001.tar")


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 8 MB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(folder)]
    try:
        mounted = subprocess.run(mount, capture_output=True).returncode == 0
    except OSError:
        mounted = False
    if not mounted:
        pytest.skip("mounting a small file system is not allowed here")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def fill(folder: Path) -> None:
    """Write until there is no byte left."""
    with (folder / "fill").open("wb", buffering=0) as file:
        for size in (1 << 16, 1 << 10, 1):
            try:
                while file.write(bytes(size)):
                    pass
            except OSError:
                continue


HOLD = """
import sys
from mvptr_data.dataset.locks import hold_lock
from mvptr_data.storage import Store
with hold_lock(Store.at(sys.argv[1]), "text"):
    print("held", flush=True)
    sys.stdin.readline()
"""


def test_on_a_full_disk_it_makes_room_and_respects_who_works_there(published: Path, small_disk: Path) -> None:
    out = small_disk / "out"
    shutil.copytree(published, out)
    (out / "locks").mkdir(exist_ok=True)
    (out / LEFT).write_bytes(bytes(100_000))
    command = [sys.executable, "-c", HOLD, str(out)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None and holder.stdout.readline() == "held\n"
        fill(small_disk)
        with pytest.raises(OSError, match="No space left"):
            (out / "more").write_bytes(bytes(5000))
        with pytest.raises(BusyError):
            collect_garbage(str(out), younger_than=0)
        holder.communicate("\n")
    fill(small_disk)
    assert collect_garbage(str(out), dry_run=True, younger_than=0).names == (LEFT,)
    assert collect_garbage(str(out), younger_than=0).names == (LEFT,)
    assert not (out / LEFT).exists() and not list((out / "locks").glob("*.json"))


def test_a_dry_run_on_a_read_only_disk(published: Path, small_disk: Path) -> None:
    out = small_disk / "out"
    shutil.copytree(published, out)
    (out / LEFT).write_bytes(b"left")
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    assert collect_garbage(str(out), dry_run=True, younger_than=0).names == (LEFT,)
