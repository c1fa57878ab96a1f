from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from mvptr_data.storage import Store


def synced(monkeypatch: pytest.MonkeyPatch, error: OSError | None = None) -> list[str]:
    """The paths that are synced from now on; folders answer with `error`."""
    real, found = os.fsync, []

    def fsync(descriptor: int) -> None:
        path = Path(f"/proc/self/fd/{descriptor}").readlink()
        found.append(str(path))
        if error is not None and path.is_dir():
            raise error
        real(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    return found


def test_a_new_folder_lasts_as_its_files_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = synced(monkeypatch)
    Store.at(tmp_path).write("a/b/c.bin", b"1")
    temporary = found.pop(2)
    assert temporary.startswith(str(tmp_path / "a/b/.c.bin.")) and found == [
        str(tmp_path),
        str(tmp_path / "a"),
        str(tmp_path / "a/b"),
    ]
    found.clear()
    Store.at(tmp_path).write("a/b/d.bin", b"1")
    assert len(found) == 2, "a folder that is there is not synced again"


@pytest.mark.parametrize("number", [errno.EINVAL, errno.ENOTSUP])
def test_file_systems_that_sync_no_folders_are_written_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    synced(monkeypatch, OSError(number, os.strerror(number)))
    store = Store.at(tmp_path)
    store.write("a/b.bin", b"1")
    assert store.read("a/b.bin") == b"1"


def test_a_disk_that_fails_is_not_written_to_in_silence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced(monkeypatch, OSError(errno.EIO, os.strerror(errno.EIO)))
    with pytest.raises(OSError, match="Input/output error"):
        Store.at(tmp_path).write("b.bin", b"1")
