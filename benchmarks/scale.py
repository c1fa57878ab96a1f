"""A plan of 10^8 images (10^5 shards) driven through the real scheduler with a detector and a sink that do nothing.

    python benchmarks/scale.py --quick
    python benchmarks/scale.py --json scale.json

Asked: how long until the first task runs, what a task costs the scheduler and the client, whether their memory grows, and what a
resume with half of the shards done costs. Real are the plan's file, the listing of what is pending, `Cluster.run_tasks`, Dask's
scheduler and two workers, and the receipt that each task writes; the work in a task is left out. For the cost a task the
scheduler is a process of its own (`dask scheduler`), so that it can be told from the client. CPU seconds and memory are those
that /proc tells of each process; wall seconds suffer from other work on the machine.
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from harness import Row, arguments, report

from mvptr_data.dataset import layout
from mvptr_data.dataset.fields import REGIONS
from mvptr_data.dataset.plan import Plan, PlanPart, load_plan
from mvptr_data.dataset.receipts import FileFacts, Receipt, write_receipt
from mvptr_data.sources.decoding import DecodeOptions
from mvptr_data.storage import Store, canonical_json
from pipelines.cluster import ClusterOptions, open_cluster
from pipelines.detector_runner import DetectorChoice
from pipelines.extract_shard import ShardTask
from pipelines.runs.progress import PendingShards

PER_SHARD = 1000
IDENTITY = "scale"
#: Tasks after which memory is read for the first time: imports, connections and Dask's own logs are there by then.
WARM = 0.25


def receipt_of(shard: int) -> Receipt:
    """The receipt of a shard whose two files are empty."""
    tar, rows = (layout.shard_file(REGIONS.name, shard, 0, suffix) for suffix in ("tar", "parquet"))
    return Receipt(
        field=REGIONS.name,
        shard=shard,
        generation=0,
        configuration_digest=IDENTITY,
        tar=FileFacts(name=tar, bytes=0, sha256="0" * 64),
        rows=FileFacts(name=rows, bytes=0, sha256="0" * 64),
        counts={"inputs": PER_SHARD, "ok": PER_SHARD},
        totals={"regions": 30 * PER_SHARD},
        seconds={"decode": 1.0, "detect": 2.0, "write": 0.5, "total": 2.5, "began": time.time()},
        environment={"torch": "2.15.0", "machine": "x86_64", "threads": "1"},
    )


def null_shard(task: ShardTask, shard: int) -> Receipt:
    """What stands for `extract_shard`: writes a receipt and returns it."""
    receipt = receipt_of(shard)
    write_receipt(Store(task.root), receipt)
    return receipt


def task_at(root: str) -> Any:
    import scale  # under this name workers find it; a function of `__main__` would be sent whole with each task

    choice = DetectorChoice(name="compact", options=())
    task = ShardTask(
        root=root, detector=choice, decode=DecodeOptions(), threads=1, configuration_digest=IDENTITY, decode_threads=1
    )
    return functools.partial(scale.null_shard, task)


def write_stored_plan(root: Path, shards: int) -> None:
    """The plan's own file; its shards' files are read by tasks only, and these tasks do nothing."""
    source = {"images": "/photos", "split": None, "root": None}
    part = PlanPart(source=source, samples_per_shard=PER_SHARD, shards=shards, keys_sha256="0" * 64)
    plan = Plan(parts=(part,), rows=(PER_SHARD,) * shards, sha256=("0" * 64,) * shards, faults=0)
    Store.at(root).write_json(layout.PLAN, plan.to_json())


def write_receipts(root: Path, shards: int) -> None:
    """The first `shards` shards, done; without an fsync each, which `Store` would do."""
    (root / REGIONS.name).mkdir()
    for shard in range(shards):
        receipt = receipt_of(shard)
        for facts in (receipt.tar, receipt.rows):
            (root / facts.name).touch()
        (root / layout.receipt(REGIONS.name, shard)).write_bytes(canonical_json(receipt.to_json()))


def run_client(root: str, cluster: str, count: int, scheduler: int | None) -> dict[str, Any]:
    """What `extract-regions` does with a stored plan, for `count` tasks; what was measured on the way."""
    store = Store.at(root)
    plan = load_plan(store)
    kept = 0

    def keep(_: Receipt) -> None:
        nonlocal kept
        kept += 1

    listing, cpu = time.time(), _cpu(os.getpid())
    pending = PendingShards(store, REGIONS.name, range(plan.shards), IDENTITY, keep)
    known = time.time()
    checked: list[float] = []

    def wait_for_check() -> None:
        pending.unsound()
        checked.extend((time.time() - known, _cpu(os.getpid()) - cpu))

    checking = threading.Thread(target=wait_for_check)
    checking.start()
    watched = {"client": os.getpid()} | ({"scheduler": scheduler} if scheduler else {})
    options = ClusterOptions(cluster=cluster, workers=2 if cluster == "local" else None)
    found: dict[str, Any] = {"listing": known - listing, "points": []}
    with open_cluster(options) as running:
        results = running.run_tasks(task_at(root), _first(pending, count))
        for done, (_, outcome) in enumerate(results, start=1):
            assert isinstance(outcome, Receipt), outcome
            if done == 1:
                found["first"] = outcome.seconds["began"]
            if done % max(1, count // 8) == 0:
                point = {name: (_memory(pid), _cpu(pid)) for name, pid in watched.items()}
                found["points"].append({"done": done, "time": time.time(), **point})
    checking.join()
    return found | {"kept": kept, "checked": checked[0], "checked_cpu": checked[1]}


def _first(pending: PendingShards, count: int) -> Iterator[int]:
    for number, shard in enumerate(pending):
        if number == count:
            return
        yield shard


def client(root: Path, *, cluster: str = "local", count: int = 2, scheduler: int | None = None) -> dict[str, Any]:
    """`run_client` in a process of its own, and when that was started."""
    here = str(Path(__file__).parent)
    request = json.dumps({"root": str(root), "cluster": cluster, "count": count, "scheduler": scheduler})
    started = time.time()
    done = subprocess.run(
        [sys.executable, __file__, "--client", request],
        stdout=subprocess.PIPE,
        check=True,
        env={**os.environ, "PYTHONPATH": here},
        timeout=600,
    )
    return {**json.loads(done.stdout), "started": started}


@contextlib.contextmanager
def scheduler_and_workers() -> Iterator[tuple[str, int]]:
    """The address and process number of a `dask scheduler` with two workers."""
    here = str(Path(__file__).parent)
    environment = {**os.environ, "PYTHONPATH": here, "OMP_NUM_THREADS": "1"}
    dask = [sys.executable, "-m", "distributed.cli.dask_"]
    options = ["--host", "127.0.0.1", "--port", "0", "--no-dashboard"]
    with contextlib.ExitStack() as stack:
        command = [*dask[:2], dask[2] + "scheduler", *options]
        log = Path(stack.enter_context(tempfile.TemporaryDirectory()), "scheduler.log")
        with log.open("w") as file:
            scheduler = stack.enter_context(subprocess.Popen(command, stderr=file, env=environment))
        stack.callback(scheduler.terminate)
        while "Scheduler at:" not in (said := log.read_text()):
            time.sleep(0.05)
        address = said.partition("Scheduler at:")[2].split()[0]
        command = [*dask[:2], dask[2] + "worker", address, "--nworkers", "2", "--nthreads", "1", "--no-dashboard"]
        workers = stack.enter_context(subprocess.Popen(command, stderr=subprocess.DEVNULL, env=environment))
        stack.callback(workers.terminate)
        yield address, scheduler.pid


def _cpu(pid: int) -> float:
    """CPU seconds of a process so far, user and system."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _memory(pid: int) -> float:
    """Resident MB of a process."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.partition("VmRSS:")[2].split()[0]) / 1024


def measure(shards: int, tasks: int) -> list[Row]:
    rows = []

    def row(name: str, value: float, unit: str) -> None:
        rows.append(Row(name=name, value=round(value, 3), unit=unit))

    with tempfile.TemporaryDirectory() as folder:
        fresh, half = Path(folder, "fresh"), Path(folder, "half")
        for root in (fresh, half):
            root.mkdir()
            write_stored_plan(root, shards)
        write_receipts(half, shards // 2)
        found = client(fresh)
        row("start: command to first task", found["first"] - found["started"], "s")
        found = client(half)
        assert found["kept"] == shards // 2, found
        row("resume, half done: command to first task", found["first"] - found["started"], "s")
        row("resume, half done: listing what is pending", found["listing"], "s")
        row("resume, half done: every receipt checked after", found["checked"], "s")
        row("resume, half done: client CPU until then, a receipt", 1000 * found["checked_cpu"] / (shards // 2), "ms")
        with scheduler_and_workers() as (address, pid):
            found = client(fresh, cluster=address, count=tasks, scheduler=pid)
    points = found["points"]
    first, last = points[0], points[-1]
    done = last["done"] - first["done"]
    row(f"{tasks:,} tasks: rate", done / (last["time"] - first["time"]), "tasks/s")
    for name in ("scheduler", "client"):
        row(f"{tasks:,} tasks: {name} CPU a task", 1000 * (last[name][1] - first[name][1]) / done, "ms")
    for name in ("scheduler", "client"):
        for point in points[1::2]:
            row(f"{name} memory after {point['done']:,} tasks", point[name][0], "MB")
    return rows


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--client", help="(used by itself)")
    options = parser.parse_args()
    if options.client is not None:
        print(json.dumps(run_client(**json.loads(options.client))))
        return
    shards, tasks = (10_000, 2_000) if options.quick else (100_000, 20_000)
    title = f"a plan of {shards * PER_SHARD:,} images in {shards:,} shards; two workers"
    report(title, measure(shards, tasks), options.json)


if __name__ == "__main__":
    main()
