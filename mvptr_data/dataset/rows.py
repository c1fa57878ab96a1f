"""The rows of a shard's parquet, checked: whoever reads them may use offsets, sizes and counts as they are."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from mvptr_data.dataset.fields import OK, Field, stem
from mvptr_data.dataset.tables import facts_of, read_table
from mvptr_data.errors import DamagedFileError
from mvptr_data.storage import Store

#: Bytes of a member, and what a row may count of anything: far above all that is, far below what fills a memory.
MOST = 1 << 30
_REMEDY = "Run `mvptr-data verify`."


def field_table(store: Store, name: str, field: Field, columns: Sequence[str] | None = None) -> pa.Table:
    """The parquet of one shard of `field`, or these columns of it: a row for every input, in plan order.

    Positions are 0, 1, 2, ...; rows that are `ok` have the place of each member and the numbers that describe them.

    Raises `DamagedFileError`, `FormatVersionError`, `FileNotFoundError`.
    """
    wanted = None if columns is None else list(dict.fromkeys([*columns, "status"]))
    required = ("position", "key", "status")
    table = read_table(store, name, "field", wanted, schema=field.schema, required=required)
    where = store.path(name)
    if (other := facts_of(table.schema, "field", where).get("field")) != field.name:
        raise DamagedFileError(f"{where} has the rows of {other!r}, not of {field.name!r}", _REMEDY)
    if problem := _problem(table, field):
        raise DamagedFileError(f"{where} {problem}", _REMEDY)
    return table if columns is None else table.select(list(columns))


def _problem(table: pa.Table, field: Field) -> str | None:
    """What is wrong with the rows, if anything is."""
    if "position" in table.column_names and not np.array_equal(table["position"], np.arange(len(table))):
        return "does not have the positions 0, 1, 2, ..."
    usable = table.filter(pc.equal(table["status"], OK))
    for name in _counting(field):
        if name in usable.column_names:
            if usable[name].null_count:
                return f"has samples without {name}"
            if len(usable) and not 0 <= pc.min(usable[name]).as_py() <= pc.max(usable[name]).as_py() <= _most(name):
                return f"has samples with {name} below 0 or above {_most(name):,}"
    if "image_id" in usable.column_names and usable["image_id"].null_count:
        return "has samples without image_id"
    return None


def _counting(field: Field) -> list[str]:
    """The columns whose numbers every sample has."""
    spans = [f"{stem(member)}_{what}" for member in field.members for what in ("offset", "size")]
    return [*field.totals, *spans]


def _most(name: str) -> int:
    return 1 << 50 if name.endswith("_offset") else MOST
