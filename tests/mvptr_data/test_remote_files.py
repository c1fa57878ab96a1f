"""A data set behind a plain web server: read as well as any, never written to, and an outage is not an empty folder."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from mvptr_data.errors import OutputError, UnreachableError
from mvptr_data.sources import remote
from mvptr_data.storage import Store


class Handler(SimpleHTTPRequestHandler):
    """Knows no ranges; answers 500 while the server is `broken`."""

    def send_head(self):  # type: ignore[no-untyped-def]
        if self.server.broken:  # type: ignore[attr-defined]
            self.send_error(500)
            return None
        return super().send_head()

    def log_message(self, *_: object) -> None:
        pass


class Server(ThreadingHTTPServer):
    broken = False

    @property
    def store(self) -> Store:
        return Store.at(f"http://127.0.0.1:{self.server_address[1]}/set")


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setattr(remote, "PAUSES", (0.01,))
    found = Server(("127.0.0.1", 0), partial(Handler, directory=str(tmp_path)))
    thread = threading.Thread(target=found.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield found
    found.shutdown()
    found.server_close()
    thread.join()


def test_files_are_read_by_range_from_a_server_that_knows_none(server: Server, tmp_path: Path) -> None:
    local, data = Store.at(tmp_path / "set"), bytes(range(256)) * 5000
    local.write("a/b.bin", data)
    local.write_json("c.json", {"a": 1})
    store = server.store
    assert store.read_json("c.json") == {"a": 1} and store.sha256("a/b.bin") == local.sha256("a/b.bin")
    assert store.exists("a/b.bin") and store.size("a/b.bin") == len(data)
    with store.open("a/b.bin") as file:
        file.seek(1_000_000)
        assert file.read(300) == data[1_000_000:1_000_300]


def test_what_is_not_there_is_told_from_a_server_that_is_out_of_order(server: Server, tmp_path: Path) -> None:
    Store.at(tmp_path / "set").write("a.bin", b"1")
    store = server.store
    assert not store.exists("b.bin") and store.size("b.bin") is None
    with pytest.raises(FileNotFoundError, match=r"/set/b\.bin"):
        store.open("b.bin")
    with store.open("a.bin") as opened:
        server.broken = True
        with pytest.raises(UnreachableError, match=r"/set/a\.bin cannot be read: the server answers 500\. Look"):
            opened.read()
    for look in (store.exists, store.size, store.read, store.read_json, store.names):
        with pytest.raises(UnreachableError, match="500"):
            look("a.bin")


def test_a_web_server_is_not_written_to(server: Server, tmp_path: Path) -> None:
    (tmp_path / "set").mkdir()
    with pytest.raises(
        OutputError, match=r"cannot write http://.*/set/a\.bin: web servers are read only\. Give a folder"
    ):
        server.store.write("a.bin", b"1")
    assert list((tmp_path / "set").iterdir()) == []
