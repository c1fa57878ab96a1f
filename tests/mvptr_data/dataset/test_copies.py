"""Local copies of a remote data set's files: whole, verified, bounded, shared by processes."""

from __future__ import annotations

import functools
import hashlib
import http.server
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from random import Random

import pytest

from mvptr_data.dataset import copies
from mvptr_data.dataset.copies import LocalCopies
from mvptr_data.errors import DamagedFileError, IncompleteError, InputError
from mvptr_data.sources import remote
from mvptr_data.storage import Store

FILES = {f"regions/{number:05d}.tar": Random(number).randbytes(1000 + number) for number in range(4)}


@pytest.fixture
def store() -> Iterator[Store]:
    store = Store.at("memory://data")
    for name, data in FILES.items():
        store.write(name, data)
    yield store
    store.remove_folder("regions")


def facts(name: str) -> dict[str, object]:
    return {"size": len(FILES[name]), "sha256": hashlib.sha256(FILES[name]).hexdigest()}


def fetched(copies_: LocalCopies, number: int) -> Path:
    name = f"regions/{number:05d}.tar"
    return copies_.path(name, **facts(name))  # type: ignore[arg-type]


def test_a_local_data_set_is_read_where_it_lies(tmp_path: Path) -> None:
    local = LocalCopies(Store.at(tmp_path / "data"), folder=tmp_path / "cache", limit=1)
    assert fetched(local, 0) == tmp_path / "data/regions/00000.tar"
    assert not (tmp_path / "cache").exists()


def test_a_copy_is_made_once_in_pieces(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(copies, "PIECE", 300)
    local = LocalCopies(store, folder=tmp_path, limit=10_000)
    path = fetched(local, 1)
    assert path.read_bytes() == FILES["regions/00001.tar"]
    store.remove("regions/00001.tar")
    assert fetched(LocalCopies(store, folder=tmp_path, limit=10_000), 1) == path


def test_a_torn_copy_is_gone_on_with(store: Store, tmp_path: Path) -> None:
    local = LocalCopies(store, folder=tmp_path, limit=10_000)
    path = fetched(local, 2)
    data = path.read_bytes()
    path.unlink()
    # The file behind is another one but for what is lacking here: only that is asked for.
    path.with_name(path.name + ".part").write_bytes(data[:700])
    store.write("regions/00002.tar", b"x" * 700 + data[700:])
    assert fetched(local, 2).read_bytes() == data


def test_an_unsound_half_copy_is_begun_anew(store: Store, tmp_path: Path) -> None:
    local = LocalCopies(store, folder=tmp_path, limit=10_000)
    path = fetched(local, 2)
    for half in (b"\0" * 700, b"\0" * 5000):
        path.unlink()
        path.with_name(path.name + ".part").write_bytes(half)
        assert fetched(local, 2).read_bytes() == FILES["regions/00002.tar"]


def test_what_arrives_otherwise_is_refused(store: Store, tmp_path: Path) -> None:
    local = LocalCopies(store, folder=tmp_path, limit=10_000)
    data = FILES["regions/00000.tar"]
    for wrong, message in (
        (data[:-1] + b"\0", "arrived with the sha256"),
        (data[:-1], "ends after 999 bytes"),
        (None, "is missing"),
    ):
        store.write("regions/00000.tar", wrong) if wrong else store.remove("regions/00000.tar")
        with pytest.raises(DamagedFileError, match=message):
            fetched(local, 0)
    store.write("regions/00000.tar", data)
    assert fetched(local, 0).read_bytes() == data


@pytest.mark.parametrize("sha256", ["../../etc/passwd", "", "A" * 64])
def test_a_digest_is_no_path(store: Store, tmp_path: Path, sha256: str) -> None:
    with pytest.raises(DamagedFileError, match="is promised as the sha256"):
        LocalCopies(store, folder=tmp_path / "cache", limit=9999).path("regions/00000.tar", size=1000, sha256=sha256)


def test_those_used_longest_ago_go_first(store: Store, tmp_path: Path) -> None:
    local = LocalCopies(store, folder=tmp_path, limit=2100)
    first, second = fetched(local, 0), fetched(local, 1)
    for path, age in ((first, 20), (second, 10)):
        os.utime(path, (time.time() - age, time.time() - age))
    with second.open("rb") as still_open:
        assert fetched(local, 0) == first  # used again
        third = fetched(local, 2)
        assert [path.exists() for path in (first, second, third)] == [True, False, True]
        assert still_open.read() == FILES["regions/00001.tar"]
    with pytest.raises(InputError, match="larger than the 100 bytes"):
        fetched(LocalCopies(store, folder=tmp_path, limit=100), 3)


def test_half_copies_that_nobody_goes_on_with_make_room(store: Store, tmp_path: Path) -> None:
    fresh, old = (tmp_path / f"{digit * 64}.part" for digit in "ab")
    for part in (fresh, old):
        part.write_bytes(b"x" * 1000)
    os.utime(old, (1, 1))
    fetched(LocalCopies(store, folder=tmp_path, limit=2100), 0)
    assert fresh.exists() and not old.exists()


CLIENT = """
import sys
from mvptr_data.dataset.copies import LocalCopies
from mvptr_data.storage import Store
root, folder, size, sha256 = sys.argv[1:]
print(LocalCopies(Store.at(root), folder=folder, limit=10**6).path("regions/00003.tar", size=int(size), sha256=sha256))
"""


@pytest.fixture
def server(tmp_path: Path) -> Iterator[tuple[str, list[str]]]:
    """A web server over the files, and the requests it has had."""
    for name, data in FILES.items():
        (tmp_path / "web" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "web" / name).write_bytes(data)
    asked: list[str] = []

    class Handler(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *words: object) -> None:
            asked.append(str(words))

    served = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Handler, directory=tmp_path / "web"))
    threading.Thread(target=served.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{served.server_address[1]}", asked
    served.shutdown()
    served.server_close()


def test_processes_share_one_copy(server: tuple[str, list[str]], tmp_path: Path) -> None:
    name = "regions/00003.tar"
    known = facts(name)
    command = [
        sys.executable,
        "-c",
        CLIENT,
        server[0],
        str(tmp_path / "cache"),
        str(known["size"]),
        str(known["sha256"]),
    ]
    running = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    said = {process.communicate(timeout=60)[0].strip() for process in running}
    assert said == {str(tmp_path / "cache" / str(known["sha256"]))}
    assert Path(said.pop()).read_bytes() == FILES[name]
    assert len(server[1]) == 1


def test_a_silent_server_is_waited_for_and_then_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote, "PAUSES", (0.01,))
    local = LocalCopies(Store.at("http://127.0.0.1:1"), folder=tmp_path, limit=10_000)
    with pytest.raises(IncompleteError, match="cannot be read: the connection fails"):
        fetched(local, 0)
