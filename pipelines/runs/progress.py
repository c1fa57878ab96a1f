"""Which shards of a field are finished: read from the receipts, lazily, because there may be 10^5 of them.

A run wants its first task at once, not after 10^5 receipts were read. So the shards without a receipt come first, from one
listing of the folder; then, while the work goes on, a thread reads the receipts there are, and the shards whose receipt is
unsound come last.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Sequence

from mvptr_data.dataset.receipts import Receipt, is_intact, read_receipt
from mvptr_data.errors import DamagedFileError
from mvptr_data.storage import Store
from pipelines.overlap import map_ahead

#: Receipts read at once: what is waited for on a network file system is its answer, not its bandwidth.
READERS = 8


def shards_with_receipt(store: Store, field: str) -> set[int]:
    """The shards that have a receipt, sound or not; one listing."""
    suffix = ".json"
    names = (name.rpartition("/")[2] for name in store.names(field))
    return {
        int(name.removesuffix(suffix)) for name in names if name.endswith(suffix) and name[: -len(suffix)].isdigit()
    }


def read_receipts(store: Store, field: str, shards: Iterable[int]) -> Iterator[tuple[int, Receipt | None]]:
    """(shard, its receipt) in the order given; None where there is none or it is damaged."""
    yield from map_ahead(lambda shard: (shard, _sound(store, field, shard)), shards, threads=READERS, ahead=4 * READERS)


class PendingShards:
    """The shards still to be done, as an iterator that never waits while it knows one.

    `kept(receipt)` is called, from a thread, for every finished shard. `missing` are the shards without a receipt, `known` is
    their number; `torn` fills up with the shards that have a receipt and are not what it promises.
    """

    def __init__(
        self, store: Store, field: str, shards: Sequence[int], identity: str, kept: Callable[[Receipt], None]
    ) -> None:
        present = shards_with_receipt(store, field)
        self.missing = [shard for shard in shards if shard not in present]
        self._present = [shard for shard in shards if shard in present]
        self._store, self._field, self._identity, self._kept = store, field, identity, kept
        self.torn: list[int] = []
        self._error: BaseException | None = None
        self._stopped = threading.Event()
        self._reader: threading.Thread | None = None

    @property
    def known(self) -> int:
        return len(self.missing)

    def unsound(self) -> bool:
        """Whether a shard has a receipt and is not finished; waits for all receipts."""
        self._read().join()
        return bool(self.torn) or self._error is not None

    def __iter__(self) -> Iterator[int]:
        for shard in self.missing:
            yield shard
            self._read()  # once the first shard is on its way: reading costs CPU that opening a cluster needs
        self._read().join()
        if self._error is not None:
            raise self._error
        yield from self.torn

    def close(self) -> None:
        """Stop reading receipts."""
        self._stopped.set()
        if self._reader is not None:
            self._reader.join()

    def _read(self) -> threading.Thread:
        """The thread that reads the receipts; begun at the first call."""
        if self._reader is None:
            self._reader = threading.Thread(target=self._check, name="receipts", daemon=True)
            self._reader.start()
        return self._reader

    def _check(self) -> None:
        def look(shard: int) -> tuple[int, Receipt | None]:
            receipt = None if self._stopped.is_set() else _sound(self._store, self._field, shard)
            return shard, receipt if receipt and is_intact(self._store, receipt, self._identity) else None

        try:
            for shard, receipt in map_ahead(look, self._present, threads=READERS, ahead=4 * READERS):
                if self._stopped.is_set():
                    return
                if receipt is None:
                    self.torn.append(shard)
                else:
                    self._kept(receipt)
        except BaseException as error:  # noqa: BLE001 - raised again by the iterator
            self._error = error


def _sound(store: Store, field: str, shard: int) -> Receipt | None:
    try:
        return read_receipt(store, field, shard)
    except DamagedFileError:
        return None
