"""How far an extraction is: done, running, failed, its rate and the time left, read from the files it leaves."""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

from mvptr_data.dataset.fields import REGIONS
from mvptr_data.dataset.lock_files import WHOLE, LiveLock, live_locks
from mvptr_data.dataset.plan import load_plan
from mvptr_data.dataset.receipts import Receipt, is_intact, read_receipt
from mvptr_data.errors import DamagedFileError
from mvptr_data.storage import Store
from pipelines.console import duration, pace
from pipelines.overlap import map_ahead
from pipelines.runs.progress import READERS


@dataclass(frozen=True, slots=True, kw_only=True)
class RunStatus:
    """The state of a data set's regions.

    `shards_done` have a sound receipt and files of the sizes it says. `unreadable` have a receipt that cannot be read, `torn` one
    whose files are gone or short; a run does both again. `running`: the processes at work, as "host pid" with the slice;
    `faults`: failed inputs by class; `rate`: inputs a second since the oldest of the running began, None where nothing runs or
    nothing was finished yet; `seconds_left` at that rate; `phases`: seconds of work by phase, summed over shards and workers.
    """

    shards: int
    shards_done: int
    unreadable: int
    torn: int
    inputs: int
    inputs_done: int
    ok: int
    faults: dict[str, int]
    running: tuple[str, ...]
    rate: float | None
    seconds_left: float | None
    phases: dict[str, float]

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def run_status(out: str) -> RunStatus:
    """Read the status of the data set `out`. Raises `IncompleteError` where it has no plan yet."""
    store = Store.at(out)
    plan = load_plan(store)
    locks = live_locks(store, REGIONS.name)
    since = min((lock.since for lock in locks), default=None)
    counts: Counter[str] = Counter()
    phases: Counter[str] = Counter()
    states: Counter[str] = Counter()
    inputs_done = lately = 0
    for shard, (state, receipt) in map_ahead(
        lambda shard: (shard, _state(store, shard)), range(plan.shards), threads=READERS, ahead=4 * READERS
    ):
        states[state] += 1
        if receipt is None:
            continue
        inputs_done += plan.rows[shard]
        counts.update(receipt.counts)
        phases.update(receipt.seconds)
        if since is not None and _finished(receipt) >= since - 1:  # receipts give whole seconds
            lately += plan.rows[shard]
    elapsed = time.time() - since if since is not None else 0.0
    rate = lately / elapsed if lately and elapsed > 0 else None
    return RunStatus(
        shards=plan.shards,
        shards_done=states["done"],
        unreadable=states["unreadable"],
        torn=states["torn"],
        inputs=plan.images,
        inputs_done=inputs_done,
        ok=counts["ok"],
        faults={name: count for name, count in sorted(counts.items()) if name not in ("inputs", "ok") and count},
        running=tuple(_said(lock) for lock in locks),
        rate=rate,
        seconds_left=(plan.images - inputs_done) / rate if rate else None,
        phases={name: round(seconds, 1) for name, seconds in sorted(phases.items())},
    )


def render_status(status: RunStatus) -> str:
    """The status as lines for people."""
    share = status.inputs_done / status.inputs if status.inputs else 1.0
    failed = sum(status.faults.values())
    listed = ", ".join(f"{name} {count:,}" for name, count in status.faults.items())
    lines = [
        f"done     {status.shards_done:,} of {status.shards:,} shards, {status.inputs_done:,} of {status.inputs:,} inputs "
        f"({share:.1%})",
        f"ok       {status.ok:,}",
        f"failed   {failed:,}" + (f" ({listed})" if failed else ""),
        f"running  {'; '.join(status.running) or 'nothing'}",
    ]
    if status.unreadable:
        lines.append(f"damaged  {status.unreadable:,} receipts cannot be read; their shards are not counted as done")
    if status.torn:
        lines.append(
            f"torn     {status.torn:,} shards have receipts but their files are gone or short; not counted as done"
        )
    if status.rate is not None:
        lines.append(f"rate     {pace(status.rate)}")
    if status.seconds_left is not None:
        lines.append(f"left     {duration(status.seconds_left)}")
    if status.phases:
        lines.append("work     " + ", ".join(f"{name} {duration(spent)}" for name, spent in status.phases.items()))
    return "\n".join(lines)


def _state(store: Store, shard: int) -> tuple[str, Receipt | None]:
    """What became of a shard, and its receipt where it is done."""
    try:
        receipt = read_receipt(store, REGIONS.name, shard)
    except DamagedFileError:
        return "unreadable", None
    if receipt is None:
        return "missing", None
    intact = is_intact(store, receipt, receipt.configuration_digest)
    return ("done", receipt) if intact else ("torn", None)


def _finished(receipt: Receipt) -> float:
    """When a receipt was written, in seconds of the epoch; 0 for one that does not say."""
    try:
        return datetime.strptime(receipt.environment["finished"], "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC).timestamp()
    except (KeyError, ValueError):
        return 0.0


def _said(lock: LiveLock) -> str:
    task = f" (array task {lock.part.index}/{lock.part.count})" if lock.part != WHOLE else ""
    return f"process {lock.pid} on {lock.host}{task}"
