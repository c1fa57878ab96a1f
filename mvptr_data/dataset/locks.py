"""One writer at a time: a lock file with a heartbeat, taken over when its holder is dead.

A lock is `locks/<name>.json`, or `locks/<name>.<i>-of-<n>.json` for one slice of the work: slices of one cut coexist, the
whole and another cut do not. A holder renews it every few seconds; one that was not renewed for `STALE_AFTER` seconds, or
whose process is gone from this host (after a kill -9), is taken over without asking.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import secrets
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mvptr_data.errors import BusyError, DamagedFileError, InputError
from mvptr_data.storage import Store

HEARTBEAT_SECONDS = 10.0
STALE_AFTER = 60.0
#: Between two looks of a process that waits.
WAIT_SECONDS = 0.2


@dataclass(frozen=True, slots=True)
class Slice:
    """The shards of an array task: every `count`-th one, from `index` (0-based) on. `Slice()` is all of them."""

    index: int = 0
    count: int = 1

    def __post_init__(self) -> None:
        if not 0 <= self.index < self.count:
            raise InputError(f"there is no array task {self.index} of {self.count}", "Count from 0: 0/8, 1/8, ... 7/8.")

    def shards(self, total: int) -> range:
        """This slice of the shards 0 .. total - 1."""
        return range(self.index, total, self.count)

    def __str__(self) -> str:
        return f"{self.index}-of-{self.count}"


WHOLE = Slice()


@contextlib.contextmanager
def hold_lock(store: Store, name: str, part: Slice = WHOLE, *, wait: bool = False) -> Iterator[None]:
    """Hold the lock `name` of a data set, or that of a slice of it, during the block.

    Raises `BusyError` where a live process holds it, the whole of it, or a slice of another cut; with `wait`, waits for them.
    """
    path = _path(name, part)
    token = secrets.token_hex(8)
    started = time.time()
    while True:
        with _alone(store):
            holder = next((held for held in live_locks(store, name) if _conflict(held.part, part)), None)
            if holder is None:
                _write(store, path, token, part, started)
                break
        if not wait:
            raise BusyError(
                f"{store.root} is being written by process {holder.pid} on {holder.host}"
                + (f" (array task {holder.part.index}/{holder.part.count})" if holder.part != WHOLE else ""),
                "Wait for it or stop it; a lock whose holder died is released by itself after a minute.",
            )
        time.sleep(WAIT_SECONDS)
    renew = threading.Event()

    def beat() -> None:
        while not renew.wait(HEARTBEAT_SECONDS):
            with contextlib.suppress(OSError):  # a beat that fails (a full disk) is made up by the next
                if _read(store, path).get("token", token) == token:  # else taken over while this process slept
                    _write(store, path, token, part, started)

    heart = threading.Thread(target=beat, name=f"lock-{name}", daemon=True)
    heart.start()
    try:
        yield
    finally:
        renew.set()
        heart.join()
        if _read(store, path).get("token") == token:
            store.remove(path)


@dataclass(frozen=True, slots=True, kw_only=True)
class LiveLock:
    """A lock that is held now. `since`: seconds of the epoch."""

    part: Slice
    pid: int
    host: str
    since: float


def live_locks(store: Store, name: str) -> list[LiveLock]:
    """Who holds the lock `name`, or slices of it, now."""
    files = (file for file in store.names("locks") if re.fullmatch(rf"locks/{name}(\.\d+-of-\d+)?\.json", file))
    return [lock for file in files if (lock := _live(_read(store, file))) is not None]


def _path(name: str, part: Slice) -> str:
    return f"locks/{name}.json" if part == WHOLE else f"locks/{name}.{part}.json"


def _conflict(one: Slice, other: Slice) -> bool:
    """Whether two slices may share a shard: those of one cut that are not the same do not."""
    return one.count != other.count or one.index == other.index


def _live(holder: dict[str, Any]) -> LiveLock | None:
    """What a lock file says, where it is a live process's."""
    if not _is_alive(holder):
        return None
    try:
        part, since = Slice(*holder.get("slice", (0, 1))), float(holder.get("since", 0.0))
    except (TypeError, ValueError, InputError):
        part, since = WHOLE, 0.0
    return LiveLock(part=part, pid=holder["pid"], host=str(holder.get("host")), since=since)


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


def _write(store: Store, path: str, token: str, part: Slice, started: float) -> None:
    holder = {
        "token": token,
        "pid": os.getpid(),
        "start": _start_time(os.getpid()),
        "host": socket.gethostname(),
        "beat": time.time(),
        "since": started,
        "slice": [part.index, part.count],
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
