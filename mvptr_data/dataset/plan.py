"""The plan: which input is which (shard, position). Written once, never derived again.

A sample's place is its shard's number and its row there (`position`), for ever: every field, retry and reader refers to it.
The plan has a row for every input found, the faulty ones too, so that nothing is lost before the work begins. It grows by
whole parts (`append_plan`): images added later get shards of their own after those that are there.
"""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
import pyarrow as pa

from mvptr_data.dataset import layout
from mvptr_data.dataset.forms import COUNT, OBJECT, ORDINAL, TEXT, Form, check_form
from mvptr_data.dataset.tables import described, read_table, write_table
from mvptr_data.errors import BusyError, ConfigurationMismatchError, DamagedFileError, IncompleteError
from mvptr_data.sources.images import ImageRef
from mvptr_data.storage import Store, digest

_COLUMNS = pa.schema(
    [
        ("position", pa.int32()),
        ("key", pa.string()),
        ("uri", pa.string()),
        ("member", pa.string()),
        ("offset", pa.int64()),
        ("size", pa.int64()),
        ("split", pa.string()),
        ("fault", pa.string()),
        ("message", pa.string()),
    ]
)
_REMEDY = "Give another output folder."
_PART: dict[str, Form] = {"source": OBJECT, "samples_per_shard": COUNT, "shards": ORDINAL, "keys_sha256": TEXT}
_FORM: Form = {"parts": [_PART], "rows": [COUNT], "sha256": [TEXT], "faults": COUNT}
#: Faults of a listing that the next listing may not find: an archive was completed, a file is back.
_HEALABLE = frozenset({"torn_archive", "missing_file", "unreadable_file"})


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanPart:
    """The shards that one listing gave. `keys_sha256` is the digest of its keys in order."""

    source: dict[str, Any]
    samples_per_shard: int
    shards: int
    keys_sha256: str

    def to_json(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in ("source", "samples_per_shard", "shards", "keys_sha256")}


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What `plan/plan.json` says. `rows[i]` is the number of inputs of shard i, `sha256[i]` its file's digest."""

    parts: tuple[PlanPart, ...]
    rows: tuple[int, ...]
    sha256: tuple[str, ...]
    faults: int

    @property
    def images(self) -> int:
        return sum(self.rows)

    @property
    def shards(self) -> int:
        return len(self.rows)

    def until(self, shards: int) -> Plan | None:
        """The plan as it was when it had this many shards; None where none of its parts ends there."""
        ends = [sum(part.shards for part in self.parts[: number + 1]) for number in range(len(self.parts))]
        if shards not in ends:
            return None
        return Plan(
            parts=self.parts[: ends.index(shards) + 1],
            rows=self.rows[:shards],
            sha256=self.sha256[:shards],
            faults=self.faults,
        )

    def to_json(self) -> dict[str, Any]:
        return {
            "version": layout.version("plan"),
            "parts": [part.to_json() for part in self.parts],
            "rows": list(self.rows),
            "sha256": list(self.sha256),
            "faults": self.faults,
        }

    @property
    def digest(self) -> str:
        """Names the assignment of keys to places; where the images came from is not part of it."""
        return digest({"rows": list(self.rows), "keys": [part.keys_sha256 for part in self.parts]})


def load_plan(store: Store) -> Plan:
    """The stored plan. Raises `IncompleteError` where there is none, `FormatVersionError`, `DamagedFileError`."""
    where = store.path(layout.PLAN)
    try:
        found = store.read_json(layout.PLAN)
    except FileNotFoundError as error:
        raise IncompleteError(
            f"{store.root} has no plan", f"Run `mvptr-data extract-regions IMAGES {store.root}` first (or import-tsv)."
        ) from error
    layout.check_version("plan", found.get("version"), where)
    check_form(found, _FORM, where, _REMEDY)
    plan = Plan(
        parts=tuple(PlanPart(**{name: part[name] for name in _PART}) for part in found["parts"]),
        rows=tuple(found["rows"]),
        sha256=tuple(found["sha256"]),
        faults=found["faults"],
    )
    if not plan.parts:
        raise DamagedFileError(f"{where} has no parts", _REMEDY)
    if not len(plan.rows) == len(plan.sha256) == sum(part.shards for part in plan.parts):
        raise DamagedFileError(f"{where} counts its shards in different ways", _REMEDY)
    return plan


