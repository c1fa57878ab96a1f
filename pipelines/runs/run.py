"""A run that fills the regions field: its lock and its plan, then every shard that is pending, then those that failed.

Which shards are pending comes from `progress`, how one is done whatever dies from `runner`; here they meet the failure
budget, what is shown, and the sums of the end. What a shard's work is, the run does not know.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from mvptr_data.dataset import layout
from mvptr_data.dataset.fields import REGIONS, claim, load_state
from mvptr_data.dataset.lock_files import WHOLE, Slice
from mvptr_data.dataset.locks import Held, hold_lock
from mvptr_data.dataset.plan import Plan, check_same_plan, load_plan
from mvptr_data.dataset.planning import write_plan
from mvptr_data.dataset.receipts import Receipt
from mvptr_data.errors import FAULT_CLASSES, IncompleteError, InputError
from mvptr_data.sources.images import ImageRef
from mvptr_data.storage import Store
from pipelines.cluster import Cluster, ClusterOptions, TaskFailure, open_cluster
from pipelines.console import Reporter
from pipelines.runs.budget import FailureBudget, Tally
from pipelines.runs.progress import PendingShards
from pipelines.runs.runner import Probe, ShardFunction, ShardRunner

#: Classes that trying again may mend; what the plan itself found is found for good.
RETRYABLE = frozenset(FAULT_CLASSES) - {
    "unsafe_key",
    "duplicate_key",
    "no_captions",
    "empty_caption",
    "long_caption",
    "parser_error",
    "broken_record",
}


#: Makes or loads the plan; the function it is given raises where another run has taken the lock over meanwhile.
MakePlan = Callable[[Reporter, Callable[[], None]], Plan]


@dataclass(frozen=True, slots=True, kw_only=True)
class RunOptions:
    """How a run gets there; nothing here changes a byte.

    `part`: the slice of the shards to do (job arrays). `retry_failed`: fault classes to try again; None: none.
    `max_failures`: more failed inputs than this end the run.
    """

    cluster: ClusterOptions = field(default_factory=ClusterOptions)
    part: Slice = WHOLE
    retry_failed: Collection[str] | None = None
    max_failures: FailureBudget | None = None
    quiet: bool = False

    def __post_init__(self) -> None:
        if unknown := sorted(set(self.retry_failed or ()) - RETRYABLE):
            raise InputError(
                f"{', '.join(unknown)} is no class of faults that can be tried again",
                f"These can: {', '.join(sorted(RETRYABLE))}.",
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class RegionsSummary:
    """What a data set's regions, or the slice that a run was for, are after it. `counts`: inputs, ok and each fault class."""

    plan: Plan
    counts: Mapping[str, int]
    regions: int
    shards_written: int
    shards_kept: int
    seconds: float
    configuration: Mapping[str, Any] = field(repr=False)


class Workers:
    """The cluster of a run, opened when it is first needed; closed with the run, or with `stack` where none began."""

    def __init__(
        self, stack: ExitStack, options: ClusterOptions, report: str | None, say: Callable[[str], None]
    ) -> None:
        self._stack, self._options, self._report, self._say = stack.enter_context(ExitStack()), options, report, say
        self._cluster: Cluster | None = None

    def cluster(self) -> Cluster:
        if self._cluster is None:
            self._cluster = self._stack.enter_context(open_cluster(self._options, report=self._report, say=self._say))
        return self._cluster

    def close(self) -> None:
        self._stack.close()


@contextmanager
def regions_run(
    store: Store,
    reporter: Reporter,
    workers: Workers,
    options: RunOptions,
    configuration: dict[str, Any],
    make_plan: MakePlan,
) -> Iterator[RegionsRun]:
    """Hold the lock of the regions, make or load the plan, claim the configuration; a run over the plan's shards.

    Raises `BusyError`, `ConfigurationMismatchError`, and what `make_plan` raises.
    """
    started = time.monotonic()
    with hold_lock(store, REGIONS.name, options.part) as held:
        with hold_lock(store, "plan", wait=True) as planning:  # of several slices that start at once, one makes it

            def still_ours() -> None:
                held.check()
                planning.check()

            store.remove_temporaries("plan")
            if load_state(store, REGIONS.name) is not None:
                claim(store, REGIONS.name, configuration)  # refused before a plan is altered
            plan = make_plan(reporter, still_ours)
            identity = claim(store, REGIONS.name, configuration).digest
        run = RegionsRun(store, reporter, workers, options, plan, configuration, identity, started, held)
        run.remove_temporaries()
        with ExitStack() as ending:  # from the last to the first
            ending.callback(run.remove_temporaries)  # of workers that were killed on the way, or now
            ending.callback(workers.close)
            ending.callback(run.close)
            yield run


