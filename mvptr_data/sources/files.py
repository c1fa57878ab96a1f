"""Local files and fsspec URLs, opened, read by range and listed in the same words."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Literal

import fsspec

from mvptr_data.errors import InputError, MissingDependencyError
from mvptr_data.sources import remote
from mvptr_data.sources.remote import UnreadableError
from mvptr_data.sources.urls import below
from mvptr_data.storage import is_url

#: What the operating system says of a path where no file is, rather than of a file that it cannot read now.
_NOTHING_THERE = (errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.ELOOP, errno.ENAMETOOLONG, errno.ENXIO)
#: A walk of URLs goes no deeper: a server may show the same page below itself for ever.
_MAX_REMOTE_DEPTH = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class FoundFile:
    """A file met on a walk. `path` is relative to the walk's root; `problem` says why it cannot be read, where that is known."""

    path: str
    uri: str
    problem: str | None = None


@dataclass(frozen=True, slots=True)
class _Entry:
    """One name in a folder."""

    name: str
    is_folder: bool = False
    problem: str | None = None
    #: The last part of its URL, where that is not the name.
    link: str | None = None

    @property
    def place(self) -> str:
        """What to sort by: a folder's slash takes part, so that whole relative paths come in order of code points."""
        return f"{self.name}/" if self.is_folder else self.name


@dataclass(frozen=True, slots=True)
class _Level:
    """A folder being walked: its path relative to the root, its (device, inode) where it has one, what is left of it."""

    prefix: str
    uri: str
    identity: tuple[int, int] | None
    entries: Iterator[_Entry]


def absolute(path: str) -> str:
    """URLs without a trailing slash; local paths made absolute, because workers may stand in another folder.

    Raises `InputError` for a path that is not UTF-8: it could not be remembered.
    """
    try:
        path.encode()
    except UnicodeEncodeError as error:
        raise InputError(f"the path {path!r} is not UTF-8", "Rename it, or give it through a link.") from error
    return (path.rstrip("/") or path) if is_url(path) else str(Path(path).absolute())


def check_backend(url: str) -> None:
    """Raises `MissingDependencyError` where fsspec knows the URL's protocol and its package is not installed."""
    try:
        fsspec.get_filesystem_class(url.partition("://")[0].rpartition("::")[2])
    except ImportError as error:
        raise MissingDependencyError(f"cannot use {url!r}: {error}", "Install that package.") from error
    except ValueError:
        return  # an unknown protocol is that one line's fault; reading it says so


def kind_of(path: str) -> Literal["file", "folder"] | None:
    """What is at a path or URL; None where nothing is. Raises `InputError` where that cannot be found out."""
    if not is_url(path):
        try:
            mode = Path(path).stat().st_mode
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            raise InputError(f"cannot look at {path!r}: {error}", "Check the path and its permissions.") from error
        return "folder" if stat.S_ISDIR(mode) else "file"
    check_backend(path)
    try:
        return remote.look(path).kind
    except FileNotFoundError:
        return None
    except (OSError, ValueError, ImportError) as error:
        raise InputError(f"cannot look at {path!r}: {error}", "Check the URL and your access to it.") from error


