"""Walking through a tar's headers without reading the members' data.

The standard `tarfile` ends silently at a damaged header in the middle of an archive, and holds every member it has met; here
damage is an exception with its place, and nothing is held. The single header is parsed by `tarfile.TarInfo.frombuf`.
"""

from __future__ import annotations

import re
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO

from mvptr_data.errors import SampleFault
from mvptr_data.sources.files import file_size

_BLOCK = tarfile.BLOCKSIZE
_MAX_NAME_BYTES = 1 << 20
_PAX_TYPES = (tarfile.XHDTYPE, tarfile.SOLARIS_XHDTYPE)
_PAX_RECORD = re.compile(rb"(\d{1,20}) ([^=]+)=")
_COMPRESSED = {b"\x1f\x8b": "gzip", b"BZh": "bzip2", b"\xfd7zXZ": "xz", b"\x28\xb5\x2f\xfd": "zstandard"}


@dataclass(frozen=True, slots=True, kw_only=True)
class TarMember:
    """One member: the place of its data in bytes, and whether it is a regular file that the archive holds to its end."""

    name: str
    offset: int
    size: int
    is_file: bool
    is_folder: bool
    is_cut: bool


def scan_tar(file: IO[bytes]) -> Iterator[TarMember]:
    """The members of a tar (ustar, GNU or pax), in its order.

    Raises `SampleFault`: `empty_file`, `missing_file` for a compressed archive, and, after all members before that place,
    `torn_archive` where a header is damaged or cut, a member's data are cut, the end-of-archive mark is missing, or
    something follows it.
    """
    length = file_size(file)
    if not length:
        raise SampleFault("empty_file", "the archive has no bytes")
    _refuse_compressed(file.read(8))
    position = 0
    name = size = None  # what an extension header says about the member after it
    while True:
        file.seek(position)
        header = file.read(_BLOCK)
        try:
            info = tarfile.TarInfo.frombuf(header, "utf-8", "surrogateescape")
        except tarfile.EOFHeaderError:  # type: ignore[attr-defined]
            _check_nothing_follows(file, position)
            return
        except (tarfile.HeaderError, ValueError) as error:
            reason = "its end-of-archive mark is missing" if not header else f"the header is damaged ({error})"
            raise _torn(position, reason) from error
        offset = position + _BLOCK
        if info.type in (tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK, *_PAX_TYPES):
            body = _extension(file, info.size, position)
            if info.type == tarfile.GNUTYPE_LONGNAME:
                name = body.rstrip(b"\0").decode("utf-8", "surrogateescape")
            elif info.type in _PAX_TYPES:
                name, size = _pax(body, name, size, position)
            position = offset + _padded(info.size)
            continue
        if info.type == tarfile.GNUTYPE_SPARSE:
            raise _torn(position, "it holds a sparse file, which cannot be read; make it again without --sparse")
        size = info.size if size is None else size
        if info.islnk() or info.issym() or info.ischr() or info.isblk() or info.isfifo() or info.isdir():
            size = 0
        if size < 0:
            raise _torn(position, f"the header is damaged (size {size})")
        if info.type != tarfile.XGLTYPE:
            yield TarMember(
                name=info.name if name is None else name,
                offset=offset,
                size=size,
                is_file=info.isreg(),
                is_folder=info.isdir(),
                is_cut=offset + size > length,
            )
        if offset + size > length:
            raise _torn(position, f"{offset + size - length} bytes of this member's data are missing")
        # A cut in the padding after the last member loses nothing but the end-of-archive mark.
        position = min(offset + _padded(size), length)
        name = size = None


def _refuse_compressed(start: bytes) -> None:
    for signature, program in _COMPRESSED.items():
        if start.startswith(signature):
            raise SampleFault(
                "missing_file", f"the archive is compressed ({program}), so no member can be read alone; decompress it"
            )


def _check_nothing_follows(file: IO[bytes], end: int) -> None:
    """Archives glued together would lose all but the first in silence."""
    file.seek(end)
    position = end
    while piece := file.read(1 << 20):
        if piece.count(0) != len(piece):
            raise _torn(end, f"data follow the end-of-archive mark after byte {position}; they are not read")
        position += len(piece)


def _extension(file: IO[bytes], size: int, position: int) -> bytes:
    """The data of an extension header, which hold the next member's name or size."""
    if not 0 <= size <= _MAX_NAME_BYTES:
        raise _torn(position, f"the header is damaged (a name of {size} bytes)")
    body = file.read(size)
    if len(body) < size:
        raise _torn(position, "the archive ends within a header")
    return body


def _pax(body: bytes, name: str | None, size: int | None, position: int) -> tuple[str | None, int | None]:
    """The name and size that pax records (`28 path=photos/x.jpg\\n`) give the next member."""
    start = 0
    while start < len(body) and (match := _PAX_RECORD.match(body, start)):
        end = start + int(match[1])
        if not match.end() < end <= len(body):
            break
        value = body[match.end() : end - 1]
        if match[2] == b"path":
            name = value.decode("utf-8", "surrogateescape")
        elif match[2] == b"size":
            if not re.fullmatch(rb"\d{1,18}", value):
                break
            size = int(value)
        start = end
    if body[start:].strip(b"\0"):
        raise _torn(position, "the header is damaged (pax records)")
    return name, size


def _padded(size: int) -> int:
    return size + -size % _BLOCK


def _torn(position: int, reason: str) -> SampleFault:
    return SampleFault("torn_archive", f"at byte {position}: {reason}")
