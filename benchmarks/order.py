"""The order of 10^8 samples in 10^5 shards: time and memory to begin, to go on, and a batch; and how well it shuffles.

    python benchmarks/order.py --quick
    python benchmarks/order.py --json order.json

Beginning is all that a rank does before it reads a sample: a fresh process opens the published data set (manifest, index,
samples in brief), makes the order and computes the first batch of epoch 30, or the one after 9/10 of the epoch. The data set's
files are real but for the shards, which are not there: an order needs none of them. The peer is a full shuffle, which holds
every sample's number: `numpy.random.permutation`.

The quality of shuffling is told by what a batch should not show: samples of few shards, or neighbors of a shard side by side.
Measured over 200 batches, against a full shuffle of the same data.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import numpy as np
from harness import Row, arguments, report

from mvptr_data.dataset import layout
from mvptr_data.dataset.fields import REGIONS, TEXT
from mvptr_data.dataset.manifest import publish
from mvptr_data.dataset.plan import Plan, PlanPart
from mvptr_data.dataset.receipts import FileFacts, Receipt
from mvptr_data.dataset.samples import ShardSamples
from mvptr_data.phrases import PhraseVocabulary
from mvptr_data.storage import Store
from mvptr_model.stream.deal import SampleCounts
from mvptr_model.stream.distinct import SameImages
from mvptr_model.stream.order import Order
from mvptr_model.stream.reader import ShardReader
from mvptr_model.stream.settings import OrderSettings

PER_SHARD, CAPTIONS = 1000, 5
SETTINGS = OrderSettings(global_batch=1024, captions="every", seed=1)
EPOCH = 30
BATCHES = 200


def publish_without_shards(root: str, shards: int) -> None:
    """A data set's plan, index, samples and manifest; one sample in 100 shows the picture of another."""
    store = Store.at(root)
    part = PlanPart(source={"images": "/pictures"}, samples_per_shard=PER_SHARD, shards=shards, keys_sha256="0" * 64)
    plan = Plan(parts=(part,), rows=(PER_SHARD,) * shards, sha256=("0" * 64,) * shards, faults=0)
    vocabulary = PhraseVocabulary.from_counts([(("wave", "big"), 50)], {})
    vocabulary.save(store, name := layout.published_vocabulary(0))
    publish(
        store,
        plan,
        [_receipt(field, shard) for field in (REGIONS.name, TEXT.name) for shard in range(shards)],
        configurations={REGIONS.name: {}, TEXT.name: {}},
        samples=_samples(shards),
        facts={
            "captions": {"digest": "0" * 64, "configuration": {}, "counts": {}, "unmatched": 0},
            "phrase_vocab": {
                "name": name,
                "sha256": store.sha256(name),
                "phrases": 1,
                "digest": vocabulary.digest,
            },
        },
    )


def _receipt(field: str, shard: int) -> Receipt:
    tar, rows = (layout.shard_file(field, shard, 0, suffix) for suffix in ("tar", "parquet"))
    return Receipt(
        field=field,
        shard=shard,
        generation=0,
        configuration_digest="0" * 64,
        tar=FileFacts(name=tar, bytes=1, sha256="0" * 64),
        rows=FileFacts(name=rows, bytes=1, sha256="0" * 64),
        counts={"inputs": PER_SHARD, "ok": PER_SHARD},
        totals={"regions": 50 * PER_SHARD}
        if field == REGIONS.name
        else {"captions": CAPTIONS * PER_SHARD, "phrases": 0},
        seconds={},
        environment={},
    )


def _samples(shards: int) -> Iterator[ShardSamples]:
    for shard in range(shards):
        numbers = np.arange(shard * PER_SHARD, (shard + 1) * PER_SHARD, dtype=np.uint64)
        numbers[::100] = numbers[::100] // 200 * 200
        yield ShardSamples(
            positions=np.arange(PER_SHARD, dtype=np.int32),
            captions=np.full(PER_SHARD, CAPTIONS, dtype=np.int32),
            image_ids=numbers * np.uint64(0x9E3779B97F4A7C15),
        )


