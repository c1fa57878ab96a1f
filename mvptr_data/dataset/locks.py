"""One writer at a time: a lock file with a heartbeat, taken over when its holder is dead.

A lock is `locks/<name>.json`. A holder renews it every few seconds; one that was not renewed for `STALE_AFTER` seconds, or
whose process is gone from this host (after a kill -9), is taken over without asking.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mvptr_data.errors import BusyError, DamagedFileError
from mvptr_data.storage import Store

HEARTBEAT_SECONDS = 10.0
STALE_AFTER = 60.0


@contextlib.contextmanager
def hold_lock(store: Store, name: str) -> Iterator[None]:
    """Hold the lock `name` of a data set during the block. Raises `BusyError` where a live process holds it."""
    path = f"locks/{name}.json"
    token = secrets.token_hex(8)
    with _alone(store):
        found = _read(store, path)
        if _is_alive(found):
            raise BusyError(
                f"{store.root} is being written by process {found['pid']} on {found['host']}",
                "Wait for it or stop it; a lock whose holder died is released by itself after a minute.",
            )
        _write(store, path, token)
    renew = threading.Event()

    def beat() -> None:
        while not renew.wait(HEARTBEAT_SECONDS):
            with contextlib.suppress(OSError):  # a beat that fails (a full disk) is made up by the next
                if _read(store, path).get("token", token) == token:  # else taken over while this process slept
                    _write(store, path, token)

    heart = threading.Thread(target=beat, name=f"lock-{name}", daemon=True)
    heart.start()
    try:
        yield
    finally:
        renew.set()
        heart.join()
        if _read(store, path).get("token") == token:
            store.remove(path)


@contextlib.contextmanager
def _alone(store: Store) -> Iterator[None]:
    """No other process looks at locks during the block, where the file system can promise that (object stores cannot)."""
    if not store.is_local:
        yield
        return
    folder = Path(store.path("locks"))
    folder.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _read(store: Store, path: str) -> dict[str, Any]:
    """What a lock says; nothing where there is none, and a lock nobody can read protects nobody."""
    try:
        return store.read_json(path)
    except (FileNotFoundError, DamagedFileError):
        return {}


def _write(store: Store, path: str, token: str) -> None:
    holder = {
        "token": token,
        "pid": os.getpid(),
        "start": _start_time(os.getpid()),
        "host": socket.gethostname(),
        "beat": time.time(),
    }
    store.write_json(path, holder)


def _is_alive(holder: dict[str, object]) -> bool:
    beat, pid = holder.get("beat"), holder.get("pid")
    if not isinstance(beat, int | float) or not isinstance(pid, int) or time.time() - beat > STALE_AFTER:
        return False
    return holder.get("host") != socket.gethostname() or (
        _start_time(pid) is not None and _start_time(pid) == holder.get("start")
    )


def _start_time(pid: int) -> str | None:
    """What tells a process from a later one with the same number; None where there is no such process (or no /proc)."""
    try:
        status = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return None
        except PermissionError:
            return "alive"
        return None if Path("/proc").exists() else "alive"
    return None if status[0] == "Z" else status[19]
