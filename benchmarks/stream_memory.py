"""Memory over an hour's worth of batches: what the paper's recipe needs of one rank, at 1,220 samples a second.

    python benchmarks/stream_memory.py --quick
    python benchmarks/stream_memory.py --json memory.json

The samples (10 regions, five captions) are few and read in many epochs, so that it takes minutes in place of the hour: what may
grow does so by batches and epochs. Memory is this process's own (RssAnon) and what it has mapped of shards (RssFile), and with
`--workers` that of its worker processes too: means of each tenth of the run. The first fills caches.
"""

from __future__ import annotations

import os
import tempfile
import time
from pathlib import Path

import numpy as np
from harness import Row, arguments, report
from stream import CAPTIONS, collator
from synthetic import write_data_set

from mvptr_model.stream.batches import StreamSpec
from mvptr_model.stream.loader import StreamLoader
from mvptr_model.stream.settings import OrderSettings

ORDER = OrderSettings(global_batch=1024, seed=1)
#: 1,220 samples a second, for an hour.
HOUR = 1220 * 3600
#: Readings of memory.
READINGS = 50


def family() -> list[int]:
    """This process and those it has started."""
    children = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
    return [os.getpid(), *map(int, children)]


def memory() -> dict[str, float]:
    """MB of the whole family, by kind."""
    found = dict.fromkeys(("RssAnon", "RssFile"), 0.0)
    for process in family():
        try:
            status = Path(f"/proc/{process}/status").read_text()
        except FileNotFoundError:  # ended meanwhile
            continue
        for kind in found:
            found[kind] += int(status.partition(f"{kind}:")[2].split()[0]) / 1000
    return found


def measure(samples: int, batches: int, workers: int) -> list[Row]:
    readings: list[dict[str, float]] = []
    with tempfile.TemporaryDirectory() as folder:
        write_data_set(folder, samples, regions=10, captions=lambda _: CAPTIONS)
        spec = StreamSpec(roots=(folder,), order=ORDER, collate=collator(Path(folder)))
        loader = StreamLoader(spec, workers=workers, prefetch_bytes=256 << 20)
        start, done = time.perf_counter(), 0
        while done < batches:
            for _ in loader:
                done += 1
                if done % (batches // READINGS) == 0:
                    readings.append(memory())
                if done == batches:
                    break
        seconds = time.perf_counter() - start
    rows = [
        Row(name="batches of 1,024", value=done, unit=f"in {loader.epoch + 1} epochs, {seconds:.0f} s of wall"),
        Row(name="processes", value=1 + workers, unit=""),
    ]
    for kind, what in (("RssAnon", "own memory"), ("RssFile", "mapped of files")):
        values = np.array([one[kind] for one in readings])
        for tenth, part in enumerate(np.array_split(values, 10), start=1):
            rows.append(
                Row(name=f"{what}, tenth {tenth}", value=round(part.mean(), 1), unit=f"MB, at most {part.max():,.1f}")
            )
    return rows


def main() -> None:
    """Measure, print the table, write the rows."""
    parser = arguments(__doc__)
    parser.add_argument("--workers", type=int, default=0, help="worker processes; 0 is a thread")
    options = parser.parse_args()
    samples, batches = (5_000, 100) if options.quick else (100_000, HOUR // ORDER.global_batch)
    title = f"{batches * ORDER.global_batch:,} samples from {samples:,}, workers {options.workers}"
    report(title, measure(samples, batches, options.workers), options.json)


if __name__ == "__main__":
    main()
