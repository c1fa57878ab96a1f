"""Making a plan: inputs are listed once and cut into shards, and each key is found that was there before.

What a plan is and how it is read is told in `plan.py`.
"""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Callable, Iterable
from itertools import islice
from typing import Any

import numpy as np
import pyarrow as pa

from mvptr_data.dataset import layout
from mvptr_data.dataset.plan import COLUMNS, Plan, PlanPart, load_plan, read_columns, read_faults, read_keys, read_rows
from mvptr_data.dataset.tables import described, write_table
from mvptr_data.errors import BusyError, InputError
from mvptr_data.sources.images import ImageRef
from mvptr_data.storage import Store

#: So many fit into a `plan.json` that may be read (`storage.MAX_JSON_BYTES`).
MAX_SHARDS = 1_600_000
#: Faults of a listing that the next listing may not find: an archive was completed, a file is back.
_HEALABLE = frozenset({"torn_archive", "missing_file", "unreadable_file"})


def write_plan(
    store: Store,
    refs: Iterable[ImageRef],
    *,
    source: dict[str, Any],
    samples_per_shard: int,
    check: Callable[[], None] = lambda: None,
) -> Plan:
    """Cut `refs` into shards and store them; the first of several refs with one key keeps it, the others become faults.

    Memory: one shard's rows and 18 bytes an image (a 64-bit digest of each key, sorted once to find duplicates).
    `plan/plan.json` is written last and is the commit mark: a plan cut short by a kill is simply written again.

    `check`: called before each file is written; raises where this process may not write any more (`Held.check`).
    Raises `BusyError` where another run has stored a plan meanwhile, `InputError` for more than `MAX_SHARDS`.
    """
    return append_plan(store, None, refs, source=source, samples_per_shard=samples_per_shard, check=check)


def append_plan(
    store: Store,
    plan: Plan | None,
    refs: Iterable[ImageRef],
    *,
    source: dict[str, Any],
    samples_per_shard: int,
    check: Callable[[], None] = lambda: None,
) -> Plan:
    """`plan` (None: an empty one) with a further part for `refs`, stored. Earlier shards are read, never altered.

    A key that an earlier part has becomes the fault `duplicate_key`, as within a part. Costs, `check` and errors are those
    of `write_plan`.
    """
    if samples_per_shard < 1:
        raise ValueError(f"samples_per_shard is {samples_per_shard}; it must be at least 1")
    rows = list(plan.rows) if plan else []
    first = len(rows)
    _check_stored(store, plan)
    bytes_stored = store.size(layout.PLAN)

    def may_write() -> None:
        check()
        if store.size(layout.PLAN) != bytes_stored:
            raise _changed(store)

    key_digests = array("Q")
    for shard in range(first):
        key_digests.extend(_key_digest(key) for key in read_keys(store, shard))
    keys_sha256 = hashlib.sha256()
    stream = iter(refs)
    while block := list(islice(stream, samples_per_shard)):
        if len(rows) == MAX_SHARDS:
            raise InputError(
                f"there are inputs for more than {MAX_SHARDS:,} shards of {samples_per_shard:,}",
                "Put more into a shard (--samples-per-shard).",
            )
        key_digests.extend(_key_digest(ref.key) for ref in block)
        keys_sha256.update(b"".join(_raw(ref.key) + b"\n" for ref in block))
        may_write()
        _write_shard(store, len(rows), [_row(position, ref) for position, ref in enumerate(block)])
        rows.append(len(block))
    may_write()
    _mark_duplicates(store, key_digests, rows, first)
    added = range(first, len(rows))
    part = PlanPart(
        source=source,
        samples_per_shard=samples_per_shard,
        shards=len(added),
        keys_sha256=keys_sha256.hexdigest(),
    )
    grown = Plan(
        parts=(*(plan.parts if plan else ()), part),
        rows=tuple(rows),
        sha256=(*(plan.sha256 if plan else ()), *(store.sha256(layout.plan_shard(shard)) for shard in added)),
        faults=(plan.faults if plan else 0) + sum(read_faults(store, shard) for shard in added),
    )
    check()
    _check_stored(store, plan)
    store.write_json(layout.PLAN, grown.to_json())
    return grown


