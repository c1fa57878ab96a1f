"""Receipts: the commit mark of a shard. No receipt, no shard.

`regions/00012.json` is written after the shard's tar and parquet are safely on disk, and says what they are. Timings and
software versions are in it too, but outside its digest, which is the same for the same bytes.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, fields
from typing import Any

from mvptr_data.dataset import layout
from mvptr_data.dataset.fields import OK
from mvptr_data.dataset.forms import COUNT, NUMBER, ORDINAL, TEXT, Each, Form, check_form
from mvptr_data.errors import DamagedFileError
from mvptr_data.storage import Store, digest

_REMEDY = "Run `mvptr-data verify --repair`, or remove it and run the command that wrote it again."
_FILE: dict[str, Form] = {"name": TEXT, "bytes": COUNT, "sha256": TEXT}
#: Every receipt counts these; the others are fault classes.
_COUNTED = ("inputs", OK)
_FORM: Form = {
    "field": TEXT,
    "shard": ORDINAL,
    "generation": ORDINAL,
    "configuration_digest": TEXT,
    "tar": _FILE,
    "rows": _FILE,
    "counts": Each(COUNT, _COUNTED),
    "totals": Each(COUNT),
    "seconds": Each(NUMBER),
    "environment": Each(TEXT),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class FileFacts:
    """One file of a shard: name relative to the data set, bytes, sha256 (hex)."""

    name: str
    bytes: int
    sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Receipt:
    """A finished shard. `counts` are inputs, ok, and a number for each fault class met; `totals` are sums over the ok samples."""

    field: str
    shard: int
    generation: int
    configuration_digest: str
    tar: FileFacts
    rows: FileFacts
    counts: dict[str, int]
    totals: dict[str, int]
    seconds: dict[str, float] = dataclasses.field(default_factory=dict, compare=False)
    environment: dict[str, str] = dataclasses.field(default_factory=dict, compare=False)

    @property
    def digest(self) -> str:
        return digest(self._promised())

    @property
    def faults(self) -> dict[str, int]:
        """The number of inputs under each fault class."""
        return {name: count for name, count in self.counts.items() if name not in _COUNTED}

    def _promised(self) -> dict[str, Any]:
        promised = {item.name: getattr(self, item.name) for item in fields(self) if item.compare}
        return promised | {which: _facts_json(promised[which]) for which in ("tar", "rows")}

    def to_json(self) -> dict[str, Any]:
        return {
            **self._promised(),
            "version": layout.version("receipt"),
            "digest": self.digest,
            "seconds": self.seconds,
            "environment": self.environment,
        }


def _facts_json(facts: FileFacts) -> dict[str, Any]:
    return {"name": facts.name, "bytes": facts.bytes, "sha256": facts.sha256}


def write_receipt(store: Store, receipt: Receipt) -> None:
    store.write_json(layout.receipt(receipt.field, receipt.shard), receipt.to_json())


def read_receipt(store: Store, field_name: str, shard: int) -> Receipt | None:
    """A shard's receipt, or None. Raises `FormatVersionError`, `DamagedFileError` where it is not what its digest promises."""
    name = layout.receipt(field_name, shard)
    try:
        found = store.read_json(name, _REMEDY)
    except FileNotFoundError:
        return None
    where = store.path(name)
    layout.check_version("receipt", found.get("version"), where)
    check_form(found, _FORM, where, _REMEDY)
    files = {which: FileFacts(**{name: found[which][name] for name in _FILE}) for which in ("tar", "rows")}
    receipt = Receipt(**{item.name: found[item.name] for item in fields(Receipt)} | files)
    names = [layout.shard_file(field_name, shard, receipt.generation, suffix) for suffix in ("tar", "parquet")]
    if (
        receipt.digest != found.get("digest")
        or (receipt.field, receipt.shard) != (field_name, shard)
        or [receipt.tar.name, receipt.rows.name] != names
    ):
        raise DamagedFileError(f"{where} does not have the digest it promises", _REMEDY)
    return receipt


def is_intact(store: Store, receipt: Receipt, configuration_digest: str) -> bool:
    """Whether a receipt is of this configuration and its files are there at full size.

    Sizes, not digests, are compared: files appear under their names only when whole (`Store.writing`), and hashing 200 kB
    an image at every start would cost more than it finds. `mvptr-data verify` reads every byte.
    """
    return receipt.configuration_digest == configuration_digest and all(
        store.size(facts.name) == facts.bytes for facts in (receipt.tar, receipt.rows)
    )


def is_finished(store: Store, field_name: str, shard: int, configuration_digest: str) -> bool:
    """Whether a shard need not be done again: it has a receipt that is sound and intact."""
    try:
        receipt = read_receipt(store, field_name, shard)
    except DamagedFileError:
        return False
    return receipt is not None and is_intact(store, receipt, configuration_digest)
