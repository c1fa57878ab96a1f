"""Samples out of shards: to bytes, and to model-ready batches; ours, webdataset and `cat` on the same samples, in one run.

    python benchmarks/stream.py --quick
    python benchmarks/stream.py --json stream.json

A sample is one image's 50 regions (205 kB of features, 16 attributes each) and five captions. Rates are for each CPU-second
of all processes together; wall seconds, which the disk decides when the page cache is cold, stand beside them.

To bytes: a sample's members are copied once, in shuffled order (ours), in stored order (webdataset); or each of their pages is
looked at once, which is what `cat` to nowhere is compared with.
To batches: word pieces, phrases, tags, geometry, features and masks. webdataset does the same work by our own `Collator`, which
gets its members' bytes: what differs is how they are found, read, and brought to this process. Its tars are those of
`mvptr-data export`. With `--mosaic` mosaicml-streaming reads them too.
Word pieces are BERT's where `../shared` is, else those of the captions.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import webdataset as wds
from harness import Row, arguments, report
from synthetic import SIZE, write_data_set

from mvptr_data.dataset.fields import FIELDS
from mvptr_model.inputs import Collator
from mvptr_model.masking import MaskingSettings
from mvptr_model.stream.batches import Item, StreamSpec
from mvptr_model.stream.deal import SampleCounts
from mvptr_model.stream.loader import StreamLoader
from mvptr_model.stream.order import Order
from mvptr_model.stream.reader import ShardReader
from mvptr_model.stream.settings import OrderSettings
from mvptr_model.stream.shard import OpenShard
from mvptr_model.word_pieces import WordPieces
from pipelines.export_shards import export_shards

VOCABULARY = Path(__file__).resolve().parents[2] / "shared" / "data" / "bert" / "vocab.txt"
MEMBERS = [member for field in FIELDS.values() for member in field.members]
ORDER = OrderSettings(global_batch=256, canonical_streams=1, block_shards=2)
CAPTIONS = 5


@dataclass(frozen=True)
class Timed:
    """One job's seconds."""

    cpu: float
    wall: float


def timed(job: Callable[[], object]) -> Timed:
    """CPU seconds of this process and of the children that ended meanwhile, and wall seconds."""

    def cpu() -> float:
        used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
        return sum(one.ru_utime + one.ru_stime for one in used)

    before, start = cpu(), time.perf_counter()
    job()
    return Timed(cpu() - before, time.perf_counter() - start)


def drop_from_cache(folder: Path) -> None:
    """Tells the system to forget the files' pages; they were written before, so none is lost."""
    for path in folder.rglob("*.tar"):
        with path.open("rb") as file:
            os.fsync(file.fileno())
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def read_from_disk(folder: Path) -> None:
    """Warm as after an epoch: pages that were read lie in larger pieces of memory than pages that were written bit by bit."""
    drop_from_cache(folder)
    cat(sorted(map(str, folder.rglob("*.tar"))))