def check_same_plan(plan: Plan, store: Store, source: dict[str, Any], samples_per_shard: int) -> None:
    """Raises `ConfigurationMismatchError` where no part of the stored plan was made from this; the first part's difference."""
    asked = {**source, "samples_per_shard": samples_per_shard}
    planned = [{**part.source, "samples_per_shard": part.samples_per_shard} for part in plan.parts]
    if asked in planned:
        return
    stored = planned[0]
    differences = [
        f"{name}: planned {stored.get(name)!r}, asked {asked.get(name)!r}"
        for name in sorted(asked | stored)
        if asked.get(name) != stored.get(name)
    ]
    raise ConfigurationMismatchError(
        f"the plan in {store.root} was made from another input ({'; '.join(differences)})",
        "Give another output folder, or add these images to this one with `mvptr-data add`.",
    )


def write_plan(
    store: Store,
    refs: Iterable[ImageRef],
    *,
    source: dict[str, Any],
    samples_per_shard: int,
    check: Callable[[], None] = lambda: None,
) -> Plan:
    """Cut `refs` into shards and store them; the first of several refs with one key keeps it, the others become faults.

    Memory: one shard's rows and 8 bytes an image (a 64-bit digest of each key, to find duplicates). `plan/plan.json` is
    written last and is the commit mark: a plan cut short by a kill is simply written again.

    `check`: called before each file is written; raises where this process may not write any more (`Held.check`).
    Raises `BusyError` where another run has stored a plan meanwhile.
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
        faults=(plan.faults if plan else 0) + sum(_faults(store, shard) for shard in added),
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
            for row in _read(store, shard, ["key", "uri", "member", "fault"]).to_pylist():
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


def read_rows(store: Store, shard: int) -> list[dict[str, Any]]:
    """The rows of one plan shard as dictionaries with the columns above. Raises `DamagedFileError`, `FormatVersionError`."""
    return _read(store, shard).to_pylist()


def read_keys(store: Store, shard: int) -> list[str]:
    """The keys of one plan shard, in order of position. Raises as `read_rows`."""
    return _read(store, shard, ["key"])["key"].to_pylist()


def _read(store: Store, shard: int, columns: list[str] | None = None) -> pa.Table:
    name, required = layout.plan_shard(shard), ("position", "key", "uri")
    try:
        return read_table(store, name, "plan", columns, schema=_COLUMNS, required=required)
    except FileNotFoundError as error:
        raise DamagedFileError(f"{store.path(name)} is missing", _REMEDY) from error


def ref_of(row: dict[str, Any]) -> ImageRef:
    """The image that a plan row names."""
    return ImageRef(**{name: value for name, value in row.items() if name != "position"})


def locate(store: Store, plan: Plan, key: str) -> Iterator[tuple[int, dict[str, Any]]]:
    """Every (shard, plan row) with this key; more than one only where duplicates were recorded."""
    for shard in range(plan.shards):
        if key in read_keys(store, shard):
            yield from ((shard, row) for row in read_rows(store, shard) if row["key"] == key)


def _row(position: int, ref: ImageRef) -> dict[str, Any]:
    values = {name: position if name == "position" else getattr(ref, name) for name in _COLUMNS.names}
    # A file name that is not UTF-8 is a fault (unsafe_key); its row must be storable all the same.
    return {
        name: value.encode(errors="backslashreplace").decode() if isinstance(value, str) else value
        for name, value in values.items()
    }


def _write_shard(store: Store, shard: int, rows: list[dict[str, Any]]) -> None:
    write_table(store, layout.plan_shard(shard), pa.Table.from_pylist(rows, described(_COLUMNS, "plan")))


def _faults(store: Store, shard: int) -> int:
    column = _read(store, shard, ["fault"])["fault"]
    return len(column) - column.null_count


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
    unique, counts = np.unique(digests, return_counts=True)
    suspects = unique[counts > 1]  # equal keys, or (once in 10^3 plans of 10^8 images) two keys with one digest
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
