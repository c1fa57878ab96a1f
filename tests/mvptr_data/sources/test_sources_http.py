"""Images behind HTTP: a real server with pages, byte ranges and outages."""

from __future__ import annotations

import http.server
import io
import os
import re
import shutil
import socket
import tarfile
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import fsspec.config
import pytest

from mvptr_data.errors import InputError, SampleFault
from mvptr_data.sources import files, remote
from mvptr_data.sources.captions import read_captions
from mvptr_data.sources.files import open_file
from mvptr_data.sources.images import ImageRef, list_images, read_image_bytes


class Handler(http.server.SimpleHTTPRequestHandler):
    """Files and pages of a folder; what `server.plan` says of a path happens first, one entry a request."""

    protocol_version = "HTTP/1.1"
    server: Server

    def do_GET(self) -> None:
        self.server.seen[self.command, self.path] += 1
        mishaps = self.server.plan[self.path]
        mishap = mishaps[0] if len(mishaps) == 1 else mishaps.pop(0) if mishaps else None
        if self.server.token not in ("", self.headers.get("X-Token")):
            self.send_error(401)
        elif isinstance(mishap, int) and mishap != 200:
            self.send_error(mishap)
        elif mishap == "hang":
            self.server.released.wait(30)
            self.close_connection = True
        elif mishap == "drop":
            self.connection.shutdown(socket.SHUT_RDWR)
            self.close_connection = True
        elif mishap == "cut":
            self.send_response(200)
            self.send_header("Content-Length", "1000")
            self.end_headers()
            self.wfile.write(b"x" * 10)
            self.close_connection = True
        else:
            self._give()

    do_HEAD = do_GET  # noqa: N815 - the name that the base class calls

    def _give(self) -> None:
        path = Path(self.translate_path(self.path))
        wanted = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", ""))
        if not path.is_file() or wanted is None or not self.server.has_ranges:
            (super().do_HEAD if self.command == "HEAD" else super().do_GET)()
            return
        data = path.read_bytes()
        part = data[int(wanted[1]) : int(wanted[2]) + 1]
        self.server.bytes_sent += len(part)
        self.send_response(206 if part else 416)
        self.send_header("Content-Length", str(len(part)))
        self.send_header("Content-Range", f"bytes {wanted[1]}-{int(wanted[1]) + len(part) - 1}/{len(data)}")
        self.end_headers()
        self.wfile.write(part)

    def log_message(self, *_: Any) -> None:
        """Say nothing."""


