"""The samples of a published data set, in brief: all that an order of them needs, so that a stream opens no shard to begin.

Shape legend: S shards, N samples (in plan order, those of a shard together), R the largest number of captions.

* `samples.parquet`      a row a shard: `at_least` [R], how many of its samples have more than r captions
* `image_ids.parquet`    a row a sample: 64 bits of its image's sha256; read only where several data sets are mixed
* `same_images.parquet`  a row for each sample whose image is in other samples too: `sample`, and `image`, the first of them

A sample exists where every field is `ok`. What lies in a sample is told by its shard's own parquet files.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from mvptr_data.dataset import layout
from mvptr_data.dataset.fields import OK, REGIONS, TEXT
from mvptr_data.dataset.rows import field_table
from mvptr_data.dataset.tables import described, read_table, table_sha256, write_table
from mvptr_data.errors import DamagedFileError
from mvptr_data.storage import Store, digest

Ints = NDArray[np.int64]

_COUNTS = described(pa.schema([("shard", pa.int32()), ("at_least", pa.list_(pa.int32()))]), "manifest")
_IDS = described(pa.schema([("image_id", pa.uint64())]), "manifest")
_SAME = described(pa.schema([("sample", pa.int64()), ("image", pa.int64())]), "manifest")
#: Samples of a row group of identities, 8 MB.
_ROW_GROUP = 1_000_000
#: Parts, by their upper bits, in which image identities are compared: the work needs 8 bytes a sample and a 16th of that again.
_PARTS = 16
#: Counts, R x S, that are taken into memory: 2 GB.
_MOST_COUNTS = 1 << 28


@dataclass(frozen=True, slots=True, eq=False)
class ShardSamples:
    """One shard's samples: `positions` int32 [n] in the shard, `captions` int32 [n] (how many), `image_ids` uint64 [n]."""

    positions: NDArray[np.int32]
    captions: NDArray[np.int32]
    image_ids: NDArray[np.uint64]

    @property
    def at_least(self) -> list[int]:
        """How many samples have more than 0, 1, 2, ... captions; [0] without samples."""
        return [int((self.captions > r).sum()) for r in range(int(self.captions.max(initial=1)))]

    @property
    def sha256(self) -> bytes:
        """Of the positions and the numbers of captions: what an order depends on."""
        return hashlib.sha256(self.positions.tobytes() + b"|" + self.captions.tobytes()).digest()


def shard_samples(store: Store, regions: str, text: str) -> ShardSamples:
    """The samples of a shard, by the parquet files of its fields.

    Raises `DamagedFileError`, `FormatVersionError`, `FileNotFoundError`.
    """
    ours = field_table(store, regions, REGIONS, ["status", "image_id"])
    texts = field_table(store, text, TEXT, ["status", "captions"])
    positions = usable_positions([ours, texts], f"{store.path(regions)} and {store.path(text)}")
    return ShardSamples(
        positions=positions.astype(np.int32),
        captions=texts["captions"].fill_null(0).to_numpy()[positions].astype(np.int32),
        image_ids=ours["image_id"].fill_null(0).to_numpy()[positions].astype(np.uint64),
    )


def usable_positions(fields: Sequence[pa.Table], where: str) -> Ints:
    """The positions of a shard where every field is `ok`, by the rows of its fields. Raises `DamagedFileError` naming `where`."""
    if len({len(table) for table in fields}) != 1:
        raise DamagedFileError(f"the fields of {where} have different numbers of rows", "Run `mvptr-data verify`.")
    usable = [np.array(table["status"].to_pylist(), dtype=object) == OK for table in fields]
    return np.flatnonzero(np.logical_and.reduce(usable))


@dataclass(frozen=True, slots=True, eq=False)
class Samples:
    """The samples of a data set.

    `at_least` int64 [R, S]: how many samples of each shard have more than r captions; row 0 counts all. `same_images` int64
    [M, 2]: (sample, first sample with the same image), ascending. `digest` names plan places and caption counts.
    """

    at_least: Ints
    same_images: Ints
    digest: str


def write_samples(store: Store, shards: Iterable[ShardSamples]) -> tuple[dict[str, Any], int]:
    """Write the three files from all shards in order; returns the manifest's entry on them, and the number of samples."""
    identities: list[NDArray[np.uint64]] = []
    counts: list[list[int]] = []
    places = hashlib.sha256()
    for shard in shards:
        counts.append(shard.at_least)
        identities.append(shard.image_ids)
        places.update(shard.sha256)
    ids = np.concatenate(identities) if identities else np.zeros(0, np.uint64)
    same = same_images(ids)
    write_table(store, layout.SAMPLES, pa.table([range(len(counts)), counts], schema=_COUNTS))
    write_table(store, layout.IMAGE_IDS, pa.table([ids], schema=_IDS), row_group_size=_ROW_GROUP)
    write_table(store, layout.SAME_IMAGES, pa.table(list(same.T), schema=_SAME))
    files = {name: store.sha256(name) for name in layout.SAMPLE_FILES}
    entry = {
        "files": files,
        "places": places.hexdigest(),
        "digest": digest([places.hexdigest(), files[layout.SAME_IMAGES]]),
    }
    return entry, len(ids)