def begin(root: str, place: float) -> dict[str, float]:
    """In this process: from the folder to the first batch."""
    start = time.perf_counter()
    reader = ShardReader(root)
    opened = time.perf_counter()
    order = _order(reader)
    order.batch(EPOCH, int(place * order.batches))
    done = time.perf_counter()
    first = int(0.5 * order.batches)
    for number in range(first, first + BATCHES):
        order.batch(EPOCH, number)
    batches = time.perf_counter()
    memory = int(Path("/proc/self/status").read_text().partition("VmHWM:")[2].split()[0]) / 1000
    return {"open": opened - start, "begin": done - start, "batch": (batches - done) / BATCHES, "memory": memory}


def _order(reader: ShardReader) -> Order:
    samples = reader.samples
    same = SameImages(np.ascontiguousarray(samples.same_images[:, 0]), np.ascontiguousarray(samples.same_images[:, 1]))
    return Order([SampleCounts(samples.at_least, reader.captions_of, samples.digest)], SETTINGS, same)


def shuffle_quality(samples: np.ndarray) -> tuple[float, float]:
    """[batches, B] -> shards in a batch, and how many of a batch's samples have a neighbor of their shard in it."""
    shards = [len(np.unique(batch // PER_SHARD)) for batch in samples]
    ordered = np.sort(samples, axis=1)
    return float(np.mean(shards)), float((np.diff(ordered, axis=1) == 1).sum(axis=1).mean())


def measure(shards: int) -> list[Row]:
    rows = []

    def row(name: str, value: float, unit: str, peer: str | None = None, ratio: float | None = None) -> None:
        rows.append(Row(name=name, value=round(value, 3), unit=unit, peer=peer, ratio=ratio))

    with tempfile.TemporaryDirectory() as folder:
        publish_without_shards(folder, shards)
        found = {
            place: json.loads(
                subprocess.run(
                    [sys.executable, __file__, "--begin", folder, str(place)], stdout=subprocess.PIPE, check=True
                ).stdout
            )
            for place in (0.0, 0.9)
        }
        row(f"begin epoch {EPOCH}: folder to first batch", found[0.0]["begin"], "s")
        row("of that, opening the data set", found[0.0]["open"], "s")
        row("go on after 9/10 of the epoch", found[0.9]["begin"], "s")
        row("memory of the process", found[0.9]["memory"], "MB")
        row("a batch of 1,024", 1000 * found[0.9]["batch"], "ms")
        start = time.perf_counter()
        np.random.default_rng(0).permutation(shards * PER_SHARD)
        row("peer: a full shuffle of one pass", time.perf_counter() - start, "s")
        row("peer: its memory", 8 * shards * PER_SHARD / 1e6, "MB")
    counts = SampleCounts(np.full((1, shards), PER_SHARD), lambda _: np.ones(PER_SHARD, np.int64), "benchmark")
    random = np.random.default_rng(0)
    full = shuffle_quality(random.integers(0, shards * PER_SHARD, (BATCHES, SETTINGS.global_batch)))
    for block in (4, 16, 64):
        order = Order([counts], OrderSettings(global_batch=SETTINGS.global_batch, block_shards=block))
        taken = [
            order.batch(EPOCH, n).sample for n in islice(range(0, order.batches, order.batches // BATCHES), BATCHES)
        ]
        ours = shuffle_quality(np.stack(taken))
        for name, mine, theirs in zip(("shards in a batch", "neighbors in a batch"), ours, full, strict=True):
            row(f"block_shards {block}: {name}", mine, "", f"full shuffle ({theirs:.3g})", round(mine / theirs, 3))
    return rows


def main() -> None:
    """Measure, print the table, write the rows."""
    parser = arguments(__doc__)
    parser.add_argument("--begin", nargs=2, help="(used by itself)")
    options = parser.parse_args()
    if options.begin:
        print(json.dumps(begin(options.begin[0], float(options.begin[1]))))
        return
    shards = 5_000 if options.quick else 100_000
    title = f"{shards * PER_SHARD:,} samples in {shards:,} shards, {CAPTIONS} captions each; {SETTINGS.canonical_streams} streams"
    report(title, measure(shards), options.json)


if __name__ == "__main__":
    main()
