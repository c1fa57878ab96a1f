"""Samples a second into and out of shards, against webdataset on the same samples.

    python benchmarks/shards.py --quick
    python benchmarks/shards.py --json shards.json

A sample is one image's regions: 50 boxes, 50 x 2048 float16 features, tags and attributes (205 kB). Wall seconds, page cache
warm, one process. Ours writes digests, a parquet row and a receipt besides, and fsyncs; webdataset's writer does none of that.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import webdataset as wds
from harness import arguments, best_rates, compared, report

from mvptr_data.dataset.fields import REGIONS
from mvptr_data.dataset.records import decode_array, decode_regions, encode_regions
from mvptr_data.dataset.shards import read_rows, shard_writer
from mvptr_data.detectors import Regions
from mvptr_data.storage import Store

REGIONS_PER_IMAGE = 50
PEER_WRITE, PEER_READ = "webdataset ShardWriter", "webdataset, decoded"


def samples(count: int) -> list[Regions]:
    random = np.random.default_rng(0)
    return [
        Regions(
            boxes=np.tile(np.array([1, 2, 30, 40], dtype=np.float32), (REGIONS_PER_IMAGE, 1)),
            features=random.standard_normal((REGIONS_PER_IMAGE, 2048)).astype(np.float32),
            scores=np.linspace(0.9, 0.2, REGIONS_PER_IMAGE, dtype=np.float32),
            labels=np.arange(1, REGIONS_PER_IMAGE + 1, dtype=np.int32),
            tags=("tree",) * REGIONS_PER_IMAGE,
            attributes=(("green", "tall"),) * REGIONS_PER_IMAGE,
            attribute_scores=((0.9, 0.4),) * REGIONS_PER_IMAGE,
        )
        for _ in range(count)
    ]


def write_ours(store: Store, found: Sequence[Regions]) -> None:
    with shard_writer(store, REGIONS, 0, configuration_digest="benchmark") as (writer, _):
        for number, regions in enumerate(found):
            facts = {"width": 640, "height": 480, "image_id": number, "regions": REGIONS_PER_IMAGE}
            writer.add(f"{number:08d}", encode_regions(regions, 640, 480), facts)


def write_webdataset(path: Path, found: Sequence[Regions]) -> None:
    with wds.ShardWriter(str(path / "%05d.tar"), maxcount=10**6, maxsize=10**12, verbose=0) as writer:
        for number, regions in enumerate(found):
            rest = {name: getattr(regions, name) for name in ("tags", "attributes", "attribute_scores")}
            rest |= {"scores": regions.scores.tolist(), "labels": regions.labels.tolist()}
            writer.write(
                {
                    "__key__": f"{number:08d}",
                    "boxes.npy": regions.boxes,
                    "features.npy": regions.features.astype(np.float16),
                    "regions.json": rest,
                }
            )


def read_by_offset(path: Path, order: Sequence[int], rows: Sequence[dict[str, int]]) -> Iterator[object]:
    """Decode samples in any order, through the offsets in the parquet rows."""
    with (path / "regions/00000.tar").open("rb") as tar:
        for number in order:
            row = rows[number]
            parts = {}
            for member in ("boxes", "features", "regions"):
                tar.seek(row[f"{member}_offset"])
                parts[member] = tar.read(row[f"{member}_size"])
            yield (
                decode_array(parts["boxes"], "boxes"),
                decode_array(parts["features"], "features"),
                decode_regions(parts["regions"], "regions"),
            )


def main() -> None:
    options = arguments(__doc__).parse_args()
    count = 50 if options.quick else 500
    found = samples(count)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder)
        store = Store.at(path)
        write_ours(store, found)
        write_webdataset(path, found)
        rows = read_rows(store, "regions/00000.parquet")
        shuffled = np.random.default_rng(1).permutation(count).tolist()
        jobs = {
            "write a shard": (lambda: write_ours(store, found), count),
            PEER_WRITE: (lambda: write_webdataset(path, found), count),
            "read by offset, in order": (lambda: list(read_by_offset(path, range(count), rows)), count),
            "read by offset, shuffled": (lambda: list(read_by_offset(path, shuffled, rows)), count),
            PEER_READ: (lambda: list(wds.WebDataset(str(path / "00000.tar"), shardshuffle=False).decode()), count),
        }
        rates = best_rates(jobs, rounds=2 if options.quick else 5, clock=time.perf_counter)
    peers = {"write a shard": PEER_WRITE, "read by offset, in order": PEER_READ, "read by offset, shuffled": PEER_READ}
    report(f"{count} samples of 205 kB", compared(rates, "samples/s", peers), options.json)


if __name__ == "__main__":
    main()
