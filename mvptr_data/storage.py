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
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import fsspec
import fsspec.core

from mvptr_data.errors import DamagedFileError, InputError, OutputError
from mvptr_data.local_files import NO_FILE, is_file, make_folder, open_regular, sync_folder
from mvptr_data.remote_files import filesystem, look, open_remote, put, reading

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


@dataclass(frozen=True, slots=True)
class Store:
    """A folder or fsspec URL."""

    root: str

    @classmethod
    def at(cls, root: str | os.PathLike[str]) -> Store:
        """A store at `root`; local roots become absolute, because workers may stand in another folder.

        Links stay as they were written: what they lead to may move. Raises `InputError` for an empty name, as of a variable of
        the shell that nobody has set.
        """
        text = os.fspath(root).removeprefix("file://")
        if not text:
            raise InputError("the name of a folder is empty", 'Give a folder or URL; "." is this one.')
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
        return look(self.root, name) is not None

    def size(self, name: str) -> int | None:
        """Bytes of a file, or None where there is none."""
        try:
            if self.is_local:
                return Path(self.path(name)).stat().st_size
            found = look(self.root, name)
            return None if found is None else found.size
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            if error.errno in NO_FILE:
                return None
            raise

    def names(self, folder: str) -> list[str]:
        """Names (relative to the store) of the files directly in `folder`, sorted; empty where there is no such folder."""
        above = f"{folder}/" if folder else ""
        if self.is_local:  # ten times as quick as fsspec's listing, which asks for the size and times of every file
            try:
                with os.scandir(self.path(folder)) as entries:
                    return sorted(f"{above}{entry.name}" for entry in entries if is_file(entry))
            except (FileNotFoundError, NotADirectoryError):
                return []
        backend, root = filesystem(self.root)
        try:
            with reading(self.path(folder)):
                # refresh: other workers write here, and object-store backends remember listings.
                found = backend.ls(f"{root}/{folder}".rstrip("/"), detail=True, refresh=True)
        except FileNotFoundError:
            return []
        return sorted(f"{above}{entry['name'].rsplit('/', 1)[-1]}" for entry in found if entry["type"] == "file")

    def entries(self, folder: str) -> list[str]:
        """The bare names of all that is directly in `folder`, folders too, sorted; empty where there is no such folder."""
        try:
            if self.is_local:
                return sorted(entry.name for entry in Path(self.path(folder)).iterdir())
            backend, root = filesystem(self.root)
            top = f"{root}/{folder}".rstrip("/")
            with reading(self.path(folder)):
                found = backend.ls(top, detail=False, refresh=True)
        except (FileNotFoundError, NotADirectoryError):
            return []
        # Object stores list a folder's own placeholder among what is in it.
        return sorted(name.rstrip("/").rpartition("/")[2] for name in found if name.rstrip("/") != top)

    def open(self, name: str) -> IO[bytes]:
        """Open for reading, seekable.

        Raises `FileNotFoundError`, `DamagedFileError` for a folder, a pipe or a device, `UnreachableError` where a server fails.
        """
        if self.is_local:
            return open_regular(self.path(name))
        return open_remote(self.root, name)

    def read(self, name: str) -> bytes:
        """The whole file. Raises `FileNotFoundError`."""
        with self.open(name) as file:
            return file.read()

    def read_json(self, name: str, remedy: str = _REMEDY) -> dict[str, Any]:
        """A file that holds a JSON object. Raises `FileNotFoundError`, `DamagedFileError` with `remedy`."""
        with self.open(name) as file:
            data = file.read(MAX_JSON_BYTES + 1)
        if len(data) > MAX_JSON_BYTES:
            raise DamagedFileError(f"{self.path(name)} has more than {MAX_JSON_BYTES:,} bytes", remedy)
        return parse_json(data, self.path(name), remedy)

    @contextlib.contextmanager
    def writing(self, name: str) -> Iterator[IO[bytes]]:
        """A binary file that takes its name only when the block ends well: local temporary, fsync, rename (or one upload)."""
        with self.together() as staged, staged.writing(name) as file:
            yield file

    @contextlib.contextmanager
    def together(self) -> Iterator[Together]:
        """What is written to the store that this gives takes its names when the block ends well, in the order of writing.

        Each file is whole on disk before the first has its name, so a kill meets the few renames between only by chance.
        """
        staged = Together(self.root)
        try:
            yield staged
            for name, temporary in staged.files.items():
                self._name(temporary, name)
        finally:
            for temporary in staged.files.values():
                temporary.unlink(missing_ok=True)

    def _name(self, temporary: Path, name: str) -> None:
        """Give a whole local file its name."""
        if not self.is_local:
            put(str(temporary), self.root, name, _temporary(name.rpartition("/")[2]))
            return
        target = Path(self.path(name))
        try:
            temporary.replace(target)
        except IsADirectoryError as error:
            raise OutputError(f"cannot write {target}: a folder has its name", "Move that away.") from error
        sync_folder(target.parent)

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
                backend, root = filesystem(self.root)
                with reading(self.path(name)):
                    backend.rm_file(f"{root}/{name}")

    def remove_folder(self, name: str) -> None:
        """Remove a folder and all in it; nothing happens where there is none. Refuses the root itself.

        JSON files go first: they say that others are whole, and a kill on the way must leave none that lies.
        """
        if not name.strip("/"):
            raise ValueError("refusing to remove a store's root")
        if self.is_local:
            for mark in Path(self.path(name)).rglob("*.json"):
                mark.unlink(missing_ok=True)
                sync_folder(mark.parent)
            shutil.rmtree(self.path(name), ignore_errors=True)
            return
        backend, root = filesystem(self.root)
        if backend.exists(f"{root}/{name}"):
            for mark in backend.find(f"{root}/{name}"):
                if mark.endswith(".json"):
                    backend.rm_file(mark)
            backend.rm(f"{root}/{name}", recursive=True)

    def remove_empty_folder(self, name: str) -> None:
        """Remove a folder that holds nothing; nothing happens where there is none, or something in it."""
        if self.entries(name):
            return
        if self.is_local:
            with contextlib.suppress(OSError):  # it is not there, or was filled just now
                Path(self.path(name)).rmdir()
            return
        backend, root = filesystem(self.root)
        with contextlib.suppress(OSError, NotImplementedError):  # in object stores an empty folder is none
            backend.rmdir(f"{root}/{name}")

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


