"""Where files are: one thin home over fsspec for local folders and object stores.

A `Store` is a folder or URL. Files in it are written whole or not at all (`writing`), read whole or by range, and named by
slash-separated names relative to its root. It holds nothing but the root's name, so it travels to workers for free.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import math
import os
import re
import secrets
import shutil
import stat
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import IO, Any

import fsspec
import fsspec.core

from mvptr_data.errors import DamagedFileError, InputError, OutputError
from mvptr_data.uploads import upload

TEMPORARY_SUFFIX = ".tmp"

_PROTOCOL = re.compile(r"[A-Za-z][A-Za-z0-9.+-]*://")
#: Protocols of what only one process has.
_PROCESS_LOCAL = frozenset({"memory"})
#: Bytes that a JSON file may have: the plan of 1.6 million shards. What is parsed takes up to thirty times as much.
MAX_JSON_BYTES = 128 << 20
#: Lists and objects that may lie in each other in JSON; ours have five.
_JSON_DEPTH = 50
#: What a full or read-only output answers.
_OUTPUT_ERRORS = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG})

#: What opening a socket, a device without a driver, or a link that leads to itself answers.
_NO_FILE = frozenset({errno.ENXIO, errno.ENODEV, errno.ELOOP})
_REMEDY = "Remove it and run the step that wrote it again."


def canonical_json(value: Any) -> bytes:
    """The one byte string of a JSON value: sorted keys, no spaces, UTF-8, no NaN."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()


def digest(value: Any) -> str:
    """sha256 (hex) of a JSON value's canonical bytes."""
    return hashlib.sha256(canonical_json(value)).hexdigest()


def parse_json(data: bytes, where: str, remedy: str) -> dict[str, Any]:
    """A JSON object that `canonical_json` gives back: no NaN, no number beyond a float, no half of a surrogate pair, not deep.

    Raises `DamagedFileError` naming `where`.
    """
    try:
        found = json.loads(data)
        problem = _json_problem(found)
    except (ValueError, RecursionError) as error:
        problem = str(error)
    if problem is not None:
        raise DamagedFileError(f"{where} is not JSON ({problem})", remedy)
    if not isinstance(found, dict):
        raise DamagedFileError(f"{where} is not a JSON object", remedy)
    return found


def _json_problem(value: Any) -> str | None:
    """Why a value, though Python parses it, is none of ours. Raises `ValueError` for text that has no bytes."""
    pending = [(value, 0)]
    while pending:
        item, depth = pending.pop()
        if isinstance(item, str):
            item.encode()
        elif isinstance(item, float):
            if not math.isfinite(item):
                return "a number is NaN or infinite"
        elif isinstance(item, dict | list):
            if depth == _JSON_DEPTH:
                return f"more than {_JSON_DEPTH} lists or objects lie in each other"
            inner = [*item, *item.values()] if isinstance(item, dict) else item
            pending.extend((one, depth + 1) for one in inner)
    return None


def is_url(path: str) -> bool:
    """Whether fsspec, not the operating system, has to open `path`: `s3://...`, or a chain such as `simplecache::s3://...`.

    Local names may hold `::`; one is a chain only where it starts with a protocol that fsspec knows and goes on to a URL.
    """
    first, chained, rest = path.partition("::")
    if chained and not _PROTOCOL.match(first):
        return first in fsspec.available_protocols() and is_url(rest)
    return _PROTOCOL.match(path) is not None


def is_process_local(path: str) -> bool:
    """Whether what is at `path` lies in the memory of one process, where no other process finds it."""
    return is_url(path) and any(part.partition("://")[0] in _PROCESS_LOCAL for part in path.split("::"))


def check_shared(*paths: str | None) -> None:
    """Raises `InputError` where one of `paths` is process-local; for commands whose work is done in several processes."""
    for path in paths:
        if path is not None and is_process_local(path):
            raise InputError(
                f"{path!r} lies in the memory of one process, where workers in others do not find it",
                "Give --cluster inline, or a folder or URL that every worker reaches.",
            )


@contextlib.contextmanager
def output_errors(store: Store) -> Iterator[None]:
    """Raises `OutputError` where the block meets a full or read-only disk. Put nothing into it but writing to `store`."""
    try:
        yield
    except OSError as error:
        if error.errno not in _OUTPUT_ERRORS:
            raise
        raise OutputError(
            f"cannot write to {store.root}: {os.strerror(error.errno)}",
            "Make room there and run the same command again; finished shards are kept.",
        ) from error


