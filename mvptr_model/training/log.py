"""What a run tells of each step: a line of `log.jsonl`, TensorBoard, and whoever listens.

A line is a JSON object:

    stage, step             from 1; `epoch` from 0, `samples` of the stage so far
    loss, losses, accuracies    of the whole batch; `vsc` has R@1 as its accuracy, the others shares of right answers
    learning_rate, temperature, gradient_norm (null: infinite), loss_scale, overflow (the step was left out)
    samples_left_out (unsound ones, by all ranks since the run was begun or gone on with)
    samples_per_second, tokens_per_second, data_wait (share of the time, of the rank that waits longest in each step),
    flops_utilisation (null: peak unknown)

Each step has one line, however often the run was stopped and gone on with.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

from mvptr_data.errors import MissingDependencyError, MvptrError, OutputError
from mvptr_data.storage import Store, output_errors

LOG, TENSORBOARD = "log.jsonl", "tensorboard"


class Listener(Protocol):
    """Is told, in the first rank only, how a run goes."""

    def say(self, line: str) -> None:
        """Something that people want to know."""

    def begin(self, stage: int, done: int, steps: int) -> None:
        """A stage begins or goes on: `done` of its `steps` are made."""

    def step(self, record: Mapping[str, Any]) -> None:
        """A step was made; `record` as in `log.jsonl`."""

    def end(self) -> None:
        """The stage ended, or the run with it."""


class Silence:
    """Listens, and says nothing."""

    def say(self, line: str) -> None:
        pass

    def begin(self, stage: int, done: int, steps: int) -> None:
        pass

    def step(self, record: Mapping[str, Any]) -> None:
        pass

    def end(self) -> None:
        pass


class RunLog:
    """The log of one stage, open for writing from after step `done` on; what an earlier run wrote beyond that is cut off.

    Raises `MissingDependencyError` where TensorBoard is wanted and not installed, and `OutputError`.
    """

    def __init__(self, output: Path, stage: int, done: int, *, tensorboard: bool) -> None:
        self._store = Store.at(output)
        kept = [line for line in _lines(output / LOG) if _place(line) <= (stage, done)]
        with output_errors(self._store):
            self._store.write(LOG, b"".join(kept))
            # Unbuffered: nothing is left to be written, and to fail, when it is closed.
            self._file = (output / LOG).open("ab", buffering=0)
        with self._board_errors():
            self._board = _board(output / TENSORBOARD / f"stage-{stage}", done + 1) if tensorboard else None

    def write(self, record: Mapping[str, Any]) -> None:
        """One step's line. Raises `OutputError`."""
        line = json.dumps(record, allow_nan=False).encode() + b"\n"
        with output_errors(self._store):
            while line:  # a disk that becomes full may take a part of it
                line = line[self._file.write(line) :]
        if self._board is not None:
            with self._board_errors():
                for name, value in flattened(record).items():
                    self._board.add_scalar(name, value, record["step"])

    def sync(self) -> None:
        """Make what was written reach the disk, before a checkpoint or the stage's end counts on it. Raises `OutputError`."""
        with output_errors(self._store):
            os.fsync(self._file.fileno())
        if self._board is not None:
            with self._board_errors():
                self._board.flush()

    def close(self) -> None:
        """Raises nothing, for it also comes after an error that is to be told; `sync` before it tells what failed."""
        with contextlib.suppress(OSError):
            self._file.close()
        if self._board is not None:
            with contextlib.suppress(Exception):  # that of its own thread, of any type
                self._board.close()

    @contextlib.contextmanager
    def _board_errors(self) -> Iterator[None]:
        """TensorBoard's failures as `OutputError`; its thread raises what it meets at a later call."""
        try:
            yield
        except MvptrError:
            raise
        except Exception as error:
            reason = error.strerror if isinstance(error, OSError) and error.strerror else error
            raise OutputError(
                f"cannot write TensorBoard's files in {self._store.path(TENSORBOARD)}: {reason}",
                "Make room there, or set log.tensorboard=false, and run the same command again.",
            ) from error


def flattened(record: Mapping[str, Any]) -> dict[str, float]:
    """The numbers of a record: `losses/vsc` and the like."""
    found: dict[str, float] = {}
    for name, value in record.items():
        if isinstance(value, Mapping):
            found |= {f"{name}/{inner}": number for inner, number in flattened(value).items()}
        elif isinstance(value, int | float) and name not in ("stage", "step"):
            found[name] = float(value)
    return found


def read_log(output: Path) -> list[dict[str, Any]]:
    """The records of a run's log; a last line that was cut off is left out."""
    return [json.loads(line) for line in _lines(output / LOG)]


def finite(number: float) -> float | None:
    """What JSON can say of a number."""
    return number if math.isfinite(number) else None


def _lines(path: Path) -> list[bytes]:
    """Whole lines that are records."""
    if not path.exists():
        return []
    return [line for line in path.read_bytes().splitlines(keepends=True) if line.endswith(b"\n") and _place(line)]


def _place(line: bytes) -> tuple[int, int]:
    try:
        record = json.loads(line)
        return int(record["stage"]), int(record["step"])
    except (ValueError, TypeError, KeyError):
        return ()  # type: ignore[return-value]


def _board(folder: Path, first: int) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise MissingDependencyError(
            "log.tensorboard needs TensorBoard, which is not installed",
            "pip install 'mvptr-data[train]', or log.tensorboard=false.",
        ) from error
    return SummaryWriter(str(folder), purge_step=first)
