"""The processes of a run: who they are, what they agree on, and how they end together.

One process is one rank with one device. `torchrun` or `deepspeed` start several and say so in environment variables; without
them a process is a run of its own. What is agreed on goes through the CPU, so that it never waits for a GPU.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType

import torch
import torch.distributed as dist

from mvptr_data.errors import InputError, MvptrError

#: What a launcher sets.
_LAUNCHED = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
#: What asks a run to save and end: Slurm and containers; Ctrl-C.
STOPPING = (signal.SIGTERM, signal.SIGINT)
#: What gloo says of a rank that is no longer there.
_BROKEN = ("Connection closed by peer", "Connection reset by peer", "Broken pipe", "gloo/transport")


class StoppedError(MvptrError):
    """The signal `number` ended the run after it had saved."""

    def __init__(self, message: str, mend: str, number: int) -> None:
        super().__init__(message, mend)
        self.exit_code = 128 + number


class ToldError(MvptrError):
    """Another rank's error, which that rank itself reports."""


@dataclass(frozen=True, slots=True)
class World:
    """This process among all of a run."""

    rank: int
    size: int
    device: torch.device

    @property
    def leads(self) -> bool:
        """Whether this rank speaks and writes for all."""
        return self.rank == 0

    def total(self, numbers: Sequence[float]) -> list[float]:
        """The sums over all ranks."""
        found = torch.tensor(numbers, dtype=torch.float64)
        dist.all_reduce(found)
        return found.tolist()

    def most(self, number: int) -> int:
        """The greatest of all ranks' numbers."""
        found = torch.tensor(number)
        dist.all_reduce(found, dist.ReduceOp.MAX)
        return int(found)

    def barrier(self) -> None:
        """Wait until all ranks are here, without their devices."""
        self.most(0)

    def told(self, text: str, rank: int = 0) -> str:
        """What one rank says, on every rank; what the others say is not heard."""
        data = text.encode(errors="replace") if self.rank == rank else b""  # names of files may be no Unicode
        length = torch.tensor(len(data))
        dist.broadcast(length, rank)
        said = torch.zeros(int(length), dtype=torch.uint8)
        if data:
            said[:] = torch.frombuffer(bytearray(data), dtype=torch.uint8)
        if len(said):
            dist.broadcast(said, rank)
        return said.numpy().tobytes().decode()

    def agree(self, text: str, differ: Callable[[str], MvptrError]) -> None:
        """Raises `differ(first)` where a rank's text is not the `first` rank's, on all ranks as `together` does."""
        first = self.told(text)
        with self.together():
            if text != first:
                raise differ(first)

    @contextmanager
    def together(self) -> Iterator[None]:
        """A block in which one rank's error becomes every rank's, so that none waits for one that has ended.

        All ranks must come here; the block itself must not wait for other ranks. The lowest rank that failed raises its own
        `MvptrError` (an `OSError` becomes one), all others `ToldError` with the same message.
        """
        error: MvptrError | None = None
        try:
            yield
        except MvptrError as raised:
            error = raised
        except OSError as raised:
            error = MvptrError(f"{raised.strerror or raised}: {raised.filename or 'no file'}")
            error.__cause__ = raised
        failed = self.most(0 if error is None else self.size - self.rank)
        if failed:
            speaker = self.size - failed
            message = self.told(str(error), speaker)
            raise error if error is not None and speaker == self.rank else ToldError(message)


@contextmanager
def joined() -> Iterator[World]:
    """This process's place. The process group is made where there is none, and then ends with the block.

    Raises `InputError` where a launcher's variables are not whole.
    """
    made = not dist.is_initialized()
    world = _join()
    try:
        yield world
    except MvptrError:  # after another error somebody may wait for ever
        if made:
            _leave()
        raise
    if made:
        _leave()


def _join() -> World:
    local_rank = int(os.environ.get("LOCAL_RANK", "0"))
    device = torch.device("cpu")
    if torch.cuda.is_available():
        device = torch.device("cuda", local_rank % torch.cuda.device_count())
        torch.cuda.set_device(device)
    if not dist.is_initialized():
        backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
        missing = [name for name in _LAUNCHED if name not in os.environ]
        if not missing:
            dist.init_process_group(backend)
        elif os.environ.get("WORLD_SIZE", "1") != "1":
            raise InputError(
                f"the environment says WORLD_SIZE {os.environ['WORLD_SIZE']}, but not {', '.join(missing)}",
                "Start with torchrun or deepspeed.",
            )
        else:
            dist.init_process_group(backend, store=dist.HashStore(), rank=0, world_size=1)
    return World(dist.get_rank(), dist.get_world_size(), device)


def _leave() -> None:
    if "deepspeed" in sys.modules and sys.modules["deepspeed"].comm.is_initialized():
        sys.modules["deepspeed"].comm.destroy_process_group()  # which forgets the groups that it has made, too
    if dist.is_initialized():
        dist.destroy_process_group()


def means_lost_rank(error: RuntimeError) -> bool:
    """Whether an error is a connection to a rank that is no longer there."""
    return isinstance(error, dist.DistError) or any(sign in str(error) for sign in _BROKEN)


@contextmanager
def told_of_lost_ranks() -> Iterator[None]:
    """Raises `ToldError` where another rank's end is met as a broken connection."""
    try:
        yield
    except RuntimeError as error:
        if means_lost_rank(error):
            raise ToldError(f"another rank has ended ({str(error).splitlines()[0]})") from error
        raise


class StopRequest:
    """Whether a signal has asked to stop: `number` is that signal's, 0 for none.

    Signals that follow are ignored, for launchers pass on what they receive: a rank that was told once is told twice.
    """

    def __init__(self) -> None:
        self.number = 0

    def _heard(self, number: int, _: FrameType | None) -> None:
        self.number = self.number or number


@contextmanager
def listening() -> Iterator[StopRequest]:
    """Within the block, signals that ask to stop are only remembered. Outside the main thread nothing is heard."""
    request = StopRequest()
    if threading.current_thread() is not threading.main_thread():
        yield request
        return
    before = {number: signal.signal(number, request._heard) for number in STOPPING}
    try:
        yield request
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
