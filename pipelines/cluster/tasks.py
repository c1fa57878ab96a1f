"""Handing out tasks with a bound on how many are in flight, and yielding their results as they come."""

from __future__ import annotations

import contextlib
import math
import queue
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

from mvptr_data.errors import IncompleteError, MvptrError

Item = TypeVar("Item")
Result = TypeVar("Result")

#: Tasks in flight per worker thread: one running, the others on their way, so that no worker waits for the client.
IN_FLIGHT = 3
#: A result is small and already done when it is asked for; after this many seconds its worker is taken for dead.
RESULT_TIMEOUT = 60
#: Seconds that a cluster may be without any worker, at its start or later (a killed local worker is back in 2 to 4).
WORKERS_TIMEOUT = 120
#: Seconds between questions how many workers there are, and between looks for a lost result that is computed again.
ASK_SECONDS, UNSURE_SECONDS = 10.0, 0.5
#: Seconds that the end of a run waits for an item that is just being made.
STOP_SECONDS = 5.0

_AGAIN = "Run the same command again; what is finished is kept."
_UNSURE = object()


@dataclass(frozen=True, slots=True)
class TaskFailure:
    """A task that could not be done: its workers kept dying (`killed`), or it raised what no task should."""

    reason: str
    killed: bool = False


class Cluster:
    """Runs tasks; made by `open_cluster`. Without a client it runs them in this process, one after another."""

    def __init__(
        self, client: Any = None, *, keep: Callable[[], None] | None = None, patience: float | None = None
    ) -> None:
        """`keep` is called now and then to replace workers that left; `patience`: seconds that there may be none."""
        self._client = client
        self._keep = keep
        self._patience = WORKERS_TIMEOUT if patience is None else patience

    def run_tasks(
        self, function: Callable[[Item], Result], items: Iterable[Item]
    ) -> Iterator[tuple[Item, Result | TaskFailure]]:
        """`function(item)` for each item, in order of completion. A `MvptrError` ends everything; other failures are yielded."""
        if self._client is None:
            for item in items:
                yield item, function(item)
            return
        yield from self._submit(function, items)

    def complete(self, function: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[tuple[Item, Result]]:
        """`run_tasks` for steps whose every task is needed: raises `IncompleteError` for one that cannot be done."""
        for item, outcome in self.run_tasks(function, items):
            if isinstance(outcome, TaskFailure):
                raise IncompleteError(f"task {item} could not be done ({outcome.reason})", _AGAIN)
            yield item, outcome

    def _submit(
        self, function: Callable[[Item], Result], items: Iterable[Item]
    ) -> Iterator[tuple[Item, Result | TaskFailure]]:
        events: queue.SimpleQueue[tuple[str, Any]] = queue.SimpleQueue()
        drawing = _Drawing(items, events)
        tasks: dict[str, tuple[Item, Any]] = {}  # by Dask's key: the item and its future
        unsure: list[Any] = []  # futures whose result died with its worker: Dask computes it again
        more, allowed = True, 0
        asked, lonely = -math.inf, None  # when we last asked for workers, and since when there have been none
        try:
            while more or tasks:
                if (now := time.monotonic()) - asked >= ASK_SECONDS:
                    threads, asked = self._threads(), now
                    if self._keep is not None:
                        self._keep()
                    lonely = None if threads else now if lonely is None else lonely
                    if lonely is not None and now - lonely > self._patience:
                        raise IncompleteError(f"the cluster has had no worker for {self._patience:.0f} s", _AGAIN)
                    if (bound := IN_FLIGHT * max(1, threads)) > allowed:  # workers may join a running cluster
                        drawing.allow(bound - allowed)
                        allowed = bound
                for future in [future for future in unsure if future.done()]:
                    unsure.remove(future)
                    events.put(("done", future))
                try:
                    kind, found = events.get(timeout=UNSURE_SECONDS if unsure else ASK_SECONDS)
                except queue.Empty:
                    continue
                if kind == "item":
                    future = self._client.submit(function, found, pure=False)
                    tasks[future.key] = found, future
                    future.add_done_callback(lambda done: events.put(("done", done)))
                elif kind == "end":
                    more = False
                elif kind == "error":
                    raise found
                elif (outcome := _outcome(found)) is _UNSURE:
                    unsure.append(found)
                else:
                    item, _ = tasks.pop(found.key)
                    yield item, outcome
                    found.release()
                    drawing.allow(1)
        finally:
            drawing.stop()
            if tasks:  # ended early: by an error here or by the caller
                self._client.cancel([future for _, future in tasks.values()], force=True)

    def _threads(self) -> int:
        """Worker threads of the cluster now. Raises `IncompleteError` where the scheduler does not answer."""
        try:
            return sum(self._client.nthreads().values())
        except OSError as error:
            raise IncompleteError(f"the Dask scheduler is gone ({error})", _AGAIN) from error


class _Drawing:
    """Draws items in a thread, one for each that is allowed, so that a slow generator keeps no finished task waiting."""

    def __init__(self, items: Iterable[Any], events: queue.SimpleQueue[tuple[str, Any]]) -> None:
        self._items, self._events = items, events
        self._permits = threading.Semaphore(0)
        self._stopped = False
        self._thread = threading.Thread(target=self._draw, name="items", daemon=True)
        self._thread.start()

    def allow(self, count: int) -> None:
        self._permits.release(count)

    def stop(self) -> None:
        """Draw no more. An item that is being made is waited for, but not for long."""
        self._stopped = True
        self._permits.release()
        self._thread.join(timeout=STOP_SECONDS)

    def _draw(self) -> None:
        try:
            iterator = iter(self._items)
            while self._permits.acquire() and not self._stopped:
                try:
                    item = next(iterator)
                except StopIteration:
                    self._events.put(("end", None))
                    return
                self._events.put(("item", item))
        except BaseException as error:  # noqa: BLE001 - it is raised again by `run_tasks`
            self._events.put(("error", error))


def _outcome(future: Any) -> Any:
    """The result of a future that is done, or a `TaskFailure`; `_UNSURE` where its result was lost and is computed again."""
    from distributed import KilledWorker

    if future.status == "finished":
        # A worker that dies between its task's end and this call takes the result with it.
        with contextlib.suppress(OSError, KilledWorker):
            return future.result(timeout=RESULT_TIMEOUT)
    if future.status == "cancelled":
        raise IncompleteError("the Dask scheduler is gone, or has dropped a task", _AGAIN)
    if future.status != "error":
        return _UNSURE
    error = future.exception(timeout=RESULT_TIMEOUT)
    if isinstance(error, MvptrError):
        raise error
    reason = str(error).splitlines()[0] if str(error) else "no message"
    return TaskFailure(f"{type(error).__name__}: {reason}", killed=isinstance(error, KilledWorker))
