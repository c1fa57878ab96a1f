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


def list_failures(out: str, classes: Collection[str] = (), field: str = "regions") -> Iterator[Failure]:
    """The failures of `out`'s finished shards, in plan order; only those of `classes` where any are given.

    Opens only the shards whose receipts count such faults. Raises `InputError` for an unknown class, `IncompleteError`
    without a plan.
    """
    if unknown := sorted(set(classes) - FAULT_CLASSES.keys()):
        raise InputError(f"there is no class {', '.join(unknown)}", f"The classes are: {', '.join(FAULT_CLASSES)}.")
    store = Store.at(out)
    plan = load_plan(store)
    for shard, receipt in read_receipts(store, FIELDS[field].name, range(plan.shards)):
        if receipt is None or not any(not classes or name in classes for name in receipt.faults):
            continue
        for row in read_rows(store, receipt.rows.name, ["position", "key", "status", "error_class", "message"]):
            if row["status"] != OK and (not classes or row["error_class"] in classes):
                yield Failure(
                    error_class=row["error_class"],
                    key=row["key"],
                    message=row["message"],
                    shard=shard,
                    position=row["position"],
                )
