"""A remote file, folder or store as `Store` needs them: outages told from what is not there, all errors as ours.

Reading is `sources.remote`'s, with its attempts and limits; what only a store needs, listing and writing, is added here.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from functools import lru_cache
from typing import IO, Any

import fsspec.core

from mvptr_data.errors import InputError, MvptrError, OutputError, UnreachableError
from mvptr_data.sources import remote
from mvptr_data.uploads import upload


@lru_cache(maxsize=64)
def filesystem(root: str) -> tuple[Any, str]:
    """The backend of a URL, and what it calls the URL. Raises `InputError` for a protocol that nobody knows."""
    try:
        return fsspec.core.url_to_fs(root)
    except (ValueError, ImportError) as error:
        raise InputError(
            f"cannot use {root!r}: {error}", "Install the fsspec backend it names, or give a local path."
        ) from error


@contextlib.contextmanager
def reading(url: str) -> Iterator[None]:
    """Raises `UnreachableError` for whatever a backend raises in the block; that nothing is there passes as it is."""
    try:
        yield
    except (FileNotFoundError, NotADirectoryError, MvptrError):
        raise
    except Exception as error:  # every backend has its own family of errors
        raise UnreachableError(
            f"{url} cannot be read: {_said(error)}", "Look whether its server answers, then run the same command again."
        ) from error


class _File:
    """A file open for reading; its server may break off at any piece."""

    def __init__(self, file: IO[bytes], url: str) -> None:
        self._file, self._url = file, url

    def read(self, size: int = -1) -> bytes:
        with reading(self._url):
            return self._file.read(size)

    def readinto(self, buffer: Any) -> int:
        with reading(self._url):
            return int(self._file.readinto(buffer))  # type: ignore[attr-defined]

    def __enter__(self) -> _File:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)


def look(root: str, name: str) -> remote.Remote | None:
    """What is below a URL under a name, if anything is. Raises `UnreachableError`."""
    filesystem(root)
    with reading(f"{root}/{name}"):
        try:
            return remote.look(f"{root}/{name}")
        except (FileNotFoundError, NotADirectoryError):
            return None


def open_remote(root: str, name: str) -> IO[bytes]:
    """Open a file below a URL for reading, seekable. Raises `FileNotFoundError`, `UnreachableError`."""
    filesystem(root)
    url = f"{root}/{name}"
    try:
        with reading(url):
            return _File(remote.open_seekable(url), url)  # type: ignore[return-value]
    except FileNotFoundError as error:
        raise FileNotFoundError(error.errno, error.strerror, url) from error


def put(local: str, root: str, name: str, temporary: str) -> None:
    """Give a file below a URL the bytes of a local one, whole or not at all; `temporary`: a base name beside it.

    Raises `OutputError`.
    """
    backend, path = filesystem(root)
    protocols = {backend.protocol} if isinstance(backend.protocol, str) else set(backend.protocol)
    folder, _, base = f"{path}/{name}".rpartition("/")
    try:
        if protocols & {"http", "https"}:
            raise NotImplementedError("web servers are read only")
        upload(backend, local, f"{folder}/{base}", temporary=f"{folder}/{temporary}")
    except MvptrError:
        raise
    except Exception as error:  # every backend has its own family of errors
        raise OutputError(
            f"cannot write {root}/{name}: {_said(error)}",
            "Give a folder, or a URL that may be written to; if its server was out of order, run the same command again.",
        ) from error


def _said(error: Exception) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)
