"""One writer at a time: a lock file with a heartbeat, taken over when its holder is dead.

A lock is `locks/<name>.json`, or `locks/<name>.<i>-of-<n>.json` for one slice of the work: slices of one cut coexist, the
whole and another cut do not. A holder renews it every few seconds; one that was not renewed for `STALE_AFTER` seconds is taken
over. One whose process is gone (after a kill -9) is taken over at once, where the asker can know that: on the same host, in the
same PID namespace, since the same boot. Clocks of two machines may differ by more than `STALE_AFTER`, so a lock of another one
that looks stale is watched for `WATCH_SECONDS` first.

Where the file system has locks of its own, looking and writing are one step. Elsewhere (object stores) a lock is asked for
first and held only when nobody else has it after a moment; see `Held.take`.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
import threading
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

from mvptr_data.dataset import lock_files
from mvptr_data.dataset.lock_files import (
    WHOLE,
    LiveLock,
    Slice,
    conflict,
    doubtful,
    files_of_lock,
    live_locks,
    place,
    read_lock,
    start_time,
)
from mvptr_data.errors import BusyError, OutputError
from mvptr_data.storage import Store

HEARTBEAT_SECONDS = 10.0
#: So long a live holder on another machine is given for its next beat: two may be late.
WATCH_SECONDS = 2.5 * HEARTBEAT_SECONDS
#: Between two looks of a process that waits.
WAIT_SECONDS = 0.2
#: What may pass, on an object store, between the look of one process and its write being seen by another.
SETTLE_SECONDS = 1.0


@contextlib.contextmanager
def hold_lock(store: Store, name: str, part: Slice = WHOLE, *, wait: bool = False) -> Iterator[Held]:
    """Hold the lock `name` of a data set, or that of a slice of it, during the block.

    Raises `BusyError` where a live process holds it, the whole of it, or a slice of another cut; with `wait`, waits for them.
    A block that takes long calls `Held.check` before it alters what the lock protects.
    """
    held, stop = Held(store, name, part), threading.Event()

    def beat() -> None:
        while not stop.wait(HEARTBEAT_SECONDS):
            held.renew()

    heart = threading.Thread(target=beat, name=f"lock-{name}", daemon=True)
    try:
        while (other := held.take()) is not None:
            if not wait:
                raise _busy(store, other)
            time.sleep(WAIT_SECONDS)
        heart.start()
        yield held
    finally:
        stop.set()
        if heart.ident is not None:
            heart.join()
        held.release()


@contextlib.contextmanager
def keep_out(store: Store, names: Iterable[str]) -> Iterator[None]:
    """Let nobody take any lock of a local store during the block, without writing a byte: for a disk that has no room left.

    Who asks for a lock meanwhile waits. So the block must be short, and alter nothing but what the locks `names` protect.
    Raises `BusyError` where a live process holds one of them, `OutputError` where the file system has no locks.
    """
    names = list(names)
    for name in names:
        for other in _watch(store, doubtful(store, name, WHOLE)):
            raise _busy(store, other)
    with _alone(store) as alone:
        if not alone:
            raise OutputError(
                f"{store.root} has no room for a lock", "Make room by hand, then run the same command again."
            )
        for name in names:
            for other in live_locks(store, name):
                raise _busy(store, other)
        yield


class Held:
    """A lock that this process holds; made by `hold_lock`."""

    def __init__(self, store: Store, name: str, part: Slice) -> None:
        self._store, self._name, self._part = store, name, part
        self._path = f"locks/{name}.json" if part == WHOLE else f"locks/{name}.{part}.json"
        self._token = secrets.token_hex(8)
        self._since = time.time()
        self._beat = 0.0
        self._lost = False
        self._mutex = threading.Lock()

    def check(self) -> None:
        """Raises `BusyError` where another process took the lock over, because this one slept for `STALE_AFTER` seconds.

        Costs nothing while the heart beats; a process that has just woken looks at the lock itself.
        """
        if not self._lost and time.time() - self._beat > lock_files.STALE_AFTER / 2:
            self.renew()
        if self._lost:
            raise BusyError(
                f"the lock {self._path} of {self._store.root} was taken over while this process slept",
                "See with `mvptr-data status` what runs there; then run the same command again.",
            )

    def take(self) -> LiveLock | None:
        """Take the lock; or say who keeps it from being taken.

        On an object store two can look before either writes. So both write that they ask, wait until each must see the other,
        and look again: who asked first stays (`since`, then the token, which both read alike), the other yields. Of two that
        wrote the same file, it is who wrote last. One that holds the lock already always stays.
        """
        while True:
            if self._store.is_local:
                Path(self._store.path("locks")).mkdir(parents=True, exist_ok=True)
            watched = doubtful(self._store, self._name, self._part)
            for other in _watch(self._store, watched):  # not alone: its beat needs the file system's lock
                return other
            with _alone(self._store) as alone:
                if (rival := self._rival()) is not None:
                    return rival
                if doubtful(self._store, self._name, self._part).items() - watched.items():
                    continue  # it beat just now, or is another
                self._remove_dead()
                self._write(settled=alone)
            if alone:
                return None
            time.sleep(SETTLE_SECONDS)
            found = live_locks(self._store, self._name)
            mine = any(lock.token == self._token for lock in found)
            rivals = [lock for lock in found if lock.token != self._token and conflict(lock.part, self._part)]
            asked = (self._since, self._token)
            first = next((one for one in rivals if not mine or one.settled or (one.since, one.token) < asked), None)
            if mine and first is None:
                self._write(settled=True)
                return None
            self.release()
            if first is not None:
                return first

    def renew(self) -> None:
        """Say that this process lives, unless the lock is another's by now. What fails (a full disk) the next beat makes up."""
        with self._mutex, contextlib.suppress(Exception), _alone(self._store):
            token = read_lock(self._store, self._path).get("token")
            # Within the time nobody else may have had the lock: a file that is gone was removed by hand.
            slept = time.time() - self._beat > lock_files.STALE_AFTER
            if token not in (None, self._token) or (slept and (token is None or self._rival() is not None)):
                self._lost = True
            if not self._lost:
                self._write(settled=True)

    def release(self) -> None:
        """Remove the lock where it is still this process's."""
        with _alone(self._store):
            if read_lock(self._store, self._path).get("token") == self._token:
                self._store.remove(self._path)

    def _rival(self) -> LiveLock | None:
        locks = live_locks(self._store, self._name)
        return next((one for one in locks if one.token != self._token and conflict(one.part, self._part)), None)

    def _remove_dead(self) -> None:
        """Remove the locks that this one takes over, so that a holder that wakes misses its own."""
        for file, part, _ in files_of_lock(self._store, self._name):
            if file != self._path and conflict(part, self._part):
                self._store.remove(file)

    def _write(self, *, settled: bool) -> None:
        now = time.time()
        holder = {
            "token": self._token,
            "pid": os.getpid(),
            "start": start_time(os.getpid()),
            **place(),
            "beat": now,
            "since": self._since,
            "settled": settled,
        }
        self._store.write_json(self._path, holder)
        self._beat = now


