"""Running one task a shard: in this process, on this machine's processes, or on any Dask scheduler.

`run_tasks` hands out items with a bound on how many are in flight and yields results as they come. The shards on disk are the
only truth: tasks are idempotent and return small receipts, so Dask's own state may die at any time (a killed worker's tasks
are simply run again, a killed run is started again and skips what is finished).
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any, TypeVar

from mvptr_data.errors import IncompleteError, InputError, MissingDependencyError, MvptrError

Item = TypeVar("Item")
Result = TypeVar("Result")

#: Tasks in flight per worker thread: one running, the others on their way, so that no worker waits for the scheduler.
IN_FLIGHT = 3
#: A result is small and already done when it is asked for; waiting longer than this means that the scheduler is gone.
RESULT_TIMEOUT = 60
#: Seconds that a cluster may be without any worker, at its start or later (a killed local worker is back in 2 to 4).
WORKERS_TIMEOUT = 120
#: Seconds between looks for a finished task, and between questions whether there are workers at all.
POLL_SECONDS, ASK_SECONDS = 0.01, 10.0

_AGAIN = "Run the same command again; what is finished is kept."


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterOptions:
    """Where tasks run.

    `cluster`: `inline` (this process), `local` (processes of this machine), or a scheduler's address (`tcp://host:8786`).
    `workers`: processes of a local cluster; None takes one for each `threads` cores. `threads`: compute threads a worker uses.
    Results are the same bytes wherever tasks run, as long as `threads` stays the same.
    """

    cluster: str = "local"
    workers: int | None = None
    threads: int = 1

    def __post_init__(self) -> None:
        if self.cluster not in ("inline", "local") and "://" not in self.cluster:
            raise InputError(
                f"unknown cluster {self.cluster!r}",
                "Use inline, local, or a scheduler's address such as tcp://10.0.0.5:8786.",
            )
        if self.threads < 1 or (self.workers is not None and self.workers < 1):
            raise InputError(f"workers is {self.workers} and threads is {self.threads}; both must be at least 1")

    @property
    def local_workers(self) -> int:
        return self.workers or max(1, len(os.sched_getaffinity(0)) // self.threads)


@dataclass(frozen=True, slots=True)
class TaskFailure:
    """A task that could not be done: its workers kept dying, or it raised what no task should."""

    reason: str


class Cluster:
    """Runs tasks; made by `open_cluster`. Without a client it runs them in this process, one after another."""

    def __init__(self, client: Any = None) -> None:
        self._client = client

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
        from distributed import as_completed

        bound = IN_FLIGHT * max(1, sum(self._client.nthreads().values()))
        waiting = iter(items)
        tasks: dict[str, Item] = {}

        def submit(item: Item) -> Any:
            future = self._client.submit(function, item, pure=False)
            tasks[future.key] = item
            return future

        running = as_completed([submit(item) for item in islice(waiting, bound)])
        try:
            while tasks:
                future = self._next_done(running)
                item = tasks.pop(future.key)
                yield item, _outcome(future)
                future.release()
                for following in islice(waiting, 1):
                    running.add(submit(following))
        finally:
            if tasks:  # ended early: by an error here or by the caller
                self._client.cancel(list(running.futures), force=True)

    def _next_done(self, running: Any) -> Any:
        """The next future that is done. Raises `IncompleteError` where workers or scheduler are gone, rather than wait on."""
        seen = asked = time.monotonic()
        while not running.has_ready():
            time.sleep(POLL_SECONDS)
            if (now := time.monotonic()) - asked < ASK_SECONDS:
                continue
            asked = now
            try:
                seen = now if self._client.nthreads() else seen
            except OSError as error:
                raise IncompleteError(f"the Dask scheduler is gone ({error})", _AGAIN) from error
            if now - seen > WORKERS_TIMEOUT:
                raise IncompleteError(f"the cluster has had no worker for {WORKERS_TIMEOUT} s", _AGAIN)
        return next(running)


def _outcome(future: Any) -> Any:
    if future.status in ("cancelled", "lost"):
        raise IncompleteError("the Dask scheduler lost a task", _AGAIN)
    if future.status == "finished":
        return future.result(timeout=RESULT_TIMEOUT)
    error = future.exception(timeout=RESULT_TIMEOUT)
    if isinstance(error, MvptrError):
        raise error
    return TaskFailure(f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else 'no message'}")


@contextlib.contextmanager
def open_cluster(options: ClusterOptions, *, report: str | None = None) -> Iterator[Cluster]:
    """A cluster for the block. `report`: local file name for Dask's performance report (HTML), written where Dask is used.

    Raises `MissingDependencyError` without distributed, `InputError` for an address where nothing answers.
    """
    if options.cluster == "inline":
        yield Cluster()
        return
    try:
        import distributed
    except ImportError as error:
        raise MissingDependencyError(
            "dask is not installed", "Install it with `pip install 'mvptr-data[cluster]'`, or use --cluster inline."
        ) from error
    with contextlib.ExitStack() as stack:
        if options.cluster == "local":
            with _interrupts_ignored():
                local = distributed.LocalCluster(
                    n_workers=options.local_workers,
                    threads_per_worker=1,
                    processes=True,
                    dashboard_address=None,
                    silence_logs=logging.CRITICAL,
                )
            address = stack.enter_context(local)
        else:
            address = options.cluster
        try:
            client = stack.enter_context(distributed.Client(address, set_as_default=True, timeout=20))
            client.wait_for_workers(1, timeout=WORKERS_TIMEOUT)
        except (OSError, TimeoutError) as error:
            raise InputError(
                f"no Dask workers answer at {options.cluster} ({error})",
                "Start `dask scheduler` and `dask worker`, or check the address.",
            ) from error
        if report is not None:
            stack.enter_context(_performance_report(report))
        yield Cluster(client)


@contextlib.contextmanager
def _interrupts_ignored() -> Iterator[None]:
    """Processes started in the block ignore Ctrl-C: a terminal sends it to all, but ending the workers is the client's part."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    handler = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, handler)


@contextlib.contextmanager
def _performance_report(path: str) -> Iterator[None]:
    """Dask's report of the run. A report that cannot be made must not take the run's result with it."""
    from distributed import performance_report

    manager = performance_report(filename=path)
    manager.__enter__()
    try:
        yield
    finally:
        with contextlib.suppress(OSError, TimeoutError, RuntimeError):
            manager.__exit__(None, None, None)


_made: dict[tuple[Any, ...], Any] = {}
_making = threading.Lock()


def once_per_process(factory: Callable[..., Result], *arguments: Any) -> Result:
    """`factory(*arguments)`, made at first use in each process and kept: how a worker comes by its model.

    Not a worker plugin, because a plugin's slow set-up blocks the worker's event loop, and one that raises leaves a broken
    worker in the pool.
    """
    with _making:
        if (factory, *arguments) not in _made:
            _made[(factory, *arguments)] = factory(*arguments)
        return _made[(factory, *arguments)]
