"""One run over the shards of a plan: its options, its workers, and what it does with each shard.

Which shards are pending comes from `shard_progress`, how one is run whatever dies from `shard_runner`; here they meet the
failure budget, the progress shown, and the sums of the end.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Collection, Iterable
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

from mvptr_data.dataset import layout
from mvptr_data.dataset.fields import REGIONS
from mvptr_data.dataset.locks import WHOLE, Slice
from mvptr_data.dataset.plan import Plan
from mvptr_data.dataset.receipts import Receipt
from mvptr_data.errors import FAULT_CLASSES, IncompleteError, InputError
from mvptr_data.sources.decoding import DecodeOptions
from mvptr_data.storage import Store
from pipelines.cluster import Cluster, ClusterOptions, TaskFailure, open_cluster
from pipelines.console import Reporter
from pipelines.detector_runner import DetectorChoice, detector_runner
from pipelines.extract_shard import ShardTask, extract_shard, regions_configuration, retry_shard
from pipelines.failure_budget import FailureBudget, Tally
from pipelines.shard_progress import PendingShards
from pipelines.shard_runner import ShardFunction, ShardRunner

#: Faults that trying again cannot mend: the plan's own.
_FOR_GOOD = ("unsafe_key", "duplicate_key")
RETRYABLE = frozenset(FAULT_CLASSES) - {*_FOR_GOOD, "no_captions", "empty_caption", "broken_record"}


@dataclass(frozen=True, slots=True, kw_only=True)
class ExtractionOptions:
    """How to extract. The first two decide the bytes, the others only how a run gets there.

    `decode_threads`: threads that read, decode and prepare images; None takes the cores that computing leaves. `part`: the
    slice of the shards to do (job arrays). `retry_failed`: fault classes to try again; None: none. `max_failures`: more
    failed inputs than this end the run.
    """

    detector: DetectorChoice = field(default_factory=DetectorChoice)
    decode: DecodeOptions = field(default_factory=DecodeOptions)
    cluster: ClusterOptions = field(default_factory=ClusterOptions)
    decode_threads: int | None = None
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
        if self.decode_threads is not None and self.decode_threads < 1:
            raise InputError(f"decode_threads is {self.decode_threads}", "Give at least 1.")

    @property
    def decoders(self) -> int:
        """Decoding threads of a worker."""
        if self.decode_threads is not None:
            return self.decode_threads
        workers = self.cluster.processes_here
        return self.cluster.threads if workers is None else max(1, len(os.sched_getaffinity(0)) // workers)


class Workers:
    """The cluster of a run, opened when it is first needed and closed with `stack`."""

    def __init__(
        self, stack: ExitStack, options: ClusterOptions, report: str | None, say: Callable[[str], None]
    ) -> None:
        self._stack, self._options, self._report, self._say = stack, options, report, say
        self._cluster: Cluster | None = None

    def cluster(self) -> Cluster:
        if self._cluster is None:
            self._cluster = self._stack.enter_context(open_cluster(self._options, report=self._report, say=self._say))
        return self._cluster


def configuration_here(choice: tuple[DetectorChoice, DecodeOptions, int]) -> dict[str, Any]:
    """The configuration of a detector as this process loads it; a worker's device may be another than the client's."""
    detector, decode, threads = choice
    return regions_configuration(detector_runner(detector, threads).detector, decode)


def run_configuration(options: ExtractionOptions, workers: Workers) -> dict[str, Any]:
    """What the run's workers extract with: what this process would, where they are processes of this machine.

    Elsewhere one of them is asked: a login node may have neither a GPU nor torch.
    """
    choice = (options.detector, options.decode, options.cluster.threads)
    if options.cluster.works_here:
        return configuration_here(choice)
    [(_, configuration)] = workers.cluster().complete(configuration_here, [choice])
    return configuration


class ExtractionRun:
    """One run over a plan's shards: what is pending, then what failed."""

    def __init__(
        self, store: Store, reporter: Reporter, workers: Workers, options: ExtractionOptions, plan: Plan, identity: str
    ) -> None:
        self._store, self._reporter, self._workers = store, reporter, workers
        self._options, self._plan = options, plan
        self._shards = options.part.shards(plan.shards)
        self._inputs = sum(plan.rows[shard] for shard in self._shards)
        self._task = ShardTask(
            root=store.root,
            detector=options.detector,
            decode=options.decode,
            threads=options.cluster.threads,
            decode_threads=options.decoders,
            configuration_digest=identity,
        )
        self.tally = Tally()
        self.written = 0
        self._failed: dict[int, Receipt] = {}
        self._pending = PendingShards(store, REGIONS.name, self._shards, identity, self._keep)

    def close(self) -> None:
        self._pending.close()

    def remove_temporaries(self) -> None:
        """Those of this run's shards alone: other slices are writing theirs."""
        self._store.remove_temporaries(REGIONS.name, lambda base: layout.shard_number(base) in self._shards)

    def pending_shards(self) -> None:
        """Do every shard that is not finished."""
        missing = self._pending.known
        if kept := len(self._shards) - missing:
            self._reporter.say(f"{kept} of {len(self._shards)} shards are finished and kept")
        if missing or self._pending.unsound():
            self._run("extract", functools.partial(extract_shard, self._task), self._pending)
        self.tally.check(self._options.max_failures, self._inputs)

    def failed_shards(self) -> None:
        """Do again, in the shards that this run found finished, what failed under the classes asked for."""
        classes = frozenset(self._options.retry_failed or ())
        if not self._failed:
            if classes:
                self._reporter.say(f"nothing to try again: no input failed with {', '.join(sorted(classes))}")
            return
        before = self.tally.counts["ok"]
        inputs = sum(receipt.counts.get(name, 0) for receipt in self._failed.values() for name in classes)
        self._reporter.say(f"trying {inputs:,} failed inputs in {len(self._failed)} shards again")
        self._run("retry", functools.partial(retry_shard, self._task, classes), sorted(self._failed))
        self._reporter.say(
            f"{self.tally.counts['ok'] - before:,} of {inputs:,} inputs that had failed have regions now"
        )

    def _keep(self, receipt: Receipt) -> None:
        self.tally.add(receipt)
        if any(receipt.counts.get(name) for name in self._options.retry_failed or ()):
            self._failed[receipt.shard] = receipt

    def _run(self, title: str, function: ShardFunction, shards: Iterable[int]) -> None:
        failures: dict[int, str] = {}
        options, plan = self._options, self._plan
        known = shards if isinstance(shards, list) else self._pending.missing
        cluster = self._workers.cluster()
        with self._reporter.step(title, sum(plan.rows[shard] for shard in known), "images") as step:
            runner = ShardRunner(self._store, cluster, options.cluster, self._task, self._reporter, plan)
            for shard, outcome in runner.run(function, shards):
                if isinstance(outcome, TaskFailure):
                    failures[shard] = outcome.reason
                    self._reporter.say(f"shard {shard} failed: {outcome.reason}")
                    continue
                self._reporter.record(f"shard {shard}: {outcome.counts} {outcome.seconds}")
                step.advance(plan.rows[shard])
                old = self._failed.get(shard)
                if old is not None:
                    self.tally.add(old, -1)
                self.tally.add(outcome)
                self.written += outcome != old
                self.tally.check(options.max_failures, self._inputs)
        if failures:
            raise IncompleteError(
                f"{len(failures)} of {plan.shards} shards could not be extracted "
                f"({', '.join(map(str, sorted(failures)))}): {next(iter(failures.values()))}",
                "The others are safe; run the same command again, with --cluster inline to see the first error whole.",
            )
