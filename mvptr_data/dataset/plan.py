"""The plan: which input is which (shard, position). Written once, never derived again.

A sample's place is its shard's number and its row there (`position`), for ever: every field, retry and reader refers to it.
The plan has a row for every input found, the faulty ones too, so that nothing is lost before the work begins.
"""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
import pyarrow as pa

from mvptr_data.dataset import layout
from mvptr_data.dataset.tables import described, read_table, write_table
from mvptr_data.errors import ConfigurationMismatchError, DamagedFileError, IncompleteError
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What `plan/plan.json` says.

    `rows[i]` is the number of inputs of shard i, `sha256[i]` its file's digest; `keys_sha256` is that of all keys in order.
    """

    source: dict[str, Any]
    samples_per_shard: int
    rows: tuple[int, ...]
    sha256: tuple[str, ...]
    keys_sha256: str
    faults: int

    @property
    def images(self) -> int:
        return sum(self.rows)

    @property
    def shards(self) -> int:
        return len(self.rows)

    def to_json(self) -> dict[str, Any]:
        return {
            "version": layout.version("plan"),
            "source": self.source,
            "samples_per_shard": self.samples_per_shard,
            "rows": list(self.rows),
            "sha256": list(self.sha256),
            "keys_sha256": self.keys_sha256,
            "faults": self.faults,
        }

    @property
    def digest(self) -> str:
        """Names the assignment of keys to places; where the images came from is not part of it."""
        return digest({"rows": list(self.rows), "keys": self.keys_sha256})


def load_plan(store: Store) -> Plan:
    """The stored plan. Raises `IncompleteError` where there is none, `FormatVersionError`, `DamagedFileError`."""
    try:
        found = store.read_json(layout.PLAN)
    except FileNotFoundError as error:
        raise IncompleteError(
            f"{store.root} has no plan", f"Run `mvptr-data extract-regions IMAGES {store.root}` first."
        ) from error
    layout.check_version("plan", found.get("version"), store.path(layout.PLAN))
    try:
        return Plan(
            source=found["source"],
            samples_per_shard=found["samples_per_shard"],
            rows=tuple(found["rows"]),
            sha256=tuple(found["sha256"]),
            keys_sha256=found["keys_sha256"],
            faults=found["faults"],
        )
    except (KeyError, TypeError) as error:
        raise DamagedFileError(f"{store.path(layout.PLAN)} lacks or misstates {error}", _REMEDY) from error


def check_same_plan(plan: Plan, store: Store, source: dict[str, Any], samples_per_shard: int) -> None:
    """Raises `ConfigurationMismatchError` where the stored plan was made from something else."""
    asked = {**source, "samples_per_shard": samples_per_shard}
    stored = {**plan.source, "samples_per_shard": plan.samples_per_shard}
    differences = [
        f"{name}: planned {stored.get(name)!r}, asked {asked.get(name)!r}"
        for name in sorted(asked | stored)
        if asked.get(name) != stored.get(name)
    ]
    if differences:
        raise ConfigurationMismatchError(
            f"the plan in {store.root} was made from another input ({'; '.join(differences)})", _REMEDY
        )


def write_plan(store: Store, refs: Iterable[ImageRef], *, source: dict[str, Any], samples_per_shard: int) -> Plan:
    """Cut `refs` into shards and store them; the first of several refs with one key keeps it, the others become faults.

    Memory: one shard's rows and 8 bytes an image (a 64-bit digest of each key, to find duplicates). `plan/plan.json` is
    written last and is the commit mark: a plan cut short by a kill is simply written again.
    """
    if samples_per_shard < 1:
        raise ValueError(f"samples_per_shard is {samples_per_shard}; it must be at least 1")
    key_digests = array("Q")
    keys_sha256 = hashlib.sha256()
    rows: list[int] = []
    stream = iter(refs)
    while block := list(islice(stream, samples_per_shard)):
        key_digests.extend(_key_digest(ref.key) for ref in block)
        keys_sha256.update(b"".join(_raw(ref.key) + b"\n" for ref in block))
        _write_shard(store, len(rows), [_row(position, ref) for position, ref in enumerate(block)])
        rows.append(len(block))
    _mark_duplicates(store, key_digests, samples_per_shard)
    faults = sum(_faults(store, shard) for shard in range(len(rows)))
    plan = Plan(
        source=source,
        samples_per_shard=samples_per_shard,
        rows=tuple(rows),
        sha256=tuple(store.sha256(layout.plan_shard(shard)) for shard in range(len(rows))),
        keys_sha256=keys_sha256.hexdigest(),
        faults=faults,
    )
    store.write_json(layout.PLAN, plan.to_json())
    return plan


def read_rows(store: Store, shard: int) -> list[dict[str, Any]]:
    """The rows of one plan shard as dictionaries with the columns above. Raises `DamagedFileError`, `FileNotFoundError`."""
    return read_table(store, layout.plan_shard(shard), "plan").to_pylist()


def read_keys(store: Store, shard: int) -> list[str]:
    """The keys of one plan shard, in order of position."""
    return read_table(store, layout.plan_shard(shard), "plan", ["key"])["key"].to_pylist()


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
    column = read_table(store, layout.plan_shard(shard), "plan", ["fault"])["fault"]
    return len(column) - column.null_count


def _key_digest(key: str) -> int:
    return int.from_bytes(hashlib.blake2b(_raw(key), digest_size=8).digest(), "little")


def _raw(key: str) -> bytes:
    """A key's bytes; also those of a file name that is not UTF-8."""
    return key.encode(errors="surrogatepass")


def _mark_duplicates(store: Store, key_digests: array[int], samples_per_shard: int) -> None:
    """Give every later row of a key that occurred before the fault `duplicate_key`."""
    digests = np.frombuffer(key_digests, dtype=np.uint64) if key_digests else np.empty(0, np.uint64)
    unique, counts = np.unique(digests, return_counts=True)
    suspects = unique[counts > 1]  # equal keys, or (once in 10^3 plans of 10^8 images) two keys with one digest
    if not len(suspects):
        return
    first_place: dict[str, str] = {}
    places = np.flatnonzero(np.isin(digests, suspects))
    for shard in np.unique(places // samples_per_shard).tolist():
        rows = read_rows(store, shard)
        here = places[places // samples_per_shard == shard] % samples_per_shard
        for position in here.tolist():
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
        _write_shard(store, shard, rows)
