from __future__ import annotations

import contextlib
import os
import resource
import subprocess
import sys
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mvptr_data.dataset import tables
from mvptr_data.dataset.tables import described, open_table, read_table, table_sha256, table_writer, write_table
from mvptr_data.errors import DamagedFileError, FormatVersionError
from mvptr_data.storage import Store

SCHEMA = described(pa.schema([("number", pa.int64())]), "captions")


def table(*numbers: int) -> pa.Table:
    return pa.table({"number": numbers}).cast(SCHEMA)


def test_a_table_comes_back_with_the_same_bytes_each_time(tmp_path: Path) -> None:
    store = Store.at(tmp_path)
    for name in ("a.parquet", "b.parquet"):
        write_table(store, name, table(1, 2, 3))
    assert read_table(store, "a.parquet", "captions")["number"].to_pylist() == [1, 2, 3]
    assert store.read("a.parquet") == store.read("b.parquet")


def test_one_write_is_one_row_group_empty_ones_too(tmp_path: Path) -> None:
    store = Store.at(tmp_path)
    with table_writer(store, "t.parquet", SCHEMA) as writer:
        for numbers in ((1, 2), (), (3,)):
            writer.write_table(table(*numbers), row_group_size=max(1, len(numbers)))
    with open_table(store, "t.parquet", "captions") as parquet:
        groups = [parquet.read_row_group(group)["number"].to_pylist() for group in range(parquet.num_row_groups)]
    assert groups == [[1, 2], [], [3]]


@pytest.mark.parametrize("keep", [0, 3, 50, -5])
def test_a_torn_table_is_a_typed_error(tmp_path: Path, keep: int) -> None:
    store = Store.at(tmp_path)
    write_table(store, "t.parquet", table(*range(1000)))
    file = tmp_path / "t.parquet"
    file.write_bytes(file.read_bytes()[:keep])
    with pytest.raises(DamagedFileError, match=r"t\.parquet"):
        read_table(store, "t.parquet", "captions")


def test_foreign_tables_are_refused(tmp_path: Path) -> None:
    store = Store.at(tmp_path)
    pq.write_table(pa.table({"number": [1]}), tmp_path / "foreign.parquet")
    with pytest.raises(DamagedFileError, match="not a captions table"):
        read_table(store, "foreign.parquet", "captions")
    write_table(store, "ours.parquet", table(1))
    with pytest.raises(DamagedFileError, match="'captions' table, not 'plan'"):
        read_table(store, "ours.parquet", "plan")


def test_nothing_appears_when_writing_fails(tmp_path: Path) -> None:
    store = Store.at(tmp_path)
    with pytest.raises(RuntimeError, match="stop"), table_writer(store, "t.parquet", SCHEMA) as writer:
        writer.write_table(table(1))
        raise RuntimeError("stop")
    assert list(tmp_path.iterdir()) == []


@given(st.randoms(use_true_random=False))
def test_a_flipped_bit_is_a_typed_error_or_harmless(random: Random) -> None:
    with TemporaryDirectory() as folder:
        store = Store.at(folder)
        texts = described(pa.schema([("text", pa.string())]), "captions", note="what it is")
        write_table(store, "t.parquet", pa.table({"text": ["eins", "zwei", "drei"]}).cast(texts))
        data = bytearray(store.read("t.parquet"))
        data[random.randrange(len(data))] ^= 1 << random.randrange(8)
        store.write("t.parquet", bytes(data))
        with contextlib.suppress(DamagedFileError, FormatVersionError):
            read_table(store, "t.parquet", "captions").to_pylist()