class Server(http.server.ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, folder: Path) -> None:
        super().__init__(("127.0.0.1", 0), partial(Handler, directory=str(folder)))
        self.plan: defaultdict[str, list[int | str]] = defaultdict(list)
        self.seen: Counter[tuple[str, str]] = Counter()
        self.released = threading.Event()
        self.has_ranges, self.bytes_sent = True, 0
        self.token = ""

    def handle_error(self, *_: Any) -> None:
        """Connections that are dropped on purpose are no news."""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """A server of `tmp_path`, to readers that are less patient than users are."""
    monkeypatch.setattr(remote, "PAUSES", (0.01, 0.02, 0.04))
    monkeypatch.setattr(remote, "SILENCE_SECONDS", 5.0)
    found = Server(tmp_path)
    thread = threading.Thread(target=found.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield found
    found.released.set()
    found.shutdown()
    found.server_close()
    thread.join()


def fill(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(name.encode())


def make_tar(path: Path, sizes: list[int]) -> None:
    with tarfile.open(path, "w") as archive:
        for number, size in enumerate(sizes):
            info = tarfile.TarInfo(f"{number:04d}.jpg")
            info.size = size
            archive.addfile(info, io.BytesIO(bytes([number]) * size))


def fault_of(uri: str) -> SampleFault:
    with pytest.raises(SampleFault) as caught:
        read_image_bytes(ImageRef(key="x", uri=uri))
    return caught.value


def test_a_page_is_a_folder(server: Server, tmp_path: Path) -> None:
    """The same keys, in the same order, as the folder itself gives: blanks, letters beyond ASCII and % included."""
    names = ["b.jpg", "a/1.png", "a/deep/er/2.jpg", "a b.jpg", "é.jpg", "100%.jpg", "a#1?.jpg", ".hidden.jpg", "x.txt"]
    fill(tmp_path / "photos", *names)
    make_tar(tmp_path / "photos/c.tar", [5, 700])
    local = list(list_images(str(tmp_path / "photos"), split="val"))
    for url in (f"{server.url}/photos", f"{server.url}/photos/"):
        refs = list(list_images(url, split="val"))
        assert [(ref.key, ref.member, ref.offset, ref.size) for ref in refs] == [
            (ref.key, ref.member, ref.offset, ref.size) for ref in local
        ]
        assert [read_image_bytes(ref) for ref in refs] == [read_image_bytes(ref) for ref in local]
    assert len(local) == 9


def test_pages_that_lead_elsewhere_are_not_followed(server: Server, tmp_path: Path) -> None:
    links = [
        "../up.jpg",
        "/etc/x.jpg",
        "http://other.example/y.jpg",
        "below/z.jpg",
        "%2e%2e%2fq.jpg",
        "a%2f..%2fq.jpg",
        "ok.jpg",
        "?C=N;O=D",
    ]
    (tmp_path / "page").mkdir()
    (tmp_path / "page/index.html").write_text("".join(f'<a href="{link}">x</a>' for link in links))
    refs = {ref.key: ref.fault for ref in list_images(f"{server.url}/page")}
    assert refs == {"a/../q": "unsafe_key", "ok": None}


def test_a_page_that_contains_itself_ends(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "_MAX_REMOTE_DEPTH", 8)
    (tmp_path / "loop").mkdir()
    (tmp_path / "loop/d").symlink_to(tmp_path / "loop")
    fill(tmp_path / "loop", "x.jpg")
    refs = list(list_images(f"{server.url}/loop"))
    assert [ref.key for ref in refs] == ["d/d/d/d/d/d/d/d", *("d/" * depth + "x" for depth in range(7, -1, -1))]
    assert refs[0].fault == "missing_file" and "nested deeper than 8" in str(refs[0].message)


def test_a_list_of_urls(server: Server, tmp_path: Path) -> None:
    fill(tmp_path, "a/1.jpg", "a/two words.jpg")
    make_tar(tmp_path / "s.tar", [3])
    lines = [
        f"{server.url}/a/1.jpg",
        f"{server.url}/a/two words.jpg\tmine",
        f"{server.url}/gone.jpg",
        f"{server.url}/gone.tar",
    ]
    (tmp_path / "list.txt").write_text("\n".join([*lines, "s.tar", "a/1.jpg\tagain"]))
    host = server.url.partition("://")[2]
    local = list(list_images(str(tmp_path / "list.txt"), root=server.url))
    assert [ref.key for ref in local] == ["a/1", "mine", "gone", f"{server.url}/gone.tar", "0000", "again"]
    assert [ref.fault for ref in local] == [None, None, None, "missing_file", None, None]
    behind = list(list_images(f"{server.url}/list.txt"))
    assert [ref.key for ref in behind] == [ref.key for ref in local]
    assert next(list_images(str(tmp_path / "list.txt"))).key == f"{host}/a/1"
    assert [read_image_bytes(ref) for ref in behind if ref.key in ("mine", "again")] == [b"a/two words.jpg", b"a/1.jpg"]
    assert read_image_bytes(behind[4]) == bytes(3)
    fault = fault_of(behind[2].uri)
    assert fault.fault_class == "missing_file" and fault.message == "the file cannot be read: No such file or directory"


def test_members_of_a_tar_are_read_by_their_ranges(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote, "BLOCK", 4096)
    sizes = [10, 200_000, 0, 70_000, 1]
    make_tar(tmp_path / "x.tar", sizes)
    url = f"{server.url}/x.tar"
    refs = list(list_images(url))
    assert server.bytes_sent < 60_000 < (tmp_path / "x.tar").stat().st_size, "listing must not fetch the members' data"
    server.bytes_sent = 0
    assert [read_image_bytes(refs[number]) for number in (0, 1, 3, 4)] == [
        bytes([number]) * sizes[number] for number in (0, 1, 3, 4)
    ]
    assert server.bytes_sent == sum(sizes) + 4 * tarfile.BLOCKSIZE, "the data and the header before them"
    os.truncate(tmp_path / "x.tar", refs[3].offset + 5 if refs[3].offset else 0)
    with pytest.raises(SampleFault, match=r"torn_archive: .* has 5 of the 70000 bytes"):
        read_image_bytes(refs[3])
    with pytest.raises(SampleFault, match=r"torn_archive: .* has 0 of the 1 bytes"):
        read_image_bytes(refs[4])


def test_a_server_without_ranges_gives_the_same_bytes(server: Server, tmp_path: Path) -> None:
    server.has_ranges = False
    make_tar(tmp_path / "x.tar", [10, 2000, 30])
    refs = list(list_images(f"{server.url}/x.tar"))
    assert [read_image_bytes(ref) for ref in refs] == [bytes([n]) * size for n, size in enumerate([10, 2000, 30])]


def test_a_large_file_needs_a_server_with_ranges(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without, 330 MB of features took 100 s for 3, and the time grows with the square; fsspec's cache copies them once."""
    make_tar(tmp_path / "x.tar", [10, 2000, 30])
    (tmp_path / "list.txt").write_text(f"{server.url}/x.tar\n")
    monkeypatch.setattr(remote, "MAX_WITHOUT_RANGES", 10_000)
    assert len(list(list_images(str(tmp_path / "list.txt")))) == 3
    server.has_ranges = False
    with pytest.raises(
        InputError, match=r"x\.tar' sends no parts of a file .* has 10,240 bytes.* give simplecache::http:"
    ):
        list(list_images(str(tmp_path / "list.txt")))
    asked = server.seen["GET", "/x.tar"]
    refs = list(list_images(f"simplecache::{server.url}/x.tar"))
    assert [read_image_bytes(ref) for ref in refs] == [bytes([n]) * size for n, size in enumerate([10, 2000, 30])]
    assert server.seen["GET", "/x.tar"] <= asked + 2  # not one for each member
    monkeypatch.setattr(remote, "MAX_WITHOUT_RANGES", 20_000)
    assert len(list(list_images(str(tmp_path / "list.txt")))) == 3


def test_seeking_and_reading_agree_with_the_file(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote, "BLOCK", 64)
    data = os.urandom(1000)
    (tmp_path / "x.bin").write_bytes(data)
    with open_file(f"{server.url}/x.bin") as file, io.BytesIO(data) as plain:
        for place, whence, size in (
            (5, 0, 10),
            (-3, 2, 10),
            (0, 0, -1),
            (999, 0, 5),
            (2000, 0, 5),
            (3, 0, 300),
            (-7, 1, 7),
        ):
            assert file.seek(place, whence) == plain.seek(place, whence)
            assert file.read(size) == plain.read(size)
            assert file.tell() == plain.tell()
        file.seek(0)
        assert list(file) == io.BytesIO(data).readlines()


def test_captions_behind_a_url(server: Server, tmp_path: Path) -> None:
    (tmp_path / "c.jsonl").write_text('{"image": "a.jpg", "caption": "a cat"}\n')
    server.plan["/c.jsonl"] = [503, 200, 503, 200, 200]
    (caption,) = read_captions([f"{server.url}/c.jsonl"])
    assert (caption.key, getattr(caption, "text", None)) == ("a", "a cat")


@pytest.mark.parametrize("mishap", [500, 503, 403, "drop", "cut", "hang"])
def test_two_failures_and_then_the_file(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mishap: int | str
) -> None:
    if mishap == "hang":
        monkeypatch.setattr(remote, "SILENCE_SECONDS", 1.0)
    fill(tmp_path, "x.jpg")
    server.plan["/x.jpg"] = [mishap, mishap, 200, 200]
    assert read_image_bytes(ImageRef(key="x", uri=f"{server.url}/x.jpg")) == b"x.jpg"
    assert server.seen["GET", "/x.jpg"] == 3


@pytest.mark.parametrize(
    ("mishap", "reason"),
    [
        (500, "the server answers 500"),
        (403, "the server answers 403"),
        ("drop", "the connection fails"),
        ("cut", "the answer breaks off"),
        ("hang", "no answer within the time limit"),
    ],
)
def test_a_lasting_outage_is_its_own_fault(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mishap: int | str, reason: str
) -> None:
    fill(tmp_path, "x.jpg")
    make_tar(tmp_path / "x.tar", [5])
    (member,) = list_images(f"{server.url}/x.tar")
    server.plan["/x.jpg"] = server.plan["/x.tar"] = [mishap]
    if mishap == "hang":
        monkeypatch.setattr(remote, "SILENCE_SECONDS", 0.3)
    start = time.monotonic()
    fault = fault_of(f"{server.url}/x.jpg")
    assert time.monotonic() - start < 10
    assert (fault.fault_class, fault.message) == ("unreadable_file", f"the file cannot be read: {reason}")
    # aiohttp itself asks once more where a connection was dropped.
    assert server.seen["GET", "/x.jpg"] == (8 if mishap == "drop" else 4)
    with pytest.raises(SampleFault, match=f"unreadable_file: the file cannot be read: {reason}"):
        read_image_bytes(member)


@pytest.mark.parametrize("status", [404, 410])
def test_what_is_not_there_is_asked_for_once(server: Server, status: int) -> None:
    server.plan["/x.jpg"] = [status]
    assert fault_of(f"{server.url}/x.jpg").fault_class == "missing_file"
    assert server.seen == {("GET", "/x.jpg"): 1}
    with pytest.raises(InputError, match="there is no file or folder"):
        list_images(f"{server.url}/x.jpg")


def test_a_server_that_is_gone(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))  # until the end, or another process could listen there
        url = f"http://127.0.0.1:{unused.getsockname()[1]}/x.jpg"
        fault = fault_of(url)
        assert (fault.fault_class, fault.message) == (
            "unreadable_file",
            "the file cannot be read: the connection fails",
        )
        with pytest.raises(InputError, match=r"cannot look at .*the connection fails"):
            list_images(url)
        # After some files in a row, the server gets one attempt a file.
        fault_of(url)
        monkeypatch.setattr(remote, "PAUSES", (60.0,))
        start = time.monotonic()
        assert fault_of(url).fault_class == "unreadable_file"
        assert time.monotonic() - start < 10


def test_a_server_that_answers_again_is_trusted_again(server: Server, tmp_path: Path) -> None:
    fill(tmp_path, "x.jpg", "y.jpg")
    server.plan["/y.jpg"] = [500]
    for _ in range(remote.PATIENCE):
        fault_of(f"{server.url}/y.jpg")
    requests = server.seen["GET", "/y.jpg"]
    fault_of(f"{server.url}/y.jpg")
    assert server.seen["GET", "/y.jpg"] == requests + 1
    read_image_bytes(ImageRef(key="x", uri=f"{server.url}/x.jpg"))
    fault_of(f"{server.url}/y.jpg")
    assert server.seen["GET", "/y.jpg"] == requests + 5


def test_a_listing_survives_failures_and_never_ends_short(server: Server, tmp_path: Path) -> None:
    fill(tmp_path / "photos", "a.jpg", "sub/b.jpg")
    make_tar(tmp_path / "photos/c.tar", [5])
    for path in ("/photos", "/photos/sub", "/photos/c.tar"):
        server.plan[path] = [500, "drop", 200]
    assert [ref.key for ref in list_images(f"{server.url}/photos")] == ["a", "0000", "sub/b"]
    for path in ("/photos/sub", "/photos/c.tar"):
        server.plan.clear()
        server.plan[path] = [500]
        with pytest.raises(InputError, match=r"the listing ends at .*500.*Run the same command again"):
            list(list_images(f"{server.url}/photos"))


def test_a_file_that_is_too_long_is_not_read_to_its_end(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mvptr_data.sources.images.MAX_IMAGE_BYTES", 100)
    (tmp_path / "x.jpg").write_bytes(b"x" * 101)
    (tmp_path / "y.jpg").write_bytes(b"y" * 100)
    assert fault_of(f"{server.url}/x.jpg").fault_class == "too_large"
    assert server.seen["GET", "/x.jpg"] == 1
    assert fault_of(str(tmp_path / "x.jpg")).fault_class == "too_large"
    assert len(read_image_bytes(ImageRef(key="y", uri=f"{server.url}/y.jpg"))) == 100


def test_a_local_file_that_cannot_be_read(tmp_path: Path) -> None:
    """A regular file, by all signs, that gives no bytes; a process's own memory is one."""
    if not Path("/proc/self/mem").is_file():
        pytest.skip("there is no /proc here")
    for name in ("x.jpg", "x.tar"):
        (tmp_path / name).symlink_to("/proc/self/mem")
    fault = fault_of(str(tmp_path / "x.jpg"))
    assert fault.fault_class == "unreadable_file" and str(tmp_path) not in fault.message
    assert [ref.fault for ref in list_images(str(tmp_path))] == [None, "unreadable_file"]


def test_the_users_own_settings_of_fsspec_stay(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Headers for a server that asks who is there, say; the time limits are set all the same."""
    fill(tmp_path, "x.jpg")
    server.token = "open sesame"
    assert fault_of(f"{server.url}/x.jpg").message == "the file cannot be read: the server answers 401"
    headers = {"client_kwargs": {"headers": {"X-Token": "open sesame"}}}
    monkeypatch.setitem(fsspec.config.conf, "http", headers)
    assert read_image_bytes(ImageRef(key="x", uri=f"{server.url}/x.jpg")) == b"x.jpg"
    server.plan["/x.jpg"] = ["hang"]
    monkeypatch.setattr(remote, "SILENCE_SECONDS", 0.3)
    assert "within the time limit" in fault_of(f"{server.url}/x.jpg").message


def test_a_whole_extraction_over_http(server: Server, tmp_path: Path, world: Any) -> None:
    """Folder and tar behind URLs give the bytes that local files give; what an outage cost is taken up later, in its place."""
    from pipelines.cluster import ClusterOptions
    from pipelines.extract_regions import extract_regions

    shutil.copytree(world.images, tmp_path / "photos")
    names = sorted(path.name for path in (tmp_path / "photos").iterdir())
    with tarfile.open(tmp_path / "all.tar", "w") as archive:
        for name in names:
            archive.add(tmp_path / "photos" / name, name)

    def run(images: str, out: str, **options: Any) -> tuple[dict[str, int], dict[str, bytes]]:
        summary = extract_regions(
            images,
            str(tmp_path / out),
            samples_per_shard=20,
            cluster=ClusterOptions(cluster="inline"),
            quiet=True,
            **options,
        )
        (newest,) = sorted((tmp_path / out / "regions").glob("*.tar"), key=lambda path: path.stat().st_mtime_ns)[-1:]
        with tarfile.open(newest) as archive:
            members = {item.name: archive.extractfile(item).read() for item in archive}  # type: ignore[union-attr]
        return {name: count for name, count in summary.counts.items() if count}, members

    counts, local = run(str(tmp_path / "photos"), "local")
    assert counts == {"inputs": len(names), "ok": len(names)}
    assert run(f"{server.url}/all.tar", "by-tar") == (counts, local)
    server.plan[f"/photos/{names[3]}"] = [500]
    partly, some = run(f"{server.url}/photos", "by-folder")
    assert partly == {"inputs": len(names), "ok": len(names) - 1, "unreadable_file": 1}
    assert some.items() < local.items()
    server.plan.clear()
    assert run(f"{server.url}/photos", "by-folder", retry_failed=["unreadable_file"]) == (counts, local)
