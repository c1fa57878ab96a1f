"""Reading a data set back: aligned samples through the index, without parsing a tar.

Shapes: K regions of one image.

A sample exists where regions and text are both `ok`. The parquet files say where each member lies, so a sample costs one read
in each tar, wherever it is.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from mvptr_data.dataset.fields import FIELDS, OK, stem
from mvptr_data.dataset.manifest import IndexRow, load_index, load_manifest
from mvptr_data.dataset.records import (
    FEATURE_SIZE,
    Caption,
    RegionFacts,
    decode_array,
    decode_regions,
    decode_text,
    geometry,
)
from mvptr_data.dataset.samples import load_samples
from mvptr_data.dataset.shards import read_rows
from mvptr_data.errors import DamagedFileError
from mvptr_data.phrases import PhraseVocabulary
from mvptr_data.storage import Store

#: Shards whose files and rows are kept at hand; neighbours in a shuffled stream come from few shards.
OPEN_SHARDS = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """One image with its captions.

    `features` float16 [K, 2048]; `boxes` float32 [K, 4], absolute x1 y1 x2 y2; `image_id`: 64 bits of the image's sha256;
    `regions` holds width, height, tags, attributes and scores; `captions` their texts with known phrases.
    """

    key: str
    shard: int
    position: int
    split: str | None
    image_id: int
    features: NDArray[np.float16]
    boxes: NDArray[np.float32]
    regions: RegionFacts
    captions: tuple[Caption, ...]

    @property
    def geometry(self) -> NDArray[np.float32]:
        """float32 [K, 6]: the six numbers that join the features in the model's input (MVPTR 3.1, A.1)."""
        return geometry(self.boxes, self.regions.width, self.regions.height)


@dataclass(frozen=True, slots=True)
class _Shard:
    """The open tars of one shard and its samples' rows, by field."""

    tars: dict[str, IO[bytes]]
    rows: list[dict[str, dict[str, Any]]]

    def read(self, field: str, member: str, row: dict[str, Any]) -> bytes:
        """A member's bytes, by the offset its row names. Raises `DamagedFileError` where the tar ends before."""
        tar, size = self.tars[field], row[f"{stem(member)}_size"]
        tar.seek(row[f"{stem(member)}_offset"])
        data = tar.read(size)
        if len(data) != size:
            raise DamagedFileError(
                f"the {field} tar ends inside {member} of {row['key']!r}", "Run `mvptr-data verify`."
            )
        return data

    def close(self) -> None:
        for tar in self.tars.values():
            tar.close()


class ShardReader:
    """The samples of a published data set, in plan order: iterate over it, or index into it.

    Raises, at construction, `IncompleteError` (nothing published), `FormatVersionError`, `DamagedFileError`; while reading,
    `DamagedFileError` naming the sample whose bytes are not what they should be. Use it as a context manager, or `close` it.
    """

    def __init__(self, root: str) -> None:
        self._store = Store.at(root)
        self.manifest = load_manifest(self._store)
        self._fields = list(self.manifest["fields"])
        self._index: dict[tuple[str, int], IndexRow] = {
            (row.field, row.shard): row for row in load_index(self._store, self.manifest)
        }
        if self._index.keys() != set(product(self._fields, range(self.manifest["shards"]))):
            raise DamagedFileError(
                f"the index of {self._store.root} does not have each shard of each field once",
                f"Run `mvptr-data verify {root}`.",
            )
        self.samples = load_samples(self._store, self.manifest)
        self._starts = np.concatenate([[0], np.cumsum(self.samples.at_least[0])])
        self._open: OrderedDict[int, _Shard] = OrderedDict()

    def vocabulary(self) -> PhraseVocabulary:
        """The phrase vocabulary that the text field was written with."""
        return PhraseVocabulary.load(self._store.path(self.manifest["phrase_vocab"]["name"]))

    def __len__(self) -> int:
        return int(self._starts[-1])

    def __getitem__(self, number: int) -> Sample:
        if not 0 <= number < len(self):
            raise IndexError(f"sample {number} of {len(self)}")
        shard = int(np.searchsorted(self._starts, number, side="right")) - 1
        return self._read(shard, number - int(self._starts[shard]))

    def __iter__(self) -> Iterator[Sample]:
        for shard in range(len(self._starts) - 1):
            for number in range(int(self._starts[shard + 1] - self._starts[shard])):
                yield self._read(shard, number)

    def close(self) -> None:
        """Close all files."""
        while self._open:
            self._open.popitem()[1].close()

    def __enter__(self) -> ShardReader:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _sample_rows(self, shard: int) -> list[dict[str, dict[str, Any]]]:
        """The rows of a shard's samples, by field: positions where every field is `ok`."""
        tables = {field: read_rows(self._store, self._index[field, shard].rows_file) for field in self._fields}
        if len({len(rows) for rows in tables.values()}) != 1:
            raise DamagedFileError(
                f"the fields of shard {shard} of {self._store.root} have different numbers of rows",
                "Run `mvptr-data verify`.",
            )
        aligned = zip(*tables.values(), strict=True)
        samples = [dict(zip(tables, rows, strict=True)) for rows in aligned if all(row["status"] == OK for row in rows)]
        if len(samples) != (promised := self.samples.at_least[0, shard]):
            raise DamagedFileError(
                f"shard {shard} of {self._store.root} has {len(samples)} samples, the manifest promises {promised}",
                "Run `mvptr-data verify`.",
            )
        return samples

    def _shard(self, number: int) -> _Shard:
        """An open shard; the one used longest ago is closed when there are too many."""
        if number in self._open:
            self._open.move_to_end(number)
        else:
            while len(self._open) >= OPEN_SHARDS:
                self._open.popitem(last=False)[1].close()
            tars = {field: self._store.open(self._index[field, number].file) for field in self._fields}
            self._open[number] = _Shard(tars, self._sample_rows(number))
        return self._open[number]

    def _read(self, number: int, nth: int) -> Sample:
        shard = self._shard(number)
        rows = shard.rows[nth]
        members = {
            member: shard.read(field, member, row) for field, row in rows.items() for member in FIELDS[field].members
        }
        regions = rows["regions"]
        where = f"{self._store.root} sample {regions['key']!r} (shard {number}, position {regions['position']})"
        split, captions = decode_text(members["text.json"], f"text.json of {where}")
        features = decode_array(members["features.npy"], f"features of {where}")
        boxes = decode_array(members["boxes.npy"], f"boxes of {where}")
        facts = decode_regions(members["regions.json"], f"regions.json of {where}")
        count = len(facts.tags)
        if features.dtype != np.float16 or features.shape != (count, FEATURE_SIZE):
            raise DamagedFileError(
                f"features of {where} are {features.dtype} {list(features.shape)}", "Run `mvptr-data verify`."
            )
        if boxes.dtype != np.float32 or boxes.shape != (count, 4):
            raise DamagedFileError(
                f"boxes of {where} are {boxes.dtype} {list(boxes.shape)}", "Run `mvptr-data verify`."
            )
        return Sample(
            key=regions["key"],
            shard=number,
            position=regions["position"],
            split=split,
            image_id=regions["image_id"],
            features=features,
            boxes=boxes,
            regions=facts,
            captions=captions,
        )