def words() -> WordPieces:
    if VOCABULARY.is_file():
        return WordPieces.load(str(VOCABULARY))
    letters = "abcdefghijklmnopqrstuvwxyz0123456789"
    return WordPieces(("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *letters, *(f"##{letter}" for letter in letters)))


def collator(root: Path) -> Collator:
    """What makes batches of the data set's samples."""
    with ShardReader(str(root)) as reader:
        return Collator(words(), reader.vocabulary(), masking=MaskingSettings(seed=1))


def our_bytes(root: Path, take: Callable[[memoryview], int]) -> int:
    """Every sample's members, in the order of an epoch."""
    taken = 0
    with ShardReader(str(root), open_shards=8) as reader:
        order = _order(reader)
        for number in range(order.batches):
            for sample in order.batch(0, number).sample.tolist():
                shard, nth = reader.place(sample)
                opened = reader.shard(shard)
                taken += sum(take(opened.member(member, nth)) for member in MEMBERS)
    return taken


def copy(data: memoryview) -> int:
    return len(bytes(data))


def touch(data: memoryview) -> int:
    return len(data[::4096].tobytes())


def _order(reader: ShardReader) -> Order:
    samples = reader.samples
    return Order([SampleCounts(samples.at_least, reader.captions_of, samples.digest)], ORDER)


def their_bytes(tars: list[str]) -> int:
    return sum(len(sample[member]) for sample in wds.WebDataset(tars, shardshuffle=False) for member in MEMBERS)


def cat(tars: list[str]) -> None:
    subprocess.run(["cat", *tars], stdout=subprocess.DEVNULL, check=True)


class _Loose(OpenShard):
    """One sample that webdataset found, in the place of an open shard."""

    def __init__(self, sample: dict[str, Any]) -> None:
        self._members = sample
        self.keys, self.where = [sample["__key__"]], "a tar"
        self.positions, self.image_ids = np.zeros(1, np.int64), np.zeros(1, np.uint64)

    def member(self, member: str, nth: int) -> memoryview:
        del nth
        return memoryview(self._members[member])

    def sample(self, nth: int) -> str:
        return self.keys[nth]


@dataclass(frozen=True)
class ToPart:
    """webdataset's sample to one slot's contents; picklable."""

    collate: Collator

    def __call__(self, sample: dict[str, Any]) -> Any:
        return self.collate.read_item(Item(_Loose(sample), 0, 0, "benchmark", 0))


def our_batches(root: Path, collate: Collator, workers: int) -> int:
    spec = StreamSpec(roots=(str(root),), order=ORDER, collate=collate)
    return sum(len(batch) for batch in StreamLoader(spec, workers=workers, prefetch_bytes=256 << 20, context="fork"))


def their_batches(tars: list[str], collate: Collator, workers: int) -> int:
    data = (
        wds.WebDataset(tars, shardshuffle=False, workersplitter=wds.split_by_worker)
        .shuffle(1000)
        .map(ToPart(collate))
        .batched(ORDER.global_batch, collation_fn=collate.assemble, partial=False)
    )
    loader = wds.WebLoader(data, batch_size=None, num_workers=workers)
    return sum(len(batch) for batch in loader)


def mosaic(python: str, root: Path, tars: list[str], samples: dict[str, int], rates: dict[str, float]) -> Iterator[Row]:
    """What another Python, which has mosaicml-streaming, makes of the same samples (`mosaic.py`)."""
    command = [python, str(Path(__file__).with_name("mosaic.py")), str(root), *tars]
    said = subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout.splitlines()[-1]
    ours = {
        "bytes: mosaicml": "bytes: ours",
        "batches: mosaicml, in process": "batches: ours, a thread",
        "batches: mosaicml, 2 workers": "batches: ours, 2 workers",
    }
    for name, found in json.loads(said).items():
        rate = samples[ours[name]] / found["cpu"]
        unit = f"samples/CPU-s, {samples[ours[name]] / found['wall']:,.0f} samples/s of wall"
        yield Row(name=name, value=round(rate, 1), unit=unit, peer=ours[name], ratio=round(rate / rates[ours[name]], 2))


def measure(samples: int, rounds: int, python: str | None) -> list[Row]:
    with tempfile.TemporaryDirectory() as folder:
        root, exported = Path(folder, "data"), Path(folder, "exported")
        write_data_set(str(root), samples, regions=50, per_shard=min(1000, samples // 4), captions=lambda _: CAPTIONS)
        export_shards(str(root), str(exported), form="webdataset", quiet=True)
        tars = sorted(map(str, exported.rglob("*.tar")))
        collate = collator(root)
        megabytes = sum(Path(tar).stat().st_size for tar in tars) / 1e6
        whole = samples // ORDER.global_batch * ORDER.global_batch
        jobs: dict[str, tuple[Callable[[], object], int, str | None]] = {
            "bytes: ours": (lambda: our_bytes(root, copy), whole, "bytes: webdataset"),
            "pages: ours": (lambda: our_bytes(root, touch), whole, "pages: cat"),
            "bytes: webdataset": (lambda: their_bytes(tars), samples, None),
            "pages: cat": (lambda: cat(tars), samples, None),
            "batches: ours, a thread": (lambda: our_batches(root, collate, 0), whole, "batches: WebLoader, in process"),
            "batches: ours, 2 workers": (lambda: our_batches(root, collate, 2), whole, "batches: WebLoader, 2 workers"),
            "batches: WebLoader, in process": (lambda: their_batches(tars, collate, 0), whole, None),
            "batches: WebLoader, 2 workers": (lambda: their_batches(tars, collate, 2), whole, None),
        }
        rows = list(_rows(jobs, folder=Path(folder), megabytes=megabytes / samples, rounds=rounds))
        if python is not None:
            counts = {name: units for name, (_, units, _) in jobs.items()}
            rows += mosaic(python, root, tars, counts, {row.name: row.value for row in rows})
        return rows


def _rows(
    jobs: dict[str, tuple[Callable[[], object], int, str | None]], *, folder: Path, megabytes: float, rounds: int
) -> Iterator[Row]:
    best: dict[str, Timed] = {}
    read_from_disk(folder)
    for _ in range(rounds):
        for name, (job, _, _) in jobs.items():
            found = timed(job)
            best[name] = min(best.get(name, found), found, key=lambda one: one.cpu)
    rates = {name: units / best[name].cpu for name, (_, units, _) in jobs.items()}
    for name, (_, units, peer) in jobs.items():
        unit = (
            f"samples/CPU-s, {rates[name] * megabytes:,.0f} MB/CPU-s, {units / best[name].wall:,.0f} samples/s of wall"
        )
        yield Row(
            name=name,
            value=round(rates[name], 1),
            unit=unit,
            peer=peer,
            ratio=round(rates[name] / rates[peer], 2) if peer else None,
        )
    for name in ("bytes: ours", "bytes: webdataset", "pages: ours", "pages: cat"):
        drop_from_cache(folder)
        cold = timed(jobs[name][0])
        yield Row(name=f"{name}, cold", value=round(jobs[name][1] / cold.wall, 1), unit="samples/s of wall")


def main() -> None:
    """Measure, print the table, write the rows."""
    parser = arguments(__doc__)
    parser.add_argument("--mosaic", metavar="PYTHON", help="an interpreter that has mosaicml-streaming (mosaic.py)")
    options = parser.parse_args()
    samples = 512 if options.quick else 4096
    rows = measure(samples, rounds=1 if options.quick else 3, python=options.mosaic)
    report(
        f"{samples:,} samples of 50 regions ({SIZE[0]}x{SIZE[1]}), batches of {ORDER.global_batch}", rows, options.json
    )


if __name__ == "__main__":
    main()
