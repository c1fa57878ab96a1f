"""Making things ahead in one thread, within a bound of bytes.

A thread of the rank's own process beats worker processes where making a batch is mostly copying: nothing crosses a process
boundary, and the copying lets the interpreter go.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable
from typing import Any, TypeVar

Thing = TypeVar("Thing")


def prefetch(things: Iterable[Thing], *, limit: int, size: Callable[[Thing], int]) -> Generator[Thing]:
    """`things`, made ahead while those that wait have fewer than `limit` bytes together; one is always made ahead.

    An error is raised where the thing would have come. The thread ends with the iterator, also where that is closed early.
    """
    waiting: deque[tuple[Any, int]] = deque()
    held, ended, stopped = 0, False, False
    error: BaseException | None = None
    changed = threading.Condition()

    def make() -> None:
        nonlocal held, ended, error
        try:
            for thing in things:
                with changed:
                    waiting.append((thing, bytes_ := size(thing)))
                    held += bytes_
                    changed.notify_all()
                    while waiting and held >= limit and not stopped:
                        changed.wait()
                    if stopped:
                        return
        except BaseException as raised:  # noqa: BLE001 - raised again below
            error = raised
        finally:
            with changed:
                ended = True
                changed.notify_all()

    thread = threading.Thread(target=make, name="prefetch", daemon=True)
    thread.start()
    try:
        while True:
            with changed:
                while not waiting and not ended:
                    changed.wait()
                if not waiting:
                    break
                thing, bytes_ = waiting.popleft()
                held -= bytes_
                changed.notify_all()
            yield thing
            del thing  # what is being used by the caller is not ours to keep
        if error is not None:
            raise error
    finally:
        with changed:
            stopped = True
            changed.notify_all()
        thread.join()
