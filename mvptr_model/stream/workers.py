"""Worker processes that hear no signal, and end with the process that started them.

Launchers, Slurm and terminals send SIGTERM and SIGINT to all processes of a run. The rank still makes its step then, and saves,
and needs the batches for it: who makes them must not end first.
"""

from __future__ import annotations

import atexit
import multiprocessing
import os
import re
import signal
import threading
from collections.abc import Generator, Sequence
from functools import partial
from multiprocessing import resource_tracker
from multiprocessing.process import BaseProcess
from typing import Any

from torch.utils.data import DataLoader

from mvptr_data.errors import MvptrError

_UNHEARD = (signal.SIGTERM, signal.SIGINT)
#: What torch's error says of a worker that is no longer there.
_LOST = re.compile(r"DataLoader worker \(pid(?:\(s\))? ([\d, ]+)\)")


class LostWorkerError(MvptrError):
    """A worker process has ended that was to make more batches."""


def from_workers(loader: DataLoader[Any]) -> Generator[Any]:
    """What the worker processes of `loader` make. They end with the generator, and with this process, however that ends.

    The server that forks processes is started here where it does not run yet; processes that are forked by it later on begin
    with the signals blocked, too. Raises `LostWorkerError`.
    """
    others = multiprocessing.active_children()
    resource_tracker.ensure_running()  # first: when started, it unblocks the signals
    heard = signal.pthread_sigmask(signal.SIG_BLOCK, _UNHEARD)  # and what is started inherits that
    try:
        batches = iter(loader)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, heard)
    workers = [process for process in multiprocessing.active_children() if process not in others]
    lost, end = None, partial(_kill, workers)
    atexit.register(end)  # a process that ends asks its children to by SIGTERM, and waits for them
    try:
        yield from batches
    except RuntimeError as error:
        lost = _LOST.search(str(error))
        if lost is None:
            raise
    finally:
        del batches  # torch tells its workers to end, and waits a little
        end()
        atexit.unregister(end)
    if lost is not None:
        raise LostWorkerError(
            f"worker process {lost[1]}, which makes batches, has ended by itself: killed, or out of memory or of /dev/shm",
            "Take fewer workers or a smaller prefetch_bytes, or workers=0: a thread then makes the batches.",
        )


def end_with_parent(_: int) -> None:
    """In a worker: end at once with the process that started it, whatever the worker is waiting for."""
    threading.Thread(target=_wait_for_parent, name="parent", daemon=True).start()


def _wait_for_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None, "a worker was started by a process"
    parent.join()
    os._exit(1)


def _kill(workers: Sequence[BaseProcess]) -> None:
    for worker in workers:
        worker.kill()