def _watch(store: Store, locks: dict[str, LiveLock]) -> Iterator[LiveLock]:
    """Those of `locks` whose holders live: within `WATCH_SECONDS` they beat."""
    if locks:
        time.sleep(WATCH_SECONDS)
        for file, lock in locks.items():
            if (found := read_lock(store, file)) and (found.get("token"), found.get("beat")) != (lock.token, lock.beat):
                yield lock


def _busy(store: Store, other: LiveLock) -> BusyError:
    return BusyError(
        f"{store.root} is being written by process {other.pid} on {other.host}"
        + (f" (array task {other.part.index}/{other.part.count})" if other.part != WHOLE else ""),
        "Wait for it or stop it; a lock whose holder died is released by itself after a minute.",
    )


@contextlib.contextmanager
def _alone(store: Store) -> Iterator[bool]:
    """No other process looks at locks during the block. Gives whether the file system promises that; object stores do not."""
    with contextlib.ExitStack() as stack:
        alone = False
        if store.is_local:
            with contextlib.suppress(OSError):  # no such folder, or a file system without locks
                descriptor = os.open(store.path("locks"), os.O_RDONLY)
                stack.callback(os.close, descriptor)
                fcntl.flock(descriptor, fcntl.LOCK_EX)
                alone = True
        yield alone
