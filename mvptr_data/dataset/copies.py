"""Files of a remote data set, copied whole to local disk when they are first needed.

    copies = LocalCopies(Store.at("s3://bucket/coco"), folder="/local/cache", limit=200 << 30)
    path = copies.path("regions/00012.tar", size=row.bytes, sha256=row.sha256)

A copy is named by its sha256, so it cannot be stale: another generation of a shard, or another data set, is another copy.
Processes of one machine share the folder: one of them fetches a file, the others wait for it. A copy that a killed process
left half done is gone on with. Its digest is checked on arrival. When `limit` bytes are full, those that were used longest ago
go first; a process that still reads such a file keeps what it has open. A local data set is read where it lies.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import re
import time
from collections.abc import Iterator
from pathlib import Path

from mvptr_data.errors import DamagedFileError, IncompleteError, InputError
from mvptr_data.sources import remote
from mvptr_data.storage import Store, output_errors

#: Bytes asked for at once: what is fetched again when a process is killed.
PIECE = 16 << 20
#: Seconds after which a half-made copy that nobody goes on with may go as well.
ABANDONED_SECONDS = 3600
#: Files that stand for locks, shared by the digests that begin alike.
_LOCKS = 64
_COPY = re.compile(r"[0-9a-f]{64}")
_PART = ".part"


class LocalCopies:
    """Local paths of a data set's files. Opening it writes nothing; `folder` and `limit` (bytes) are for remote ones."""

    def __init__(self, store: Store, *, folder: str | os.PathLike[str], limit: int) -> None:
        self._store, self._folder, self._limit = store, Path(folder), limit

    def path(self, name: str, *, size: int, sha256: str) -> Path:
        """Where a file lies on local disk; it stays there until it is removed for others that are needed.

        Raises `DamagedFileError` (missing, or other bytes than `sha256` says), `IncompleteError` (the server does not answer),
        `InputError` (it alone exceeds the limit), `OutputError` (the disk is full).
        """
        if self._store.is_local:
            return Path(self._store.path(name))
        if not _COPY.fullmatch(sha256):
            raise DamagedFileError(f"{sha256!r} is promised as the sha256 of {self._store.path(name)}", _REMEDY)
        copy = self._folder / sha256
        if self._is_whole(copy, size):
            return copy
        with output_errors(Store.at(self._folder)):
            self._folder.mkdir(parents=True, exist_ok=True)
            with self._locked(f"copy-{int(sha256[:8], 16) % _LOCKS:02d}"):
                if not self._is_whole(copy, size):
                    self._fetch(name, copy, size, sha256)
        return copy

    def _is_whole(self, copy: Path, size: int) -> bool:
        """Whether a copy is there; it is marked as used now. Only whole and sound files get such a name."""
        try:
            if copy.stat().st_size != size:
                return False
            os.utime(copy)
        except FileNotFoundError:
            return False
        return True

    def _fetch(self, name: str, copy: Path, size: int, sha256: str) -> None:
        """Copy a file, going on with what an earlier process left of it; once more from the start if that was unsound."""
        part = copy.with_name(copy.name + _PART)
        resumed = part.exists()
        with self._locked("room"):
            self._make_room(size, part)
        self._complete(name, part, size)
        with part.open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
        if found != sha256:
            part.unlink()
            if resumed:
                self._fetch(name, copy, size, sha256)
                return
            raise DamagedFileError(
                f"{self._store.path(name)} arrived with the sha256 {found[:12]}..., promised was {sha256[:12]}...",
                _REMEDY,
            )
        part.replace(copy)

    def _complete(self, name: str, part: Path, size: int) -> None:
        """Fetch what a partial copy lacks."""
        uri = self._store.path(name)
        with part.open("ab") as file:
            if file.tell() > size:
                file.truncate(0)
            while (at := file.seek(0, os.SEEK_END)) < size:
                try:
                    piece = remote.fetch_range(uri, at, min(PIECE, size - at))
                except FileNotFoundError as error:
                    raise DamagedFileError(f"{uri} is missing", _REMEDY) from error
                except remote.UnreadableError as error:
                    raise IncompleteError(
                        f"{uri} cannot be read: {error}", "Try again when the server answers; what has arrived is kept."
                    ) from error
                if not piece:
                    raise DamagedFileError(f"{uri} ends after {at:,} bytes, promised were {size:,}", _REMEDY)
                file.write(piece)
                file.flush()
            os.fsync(file.fileno())

    def _make_room(self, size: int, part: Path) -> None:
        """Remove copies, those used longest ago first, until `size` more bytes fit below the limit.

        What other processes are fetching is counted as far as it has come.
        """
        if size > self._limit:
            raise InputError(
                f"a shard of {size:,} bytes is larger than the {self._limit:,} bytes for local copies", "Allow more."
            )
        found = []
        for entry in os.scandir(self._folder):
            with contextlib.suppress(FileNotFoundError):  # another process had the same idea
                if _COPY.fullmatch(entry.name.removesuffix(_PART)) and entry.name != part.name:
                    found.append((entry.stat().st_mtime, entry.stat().st_size, entry.name))
        held = sum(bytes_ for _, bytes_, _ in found)
        for used, bytes_, name in sorted(found):
            if held + size <= self._limit:
                return
            if not name.endswith(_PART) or used < time.time() - ABANDONED_SECONDS:
                (self._folder / name).unlink(missing_ok=True)
                held -= bytes_

    @contextlib.contextmanager
    def _locked(self, name: str) -> Iterator[None]:
        """Alone, among the processes and threads of this machine; freed by the system when a process dies."""
        with (self._folder / f"{name}.lock").open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield


_REMEDY = "Run `mvptr-data verify` on the data set."
