"""The lines of a large TSV by byte range: an image's id, a tab, and whatever is said of it.

Nothing but the first bytes of each line is held, so a file may have tens of GB. A `.lineidx` beside it (the byte offset of each
line, one a row) saves reading it once from end to end. It is a hint: offsets that do not begin a line are not used.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO

import numpy as np
from numpy.typing import NDArray

from mvptr_data.errors import InputError
from mvptr_data.sources.files import file_size, kind_of, open_file, read_range
from mvptr_data.storage import is_url

#: A longer line is not read: 64 MiB hold 6,000 regions of 2054 float32 numbers in base64.
MAX_LINE_BYTES = 64 << 20
#: Where a line's id has to end.
MAX_ID_BYTES = 1024
_BLOCK = 4 << 20
_COMPRESSED = (b"\x1f\x8b", b"BZh", b"\xfd7zXZ", b"\x28\xb5\x2f\xfd", b"PK\x03\x04")


@dataclass(frozen=True, slots=True, kw_only=True)
class TsvLine:
    """A line that is not blank: its number from 1, its bytes [offset, offset + size) without the line's end.

    `id` is the text before the first tab; None where `problem` says what is wrong.
    """

    number: int
    offset: int
    size: int
    id: str | None
    problem: str | None = None


def check_tsv(uri: str) -> int:
    """The bytes of a TSV. Raises `InputError` where it is not there, unreadable, empty or compressed."""
    if kind_of(uri) != "file":
        raise InputError(f"there is no file {uri!r}", "Check the path.")
    try:
        with open_file(uri) as file:
            size, start = file_size(file), file.read(8)
    except OSError as error:
        raise InputError(f"cannot read {uri!r}: {error}", "Check the path and its permissions.") from error
    if not size:
        raise InputError(f"{uri!r} is empty", "Check the path, or get the file again.")
    if start.startswith(_COMPRESSED):
        raise InputError(f"{uri!r} is compressed, so no line in it can be read alone", "Decompress it first.")
    return size


def stored_offsets(uri: str) -> tuple[NDArray[np.int64] | None, str | None]:
    """The offsets that a local file's `.lineidx` holds, verified, or None and why the file has to be read through.

    Each offset has to follow a line's end, and nothing but one line the last. Offsets of lines that are left out in between
    cannot be seen here; whoever reads a range finds the line's end in it (`read_line`).
    """
    index = f"{uri.removesuffix('.tsv')}.lineidx"
    if is_url(uri) or kind_of(index) != "file":
        return None, None
    try:
        with open_file(index) as file:
            offsets = np.array(file.read().split(), dtype=np.int64)
    except (OSError, ValueError, OverflowError) as error:
        return None, f"{index} cannot be used ({error})"
    with open_file(uri) as file:
        problem = _offsets_problem(file, offsets)
    return (None, f"{index} cannot be used ({problem})") if problem else (offsets, None)


def _offsets_problem(file: IO[bytes], offsets: NDArray[np.int64]) -> str | None:
    size = file_size(file)
    if not len(offsets) or offsets[0] != 0 or not (np.diff(offsets) > 0).all() or offsets[-1] >= size:
        return f"its {len(offsets)} offsets are not ascending places in {size} bytes, from 0 on"
    for offset in offsets[1:].tolist():
        if os.pread(file.fileno(), 1, offset - 1) != b"\n":
            return f"no line begins at byte {offset}"
    position = int(offsets[-1])
    while piece := os.pread(file.fileno(), _BLOCK, position):
        if (end := piece.find(b"\n")) >= 0 and position + end + 1 < size:
            return f"there are lines after the last, which begins at byte {offsets[-1]}"
        position += len(piece)
    return None


def list_lines(uri: str, offsets: NDArray[np.int64] | None = None) -> Iterator[TsvLine]:
    """Every line that is not blank, in the file's order. `offsets` are those that `stored_offsets` found.

    Memory: one block. Raises `InputError` where the file cannot be read.
    """
    try:
        with open_file(uri) as file:
            yield from _scan(file) if offsets is None else _look_up(file, offsets)
    except OSError as error:
        raise InputError(f"cannot read {uri!r}: {error}", "Check the path and its permissions.") from error


def read_line(uri: str, offset: int, size: int) -> bytes:
    """A line by its range, without its end. Raises `InputError` where the file is not what it was when it was listed."""
    try:
        line = read_range(uri, offset, size)
    except (OSError, ValueError, ImportError) as error:
        raise InputError(
            f"cannot read {uri!r}: {error}", "Bring the file back and run the same command again."
        ) from error
    if len(line) < size:
        raise InputError(
            f"{uri!r} ends at byte {offset + len(line)}, and went on when it was listed",
            "Bring back the file as it was, or import into another folder.",
        )
    line = line.strip(b"\r\n")
    if b"\n" in line:
        raise InputError(
            f"{uri!r} has more than one line in the {size} bytes from {offset}, though its .lineidx says one",
            "Remove the .lineidx and the output, and import again.",
        )
    return line


def _scan(file: IO[bytes]) -> Iterator[TsvLine]:
    number, start, position, head = 1, 0, 0, b""
    while block := file.read(_BLOCK):
        begin = 0
        while (end := block.find(b"\n", begin)) >= 0:
            if len(head) < MAX_ID_BYTES:
                head += block[begin : min(end, begin + MAX_ID_BYTES - len(head))]
            yield from _line(number, start, position + end - start, head)
            number, start, head = number + 1, position + end + 1, b""
            begin = end + 1
        if len(head) < MAX_ID_BYTES:
            head += block[begin : begin + MAX_ID_BYTES - len(head)]
        position += len(block)
    yield from _line(number, start, position - start, head)


def _look_up(file: IO[bytes], offsets: NDArray[np.int64]) -> Iterator[TsvLine]:
    size = file_size(file)
    closed = os.pread(file.fileno(), 1, size - 1) == b"\n"
    ends = [*(offsets[1:] - 1).tolist(), size - closed]
    for number, (offset, end) in enumerate(zip(offsets.tolist(), ends, strict=True), 1):
        head = os.pread(file.fileno(), min(MAX_ID_BYTES, end - offset), offset)
        yield from _line(number, offset, end - offset, head)


def _line(number: int, offset: int, size: int, head: bytes) -> Iterator[TsvLine]:
    """The line with these first bytes; none where it is blank."""
    if size <= MAX_ID_BYTES and not head.strip():
        return
    found, tab, _ = head.partition(b"\t")
    name, problem = None, None
    try:
        name = found.decode().strip()
    except UnicodeDecodeError as error:
        problem = f"the id is not UTF-8: {error.reason} at its byte {error.start}"
    if number == 1 and name is not None:
        name = name.removeprefix("\ufeff")
    if not tab:
        problem = f"there is no tab in its first {MAX_ID_BYTES} bytes"
    elif not problem and not name:
        problem = "there is no id before its first tab"
    if problem:
        name = None
    elif size > MAX_LINE_BYTES:
        problem = f"it has {size:,} bytes, the limit is {MAX_LINE_BYTES:,}"
    yield TsvLine(number=number, offset=offset, size=size, id=name, problem=problem)
