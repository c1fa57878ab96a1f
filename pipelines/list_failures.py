"""Every input of a data set that failed, by class, with its key and the reason: from the rows that every input has."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass

from mvptr_data.dataset.fields import FIELDS, OK
from mvptr_data.dataset.plan import load_plan
from mvptr_data.dataset.shards import read_rows
from mvptr_data.errors import FAULT_CLASSES, InputError
from mvptr_data.storage import Store
from pipelines.runs.progress import read_receipts


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """One failed input: its place, its key, what it failed with."""

    error_class: str
    key: str
    message: str
    shard: int
    position: int


class Failures:
    """The failures of a data set's finished shards, in plan order; made by `list_failures`, read as they are iterated.

    `shards` is how many there are, `unfinished` how many of those passed so far have no receipt, or one that cannot be read or
    whose rows are gone: nobody knows yet what fails in them.
    """

    def __init__(self, store: Store, shards: int, classes: Collection[str], field: str) -> None:
        self._store, self._classes, self._field = store, classes, field
        self.shards = shards
        self.unfinished = 0

    def __iter__(self) -> Iterator[Failure]:
        self.unfinished = 0
        for shard, receipt in read_receipts(self._store, self._field, range(self.shards)):
            if receipt is None:
                self.unfinished += 1
            elif any(not self._classes or name in self._classes for name in receipt.faults):
                yield from self._of_shard(shard, receipt.rows.name)

    def _of_shard(self, shard: int, name: str) -> Iterator[Failure]:
        try:
            rows = read_rows(self._store, name, ["position", "key", "status", "error_class", "message"])
        except FileNotFoundError:
            self.unfinished += 1
            return
        for row in rows:
            if row["status"] != OK and (not self._classes or row["error_class"] in self._classes):
                yield Failure(
                    error_class=row["error_class"],
                    key=row["key"],
                    message=row["message"],
                    shard=shard,
                    position=row["position"],
                )


def list_failures(out: str, classes: Collection[str] = (), field: str = "regions") -> Failures:
    """The failures of `out`; only those of `classes` where any are given.

    Opens only the shards whose receipts count such faults. Raises `InputError` for an unknown class, `IncompleteError`
    without a plan.
    """
    if unknown := sorted(set(classes) - FAULT_CLASSES.keys()):
        raise InputError(f"there is no class {', '.join(unknown)}", f"The classes are: {', '.join(FAULT_CLASSES)}.")
    store = Store.at(out)
    return Failures(store, load_plan(store).shards, classes, FIELDS[field].name)
