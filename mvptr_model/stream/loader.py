"""The loader: a rank's batches in order, made ahead, with a state that any number of ranks and workers can go on from.

    loader = StreamLoader(StreamSpec(roots=("coco",), order=OrderSettings(global_batch=1024), collate=collate, rank=0, world=2))
    for epoch in range(loader.epoch, 15):
        for batch in loader:                      # the rest of the epoch
            ...
            saved = loader.state_dict()           # a few numbers; save them with the model
    loader.load_state_dict(saved)                 # before iterating, also with another world size or number of workers

By default one thread of this process makes batches ahead. `workers` processes do it instead where making them costs more than
sending them; each makes every n-th batch, and they come in order.
"""

from __future__ import annotations

import contextlib
from collections.abc import Generator, Iterator, Mapping
from typing import Any

from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from mvptr_data.errors import FailureBudgetError, InputError, MvptrError
from mvptr_model.stream.batches import BatchReader, Fault, Loaded, StreamSpec
from mvptr_model.stream.prefetch import prefetch
from mvptr_model.stream.state import StreamState
from mvptr_model.stream.workers import end_with_parent, from_workers

#: What a rank takes of one global batch.
Parts = tuple[Loaded, ...]
#: Bytes of batches made ahead.
PREFETCH_BYTES = 1 << 30
#: Global batches that a worker process makes ahead, however small they are: each is asked for on its own.
MOST_AHEAD = 32


class StreamLoader:
    """Iterates over this rank's batches of one epoch after another; see the module's text.

    `workers`: processes, or 0 for a thread. `prefetch_bytes`: how much is made ahead, over all workers. `max_faults`: how many
    samples may be skipped by this rank in its life (`StreamSpec.on_fault` "skip"); more raise `FailureBudgetError`.
    `context`: how worker processes start ("forkserver", "spawn" or "fork"). `pin_memory`: page-locked batches, for a GPU.

    Raises, at construction, what `BatchReader` raises, and while it gives batches `LostWorkerError` for a worker that was killed.
    """

    def __init__(
        self,
        spec: StreamSpec,
        *,
        workers: int = 0,
        prefetch_bytes: int = PREFETCH_BYTES,
        max_faults: int = 0,
        context: str = "forkserver",
        pin_memory: bool = False,
    ) -> None:
        for name, value in (("workers", workers), ("prefetch_bytes", prefetch_bytes), ("max_faults", max_faults)):
            if value < 0:
                raise InputError(f"{name} is {value}", "Give a number from 0.")
        self._spec, self._workers, self._prefetch_bytes = spec, workers, prefetch_bytes
        self._max_faults, self._context, self._pin_memory = max_faults, context, pin_memory
        self._reader = BatchReader(spec)
        self._state = StreamState.at(self.order, 0, 0)
        #: The samples that were skipped so far.
        self.faults: list[Fault] = []

    @property
    def order(self) -> Any:
        """The order of all data sets together."""
        return self._reader.order

    @property
    def epoch(self) -> int:
        """The epoch that the next batch belongs to."""
        return self._state.epoch

    def __len__(self) -> int:
        """Batches that iterating gives from here to the end of the epoch."""
        return (self.order.batches - self._state.batches) * self._spec.accumulate

    def state_dict(self) -> dict[str, Any]:
        """Where the stream stands after the batches that were given out. A global batch begun with `accumulate` counts as
        not yet taken: its optimizer step has not been made either."""
        return self._state.to_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from `state`, whatever the numbers of ranks and workers then and now. Raises as `StreamState.load`."""
        self._state = StreamState.load(state, self.order)

    def __iter__(self) -> Iterator[Any]:
        """The batches from here to the end of the epoch."""
        epoch, first = self._state.epoch, self._state.batches
        made = self._in_processes(epoch, first) if self._workers else self._in_thread(epoch, first)
        with contextlib.closing(made):
            for number, parts in enumerate(made, start=first + 1):
                for place, loaded in enumerate(parts, start=1):
                    self._count(loaded.faults)
                    if place == len(parts):
                        self._state = StreamState.at(self.order, epoch, number)
                    yield loaded.batch

    def _in_thread(self, epoch: int, first: int) -> Generator[Parts]:
        made = (self._reader.read(epoch, number) for number in range(first, self.order.batches))
        if self._pin_memory:
            made = (tuple(part._replace(batch=part.batch.pin_memory()) for part in parts) for parts in made)
        return prefetch(made, limit=self._prefetch_bytes, size=_bytes)

    def _in_processes(self, epoch: int, first: int) -> Generator[Parts]:
        # How many batches fit into the bound is known when there is one: the first is made here.
        begun = self._reader.read(epoch, first)
        loader = DataLoader(
            _WorkerBatches(self._spec, epoch, first + 1),
            batch_size=None,
            num_workers=self._workers,
            prefetch_factor=min(MOST_AHEAD, max(1, self._prefetch_bytes // (_bytes(begun) * self._workers))),
            multiprocessing_context=self._context,
            worker_init_fn=end_with_parent,
            pin_memory=self._pin_memory,
        )
        yield begun
        with contextlib.closing(from_workers(loader)) as made:
            for found in made:
                if isinstance(found, MvptrError):
                    raise found
                yield found

    def _count(self, faults: tuple[Fault, ...]) -> None:
        self.faults += faults
        if len(self.faults) > self._max_faults:
            raise FailureBudgetError(
                f"{len(self.faults)} samples could not be read, {self._max_faults} may be skipped; the last: "
                f"{self.faults[-1].message}",
                "Run `mvptr-data verify`, or allow more with max_faults.",
            )


def _bytes(parts: Parts) -> int:
    return sum(int(part.batch.nbytes) for part in parts)


class _WorkerBatches(IterableDataset[Parts | MvptrError]):
    """What one of several worker processes makes: every n-th global batch of an epoch."""

    def __init__(self, spec: StreamSpec, epoch: int, first: int) -> None:
        self._spec, self._epoch, self._first = spec, epoch, first

    def __iter__(self) -> Iterator[Parts | MvptrError]:
        info = get_worker_info()
        assert info is not None, "made by a DataLoader with workers"
        reader = BatchReader(self._spec)
        for number in range(self._first + info.id, reader.order.batches, info.num_workers):
            try:
                yield reader.read(self._epoch, number)
            except MvptrError as error:  # sent, because what is raised here arrives as another type, with a traceback
                yield error
                return