def _check_stored(store: Store, plan: Plan | None) -> None:
    """Raises `BusyError` where the stored plan is not `plan` (None: none is stored)."""
    stored = load_plan(store) if store.exists(layout.PLAN) else None
    if stored != plan:
        raise _changed(store)


def _changed(store: Store) -> BusyError:
    return BusyError(
        f"{store.path(layout.PLAN)} was written by another run meanwhile",
        "Run the same command again, when that has ended.",
    )


class PlannedInputs:
    """Which inputs a plan has already, whatever part they came with: 8 bytes an input, a 64-bit digest of key and place.

    One that was faulty when it was listed, in a way that may heal (`_HEALABLE`), is there only as long as it is faulty: listed
    without a fault it is new, and gets a place of its own.
    """

    def __init__(self, store: Store, plan: Plan) -> None:
        settled, faulty = array("Q"), array("Q")
        for shard in range(plan.shards):
            for row in read_columns(store, shard, ["key", "uri", "member", "fault"]).to_pylist():
                digests = faulty if row["fault"] in _HEALABLE else settled
                digests.append(_input_digest(row["key"], row["uri"], row["member"]))
        self._settled, self._faulty = (np.unique(np.array(digests, dtype=np.uint64)) for digests in (settled, faulty))

    def __contains__(self, ref: ImageRef) -> bool:
        row = _row(0, ref)
        found = np.uint64(_input_digest(row["key"], row["uri"], row["member"]))
        return _is_in(self._settled, found) or (ref.fault is not None and _is_in(self._faulty, found))


def _is_in(ascending: np.ndarray, value: np.uint64) -> bool:
    place = int(np.searchsorted(ascending, value))
    return place < len(ascending) and bool(ascending[place] == value)


def _row(position: int, ref: ImageRef) -> dict[str, Any]:
    values = {name: position if name == "position" else getattr(ref, name) for name in COLUMNS.names}
    # A file name that is not UTF-8 is a fault (unsafe_key); its row must be storable all the same.
    return {
        name: value.encode(errors="backslashreplace").decode() if isinstance(value, str) else value
        for name, value in values.items()
    }


def _write_shard(store: Store, shard: int, rows: list[dict[str, Any]]) -> None:
    write_table(store, layout.plan_shard(shard), pa.Table.from_pylist(rows, described(COLUMNS, "plan")))


def _key_digest(key: str) -> int:
    return int.from_bytes(hashlib.blake2b(_raw(key), digest_size=8).digest(), "little")


def _input_digest(*parts: str | None) -> int:
    text = "\0".join(part or "" for part in parts)
    return int.from_bytes(hashlib.blake2b(_raw(text), digest_size=8).digest(), "little")


def _raw(key: str) -> bytes:
    """A key's bytes; also those of a file name that is not UTF-8."""
    return key.encode(errors="surrogatepass")


def _mark_duplicates(store: Store, key_digests: array[int], shard_rows: list[int], first: int) -> None:
    """Give every later row of a key that occurred before the fault `duplicate_key`, in the shards from `first` on."""
    digests = np.frombuffer(key_digests, dtype=np.uint64) if key_digests else np.empty(0, np.uint64)
    ordered = np.sort(digests)
    # Equal keys, or (once in 10^3 plans of 10^8 images) two keys with one digest.
    suspects = np.unique(ordered[1:][ordered[1:] == ordered[:-1]])
    del ordered
    if not len(suspects):
        return
    starts = np.cumsum([0, *shard_rows])
    first_place: dict[str, str] = {}
    places = np.flatnonzero(np.isin(digests, suspects))
    shards = np.searchsorted(starts, places, side="right") - 1
    for shard in np.unique(shards).tolist():
        rows = read_rows(store, shard)
        for position in (places[shards == shard] - starts[shard]).tolist():
            row = rows[position]
            if row["fault"] is not None:
                continue
            place = f"{row['uri']}{'!' + row['member'] if row['member'] else ''}"
            if row["key"] in first_place:
                row.update(
                    fault="duplicate_key", message=f"the key {row['key']!r} belongs to {first_place[row['key']]}"
                )
            else:
                first_place[row["key"]] = place
        if shard >= first:
            _write_shard(store, shard, rows)
