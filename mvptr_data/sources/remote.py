"""Reading behind URLs: time limits, further attempts after an outage, and telling an outage from a file that is not there.

Every function raises `FileNotFoundError` where the server says that nothing is there (HTTP 404 and 410), and `UnreadableError`
for everything else that is left after the attempts. Their words name no address, port or time: the same outage is recorded
in the same bytes. A URL of an unknown protocol is a `ValueError`, a protocol whose package is missing an `ImportError`.
"""

from __future__ import annotations

import errno
import io
import os
import time
import urllib.parse
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import IO, Any, Literal, TypeVar

import fsspec.config
import fsspec.core

from mvptr_data.errors import InputError

Result = TypeVar("Result")

#: Seconds of rest before each further attempt: ten in all, which a restarted proxy needs.
PAUSES = (0.5, 2.0, 8.0)
#: After so many files in a row that could not be read, a server gets one attempt a file until it answers again.
PATIENCE = 3
#: Seconds over HTTP: until a connection stands, without a single byte, and for one whole answer. Other backends have their own.
CONNECT_SECONDS, SILENCE_SECONDS, ANSWER_SECONDS = 15.0, 30.0, 600.0
#: Bytes a file opened for seeking gets ahead of what was asked for.
BLOCK = 4 << 20
#: More bytes of a file are not taken from a server that sends no parts of it: all that is before a part would come with each.
MAX_WITHOUT_RANGES = 64 << 20
#: Most bytes read of such a file where the server does not tell its length.
MAX_UNTOLD_BYTES = 1 << 30

_PIECE = 1 << 20
_GONE = (404, 410)
_UNSATISFIABLE_RANGE = 416
_failures: dict[str, int] = {}


class UnreadableError(OSError):
    """What is behind a URL could not be had, however often it was tried; another day it may."""


@dataclass(frozen=True, slots=True)
class Remote:
    """What a server tells of a URL. `size` in bytes, where it tells."""

    kind: Literal["file", "folder"]
    size: int | None


def look(uri: str) -> Remote:
    """What is at a URL. Over HTTP a page is a folder: its links are what is in it."""
    filesystem, name = _filesystem(uri)
    info = _patiently(uri, lambda: filesystem.info(name))
    is_page = _is_http(uri) and info.get("mimetype") == "text/html"
    return Remote("folder" if is_page or info["type"] == "directory" else "file", info.get("size"))


def fetch(uri: str, limit: int) -> bytes:
    """All bytes of a file. Raises `OSError` with `errno.EFBIG` where it has more than `limit`; no more than that are read."""
    place = _filesystem(uri)
    data = _patiently(uri, lambda: _read(_stream(uri, place), limit + 1))
    if len(data) > limit:
        raise OSError(errno.EFBIG, os.strerror(errno.EFBIG))
    return data


def fetch_range(uri: str, offset: int, size: int) -> bytes:
    """Bytes [offset, offset + size) of a file, fewer where it ends before that."""

    if size <= 0:
        return b""
    filesystem, name = _filesystem(uri)

    def over_http() -> bytes:
        try:
            stream = _stream(
                uri, (filesystem, name), {"Range": f"bytes={offset}-{offset + size - 1}", "Accept-Encoding": "identity"}
            )
        except Exception as error:
            if getattr(error, "status", None) == _UNSATISFIABLE_RANGE:
                return b""
            raise
        # A server that knows no ranges answers 200 and sends the file from its start.
        return _read(stream, size, skip=0 if stream.r.status == 206 else offset)

    if _is_http(uri):
        return _patiently(uri, over_http)
    return _patiently(uri, lambda: bytes(filesystem.cat_file(name, start=offset, end=offset + size)))


def open_seekable(uri: str) -> IO[bytes]:
    """A file for reading and seeking; each block that it gets is tried as often as `fetch_range` tries.

    Raises `InputError` for a large file on a server that sends no parts of files.
    """
    found = look(uri)
    if found.kind == "folder":
        raise FileNotFoundError(errno.ENOENT, "it is not a regular file")
    if found.size is None:  # without a length, seeking means having all of it
        return io.BytesIO(fetch(uri, MAX_UNTOLD_BYTES))
    if found.size > MAX_WITHOUT_RANGES and _is_http(uri) and not _sends_ranges(uri):
        raise InputError(
            f"the server of {uri!r} sends no parts of a file (HTTP ranges), and this one has {found.size:,} bytes",
            f"Copy it to this machine, or give simplecache::{uri}, which copies it whole for each process.",
        )
    return io.BufferedReader(_RangeFile(uri, found.size), BLOCK)


def _sends_ranges(uri: str) -> bool:
    """Whether an HTTP server answers a question for one byte with that byte alone."""
    place = _filesystem(uri)

    def asked() -> bool:
        with _stream(uri, place, {"Range": "bytes=1-1", "Accept-Encoding": "identity"}) as stream:
            return bool(stream.r.status == 206)

    return _patiently(uri, asked)


