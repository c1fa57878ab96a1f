"""Reading a data set back: aligned samples through the index, without parsing a tar.

Shape legend: K regions of one image.

A sample exists where regions and text are both `ok`. The parquet files say where each member lies, so a sample costs no more
than looking at its bytes, wherever it is.
"""

from __future__ import annotations

import os
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mvptr_data.dataset.copies import LocalCopies
from mvptr_data.dataset.fields import stem
from mvptr_data.dataset.index import IndexRow, load_index
from mvptr_data.dataset.manifest import load_manifest
from mvptr_data.dataset.records import (
    FEATURE_SIZE,
    Caption,
    RegionFacts,
    decode_regions,
    decode_text,
    geometry,
)
from mvptr_data.dataset.samples import load_image_ids, load_samples
from mvptr_data.errors import DamagedFileError
from mvptr_data.phrases import PhraseVocabulary
from mvptr_data.storage import Store
from mvptr_model.stream.shard import FieldFiles, OpenShard, caption_counts

#: Shards that are kept at hand; neighbours in a shuffled stream come from few shards.
OPEN_SHARDS = 8
#: Where copies of remote shards are kept, and how many bytes of them.
CACHE, CACHE_BYTES = Path("~/.cache/mvptr-data/shards"), 100 << 30


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


class ShardReader:
    """The samples of a published data set, in plan order: iterate over it, or index into it.

    `root` is a folder or URL; the shards of a URL are copied to `cache`, whole, up to `cache_bytes`. `open_shards` are kept at
    hand.

    Raises, at construction, `IncompleteError` (nothing published), `FormatVersionError`, `DamagedFileError`; while reading,
    `DamagedFileError` naming the sample whose bytes are not what they should be, and what `LocalCopies.path` raises. Use it as
    a context manager, or `close` it.
    """

    def __init__(
        self,
        root: str,
        *,
        cache: str | os.PathLike[str] = CACHE,
        cache_bytes: int = CACHE_BYTES,
        open_shards: int = OPEN_SHARDS,
    ) -> None:
        self._store = Store.at(root)
        self._copies = LocalCopies(self._store, folder=Path(cache).expanduser(), limit=cache_bytes)
        self._open_shards = open_shards
        self.manifest = load_manifest(self._store)
        self._fields = list(self.manifest["fields"])
        self._index = load_index(self._store, self.manifest)
        if not self._index.is_whole(self._fields, self.manifest["shards"]):
            raise DamagedFileError(
                f"the index of {self._store.root} does not have each shard of each field once",
                f"Run `mvptr-data verify {root}`.",
            )
        self.samples = load_samples(self._store, self.manifest)
        #: Of each shard, and the end: a list, in which a number is found in a tenth of numpy's time.
        self._starts: list[int] = [0, *np.cumsum(self.samples.at_least[0]).tolist()]
        self._open: OrderedDict[int, OpenShard] = OrderedDict()

    def vocabulary(self) -> PhraseVocabulary:
        """The phrase vocabulary that the text field was written with."""
        return PhraseVocabulary.load(self._store.path(self.manifest["phrase_vocab"]["name"]))

    def __len__(self) -> int:
        return self._starts[-1]

    def __getitem__(self, number: int) -> Sample:
        shard, nth = self.place(number)
        return self._read(self.shard(shard), shard, nth)

    def __iter__(self) -> Iterator[Sample]:
        for shard in range(len(self._starts) - 1):
            for nth in range(self._starts[shard + 1] - self._starts[shard]):
                yield self._read(self.shard(shard), shard, nth)

    def close(self) -> None:
        """Let go of all files."""
        self._open.clear()

    def __enter__(self) -> ShardReader:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def captions_of(self, number: int) -> NDArray[np.int64]:
        """int64 [n]: how many captions each sample of a shard has; the shard's tars stay closed."""
        rows = {field: self._rows(self._row(field, number)) for field in self._fields}
        return caption_counts(rows, f"shard {number} of {self._store.root}")

    def image_ids(self) -> NDArray[np.uint64]:
        """uint64 [N]: 64 bits of the sha256 of each sample's image."""
        return load_image_ids(self._store, self.manifest)

    def place(self, number: int) -> tuple[int, int]:
        """The shard of a sample, and which of the shard's samples it is. Raises `IndexError`."""
        if not 0 <= number < self._starts[-1]:
            raise IndexError(f"sample {number} of {len(self)}")
        shard = bisect_right(self._starts, number) - 1
        return shard, number - self._starts[shard]

    def shard(self, number: int) -> OpenShard:
        """An open shard; the one used longest ago is let go when there are too many. Arrays taken from it stay valid."""
        found = self._open.get(number)
        if found is None:
            while len(self._open) >= self._open_shards:
                self._open.popitem(last=False)
            found = self._open[number] = OpenShard(
                {field: self._files(self._row(field, number)) for field in self._fields},
                samples=int(self.samples.at_least[0, number]),
                where=f"shard {number} of {self._store.root}",
            )
        self._open.move_to_end(number)
        return found

    def _row(self, field: str, number: int) -> IndexRow:
        row = self._index.of(field, number)
        assert row is not None, "the index is whole"
        return row

    def _files(self, row: IndexRow) -> FieldFiles:
        return FieldFiles(
            tar=self._copies.path(row.file, size=row.bytes, sha256=row.sha256),
            tar_bytes=row.bytes,
            rows=self._rows(row),
        )

    def _rows(self, row: IndexRow) -> Path:
        return self._copies.path(row.rows_file, size=row.rows_bytes, sha256=row.rows_sha256)

    def _read(self, shard: OpenShard, number: int, nth: int) -> Sample:
        where = shard.sample(nth)
        split, captions = decode_text(bytes(shard.member("text.json", nth)), f"text.json of {where}")
        features = shard.array("features.npy", nth, np.float16, FEATURE_SIZE)
        boxes = shard.array("boxes.npy", nth, np.float32, 4)
        facts = decode_regions(bytes(shard.member("regions.json", nth)), f"regions.json of {where}")
        for name, array in (("features.npy", features), ("boxes.npy", boxes)):
            if len(array) != len(facts.tags):
                raise DamagedFileError(
                    f"{stem(name)} of {where} are of {len(array)} regions, its tags of {len(facts.tags)}",
                    "Run `mvptr-data verify`.",
                )
        return Sample(
            key=shard.keys[nth],
            shard=number,
            position=int(shard.positions[nth]),
            split=split,
            image_id=int(shard.image_ids[nth]),
            features=features,
            boxes=boxes,
            regions=facts,
            captions=captions,
        )
