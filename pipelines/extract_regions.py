"""Images to regions: list, plan, and one task for each shard that decodes, detects and writes.

The same `extract_shard` runs in this process, on a local cluster, on a scheduler's workers or as one slice of a job array.
Started again, a run keeps its plan and skips every shard that has a sound receipt.

* `extract_regions` begins a data set or goes on with it, and does again what failed where it is asked to.
* `add_images` appends what is new in a listing to the plan, as shards of its own, and goes on.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from typing import Any

from mvptr_data.dataset import layout
from mvptr_data.dataset.fields import REGIONS, claim, load_state
from mvptr_data.dataset.locks import WHOLE, hold_lock
from mvptr_data.dataset.plan import Plan, PlannedInputs, append_plan, check_same_plan, load_plan, write_plan
from mvptr_data.errors import IncompleteError, InputError
from mvptr_data.sources.images import ImageRef, list_images
from mvptr_data.storage import Store
from pipelines.console import Reporter, reporting
from pipelines.detector_runner import detector_runner
from pipelines.extraction_run import ExtractionOptions, ExtractionRun, Workers, run_configuration


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
    with reporting(quiet=options.quiet) as reporter, ExitStack() as stack:
        started = time.monotonic()
        if options.cluster.works_here:  # a detector that cannot be used says so before anything is written
            options = _one_process_for_the_gpu(options, reporter)
        make_plan = begin()
        report = reporter.keep_log(store, command)
        workers = Workers(stack, options.cluster, report, reporter.say)
        configuration = run_configuration(options, workers)
        stack.enter_context(hold_lock(store, REGIONS.name, options.part))
        with hold_lock(store, "plan", wait=True):  # of several slices that start at once, one makes it
            store.remove_temporaries("plan")
            if load_state(store, REGIONS.name) is not None:
                claim(store, REGIONS.name, configuration)  # refused before a plan is altered
            plan = make_plan(reporter)
            identity = claim(store, REGIONS.name, configuration).digest
        run = ExtractionRun(store, reporter, workers, options, plan, identity)
        run.remove_temporaries()
        try:
            run.pending_shards()
            run.failed_shards()
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


def _one_process_for_the_gpu(options: ExtractionOptions, reporter: Reporter) -> ExtractionOptions:
    """A local cluster has a process a core by default; on a GPU they would only take each other's memory."""
    detector = detector_runner(options.detector, options.cluster.threads).detector
    on_gpu = detector.configuration().get("device") == "cuda"
    if not on_gpu or options.cluster.cluster != "local" or options.cluster.workers is not None:
        return options
    reporter.say("one worker for the GPU; --cluster local-cuda takes one for each GPU")
    return replace(options, cluster=replace(options.cluster, workers=1))


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
