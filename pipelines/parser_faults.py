"""Captions on which the parser failed: written with each chunk, joined to the other faults when all are parsed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from mvptr_data.dataset import layout
from mvptr_data.dataset.captions import FAULT_SCHEMA
from mvptr_data.dataset.tables import read_table, write_table
from mvptr_data.errors import SampleFault
from mvptr_data.storage import Store

_CLASS = "parser_error"


def save_parser_faults(
    store: Store, folder: str, chunk: int, faults: Sequence[tuple[Mapping[str, Any], SampleFault]]
) -> None:
    """Writes those of one chunk, (row of the text, why); nothing where there are none."""
    if not faults:
        return
    rows = [
        {
            "error_class": fault.fault_class,
            "message": f"caption {row['caption_id']}: {fault.message}",
            "key": row["key"],
            "source": None,
            "line": None,
        }
        for row, fault in faults
    ]
    write_table(store, f"{_folder(folder)}/{chunk:06d}.parquet", pa.Table.from_pylist(rows, FAULT_SCHEMA))


def add_parser_faults(store: Store, folder: str) -> dict[str, int]:
    """Puts those of all chunks into `layout.CAPTION_FAULTS`; returns their count by class, nothing where there are none.

    A run that was killed after this does it again, to the same end.
    """
    parts = [read_table(store, name, "captions") for name in store.names(_folder(folder)) if name.endswith(".parquet")]
    if not parts:
        return {}
    others = read_table(store, layout.CAPTION_FAULTS, "captions")
    others = others.filter(pc.not_equal(others["error_class"], _CLASS))
    write_table(
        store, layout.CAPTION_FAULTS, pa.concat_tables([others, *parts]).replace_schema_metadata(FAULT_SCHEMA.metadata)
    )
    return {_CLASS: sum(len(part) for part in parts)}


def _folder(folder: str) -> str:
    return f"{folder}/parser_faults"
