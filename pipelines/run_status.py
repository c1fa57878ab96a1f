"""How far an extraction is: done, running, failed, its rate and the time left, read from the files it leaves."""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

from mvptr_data.dataset.fields import REGIONS
from mvptr_data.dataset.locks import WHOLE, LiveLock, live_locks
from mvptr_data.dataset.plan import load_plan
from mvptr_data.dataset.receipts import Receipt
from mvptr_data.storage import Store
from pipelines.console import duration, pace
from pipelines.runs.progress import read_receipts


@dataclass(frozen=True, slots=True, kw_only=True)
class RunStatus:
    """The state of a data set's regions.

    `running`: the processes at work, as "host pid" with the slice; `faults`: failed inputs by class; `rate`: inputs a second
    since the oldest of the running began, None where nothing runs or nothing was finished yet; `seconds_left` at that rate;
    `phases`: seconds of work by phase, summed over shards and workers.
    """

    shards: int
    shards_done: int
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
    done = inputs_done = lately = 0
    for shard, receipt in read_receipts(store, REGIONS.name, range(plan.shards)):
        if receipt is None:
            continue
        done += 1
        inputs_done += plan.rows[shard]
        counts.update(receipt.counts)
        phases.update(receipt.seconds)
        if since is not None and _finished(receipt) >= since - 1:  # receipts give whole seconds
            lately += plan.rows[shard]
    elapsed = time.time() - since if since is not None else 0.0
    rate = lately / elapsed if lately and elapsed > 0 else None
    return RunStatus(
        shards=plan.shards,
        shards_done=done,
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
    if status.rate is not None:
        lines.append(f"rate     {pace(status.rate)}")
    if status.seconds_left is not None:
        lines.append(f"left     {duration(status.seconds_left)}")
    if status.phases:
        lines.append("work     " + ", ".join(f"{name} {duration(spent)}" for name, spent in status.phases.items()))
    return "\n".join(lines)


def _finished(receipt: Receipt) -> float:
    """When a receipt was written, in seconds of the epoch; 0 for one that does not say."""
    try:
        return datetime.strptime(receipt.environment["finished"], "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC).timestamp()
    except (KeyError, ValueError):
        return 0.0


def _said(lock: LiveLock) -> str:
    task = f" (array task {lock.part.index}/{lock.part.count})" if lock.part != WHOLE else ""
    return f"process {lock.pid} on {lock.host}{task}"