class RegionsRun:
    """Does shards; made by `regions_run`."""

    def __init__(
        self,
        store: Store,
        reporter: Reporter,
        workers: Workers,
        options: RunOptions,
        plan: Plan,
        configuration: dict[str, Any],
        identity: str,
        started: float,
        held: Held,
    ) -> None:
        self._store, self._reporter, self._workers, self._options = store, reporter, workers, options
        self._plan, self._configuration, self._started, self._held = plan, configuration, started, held
        #: The digest of the configuration, which receipts carry.
        self.identity = identity
        self._shards = options.part.shards(plan.shards)
        self._inputs = sum(plan.rows[shard] for shard in self._shards)
        self._tally = Tally()
        self._written = 0
        self._failed: dict[int, Receipt] = {}
        #: Failed inputs that are yet to be tried again, which no budget counts before.
        self._pardoned = 0
        self._pending = PendingShards(store, REGIONS.name, self._shards, identity, self._keep)

    def close(self) -> None:
        self._pending.close()

    def remove_temporaries(self) -> None:
        """Those of this run's shards alone: other slices are writing theirs."""
        self._store.remove_temporaries(REGIONS.name, lambda base: layout.shard_number(base) in self._shards)

    def pending(self, title: str, function: ShardFunction, probe: Probe | None = None) -> None:
        """Do every shard that is not finished. Raises `FailureBudgetError`, `IncompleteError`; see `ShardRunner` for `probe`."""
        missing = self._pending.known
        if kept := len(self._shards) - missing:
            self._reporter.say(f"{kept} of {len(self._shards)} shards have receipts and are kept")
        if missing or self._pending.unsound():
            inputs = sum(self._plan.rows[shard] for shard in self._pending.missing)
            self._do(title, inputs, function, self._pending, probe)
            if torn := len(self._pending.torn):
                self._reporter.say(f"{torn} of them were not what their receipts promise, and were done again")
        self._tally.check(self._options.max_failures, self._inputs, self._pardoned)

    def failed(self, title: str, function: ShardFunction, probe: Probe | None = None) -> None:
        """Do again, in the shards that this run found finished, what failed under the classes asked for."""
        classes = self._options.retry_failed or ()
        if not self._failed:
            if classes:
                self._reporter.say(f"nothing to try again: no input failed with {', '.join(sorted(classes))}")
            return
        before = self._tally.counts["ok"]
        failed = sum(map(self._to_retry, self._failed.values()))
        self._reporter.say(f"trying {failed:,} failed inputs in {len(self._failed)} shards again")
        inputs = sum(self._plan.rows[shard] for shard in self._failed)
        self._do(title, inputs, function, sorted(self._failed), probe)
        mended = self._tally.counts["ok"] - before
        self._reporter.say(f"{mended:,} of {failed:,} inputs that had failed have regions now")

    def summary(self) -> RegionsSummary:
        """What there is now; said, too."""
        summary = RegionsSummary(
            plan=self._plan,
            counts={name: count for name, count in self._tally.counts.items() if count or name in ("inputs", "ok")},
            regions=self._tally.regions,
            shards_written=self._written,
            shards_kept=self._tally.shards - self._written,
            seconds=time.monotonic() - self._started,
            configuration=self._configuration,
        )
        faults = self._tally.faults
        listed = ", ".join(f"{name} {count:,}" for name, count in sorted(faults.items())) or "none"
        part = self._options.part
        where = "" if part == WHOLE else f"array task {part.index}/{part.count}: "
        self._reporter.say(
            f"{where}{summary.counts.get('ok', 0):,} of {summary.counts.get('inputs', 0):,} images have regions "
            f"({summary.regions:,}); faults: {listed}"
        )
        if faults:
            self._reporter.say(f"every fault has a row with its key and reason: mvptr-data failures {self._store.root}")
        return summary

    def _keep(self, receipt: Receipt) -> None:
        self._tally.add(receipt)
        if failed := self._to_retry(receipt):
            self._failed[receipt.shard] = receipt
            self._pardoned += failed

    def _to_retry(self, receipt: Receipt) -> int:
        """How many inputs of a shard failed under the classes to try again."""
        return sum(receipt.counts.get(name, 0) for name in self._options.retry_failed or ())

    def _do(self, title: str, inputs: int, function: ShardFunction, shards: Iterable[int], probe: Probe | None) -> None:
        failures: dict[int, str] = {}
        runner = ShardRunner(
            self._store, self._workers.cluster(), self._options.cluster, self._reporter, self._plan, probe
        )
        with self._reporter.step(title, inputs, "images") as step:
            for shard, outcome in runner.run(function, shards):
                if isinstance(outcome, TaskFailure):
                    failures[shard] = outcome.reason
                    self._reporter.say(f"shard {shard} failed: {outcome.reason}")
                    continue
                self._held.check()
                self._reporter.record(f"shard {shard}: {outcome.counts} {outcome.seconds}")
                step.advance(self._plan.rows[shard])
                old = self._failed.get(shard)
                if old is not None:
                    self._tally.add(old, -1)
                    self._pardoned -= self._to_retry(old)
                self._tally.add(outcome)
                self._written += outcome != old
                self._tally.check(self._options.max_failures, self._inputs, self._pardoned)
        if failures:
            raise IncompleteError(
                f"{len(failures)} of {self._plan.shards} shards could not be done "
                f"({', '.join(map(str, sorted(failures)))}): {next(iter(failures.values()))}",
                "The others are safe; run the same command again, with --cluster inline to see the first error whole.",
            )


