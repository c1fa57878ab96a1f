"""Lock files: whose each is, of which slice of the work, and whether that process lives.

A holder writes its lock again every few seconds. Where the asker runs under the same kernel it looks for the holder's process.
Elsewhere the last beat tells: one from the last `STALE_AFTER` seconds is of a living process. An older one, or one from the
future, may be of a dead process or of a clock that goes wrong; `doubtful` gives those, and who looks twice can tell.
"""

from __future__ import annotations

import contextlib
import os
import re
import socket
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mvptr_data.errors import DamagedFileError, InputError
from mvptr_data.storage import Store

#: Seconds without a beat after which a lock is nobody's.
STALE_AFTER = 60.0


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


@dataclass(frozen=True, slots=True, kw_only=True)
class LiveLock:
    """A lock that is held now. `since`, and `beat`, the last one: seconds of the epoch. `settled`: held, not only asked for."""

    part: Slice
    pid: int
    host: str
    since: float
    beat: float = 0.0
    token: str = ""
    settled: bool = True


def live_locks(store: Store, name: str) -> list[LiveLock]:
    """Who holds the lock `name`, or slices of it, now."""
    return [_lock(part, holder) for _, part, holder in files_of_lock(store, name) if _is_alive(holder)]


def files_of_lock(store: Store, name: str) -> Iterator[tuple[str, Slice, dict[str, Any]]]:
    """The files of the lock `name`, each with its slice and what it says."""
    for file in store.names("locks"):
        if found := re.fullmatch(rf"locks/{name}(?:\.(\d+)-of-(\d+))?\.json", file):
            part = WHOLE
            with contextlib.suppress(InputError):
                part = Slice(int(found[1]), int(found[2])) if found[1] else WHOLE
            yield file, part, read_lock(store, file)


def doubtful(store: Store, name: str, part: Slice) -> dict[str, LiveLock]:
    """The locks in the way of `part` whose beat says nothing, by file; nothing of them changes where their holders are dead."""
    return {
        file: _lock(other, holder)
        for file, other, holder in files_of_lock(store, name)
        if conflict(other, part) and _has_beat(holder) and not _same_kernel(holder) and not _is_recent(holder)
    }


def conflict(one: Slice, other: Slice) -> bool:
    """Whether two slices may share a shard: those of one cut that are not the same do not."""
    return one.count != other.count or one.index == other.index


def _lock(part: Slice, holder: dict[str, Any]) -> LiveLock:
    return LiveLock(
        part=part,
        pid=holder["pid"],
        host=str(holder.get("host")),
        since=_seconds(holder.get("since")) or 0.0,
        beat=float(holder["beat"]),
        token=str(holder.get("token")),
        settled=holder.get("settled") is not False,
    )


def read_lock(store: Store, path: str) -> dict[str, Any]:
    """What a lock says; nothing where there is none, and a lock nobody can read protects nobody."""
    try:
        return store.read_json(path)
    except (FileNotFoundError, DamagedFileError):
        return {}


def place() -> dict[str, str | None]:
    """Where process numbers mean what they mean here: containers share a host's name, or its kernel, not its processes."""
    found: dict[str, str | None] = {"host": socket.gethostname(), "boot": None, "namespace": None}
    with contextlib.suppress(OSError):
        found["boot"] = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        found["namespace"] = os.readlink("/proc/self/ns/pid")  # noqa: PTH115 - its text; it leads to no file
    return found


def _is_alive(holder: dict[str, Any]) -> bool:
    """Whether the holder's process lives, as far as its beat and this machine tell."""
    if not _has_beat(holder) or not _is_recent(holder):
        return False
    here = place()
    if None in here.values() or any(holder.get(name) != value for name, value in here.items()):
        return True  # nobody here can know its process: the heartbeat alone tells
    return _runs(holder["pid"], holder.get("start"))


def _has_beat(holder: dict[str, Any]) -> bool:
    return _seconds(holder.get("beat")) is not None and isinstance(holder.get("pid"), int)


def _seconds(value: object) -> float | None:
    """A time that a lock tells, if it is one: a whole number in JSON may be beyond a float."""
    return float(value) if isinstance(value, int | float) and abs(value) < 1 << 62 else None


def _is_recent(holder: dict[str, Any]) -> bool:
    return abs(time.time() - float(holder["beat"])) <= STALE_AFTER


def _same_kernel(holder: dict[str, Any]) -> bool:
    """Whether the holder ran, or runs, by the same clock as this process."""
    boot = place()["boot"]
    return boot is not None and holder.get("boot") == boot


def _runs(pid: int, start: object) -> bool:
    """Whether the process `pid` that began at `start` runs on this host; yes for another user's that is hidden."""
    if pid < 1:
        return False
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        pass
    found = start_time(pid)
    return found is None or found == start


def start_time(pid: int) -> str | None:
    """What tells a process from a later one with the same number, "ended" for a zombie; None where /proc does not say."""
    try:
        status = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return "ended" if status[0] == "Z" else status[19]
