from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mvptr_data.dataset.fields import REGIONS, TEXT
from mvptr_data.dataset.rows import MOST, field_table
from mvptr_data.dataset.tables import described, write_table
from mvptr_data.errors import DamagedFileError
from mvptr_data.storage import Store

NAME = "text/00000.parquet"
ROW: dict[str, Any] = {"status": "ok", "key": "a", "captions": 2, "phrases": 0, "text_offset": 512, "text_size": 9}
FAULT: dict[str, Any] = {"status": "fault", "key": "b", "error_class": "no_captions", "message": "none"}


def write(folder: Path, rows: list[dict[str, Any]], schema: pa.Schema = TEXT.schema, field: str = "text") -> Store:
    store = Store.at(folder)
    numbered = [{"position": position} | row for position, row in enumerate(rows)]
    write_table(store, NAME, pa.Table.from_pylist(numbered, described(schema, "field", field=field, shard=0)))
    return store


def test_rows_come_back_and_the_columns_that_are_asked_for(tmp_path: Path) -> None:
    store = write(tmp_path, [ROW, FAULT])
    assert field_table(store, NAME, TEXT).column_names == TEXT.schema.names
    assert field_table(store, NAME, TEXT, ["captions", "key"]).to_pylist() == [
        {"key": "a", "captions": 2},
        {"key": "b", "captions": None},
    ]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([ROW | {"position": 1}], "does not have the positions 0, 1, 2"),
        ([ROW | {"key": None}], "rows without key"),
        ([ROW | {"status": None}], "rows without status"),
        ([ROW | {"captions": None}], "samples without captions"),
        ([ROW | {"text_offset": None}], "samples without text_offset"),
        ([ROW | {"text_offset": -1}], "text_offset below 0"),
        ([ROW | {"text_size": MOST + 1}], "text_size below 0 or above 1,073,741,824"),
        ([ROW | {"text_size": -(2**62)}], "text_size below 0"),
    ],
)
def test_rows_that_mislead_a_reader_are_typed_errors(tmp_path: Path, rows: list[dict[str, Any]], message: str) -> None:
    store = write(tmp_path, rows)
    with pytest.raises(DamagedFileError, match=rf"text/00000\.parquet .*{message}"):
        field_table(store, NAME, TEXT)


def renamed(schema: pa.Schema) -> pa.Schema:
    return pa.schema([item.with_name("x" if item.name == "captions" else item.name) for item in schema])


def retyped(schema: pa.Schema) -> pa.Schema:
    return pa.schema([item.with_type(pa.string()) if item.name == "text_offset" else item for item in schema])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (renamed, r"the column 'x' \(int32\) where 'captions' \(int32\)"),
        (retyped, r"'text_offset' \(string\) where 'text_offset' \(int64\)"),
        (lambda schema: schema.append(pa.field("more", pa.int8())), r"'more' \(int8\) where none"),
        (lambda schema: schema.remove(0), "where 'position'"),
    ],
)
def test_other_columns_are_typed_errors(tmp_path: Path, change: Callable[[pa.Schema], pa.Schema], message: str) -> None:
    with pytest.raises(DamagedFileError, match=message):
        field_table(write(tmp_path, [], change(TEXT.schema)), NAME, TEXT)


def test_the_rows_of_another_field_are_a_typed_error(tmp_path: Path) -> None:
    with pytest.raises(DamagedFileError, match="has the rows of 'regions', not of 'text'"):
        field_table(write(tmp_path, [ROW], field="regions"), NAME, TEXT)
    with pytest.raises(DamagedFileError, match="where 'width'"):
        field_table(write(tmp_path, [ROW]), NAME, REGIONS)


@given(st.lists(st.fixed_dictionaries({}, optional={name: st.integers(-1, 5) for name in ("captions", "text_size")})))
def test_what_passes_is_usable(tmp_path_factory: pytest.TempPathFactory, rows: list[dict[str, int]]) -> None:
    store = write(tmp_path_factory.mktemp("rows"), [ROW | row for row in rows])
    if all(min(row.values(), default=0) >= 0 for row in rows):
        assert len(field_table(store, NAME, TEXT)) == len(rows)
    else:
        with pytest.raises(DamagedFileError):
            field_table(store, NAME, TEXT)
