"""Giving a remote file its bytes whole or not at all, whatever breaks in: Ctrl-C, a lost connection, a killed process."""

from __future__ import annotations

import contextlib
from typing import Any

from fsspec.spec import AbstractFileSystem

#: Protocols whose upload of a file ends in one request that makes it visible: before it, no reader sees anything of it.
OBJECT_STORES = frozenset({"s3", "s3a", "gs", "gcs", "az", "abfs", "abfss", "oss", "oci", "hf"})


def upload(filesystem: AbstractFileSystem, local: str, target: str, *, temporary: str) -> None:
    """Copy the local file `local` to `target`, where another may be.

    Object stores do that whole by themselves. Elsewhere the bytes go to `temporary`, in the same folder, which then takes the
    name. Raises what the backend raises.
    """
    filesystem.makedirs(target.rpartition("/")[0], exist_ok=True)
    protocols = {filesystem.protocol} if isinstance(filesystem.protocol, str) else set(filesystem.protocol)
    if protocols & OBJECT_STORES:
        filesystem.put_file(local, target)
        return
    try:
        filesystem.put_file(local, temporary)
        _rename(filesystem, temporary, target)
    except BaseException:
        with contextlib.suppress(Exception):  # every backend has its own family of errors; the first one counts
            filesystem.rm_file(temporary)
        raise


def _rename(filesystem: Any, old: str, new: str) -> None:
    if type(filesystem).mv is AbstractFileSystem.mv:  # it copies, and takes [ ] in names for patterns
        filesystem.cp_file(old, new)
        filesystem.rm_file(old)
        return
    try:
        filesystem.mv(old, new)
    except Exception:
        if not filesystem.exists(new):
            raise
        filesystem.rm_file(new)  # some servers do not rename over a file
        filesystem.mv(old, new)
