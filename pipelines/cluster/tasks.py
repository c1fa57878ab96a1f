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
IN_FLIGHT = 6
#: A result is small and already done when it is asked for; one that is not here after so many seconds is asked for again later,
#: because meanwhile nobody looks after the workers.
RESULT_TIMEOUT = 2.0
#: Seconds that a cluster may be without any worker, at its start or later (a killed local worker is back in 2 to 4).
WORKERS_TIMEOUT = 120
#: Seconds between questions how many workers there are, and between looks for a lost result that is computed again.
ASK_SECONDS, UNSURE_SECONDS = 10.0, 0.5
#: Seconds that the end of a run waits for an item that is just being made.
STOP_SECONDS = 5.0
#: Seconds that an event may wait for others to be handled with it.
LINGER_SECONDS = 0.05

_AGAIN = "Run the same command again; what is finished is kept."
_UNSURE = object()
#: ("item", item), ("end", None) or ("error", exception) of the items; ("done", future) of the tasks.
_Event = tuple[str, Any]


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
        events: queue.SimpleQueue[_Event] = queue.SimpleQueue()
        drawing = _Drawing(items, events)
        flight = _Flight(self._client, function, events)
        more, allowed = True, 0
        asked, lonely = -math.inf, None  # when we last asked for workers, and since when there have been none
        try:
            while more or flight.tasks:
                if (now := time.monotonic()) - asked >= ASK_SECONDS:
                    threads, asked = self._threads(), now
                    self._forget_key_names()
                    if self._keep is not None:
                        self._keep()
                    lonely = None if threads else now if lonely is None else lonely
                    if lonely is not None and now - lonely > self._patience:
                        raise IncompleteError(f"the cluster has had no worker for {self._patience:.0f} s", _AGAIN)
                    if (bound := IN_FLIGHT * max(1, threads)) > allowed:  # workers may join a running cluster
                        drawing.allow(bound - allowed)
                        allowed = bound
                # Enough is half of what is in flight: the workers have the other half to go on with.
                enough = max(1, min(allowed, len(flight.tasks)) // 2)
                found = _drain(events, UNSURE_SECONDS if flight.unsure else ASK_SECONDS, enough)
                if found["error"]:
                    raise found["error"][0]
                more = more and not found["end"]
                flight.send(found["item"])
                for settled in flight.settle(found["done"]):
                    yield settled
                    drawing.allow(1)
        finally:
            drawing.stop()
            flight.cancel()  # of what is left where this ended early, by an error here or by the caller

    def _threads(self) -> int:
        """Worker threads of the cluster now. Raises `IncompleteError` where the scheduler does not answer."""
        try:
            return sum(self._client.nthreads().values())
        except OSError as error:
            raise IncompleteError(f"the Dask scheduler is gone ({error})", _AGAIN) from error

    def _forget_key_names(self) -> None:
        """Dask remembers the names of 100,000 tasks that it will not see again, 30 MB in the scheduler and in the client."""
        from dask.utils import key_split

        key_split.cache_clear()
        with contextlib.suppress(Exception):  # a scheduler that runs no functions keeps its 30 MB
            self._client.run_on_scheduler(key_split.cache_clear)


class _Drawing:
    """Draws items in a thread, one for each that is allowed, so that a slow generator keeps no finished task waiting."""

    def __init__(self, items: Iterable[Any], events: queue.SimpleQueue[_Event]) -> None:
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


class _Flight:
    """The tasks of one run that are on their way. Sent and fetched by the handful: each message costs more than a task."""

    def __init__(self, client: Any, function: Callable[..., Any], events: queue.SimpleQueue[_Event]) -> None:
        self._client, self._function, self._events = client, function, events
        self.tasks: dict[Any, tuple[Any, Any]] = {}  # by Dask's key: the item and its future
        self.unsure: list[Any] = []  # futures whose result died with its worker: Dask computes it again

    def send(self, items: list[Any]) -> None:
        if not items:
            return
        for item, future in zip(items, self._client.map(self._function, items, pure=False), strict=True):
            self.tasks[future.key] = item, future
            future.add_done_callback(lambda done: self._events.put(("done", done)))

    def settle(self, done: list[Any]) -> Iterator[tuple[Any, Any]]:
        """(item, its result or `TaskFailure`) for each future that is done. Raises a task's `MvptrError`."""
        done += [future for future in self.unsure if future.done()]
        results = self._fetch([future for future in done if future.status == "finished"])
        for future in done:
            outcome = results[future] if future in results else _outcome(future)
            if future in self.unsure:
                self.unsure.remove(future)
            if outcome is _UNSURE:
                self.unsure.append(future)
                continue
            item, _ = self.tasks.pop(future.key)
            yield item, outcome
            future.release()

    def _fetch(self, finished: list[Any]) -> dict[Any, Any]:
        """Results by future, in one message; nothing where that fails or takes long, and then each is looked at alone."""
        if len(finished) < 2:
            return {}
        with contextlib.suppress(Exception):  # a worker that dies before this call takes its results with it
            found = self._client.sync(
                lambda: self._client.gather(finished, asynchronous=True), callback_timeout=RESULT_TIMEOUT
            )
            return dict(zip(finished, found, strict=True))
        return {}

    def cancel(self) -> None:
        if self.tasks:
            self._client.cancel([future for _, future in self.tasks.values()], force=True)


def _drain(events: queue.SimpleQueue[_Event], timeout: float, enough: int) -> dict[str, list[Any]]:
    """What has happened, by kind: waits for the first event, and for a moment until there are `enough` of them."""
    found: dict[str, list[Any]] = {"item": [], "done": [], "end": [], "error": []}
    until, count = time.monotonic() + timeout, 0
    with contextlib.suppress(queue.Empty):
        while count < enough or not events.empty():
            kind, what = events.get(timeout=max(0.0, until - time.monotonic()))
            found[kind].append(what)
            count += 1
            if count == 1:
                until = time.monotonic() + LINGER_SECONDS
    return found


def _outcome(future: Any) -> Any:
    """The result of a future that is done, or a `TaskFailure`; `_UNSURE` where its result was lost and is computed again."""
    from distributed import KilledWorker

    if future.status == "finished":
        # A worker that dies between its task's end and this call takes the result with it.
        with contextlib.suppress(OSError, KilledWorker):  # a `TimeoutError` is an `OSError`
            return future.result(timeout=RESULT_TIMEOUT)
    if future.status == "cancelled":
        raise IncompleteError("the Dask scheduler is gone, or has dropped a task", _AGAIN)
    if future.status != "error":
        return _UNSURE
    error = future.exception()
    if isinstance(error, MvptrError):
        raise error
    return TaskFailure(reason_of(error), killed=isinstance(error, KilledWorker))


def reason_of(error: BaseException) -> str:
    """An error in one line."""
    text = str(error)
    return f"{type(error).__name__}: {text.splitlines()[0] if text else 'no message'}"
