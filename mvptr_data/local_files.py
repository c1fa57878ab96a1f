"""What a local file system is asked for beyond Python's own: names that last, and files that nobody waits for."""

from __future__ import annotations

import errno
import os
import stat
from itertools import takewhile
from pathlib import Path
from typing import IO

from mvptr_data.errors import DamagedFileError

#: What opening a socket, a device without a driver, or a link that leads to itself answers.
NO_FILE = frozenset({errno.ENXIO, errno.ENODEV, errno.ELOOP})
#: What file systems answer that cannot sync a folder, or not one that may be written to but not listed.
_NO_SYNC = frozenset({errno.EINVAL, errno.ENOTSUP, errno.ENOSYS, errno.EACCES})
_REMEDY = "Remove it and run the step that wrote it again."


def open_regular(path: str) -> IO[bytes]:
    """Open a local file for reading, without waiting for what writes into a pipe.

    Raises `FileNotFoundError`, `DamagedFileError` for a folder, a pipe or a device.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except NotADirectoryError as error:
        raise FileNotFoundError(error.errno, error.strerror, path) from error
    except OSError as error:
        if error.errno not in NO_FILE:
            raise
        raise DamagedFileError(f"{path} is no file that can be read ({error.strerror})", _REMEDY) from error
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise DamagedFileError(f"{path} is not a regular file", _REMEDY)
    return os.fdopen(descriptor, "rb")


def is_file(entry: os.DirEntry[str]) -> bool:
    """Whether a folder's entry is a file, or a link to one."""
    try:
        return entry.is_file()
    except OSError:  # a link that leads to itself
        return False


def make_folder(folder: Path) -> None:
    """Make a folder and those above it, durably: what lies in a folder is lost with the folder's own name."""
    for one in reversed([*takewhile(lambda one: not one.is_dir(), (folder, *folder.parents))]):
        one.mkdir(exist_ok=True)
        sync_folder(one.parent)


def sync_folder(folder: Path) -> None:
    """Make names in a folder durable: its own entries have to reach the disk too. Some file systems have no such thing."""
    try:
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    except OSError as error:
        if error.errno not in _NO_SYNC:
            raise
