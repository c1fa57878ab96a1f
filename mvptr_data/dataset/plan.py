"""The plan: which input is which (shard, position). Written once, never derived again.

A sample's place is its shard's number and its row there (`position`), for ever: every field, retry and reader refers to it.
The plan has a row for every input found, the faulty ones too, so that nothing is lost before the work begins. It grows by
whole parts (`planning.py`): images added later get shards of their own after those that are there.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from mvptr_data.dataset import layout
from mvptr_data.dataset.forms import COUNT, OBJECT, ORDINAL, TEXT, Form, check_form
from mvptr_data.dataset.tables import read_table
from mvptr_data.errors import ConfigurationMismatchError, DamagedFileError, IncompleteError
from mvptr_data.sources.images import ImageRef
from mvptr_data.storage import Store, digest

COLUMNS = pa.schema(
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
_REMEDY = "Restore it from a copy, or give another output folder."
_PART: dict[str, Form] = {"source": OBJECT, "samples_per_shard": COUNT, "shards": ORDINAL, "keys_sha256": TEXT}
_FORM: Form = {"parts": [_PART], "rows": [COUNT], "sha256": [TEXT], "faults": COUNT}


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
        value = {
            "version": layout.version("plan"),
            "parts": [part.to_json() for part in self.parts],
            "rows": list(self.rows),
            "sha256": list(self.sha256),
            "faults": self.faults,
        }
        return value | {"digest": digest(value)}

    @property
    def digest(self) -> str:
        """Names the assignment of keys to places; where the images came from is not part of it."""
        return digest({"rows": list(self.rows), "keys": [part.keys_sha256 for part in self.parts]})


def load_plan(store: Store) -> Plan:
    """The stored plan. Raises `IncompleteError` where there is none, `FormatVersionError`, `DamagedFileError`."""
    where = store.path(layout.PLAN)
    try:
        found = store.read_json(layout.PLAN, _REMEDY)
    except FileNotFoundError as error:
        raise IncompleteError(
            f"{store.root} has no plan", f"Run `mvptr-data extract-regions IMAGES {store.root}` first (or import-tsv)."
        ) from error
    layout.check_version("plan", found.get("version"), where)
    check_form(found, _FORM, where, _REMEDY)
    # Plans from before this was written have none.
    if found.get("digest") not in (None, digest({name: found[name] for name in found if name != "digest"})):
        raise DamagedFileError(f"{where} does not have the digest it promises", _REMEDY)
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


def read_rows(store: Store, shard: int) -> list[dict[str, Any]]:
    """The rows of one plan shard as dictionaries with the columns above. Raises `DamagedFileError`, `FormatVersionError`."""
    return read_columns(store, shard).to_pylist()


def read_keys(store: Store, shard: int) -> list[str]:
    """The keys of one plan shard, in order of position. Raises as `read_rows`."""
    return read_columns(store, shard, ["key"])["key"].to_pylist()


def read_faults(store: Store, shard: int) -> int:
    """How many inputs of a plan shard were found faulty. Raises as `read_rows`."""
    column = read_columns(store, shard, ["fault"])["fault"]
    return len(column) - column.null_count


def read_columns(store: Store, shard: int, columns: list[str] | None = None) -> pa.Table:
    """One plan shard, or these columns of it. Raises as `read_rows`."""
    name, required = layout.plan_shard(shard), ("position", "key", "uri")
    try:
        return read_table(store, name, "plan", columns, schema=COLUMNS, required=required)
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