def samples_problem(store: Store, manifest: dict[str, Any], shards: Iterable[ShardSamples]) -> str | None:
    """How the published brief differs from what the shards hold, if it does. Raises as `load_samples`."""
    published, published_ids = load_samples(store, manifest), load_image_ids(store, manifest)
    places, at = hashlib.sha256(), 0
    for number, shard in enumerate(shards):
        counts = np.zeros(len(published.at_least), np.int64)
        counts[: len(shard.at_least)] = shard.at_least[: len(counts)]
        if (counts != published.at_least[:, number]).any():
            return f"shard {number} has {shard.at_least} samples with 1, 2, ... captions, promised were others"
        if (published_ids[at : at + len(shard.image_ids)] != shard.image_ids).any():
            return f"shard {number} has other images than promised"
        at += len(shard.image_ids)
        places.update(shard.sha256)
    if places.hexdigest() != manifest["order"]["places"]:
        return "other positions hold samples than promised"
    if not np.array_equal(same_images(published_ids), published.same_images):
        return "other samples show the same images than promised"
    return None


def same_images(identities: NDArray[np.uint64]) -> Ints:
    """Identities [N] -> int64 [M, 2]: every sample whose identity is found more than once, and the first sample that has it."""
    found = []
    upper = identities >> np.uint64(64 - (_PARTS - 1).bit_length())
    for part in range(_PARTS):
        samples = np.flatnonzero(upper == part)
        order = np.argsort(identities[samples], kind="stable")
        ordered = identities[samples[order]]
        fresh = np.ones(len(ordered), dtype=bool)
        fresh[1:] = ordered[1:] != ordered[:-1]
        starts = np.flatnonzero(fresh)
        sizes = np.diff(np.append(starts, len(ordered)))
        first = np.repeat(samples[order[starts]], sizes)  # a stable sort: the first of its run is the first of all
        again = np.repeat(sizes > 1, sizes)
        found.append(np.stack([samples[order][again], first[again]], axis=1))
    same = np.concatenate(found)
    return same[np.argsort(same[:, 0])]


def load_samples(store: Store, manifest: dict[str, Any]) -> Samples:
    """What the manifest's data set holds. Raises `DamagedFileError`, `FormatVersionError`."""
    counted = _load(store, manifest, layout.SAMPLES, _COUNTS)
    same = _load(store, manifest, layout.SAME_IMAGES, _SAME)
    if not np.array_equal(counted["shard"], np.arange(manifest["shards"])):
        raise _damaged(store, layout.SAMPLES, f"does not have each of {manifest['shards']} shards once")
    counts = _counts(store, counted["at_least"])
    if (found := int(counts[0].sum())) != manifest["samples"]:
        raise _damaged(store, layout.SAMPLES, f"counts {found} samples, the manifest {manifest['samples']}")
    pairs = np.stack([same[name].to_numpy() for name in ("sample", "image")], axis=1)
    sample, image = pairs.T
    if not ((image >= 0) & (image <= sample) & (sample < found)).all() or (np.diff(sample) <= 0).any():
        raise _damaged(store, layout.SAME_IMAGES, f"does not name samples below {found} in their order")
    return Samples(at_least=counts, same_images=pairs.astype(np.int64), digest=manifest["order"]["digest"])


def load_image_ids(store: Store, manifest: dict[str, Any]) -> NDArray[np.uint64]:
    """uint64 [N]: 64 bits of each image's sha256, in the samples' order. Raises as `load_samples`."""
    ids = _load(store, manifest, layout.IMAGE_IDS, _IDS)["image_id"].to_numpy().astype(np.uint64)
    if len(ids) != manifest["samples"]:
        raise _damaged(store, layout.IMAGE_IDS, f"names {len(ids)} images, the manifest {manifest['samples']} samples")
    return ids


def _counts(store: Store, at_least: pa.ChunkedArray) -> Ints:
    """`Samples.at_least` from its column, a list a shard."""
    lists = pc.list_value_length(at_least).to_numpy().astype(np.int64)
    values = pc.list_flatten(at_least).fill_null(-1).to_numpy().astype(np.int64)
    most = int(lists.max(initial=1))
    if most * len(lists) > _MOST_COUNTS:
        raise _damaged(store, layout.SAMPLES, f"counts up to {most:,} captions in {len(lists):,} shards")
    counts = np.zeros((len(lists), most), dtype=np.int64)
    counts[np.arange(most) < lists[:, None]] = values
    # A shard's counts are [number, fewer or as many, ..., at least 1], or [0].
    none = (lists == 1) & (counts[:, 0] == 0)
    least = counts[np.arange(len(lists)), lists - 1]
    if (lists < 1).any() or (np.diff(counts, axis=1) > 0).any() or not ((least > 0) | none).all():
        raise _damaged(store, layout.SAMPLES, "counts more samples with many captions than with few")
    return np.ascontiguousarray(counts.T)


def _load(store: Store, manifest: dict[str, Any], name: str, schema: pa.Schema) -> pa.Table:
    try:
        if table_sha256(store, name) != manifest["order"]["files"][name]:
            raise _damaged(store, name, "is not the file its manifest names")
        return read_table(store, name, "manifest", schema=schema, required=schema.names)
    except FileNotFoundError as error:
        raise _damaged(store, name, "is missing") from error


def _damaged(store: Store, name: str, what: str) -> DamagedFileError:
    remedy = "Run `mvptr-data verify --repair`, or `mvptr-data write-shards` again."
    return DamagedFileError(f"{store.path(name)} {what}", remedy)