def stored_or_new_plan(
    store: Store, refs: Iterator[ImageRef] | None, unit: str, *, source: dict[str, Any], samples_per_shard: int
) -> MakePlan:
    """Goes on with the stored plan, which must have been made from `source`, or plans `refs` (None: there is a stored one)."""

    def make(reporter: Reporter, check: Callable[[], None]) -> Plan:
        # A plan may have been written by another run since the listing began, just before this run took the lock.
        if refs is None or store.exists(layout.PLAN):
            plan = load_plan(store)
            check_same_plan(plan, store, source, samples_per_shard)
            reporter.say(f"going on with the stored plan: {plan.images:,} images in {plan.shards} shards")
            return plan
        write = partial(write_plan, store, source=source, samples_per_shard=samples_per_shard, check=check)
        return counted_plan(reporter, unit, refs, write)

    return make


def counted_plan(
    reporter: Reporter,
    unit: str,
    refs: Iterator[ImageRef],
    write: Callable[[Iterator[ImageRef]], Plan],
    before: Plan | None = None,
) -> Plan:
    """What `write(refs)` plans, with progress, and said; `before`: the plan that it adds to."""
    with reporter.step("list", 0, unit) as step:

        def counted() -> Iterator[ImageRef]:
            for ref in refs:
                step.advance()
                yield ref

        plan = write(counted())
    images, shards, faults = plan.images, plan.shards, plan.faults
    if before is not None:
        images, shards, faults = images - before.images, shards - before.shards, faults - before.faults
    verb = "planned" if before is None else "added"
    faulty = f", {faults:,} of them faulty" if faults else ""
    total = f"; the plan has {plan.images:,} now" if before is not None else ""
    reporter.say(f"{verb} {images:,} images in {shards} shards{faulty}{total}")
    return plan


def check_unplanned(store: Store) -> None:
    """Raises `IncompleteError` where a data set without a plan has regions: they are another input's."""
    if load_state(store, REGIONS.name) is not None:
        raise IncompleteError(
            f"{store.root} has regions but no plan that says whose they are",
            "Restore plan/, or remove the whole folder.",
        )