def list_folder(uri: str) -> Iterator[tuple[str, str, bool]]:
    """What is right below a URL: (name, last part of its URL, is it a folder). They differ over HTTP, whose links are quoted."""
    filesystem, path = _filesystem(uri)
    top = path.rstrip("/")
    found: list[dict[str, Any]] = _patiently(uri, lambda: filesystem.ls(path, detail=True))
    for entry in found:
        inner = entry["name"].rstrip("/")
        folder, _, link = inner.rpartition("/")
        # Object stores list a folder's own placeholder among what is in it; pages link to anything.
        if not link or inner == top or (_is_http(uri) and folder != top):
            continue
        name = urllib.parse.unquote(link, errors="surrogateescape") if _is_http(uri) else link
        yield name, link, entry["type"] == "directory"


class _RangeFile(io.RawIOBase):
    """A file of known size, read by ranges."""

    def __init__(self, uri: str, size: int) -> None:
        self._uri, self._size, self._place = uri, size, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._place

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        start = {os.SEEK_SET: 0, os.SEEK_CUR: self._place, os.SEEK_END: self._size}[whence]
        self._place = max(0, start + offset)
        return self._place

    def readinto(self, buffer: Any) -> int:
        data = self._get(len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def readall(self) -> bytes:
        return self._get(self._size)

    def _get(self, size: int) -> bytes:
        data = fetch_range(self._uri, self._place, min(size, self._size - self._place))
        self._place += len(data)
        return data


def _patiently(uri: str, action: Callable[[], Result]) -> Result:
    """What `action` gives, if need be after a few attempts with growing pauses."""
    server = uri.rpartition("://")[2].partition("/")[0]
    pauses = PAUSES if _failures.get(server, 0) < PATIENCE else ()
    for pause in (*pauses, None):
        try:
            result = action()
        except Exception as error:  # every backend has its own family of errors (aiohttp, botocore ...)
            reason = _cause(error) if _is_http(uri) else error
            if isinstance(reason, FileNotFoundError) or getattr(reason, "status", None) in _GONE:
                _failures.pop(server, None)
                raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT)) from error
            if pause is None:
                _failures[server] = _failures.get(server, 0) + 1
                raise UnreadableError(_words(reason)) from error
            time.sleep(pause)
        else:
            _failures.pop(server, None)
            return result
    raise AssertionError("the last attempt returns or raises")


def _cause(error: BaseException) -> BaseException:
    """What went wrong: fsspec's HTTP says "not found" of any server that did not answer well, with the truth as its cause."""
    while isinstance(error, FileNotFoundError) and error.__cause__ is not None:
        error = error.__cause__
    return error


def _words(error: BaseException) -> str:
    status = getattr(error, "status", None)
    if isinstance(status, int) and status:
        return f"the server answers {status}"
    if isinstance(error, TimeoutError):
        return "no answer within the time limit"
    if isinstance(error, PermissionError):
        return "permission denied"
    if isinstance(error, ConnectionError) or "connect" in type(error).__name__.lower():
        return "the connection fails"
    if type(error).__name__ == "ClientPayloadError":
        return "the answer breaks off"
    return type(error).__name__


def _protocols(uri: str) -> list[str]:
    return [part.partition("://")[0] for part in uri.split("::")]


def _is_http(uri: str) -> bool:
    return uri.startswith(("http://", "https://"))


def _filesystem(uri: str) -> tuple[Any, str]:
    """fsspec's file system and the name in it; time limits set where they are not the backend's own."""
    options: dict[str, Any] = {}
    for protocol in {"http", "https"}.intersection(_protocols(uri)):
        import aiohttp

        limits = aiohttp.ClientTimeout(total=ANSWER_SECONDS, sock_connect=CONNECT_SECONDS, sock_read=SILENCE_SECONDS)
        # What the user's own configuration of fsspec says (headers, proxies) stays.
        mine = fsspec.config.conf.get(protocol, {}).get("client_kwargs", {})
        options[protocol] = {"client_kwargs": {"timeout": limits, **mine}}
    try:
        filesystem, name = fsspec.core.url_to_fs(uri, **options)
    except (OSError, ValueError, ImportError):
        raise
    except Exception as error:  # each backend's own: a damaged zip, credentials that are none
        raise UnreadableError(f"{type(error).__name__}: {error}") from error
    return filesystem, name


def _stream(uri: str, place: tuple[Any, str], headers: dict[str, str] | None = None) -> Any:
    """An open file that is read from its start. Over HTTP one request: no question for the size before it."""
    filesystem, name = place
    if not _is_http(uri):
        return filesystem.open(name, "rb")
    # A block size of 0 makes it a stream; a size that is given is not asked for.
    return filesystem.open(name, "rb", block_size=0, size=1, headers=headers or {})


def _read(stream: Any, size: int, *, skip: int = 0) -> bytes:
    """At most `size` bytes after the first `skip`; closes the stream."""
    pieces = []
    with stream:
        while skip and (piece := stream.read(min(skip, _PIECE))):
            skip -= len(piece)
        while size and (piece := stream.read(min(size, _PIECE))):
            pieces.append(piece)
            size -= len(piece)
    return b"".join(pieces)