def test_a_flip_in_what_describes_a_column_is_a_typed_error_too(tmp_path: Path) -> None:
    """pyarrow ends the process over some of them, if a column's own description is asked for; so nothing is."""
    store = Store.at(tmp_path)
    write_table(store, "t.parquet", table(1, 2, 3))
    sound = store.read("t.parquet")
    footer = len(sound) - 8 - int.from_bytes(sound[-8:-4], "little")
    for place in range(8 * footer, 8 * len(sound), 5):
        data = bytearray(sound)
        data[place // 8] ^= 1 << place % 8
        (tmp_path / "t.parquet").write_bytes(data)
        with contextlib.suppress(DamagedFileError, FormatVersionError):
            assert read_table(store, "t.parquet", "captions", schema=SCHEMA, required=["number"]).column_names == [
                "number"
            ]


def test_a_table_that_unpacks_to_far_more_is_refused_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """3 kB that stand for 1 GB: one text in a dictionary, and every row repeats it. A few times the limit is taken at most."""
    monkeypatch.setattr(tables, "_ANY_TABLE", 32 << 20)
    texts = described(pa.schema([("text", pa.string())]), "captions")
    column = pa.DictionaryArray.from_arrays(pa.array([0] * 1000, pa.int32()), pa.array(["x" * (1 << 20)]))
    bomb = pa.table({"text": column})
    with pq.ParquetWriter(tmp_path / "t.parquet", bomb.schema, compression="zstd", store_schema=False) as writer:
        writer.write_table(bomb)
        writer.add_key_value_metadata(texts.metadata)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(DamagedFileError, match=r"t\.parquet has .* bytes and takes more than"):
        read_table(Store.at(tmp_path), "t.parquet", "captions")
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200 << 10  # kilobytes


def test_a_terabyte_of_nothing_is_not_hashed(tmp_path: Path) -> None:
    store = Store.at(tmp_path)
    write_table(store, "t.parquet", table(1, 2, 3))
    assert table_sha256(store, "t.parquet") == store.sha256("t.parquet")
    os.truncate(tmp_path / "t.parquet", 1 << 40)
    with pytest.raises(DamagedFileError, match="does not end as Parquet does"):
        table_sha256(store, "t.parquet")
    with pytest.raises(DamagedFileError, match=r"t\.parquet"):
        read_table(store, "t.parquet", "captions")


@pytest.mark.parametrize(
    "description", [b"", b"[]", b"NaN", b"\xff", b"[" * 9999, b'{"format": "captions", "version": [1]}']
)
def test_a_description_of_another_form_is_a_typed_error(tmp_path: Path, description: bytes) -> None:
    pq.write_table(table(1).replace_schema_metadata({b"mvptr": description}), tmp_path / "t.parquet")
    with pytest.raises((DamagedFileError, FormatVersionError), match=r"t\.parquet"):
        read_table(Store.at(tmp_path), "t.parquet", "captions")


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="threads are counted in /proc")
def test_reading_starts_no_thread_that_outlives_it(tmp_path: Path) -> None:
    """One that lets go of bytes of Python's while the interpreter ends aborts the process (one command in 170 did)."""
    schema = described(pa.schema([("image_id", pa.string()), ("caption", pa.string())]), "captions")
    captions = pa.table({"image_id": [str(number) for number in range(9000)], "caption": ["a dog"] * 9000}).cast(schema)
    write_table(Store.at(tmp_path), "t.parquet", captions, row_group_size=1000)
    code = f"""
import os
from mvptr_data.dataset.tables import read_table
from mvptr_data.sources.caption_rows import KeyRule, RowReader
from mvptr_data.sources.caption_tables import read_parquet
from mvptr_data.storage import Store
before = len(os.listdir("/proc/self/task"))
assert read_table(Store.at({str(tmp_path)!r}), "t.parquet", "captions").num_rows == 9000
with open({str(tmp_path / "t.parquet")!r}, "rb") as file:
    assert sum(1 for _ in read_parquet(file, RowReader("t.parquet", KeyRule(None)))) == 9000
assert len(os.listdir("/proc/self/task")) == before
"""
    subprocess.run([sys.executable, "-c", code], check=True, env=os.environ | {"OMP_NUM_THREADS": "1"})
