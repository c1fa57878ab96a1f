from __future__ import annotations

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mvptr_data.dataset import layout
from mvptr_data.dataset.fields import FIELDS
from mvptr_data.dataset.index import Index, IndexRow, shard_files

ROWS = st.lists(
    st.builds(
        IndexRow,
        field=st.sampled_from(sorted(FIELDS)),
        shard=st.integers(0, 1 << 30) | st.integers(0, 3),
        generation=st.integers(0, 3) | st.integers(0, 1 << 30),
        file=st.text(max_size=5),
        bytes=st.integers(0, 1 << 40),
        sha256=st.text(max_size=5),
        rows_file=st.text(max_size=5),
        rows_bytes=st.integers(0, 1 << 40),
        rows_sha256=st.text(max_size=5),
        inputs=st.integers(0, 1000),
        samples=st.integers(0, 1000),
        captions=st.none() | st.integers(0, 1000),
    )
)
SCHEMA = pa.schema(
    [
        (name, pa.string() if name in ("field", "file", "sha256", "rows_file", "rows_sha256") else pa.int64())
        for name in IndexRow._fields
    ]
)


def table(rows: list[IndexRow]) -> pa.Table:
    return pa.Table.from_pylist([row._asdict() for row in rows], SCHEMA)


@given(ROWS)
def test_an_index_is_its_rows(rows: list[IndexRow]) -> None:
    index = Index(table(rows))
    assert list(index) == rows == [index[number] for number in range(len(index))] == index[:]
    for row in rows:
        assert index.of(row.field, row.shard) == next(o for o in rows if (o.field, o.shard) == (row.field, row.shard))
    for field in FIELDS:
        wanted = [row for row in rows if (row.field, row.shard) == (field, 2)]
        assert index.of(field, 2) == (wanted[0] if wanted else None)
    with pytest.raises(IndexError, match=f"row {len(rows)} of {len(rows)}"):
        index[len(rows)]


@given(ROWS, st.integers(0, 3))
def test_a_whole_index_has_each_shard_of_each_field_once(rows: list[IndexRow], shards: int) -> None:
    places = sorted((row.field, row.shard) for row in rows)
    wanted = [(field, shard) for field in sorted(FIELDS) for shard in range(shards)]
    assert Index(table(rows)).is_whole(FIELDS, shards) == (places == wanted)


@given(st.permutations(range(3)))
def test_a_whole_index_may_have_any_order(shards: list[int]) -> None:
    nothing = ("", 0, "", "", 0, "", 0, 0, None)
    rows = [IndexRow(field, shard, 0, *nothing) for shard in shards for field in FIELDS]
    index = Index(table(rows))
    assert index.is_whole(FIELDS, 3) and not index.is_whole(FIELDS, 2) and not index.is_whole(["text"], 3)


@given(ROWS)
def test_the_names_of_many_shards_are_those_of_each(rows: list[IndexRow]) -> None:
    for suffix in ("tar", "parquet"):
        each = [layout.shard_file(row.field, row.shard, row.generation, suffix) for row in rows]
        assert shard_files(table(rows), suffix).to_pylist() == each