@dataclass(frozen=True, slots=True)
class Together(Store):
    """A store whose files get their names together; made by `Store.together`. `files`: where each lies until then."""

    files: dict[str, Path] = field(default_factory=dict, compare=False)

    @contextlib.contextmanager
    def writing(self, name: str) -> Iterator[IO[bytes]]:
        """A binary file; on disk, whole, when the block ends well."""
        if name in self.files:
            raise ValueError(f"{name} is written twice")
        file: IO[bytes]
        if self.is_local:
            target = Path(self.path(name))
            make_folder(target.parent)
            self.files[name] = target.with_name(_temporary(target.name))
            file = self.files[name].open("xb")
        else:
            descriptor, temporary = tempfile.mkstemp(suffix=TEMPORARY_SUFFIX)
            self.files[name], file = Path(temporary), os.fdopen(descriptor, "wb")
        try:
            yield file
            file.flush()
            if self.is_local:  # else it is no more than what is sent
                os.fsync(file.fileno())
            file.close()
        except BaseException:
            # On a full disk there is no room for its buffer either; the first error counts.
            with contextlib.suppress(OSError):
                file.close()
            raise

    def open(self, name: str) -> IO[bytes]:
        """As `Store.open`; also what has no name yet."""
        return self.files[name].open("rb") if name in self.files else Store.open(self, name)


def _temporary(base: str) -> str:
    """A name of its own for what becomes `base`; `Store.remove_temporaries` knows it."""
    return f".{base}.{os.getpid()}-{secrets.token_hex(4)}{TEMPORARY_SUFFIX}"
