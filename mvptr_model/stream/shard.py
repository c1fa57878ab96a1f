"""One shard of a data set, mapped into memory: the bytes of any sample's members, without parsing a tar or copying.

Shape legend: n samples of the shard, K regions of one image.
"""

from __future__ import annotations

import mmap
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import DTypeLike, NDArray

from mvptr_data.dataset.fields import FIELDS, TEXT, stem
from mvptr_data.dataset.records import decode_array, encode_array
from mvptr_data.dataset.rows import field_table
from mvptr_data.dataset.samples import usable_positions
from mvptr_data.errors import DamagedFileError
from mvptr_data.storage import Store

_VERIFY = "Run `mvptr-data verify`."


class FieldFiles(NamedTuple):
    """The files of one field of a shard, on local disk, and the bytes that the tar must have."""

    tar: Path
    tar_bytes: int
    rows: Path


class OpenShard:
    """The samples of a shard: positions where every field is `ok`, numbered in plan order.

    `keys` [n], `positions` int64 [n], `image_ids` uint64 [n], `captions` int64 [n].
    """

    def __init__(self, files: Mapping[str, FieldFiles], *, samples: int, where: str) -> None:
        """`samples` is the promised n. Raises `DamagedFileError`, `FormatVersionError`, naming `where`."""
        tables = {field: _rows(of.rows, field, where, _columns(field)) for field, of in files.items()}
        self.positions = usable_positions(list(tables.values()), where)
        if len(self.positions) != samples:
            raise DamagedFileError(
                f"{where} has {len(self.positions)} samples, the manifest promises {samples}", _VERIFY
            )
        self.where = where
        self.keys: Sequence[str] = tables["regions"]["key"].take(self.positions).to_pylist()
        self.image_ids = self._numbers(tables["regions"], "image_id").astype(np.uint64)
        self.captions = self._numbers(tables["text"], "captions").astype(np.int64)
        self._tars = {field: _mapped(of, f"the {field} tar of {where}") for field, of in files.items()}
        self._spans = {
            member: tuple(
                self._numbers(tables[field], f"{stem(member)}_{what}").tolist() for what in ("offset", "size")
            )
            for field in files
            for member in FIELDS[field].members
        }
        self._fields = {member: field for field in files for member in FIELDS[field].members}

    def __len__(self) -> int:
        return len(self.positions)

    def member(self, member: str, nth: int) -> memoryview:
        """The bytes of a member of the n-th sample, in the map. Raises `DamagedFileError` where the tar ends before."""
        field = self._fields[member]
        offsets, sizes = self._spans[member]
        tar, start = self._tars[field], offsets[nth]
        if not 0 <= start <= start + sizes[nth] <= len(tar):
            raise DamagedFileError(f"the {field} tar ends inside {member} of {self.sample(nth)}", _VERIFY)
        return memoryview(tar)[start : start + sizes[nth]]

    def array(self, member: str, nth: int, dtype: DTypeLike, width: int) -> NDArray[Any]:
        """[K, width] of an array member, a view of the map. Raises `DamagedFileError` for another type or shape."""
        data = self.member(member, nth)
        wanted = np.dtype(dtype)
        rows = (len(data) - _HEADER_BYTES) // (width * wanted.itemsize)
        if rows > 0 and data[:_HEADER_BYTES] == _header(wanted.str, rows, width):
            found = np.frombuffer(data, wanted, rows * width, _HEADER_BYTES).reshape(rows, width)
            if _HEADER_BYTES + found.nbytes == len(data):
                return found
        where = f"{stem(member)} of {self.sample(nth)}"
        array = decode_array(bytes(data), where)
        if array.dtype != wanted or array.ndim != 2 or array.shape[1] != width:
            raise DamagedFileError(f"{where} are {array.dtype} {list(array.shape)}, not {wanted} [K, {width}]", _VERIFY)
        return array

    def sample(self, nth: int) -> str:
        """What a message calls the n-th sample."""
        offset = self._spans["features.npy"][0][nth]
        return f"{self.where} sample {self.keys[nth]!r} (position {self.positions[nth]}, features at byte {offset:,})"

    def _numbers(self, table: pa.Table, column: str) -> NDArray[Any]:
        return table[column].take(self.positions).fill_null(0).to_numpy()


def _rows(path: Path, field: str, where: str, columns: Sequence[str]) -> pa.Table:
    try:
        return field_table(Store.at(path.parent), path.name, FIELDS[field], columns)
    except FileNotFoundError as error:
        raise DamagedFileError(f"{path} is missing, a part of {where}", _VERIFY) from error


def _columns(field: str) -> list[str]:
    """The columns that samples are found by; a parquet has twice as many."""
    spans = [f"{stem(member)}_{what}" for member in FIELDS[field].members for what in ("offset", "size")]
    described = ["captions"] if field == TEXT.name else ["key", "image_id"]
    return ["position", "status", *described, *spans]


def caption_counts(rows: Mapping[str, Path], where: str) -> NDArray[np.int64]:
    """int64 [n]: how many captions each sample of a shard has, by its fields' parquet files alone. Errors as `OpenShard`'s."""
    tables = {
        field: _rows(path, field, where, ["position", "status", *(["captions"] if field == TEXT.name else [])])
        for field, path in rows.items()
    }
    positions = usable_positions(list(tables.values()), where)
    return tables["text"]["captions"].take(positions).fill_null(0).to_numpy().astype(np.int64)


def _mapped(files: FieldFiles, what: str) -> mmap.mmap:
    """A tar in memory. Its size is checked first: a map of a file that ends earlier kills the process that reads on."""
    try:
        with Store.at(files.tar.parent).open(files.tar.name) as file:
            mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except (FileNotFoundError, ValueError) as error:
        raise DamagedFileError(f"{what} is missing or empty ({files.tar})", _VERIFY) from error
    if len(mapped) != files.tar_bytes:
        raise DamagedFileError(f"{what} has {len(mapped):,} bytes, not {files.tar_bytes:,} ({files.tar})", _VERIFY)
    return mapped


#: Bytes before the numbers of an `.npy` of ours.
_HEADER_BYTES = 128


@lru_cache(maxsize=4096)
def _header(dtype: str, rows: int, width: int) -> bytes:
    """How an array of this type and shape begins."""
    whole = encode_array(np.empty((rows, width), dtype))
    return whole[: len(whole) - rows * width * np.dtype(dtype).itemsize]
