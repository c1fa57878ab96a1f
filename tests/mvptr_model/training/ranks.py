"""Runs of several real processes on this machine, which may be killed."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import random
import signal
import socket
import sys
import time
from collections.abc import Callable
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from mvptr_model.training.log import LOG

_SERVER = multiprocessing.get_context("forkserver")
#: All that a rank imports, once for all ranks: it takes longer than these runs.
_SERVER.set_forkserver_preload(
    ["deepspeed.runtime.zero.muon.muon_optimizer", "torch._inductor.utils", "mvptr_model.training.pretrain"]
)
#: Seconds that a run of a test may take.
LONGEST = 240


def _rank(rank: int, world: int, port: int, given: dict[str, Any], resume: str, errors: str) -> None:
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(world)}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "OMP_NUM_THREADS": "1"}
    descriptor = os.open(f"{errors}/rank-{rank}.txt", os.O_CREAT | os.O_WRONLY | os.O_TRUNC)
    os.dup2(descriptor, 2)
    # The server that forked this one may have been started by a loader's workers, which hear no signals.
    signal.pthread_sigmask(signal.SIG_UNBLOCK, (signal.SIGTERM, signal.SIGINT))
    import torch

    from mvptr_data.errors import MvptrError
    from mvptr_model.training.pretrain import pretrain
    from mvptr_model.training.processes import StoppedError, told_of_lost_ranks
    from mvptr_model.training.settings_file import settings_of

    torch.set_num_threads(1)
    try:
        with told_of_lost_ranks():
            pretrain(settings_of(given), resume=resume)
    except StoppedError as stop:
        sys.exit(stop.exit_code)
    except MvptrError as error:
        Path(f"{errors}/rank-{rank}.said").write_text(f"{type(error).__name__}: {error}")
        sys.exit(1)


def free_port() -> int:
    """One that nobody is given by chance before it is used: below those that the system deals out."""
    while True:
        port = random.randrange(20_000, 32_000)
        with socket.socket() as free, contextlib.suppress(OSError):
            free.bind(("127.0.0.1", port))
            return port


class Ranks:
    """`world` processes that run `given` settings, all but the first those of `others`, if given; what they say as errors goes
    into `folder`."""

    def __init__(
        self,
        world: int,
        given: dict[str, Any],
        folder: Path,
        resume: str = "auto",
        others: dict[str, Any] | None = None,
    ) -> None:
        folder.mkdir(exist_ok=True)
        self._folder, self._output = folder, Path(given["output"])
        for earlier in folder.glob("*.said"):
            earlier.unlink()
        port = free_port()
        self.processes: list[BaseProcess] = [
            _SERVER.Process(target=_rank, args=(rank, world, port, (rank and others) or given, resume, str(folder)))
            for rank in range(world)
        ]
        for process in self.processes:
            process.start()

    def wait(self) -> list[int | None]:
        """The exit codes, once all have ended."""
        for process in self.processes:
            process.join(LONGEST)
        self.kill()
        return [process.exitcode for process in self.processes]

    def said(self, rank: int) -> str:
        """The error that a rank ended with, or what it wrote to standard error: on some machines libraries warn there."""
        said, written = (self._folder / f"rank-{rank}.{kind}" for kind in ("said", "txt"))
        return (said if said.exists() else written).read_text()

    def until(self, happened: Callable[[], bool]) -> None:
        """Wait for something, or for the run's end."""
        end = time.monotonic() + LONGEST
        while not happened() and any(process.is_alive() for process in self.processes):
            assert time.monotonic() < end, "the run takes too long"
            time.sleep(0.002)

    def until_lines(self, lines: int) -> None:
        """Wait until the log has so many lines."""
        log = self._output / LOG
        self.until(lambda: log.exists() and log.read_bytes().count(b"\n") >= lines)

    def kill(self) -> None:
        """SIGKILL for all that are left."""
        for process in self.processes:
            if process.is_alive() and process.pid is not None:
                os.kill(process.pid, signal.SIGKILL)
            process.join()