def open_file(uri: str) -> IO[bytes]:
    """Open for reading, seekable. Raises `OSError`, also where the path is a folder, a pipe or a device."""
    if is_url(uri):
        return remote.open_seekable(uri)
    # Opening a pipe would wait for its writer; with O_NONBLOCK it opens, and fstat tells it from a file.
    descriptor = os.open(uri, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise FileNotFoundError(errno.ENOENT, "it is not a regular file")
        return os.fdopen(descriptor, "rb")
    except BaseException:
        os.close(descriptor)
        raise


def is_nothing_there(error: BaseException) -> bool:
    """Whether reading failed because there is no such file, and not because it could not be read this time."""
    return isinstance(error, ValueError) or (isinstance(error, OSError) and error.errno in _NOTHING_THERE)


def file_size(file: IO[bytes]) -> int:
    """Bytes of an open, seekable file; its place is set to the start."""
    size = file.seek(0, os.SEEK_END)
    file.seek(0)
    return size


def read_file(uri: str, limit: int) -> bytes:
    """All bytes of a file. Raises `OSError` (with `errno.EFBIG` over `limit` bytes), `ValueError`, `ImportError`."""
    if is_url(uri):
        return remote.fetch(uri, limit)
    with open_file(uri) as file:
        if file_size(file) > limit:
            raise OSError(errno.EFBIG, os.strerror(errno.EFBIG))
        return file.read()


def read_range(uri: str, offset: int, size: int) -> bytes:
    """Bytes [offset, offset + size) of a file, fewer where it ends before that. Raises as `read_file` does."""
    if is_url(uri):
        return remote.fetch_range(uri, offset, size)
    with open_file(uri) as file:
        pieces = []
        while size and (piece := os.pread(file.fileno(), size, offset)):
            pieces.append(piece)
            offset += len(piece)
            size -= len(piece)
        return b"".join(pieces)


def walk(root: str, wanted: Callable[[str], bool]) -> Iterator[FoundFile]:
    """Every file under `root` whose name is `wanted`, by code points of its relative path; hidden files and folders are left out.

    Links are followed; a folder that contains itself through a link is entered once. Memory: the wanted names of one folder
    for each level. A folder that cannot be read is yielded as a file with a `problem`. Raises `InputError` for the root, and
    where a server fails on the way: what a plan does not have, no later run can add.
    """
    try:
        levels = [_level("", root, wanted)]
    except OSError as error:
        raise InputError(f"cannot read the folder {root!r}: {error}", "Check its permissions.") from error
    while levels:
        level = levels[-1]
        entry = next(level.entries, None)
        if entry is None:
            levels.pop()
            continue
        path, uri = f"{level.prefix}{entry.name}", below(level.uri, entry.link or entry.name)
        if not entry.is_folder:
            yield FoundFile(path=path, uri=uri, problem=entry.problem)
            continue
        if is_url(uri) and len(levels) >= _MAX_REMOTE_DEPTH:
            yield FoundFile(path=path, uri=uri, problem=f"the folder is nested deeper than {_MAX_REMOTE_DEPTH}")
            continue
        try:
            inner = _level(f"{path}/", uri, wanted)
        except UnreadableError as error:
            raise listing_ended(uri, error) from error
        except OSError as error:
            yield FoundFile(path=path, uri=uri, problem=f"the folder cannot be read: {error}")
            continue
        if inner.identity is None or all(inner.identity != above.identity for above in levels):
            levels.append(inner)


def listing_ended(uri: str, error: BaseException) -> InputError:
    """The end of a listing that a server broke off."""
    return InputError(
        f"the listing ends at {uri!r}: {error}",
        "Run the same command again when the server answers; nothing was written.",
    )


def _level(prefix: str, uri: str, wanted: Callable[[str], bool]) -> _Level:
    if is_url(uri):
        identity, entries = None, _remote_entries(uri, wanted)
    else:
        status = Path(uri).stat()
        identity, entries = (status.st_dev, status.st_ino), _local_entries(uri, wanted)
    return _Level(prefix, uri, identity, iter(sorted(entries, key=lambda entry: entry.place)))


def _local_entries(folder: str, wanted: Callable[[str], bool]) -> Iterator[_Entry]:
    with os.scandir(folder) as found:
        for entry in found:
            if entry.name.startswith("."):
                continue
            try:
                is_folder, is_file = entry.is_dir(), entry.is_file()
            except OSError as error:  # a link to itself
                is_folder, is_file, problem = False, False, str(error)
            else:
                problem = "the link leads nowhere" if entry.is_symlink() else "it is not a regular file"
            if is_folder:
                yield _Entry(entry.name, is_folder=True)
            elif wanted(entry.name):
                yield _Entry(entry.name, problem=None if is_file else problem)


def _remote_entries(folder: str, wanted: Callable[[str], bool]) -> Iterator[_Entry]:
    for name, link, is_folder in remote.list_folder(folder):
        if not name.startswith(".") and (is_folder or wanted(name)):
            yield _Entry(name, is_folder=is_folder, link=link)
