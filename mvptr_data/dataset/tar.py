"""A tar writer with reproducible bytes that knows where every member lies.

Headers come from the standard library; owner, mode and time are fixed, so the same members give the same bytes. The archive
is hashed as it is written. Archives of ours are checked against these bytes and never parsed: a header from elsewhere may name a
link, a device or a terabyte.
"""

from __future__ import annotations

import hashlib
import tarfile
from typing import IO

_BLOCK = tarfile.BLOCKSIZE
_RECORD = tarfile.RECORDSIZE


def member_header(name: str, size: int) -> bytes:
    """What lies before a member's `size` bytes."""
    info = tarfile.TarInfo(name)
    info.size = size
    info.mode = 0o644
    return info.tobuf(tarfile.GNU_FORMAT, "utf-8", "strict")


def member_padding(size: int) -> bytes:
    """What lies behind a member's `size` bytes."""
    return bytes(-size % _BLOCK)


def archive_end(length: int) -> bytes:
    """What lies behind the last member, where the members take `length` bytes."""
    return bytes(2 * _BLOCK + -(length + 2 * _BLOCK) % _RECORD)


class TarWriter:
    """Appends members to `file`, which must be empty; call `close` once, at the end."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._sha256 = hashlib.sha256()
        self.bytes = 0

    def add(self, name: str, data: bytes) -> tuple[int, int]:
        """Append a member; returns the offset of its data in the archive and its size, in bytes."""
        header = member_header(name, len(data))
        offset = self.bytes + len(header)
        self._put(header)
        self._put(data)
        self._put(member_padding(len(data)))
        return offset, len(data)

    def close(self) -> str:
        """Write the end of the archive; returns the sha256 (hex) of the whole file. The file stays open."""
        self._put(archive_end(self.bytes))
        return self._sha256.hexdigest()

    def _put(self, data: bytes) -> None:
        self._file.write(data)
        self._sha256.update(data)
        self.bytes += len(data)