@lru_cache(maxsize=64)
def _filesystem(root: str) -> tuple[Any, str]:
    try:
        return fsspec.core.url_to_fs(root)
    except (ValueError, ImportError) as error:
        raise InputError(
            f"cannot use {root!r}: {error}", "Install the fsspec backend it names, or give a local path."
        ) from error


@dataclass(frozen=True, slots=True)
class Store:
    """A folder or fsspec URL."""

    root: str

    @classmethod
    def at(cls, root: str | os.PathLike[str]) -> Store:
        """A store at `root`; local roots become absolute, because workers may stand in another folder.

        Links stay as they were written: what they lead to may move.
        """
        text = os.fspath(root).removeprefix("file://")
        return cls(text.rstrip("/") if is_url(text) else os.path.abspath(text))  # noqa: PTH100 - resolve() follows links

    @property
    def is_local(self) -> bool:
        return not is_url(self.root)

    def path(self, name: str) -> str:
        """The full path or URL of `name`."""
        return f"{self.root}/{name}" if name else self.root

    def exists(self, name: str) -> bool:
        if self.is_local:
            return Path(self.path(name)).exists()
        filesystem, root = _filesystem(self.root)
        return bool(filesystem.exists(f"{root}/{name}"))

    def size(self, name: str) -> int | None:
        """Bytes of a file, or None where there is none."""
        try:
            if self.is_local:
                return Path(self.path(name)).stat().st_size
            filesystem, root = _filesystem(self.root)
            return int(filesystem.size(f"{root}/{name}"))
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            if error.errno in _NO_FILE:
                return None
            raise

    def names(self, folder: str) -> list[str]:
        """Names (relative to the store) of the files directly in `folder`, sorted; empty where there is no such folder."""
        if self.is_local:  # ten times as quick as fsspec's listing, which asks for the size and times of every file
            try:
                with os.scandir(self.path(folder)) as entries:
                    return sorted(f"{folder}/{entry.name}" for entry in entries if _is_file(entry))
            except (FileNotFoundError, NotADirectoryError):
                return []
        filesystem, root = _filesystem(self.root)
        try:
            # refresh: other workers write here, and object-store backends remember listings.
            found = filesystem.ls(f"{root}/{folder}", detail=True, refresh=True)
        except FileNotFoundError:
            return []
        return sorted(f"{folder}/{entry['name'].rsplit('/', 1)[-1]}" for entry in found if entry["type"] == "file")

    def entries(self, folder: str) -> list[str]:
        """The bare names of all that is directly in `folder`, folders too, sorted; empty where there is no such folder."""
        try:
            if self.is_local:
                return sorted(entry.name for entry in Path(self.path(folder)).iterdir())
            filesystem, root = _filesystem(self.root)
            top = f"{root}/{folder}".rstrip("/")
            found = filesystem.ls(top, detail=False, refresh=True)
        except (FileNotFoundError, NotADirectoryError):
            return []
        # Object stores list a folder's own placeholder among what is in it.
        return sorted(name.rstrip("/").rpartition("/")[2] for name in found if name.rstrip("/") != top)

    def open(self, name: str) -> IO[bytes]:
        """Open for reading, seekable. Raises `FileNotFoundError`, `DamagedFileError` for a folder, a pipe or a device."""
        if self.is_local:
            return _open_regular(self.path(name))
        filesystem, root = _filesystem(self.root)
        return filesystem.open(f"{root}/{name}", "rb")

    def read(self, name: str) -> bytes:
        """The whole file. Raises `FileNotFoundError`."""
        with self.open(name) as file:
            return file.read()

    def read_json(self, name: str) -> dict[str, Any]:
        """A file that holds a JSON object. Raises `FileNotFoundError`, `DamagedFileError`."""
        with self.open(name) as file:
            data = file.read(MAX_JSON_BYTES + 1)
        if len(data) > MAX_JSON_BYTES:
            raise DamagedFileError(f"{self.path(name)} has more than {MAX_JSON_BYTES:,} bytes", _REMEDY)
        return parse_json(data, self.path(name), _REMEDY)

    @contextlib.contextmanager
    def writing(self, name: str) -> Iterator[IO[bytes]]:
        """A binary file that takes its name only when the block ends well: local temporary, fsync, rename (or one upload)."""
        if not self.is_local:
            with tempfile.NamedTemporaryFile() as local:
                yield local
                local.flush()
                filesystem, root = _filesystem(self.root)
                folder, _, base = f"{root}/{name}".rpartition("/")
                upload(filesystem, local.name, f"{folder}/{base}", temporary=f"{folder}/{_temporary(base)}")
            return
        target = Path(self.path(name))
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary = target.with_name(_temporary(target.name))
        try:
            file = temporary.open("wb")
            try:
                yield file
                file.flush()
                os.fsync(file.fileno())
                file.close()
            except BaseException:
                # On a full disk there is no room for its buffer either; the first error counts.
                with contextlib.suppress(OSError):
                    file.close()
                raise
            try:
                temporary.replace(target)
            except IsADirectoryError as error:
                raise OutputError(f"cannot write {target}: a folder has its name", "Move that away.") from error
            _sync_folder(target.parent)
        finally:
            temporary.unlink(missing_ok=True)

    def write(self, name: str, data: bytes) -> None:
        """Write a whole file, atomically."""
        with self.writing(name) as file:
            file.write(data)

    def write_json(self, name: str, value: Any) -> None:
        """Write JSON for people and programs, atomically."""
        text = json.dumps(value, sort_keys=True, indent=1, ensure_ascii=False, allow_nan=False)
        self.write(name, text.encode() + b"\n")

    def remove(self, name: str) -> None:
        """Remove a file; nothing happens where there is none."""
        with contextlib.suppress(FileNotFoundError):
            if self.is_local:
                Path(self.path(name)).unlink()
            else:
                filesystem, root = _filesystem(self.root)
                filesystem.rm_file(f"{root}/{name}")

    def remove_folder(self, name: str) -> None:
        """Remove a folder and all in it; nothing happens where there is none. Refuses the root itself."""
        if not name.strip("/"):
            raise ValueError("refusing to remove a store's root")
        if self.is_local:
            shutil.rmtree(self.path(name), ignore_errors=True)
            return
        filesystem, root = _filesystem(self.root)
        if filesystem.exists(f"{root}/{name}"):
            filesystem.rm(f"{root}/{name}", recursive=True)

    def remove_empty_folder(self, name: str) -> None:
        """Remove a folder that holds nothing; nothing happens where there is none, or something in it."""
        if self.entries(name):
            return
        if self.is_local:
            with contextlib.suppress(OSError):  # it is not there, or was filled just now
                Path(self.path(name)).rmdir()
            return
        filesystem, root = _filesystem(self.root)
        with contextlib.suppress(OSError, NotImplementedError):  # in object stores an empty folder is none
            filesystem.rmdir(f"{root}/{name}")

    def sha256(self, name: str) -> str:
        """sha256 (hex) of a file, read in pieces. Raises `FileNotFoundError`."""
        with self.open(name) as file:
            return hashlib.file_digest(file, "sha256").hexdigest()  # type: ignore[arg-type]

    def remove_temporaries(self, folder: str, wanted: Callable[[str], bool] = lambda _: True) -> None:
        """Remove what killed writers left in `folder` of files whose base name is `wanted`.

        Call only while holding the lock of those files.
        """
        for name in self.names(folder):
            base = name.rsplit("/", 1)[-1]
            if base.startswith(".") and base.endswith(TEMPORARY_SUFFIX) and wanted(base[1:]):
                self.remove(name)


def _temporary(base: str) -> str:
    """A name of its own for what becomes `base`; `Store.remove_temporaries` knows it."""
    return f".{base}.{os.getpid()}-{secrets.token_hex(4)}{TEMPORARY_SUFFIX}"


def _is_file(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_file()
    except OSError:  # a link that leads to itself
        return False


def _open_regular(path: str) -> IO[bytes]:
    """Open a local file without waiting for what writes into a pipe. Raises as `Store.open`."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except NotADirectoryError as error:
        raise FileNotFoundError(error.errno, error.strerror, path) from error
    except OSError as error:
        if error.errno not in _NO_FILE:
            raise
        raise DamagedFileError(f"{path} is no file that can be read ({error.strerror})", _REMEDY) from error
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise DamagedFileError(f"{path} is not a regular file", _REMEDY)
    return os.fdopen(descriptor, "rb")


def _sync_folder(folder: Path) -> None:
    """Make a rename durable: the folder's own entry has to reach the disk too."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
