"""Memory and speed of counting phrases, whatever their number: sorted counts merged by build-phrase-vocab's tree of tasks.

    python benchmarks/phrase_counts.py --quick
    python benchmarks/phrase_counts.py --json phrase_counts.json

The phrases are made up: every file holds `RUN_ROWS` of them, about what a bucket of captions gives, and each phrase is in two
files. Each size is counted by a process of its own; told is how far its resident memory rose.
"""

from __future__ import annotations

import multiprocessing
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from harness import Row, arguments, report

from mvptr_data.dataset import layout
from mvptr_data.phrase_counts import count_rows, join_words, write_counts
from mvptr_data.storage import Store
from pipelines.cluster import ClusterOptions, open_cluster
from pipelines.console import reporting
from pipelines.phrase_counting import merges_of, reduce_counts
from pipelines.phrase_vocab import keep_frequent

#: Distinct phrases of a file; a bucket of 200,000 captions has some 300,000.
RUN_ROWS = 400_000


def write_run(store: Store, number: int, rows: int) -> None:
    """A file of `rows` phrases: numbers that are scattered over the alphabet, half of them those of the file before."""
    numbers = np.arange(rows, dtype=np.uint64) + np.uint64(number * rows // 2)
    scattered = numbers * np.uint64(0x9E3779B97F4A7C15)  # an odd factor: no two numbers become one
    words = [
        pa.array(part).cast(pa.string()) for part in (scattered >> np.uint64(32), scattered & np.uint64(0xFFFFFFFF))
    ]
    phrases = pc.binary_join_element_wise(words[0], join_words(("", "stand on", "")), words[1], "")
    table = pa.table({"phrase": phrases.take(pc.sort_indices(phrases)), "sentences": pa.array(np.ones(rows, np.int64))})
    write_counts(store, f"run-{number:06d}", [table], {})


def count(folder: str, runs: int, results: multiprocessing.SimpleQueue[tuple[float, int, float]]) -> None:
    """Merge the files and keep the frequent phrases; puts seconds, distinct phrases, and MB of memory."""
    store = Store.at(folder)
    Path("/proc/self/clear_refs").write_text("5")  # the largest memory so far is forgotten: imports are not counted
    before = resident("VmRSS")
    start = time.perf_counter()
    files = [(store.root, f"run-{number:06d}") for number in range(runs)]
    facts: dict[str, object] = {"parser": {}, "split": None, "corpora": []}
    with (
        open_cluster(ClusterOptions(cluster="inline")) as inline,
        reporting(quiet=True) as reporter,
        reporter.step("merge", merges_of(runs), "merges") as step,
    ):
        reduce_counts(inline, files, store, "merging", layout.PHRASE_COUNTS, facts, step)
    keep_frequent(store, 50)
    seconds = time.perf_counter() - start
    results.put((seconds, count_rows(store, layout.PHRASE_COUNTS), resident("VmHWM") - before))


def resident(what: str) -> float:
    """Resident memory of this process in MB: now (`VmRSS`) or at most (`VmHWM`)."""
    [line] = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(f"{what}:")]
    return int(line.split()[1]) / 1024


def measure(sizes: Sequence[int], rows: int) -> list[Row]:
    """Rows for every number of files."""
    found = []
    context = multiprocessing.get_context("spawn")
    for runs in sizes:
        with tempfile.TemporaryDirectory() as folder:
            for number in range(runs):
                write_run(Store.at(folder), number, rows)
            results: multiprocessing.SimpleQueue[tuple[float, int, float]] = context.SimpleQueue()
            process = context.Process(target=count, args=(folder, runs, results))
            process.start()
            seconds, distinct, memory = results.get()
            process.join()
        name = f"{distinct:,} distinct phrases of {runs} files"
        found += [
            Row(name=f"{name}: rate", value=round(distinct / seconds, 1), unit="phrases/s"),
            Row(name=f"{name}: memory", value=round(memory, 1), unit="MB"),
        ]
    return found


def main() -> None:
    """Measure, print the table, write the rows."""
    options = arguments(__doc__).parse_args()
    rows = measure([4, 20], 20_000) if options.quick else measure([5, 25, 100], RUN_ROWS)
    report("counts merged by one process, without Dask", rows, options.json)


if __name__ == "__main__":
    main()
