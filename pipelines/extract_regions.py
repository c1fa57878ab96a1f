"""Images to regions: list, plan, and one task for each shard that decodes, detects and writes.

The same `extract_shard` runs in this process, on a local cluster, on a scheduler's workers or as one slice of a job array.
Started again, a run keeps its plan and skips every shard that has a sound receipt.

* `extract_regions` begins a data set or goes on with it, and does again what failed where it is asked to.
* `add_images` appends what is new in a listing to the plan, as shards of its own, and goes on.
"""

from __future__ import annotations

import functools
import os
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from mvptr_data.dataset import layout
from mvptr_data.dataset.fields import REGIONS, claim, load_state
from mvptr_data.dataset.locks import WHOLE, Slice, hold_lock
from mvptr_data.dataset.plan import Plan, PlannedInputs, append_plan, check_same_plan, load_plan, write_plan
from mvptr_data.dataset.receipts import Receipt
from mvptr_data.errors import FAULT_CLASSES, IncompleteError, InputError
from mvptr_data.sources.decoding import DecodeOptions
from mvptr_data.sources.images import ImageRef, list_images
from mvptr_data.storage import Store
from pipelines.cluster import ClusterOptions, TaskFailure, open_cluster
from pipelines.console import Reporter, reporting
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
        if self.cluster.cluster not in ("inline", "local"):
            return self.cluster.threads
        workers = 1 if self.cluster.cluster == "inline" else self.cluster.local_workers
        return max(1, len(os.sched_getaffinity(0)) // workers)


@dataclass(frozen=True, slots=True, kw_only=True)
class ExtractionSummary:
    """What a data set's regions, or the slice that a run was for, are after it. `counts`: inputs, ok and each fault class."""

    plan: Plan
    counts: Mapping[str, int]
    regions: int
    shards_written: int
    shards_kept: int
    seconds: float
    configuration: Mapping[str, Any] = field(repr=False)


def extract_regions(
    images: str,
    out: str,
    *,
    split: str | None = None,
    root: str | None = None,
    samples_per_shard: int = 1000,
    **options: Any,
) -> ExtractionSummary:
    """Extract the regions of `images` (folder, file list, tar or folder of tars; path or URL) into the data set `out`.

    `split` is recorded for every image; `root` is what absolute paths of a file list are relative to. Every input gets a
    row in `regions/*.parquet`, the faulty ones with their class. `options` are those of `ExtractionOptions`, by keyword.

    Raises `InputError` (nothing to read), `ConfigurationMismatchError` (`out` holds other work), `BusyError` (another run is
    writing there), `OutputError` (it cannot be written), `FailureBudgetError`, `IncompleteError` (some shards could not be
    done; the others are).
    """
    store = Store.at(out)
    source = {"images": Store.at(images).root, "split": split, "root": root}

    def begin() -> Callable[[Reporter], Plan]:
        first = None if store.exists(layout.PLAN) else _listing(store, images, split, root)

        def plan(reporter: Reporter) -> Plan:
            # A plan may have been written by another run since the listing began, just before this run took the lock.
            if first is None or store.exists(layout.PLAN):
                stored = load_plan(store)
                check_same_plan(stored, store, source, samples_per_shard)
                reporter.say(f"going on with the stored plan: {stored.images:,} images in {stored.shards} shards")
                return stored
            written = _counting(
                reporter,
                first,
                lambda refs: write_plan(store, refs, source=source, samples_per_shard=samples_per_shard),
            )
            faults = f", {written.faults:,} of them faulty" if written.faults else ""
            reporter.say(f"planned {written.images:,} images in {written.shards} shards{faults}")
            return written

        return plan

    return _extract(store, begin, ExtractionOptions(**options), "extract-regions")


def add_images(
    images: str,
    out: str,
    *,
    split: str | None = None,
    root: str | None = None,
    samples_per_shard: int | None = None,
    **options: Any,
) -> ExtractionSummary:
    """Append to `out` the images of `images` that its plan does not have, as new shards, and extract their regions.

    An image is known by its key and place, so a folder that has grown may be given again. A new image under a known key is
    a `duplicate_key`. Earlier shards are not touched. `samples_per_shard`: that of the first part where it is None;
    `options` as for `extract_regions`.

    Raises what `extract_regions` raises, and `IncompleteError` where `out` has no plan.
    """
    store = Store.at(out)
    source = {"images": Store.at(images).root, "split": split, "root": root}

    def begin() -> Callable[[Reporter], Plan]:
        load_plan(store)
        listing = list_images(images, split=split, root=root)

        def plan(reporter: Reporter) -> Plan:
            stored = load_plan(store)
            planned = PlannedInputs(store, stored)
            new = (ref for ref in listing if ref not in planned)
            first = next(new, None)
            if first is None:
                reporter.say(
                    f"nothing new in {images}; the plan has {stored.images:,} images in {stored.shards} shards"
                )
                return stored
            size = samples_per_shard or stored.parts[0].samples_per_shard
            grown = _counting(
                reporter,
                _from(first, new),
                lambda refs: append_plan(store, stored, refs, source=source, samples_per_shard=size),
            )
            faults = f", {grown.faults - stored.faults:,} of them faulty" if grown.faults > stored.faults else ""
            reporter.say(
                f"added {grown.images - stored.images:,} images in {grown.shards - stored.shards} shards{faults}; "
                f"the plan has {grown.images:,} now"
            )
            return grown

        return plan

    return _extract(store, begin, ExtractionOptions(**options), "add")


def _extract(
    store: Store, begin: Callable[[], Callable[[Reporter], Plan]], options: ExtractionOptions, command: str
) -> ExtractionSummary:
    """The run itself. `begin` looks at the input before anything is written; what it returns makes the plan, under its lock."""
    with reporting(quiet=options.quiet) as reporter:
        started = time.monotonic()
        made = detector_runner(options.detector, options.cluster.threads)
        configuration = regions_configuration(made.detector, options.decode)
        make_plan = begin()
        with hold_lock(store, REGIONS.name, options.part):
            report = reporter.keep_log(store, command)
            with hold_lock(store, "plan", wait=True):  # of several slices that start at once, one makes it
                store.remove_temporaries("plan")
                if load_state(store, REGIONS.name) is not None:
                    claim(store, REGIONS.name, configuration)  # refused before a plan is altered
                plan = make_plan(reporter)
                identity = claim(store, REGIONS.name, configuration).digest
            run = _Run(store, reporter, options, plan, identity)
            run.remove_temporaries()
            try:
                run.pending_shards(report)
                run.failed_shards(report)
            finally:
                run.close()
                run.remove_temporaries()  # of workers that were killed on the way
        summary = ExtractionSummary(
            plan=plan,
            counts=dict(run.tally.counts),
            regions=run.tally.regions,
            shards_written=run.written,
            shards_kept=run.tally.shards - run.written,
            seconds=time.monotonic() - started,
            configuration=configuration,
        )
        _report(reporter, store, summary, options)
    return summary


class _Run:
    """One run over a plan's shards: what is pending, then what failed."""

    def __init__(self, store: Store, reporter: Reporter, options: ExtractionOptions, plan: Plan, identity: str) -> None:
        self._store, self._reporter, self._options, self._plan = store, reporter, options, plan
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

    def pending_shards(self, report: str | None) -> None:
        """Do every shard that is not finished."""
        missing = self._pending.known
        if kept := len(self._shards) - missing:
            self._reporter.say(f"{kept} of {len(self._shards)} shards are finished and kept")
        if missing or self._pending.unsound():
            self._run("extract", functools.partial(extract_shard, self._task), self._pending, report)
        self.tally.check(self._options.max_failures, self._inputs)

    def failed_shards(self, report: str | None) -> None:
        """Do again, in the shards that this run found finished, what failed under the classes asked for."""
        classes = frozenset(self._options.retry_failed or ())
        if not self._failed:
            if classes:
                self._reporter.say(f"nothing to try again: no input failed with {', '.join(sorted(classes))}")
            return
        before = self.tally.counts["ok"]
        inputs = sum(receipt.counts.get(name, 0) for receipt in self._failed.values() for name in classes)
        self._reporter.say(f"trying {inputs:,} failed inputs in {len(self._failed)} shards again")
        self._run("retry", functools.partial(retry_shard, self._task, classes), sorted(self._failed), report)
        self._reporter.say(
            f"{self.tally.counts['ok'] - before:,} of {inputs:,} inputs that had failed have regions now"
        )

    def _keep(self, receipt: Receipt) -> None:
        self.tally.add(receipt)
        if any(receipt.counts.get(name) for name in self._options.retry_failed or ()):
            self._failed[receipt.shard] = receipt

    def _run(self, title: str, function: ShardFunction, shards: Iterable[int], report: str | None) -> None:
        failures: dict[int, str] = {}
        options, plan = self._options, self._plan
        known = shards if isinstance(shards, list) else self._pending.missing
        with (
            open_cluster(options.cluster, report=report, say=self._reporter.say) as cluster,
            self._reporter.step(title, sum(plan.rows[shard] for shard in known), "images") as step,
        ):
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


def _listing(store: Store, images: str, split: str | None, root: str | None) -> Iterator[ImageRef]:
    """The listing, begun: a wrong path or an empty folder fails here, before anything is written."""
    if load_state(store, REGIONS.name) is not None:
        raise IncompleteError(
            f"{store.root} has regions but no plan that says whose they are",
            "Restore plan/, or remove the whole folder.",
        )
    try:
        images.encode()
    except UnicodeEncodeError as error:
        raise InputError(f"the path {images!r} is not UTF-8", "Rename it, or give it through a link.") from error
    listing = list_images(images, split=split, root=root)
    return _from(next(listing), listing)


def _from(first: ImageRef, rest: Iterator[ImageRef]) -> Iterator[ImageRef]:
    yield first
    yield from rest


def _counting(reporter: Reporter, refs: Iterator[ImageRef], write: Callable[[Iterator[ImageRef]], Plan]) -> Plan:
    """`write(refs)`, with progress."""
    with reporter.step("list", 0, "images") as step:

        def counted() -> Iterator[ImageRef]:
            for ref in refs:
                step.advance()
                yield ref

        return write(counted())


def _report(reporter: Reporter, store: Store, summary: ExtractionSummary, options: ExtractionOptions) -> None:
    faults = {name: count for name, count in summary.counts.items() if name not in ("inputs", "ok") and count}
    listed = ", ".join(f"{name} {count:,}" for name, count in sorted(faults.items())) or "none"
    where = "" if options.part == WHOLE else f"array task {options.part.index}/{options.part.count}: "
    reporter.say(
        f"{where}{summary.counts.get('ok', 0):,} of {summary.counts.get('inputs', 0):,} images have regions "
        f"({summary.regions:,}); faults: {listed}"
    )
    if faults:
        reporter.say(f"every fault has a row with its key and reason: mvptr-data failures {store.root}")
