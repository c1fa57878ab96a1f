"""Images to regions: list, plan, and one task for each shard that decodes, detects and writes.

The same `extract_shard` runs in this process, on a local cluster, on a scheduler's workers or as one slice of a job array.
Started again, a run keeps its plan and skips every shard that has a sound receipt.

* `extract_regions` begins a data set or goes on with it, and does again what failed where it is asked to.
* `add_images` appends what is new in a listing to the plan, as shards of its own, and goes on.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import chain
from typing import Any

from mvptr_data.dataset import layout
from mvptr_data.dataset.plan import Plan, load_plan
from mvptr_data.dataset.planning import PlannedInputs, append_plan
from mvptr_data.errors import InputError
from mvptr_data.sources.decoding import DecodeOptions
from mvptr_data.sources.images import ImageRef, list_images
from mvptr_data.storage import Store, check_shared
from pipelines.console import Reporter, reporting
from pipelines.detector_runner import DetectorChoice, detector_runner
from pipelines.extract_shard import ShardTask, extract_shard, probe_shard, regions_configuration, retry_shard
from pipelines.runs.run import (
    MakePlan,
    RegionsSummary,
    RunOptions,
    Workers,
    check_unplanned,
    counted_plan,
    regions_run,
    stored_or_new_plan,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class ExtractionOptions(RunOptions):
    """How to extract. `detector` and `decode` decide the bytes, the others only how a run gets there.

    `decode_threads`: threads that read, decode and prepare images; None takes the cores that computing leaves.
    """

    detector: DetectorChoice = field(default_factory=DetectorChoice)
    decode: DecodeOptions = field(default_factory=DecodeOptions)
    decode_threads: int | None = None

    def __post_init__(self) -> None:
        RunOptions.__post_init__(self)
        if self.decode_threads is not None and self.decode_threads < 1:
            raise InputError(f"decode_threads is {self.decode_threads}", "Give at least 1.")

    @property
    def decoders(self) -> int:
        """Decoding threads of a worker."""
        if self.decode_threads is not None:
            return self.decode_threads
        workers = self.cluster.processes_here
        return self.cluster.threads if workers is None else max(1, len(os.sched_getaffinity(0)) // workers)


def extract_regions(
    images: str,
    out: str,
    *,
    split: str | None = None,
    root: str | None = None,
    samples_per_shard: int = 1000,
    **options: Any,
) -> RegionsSummary:
    """Extract the regions of `images` (folder, file list, tar or folder of tars; path or URL) into the data set `out`.

    `split` is recorded for every image; `root` is what absolute paths of a file list are relative to. Every input gets a
    row in `regions/*.parquet`, the faulty ones with their class. `options` are those of `ExtractionOptions`, by keyword.

    Raises `InputError` (nothing to read), `ConfigurationMismatchError` (`out` holds other work), `BusyError` (another run is
    writing there), `OutputError` (it cannot be written), `FailureBudgetError`, `IncompleteError` (some shards could not be
    done; the others are).
    """
    store = Store.at(out)
    source = {"images": Store.at(images).root, "split": split, "root": root}

    def begin() -> MakePlan:
        refs = None if store.exists(layout.PLAN) else _listing(store, images, split, root)
        return stored_or_new_plan(store, refs, "images", source=source, samples_per_shard=samples_per_shard)

    return _extract(store, images, begin, ExtractionOptions(**options), "extract-regions")


def add_images(
    images: str,
    out: str,
    *,
    split: str | None = None,
    root: str | None = None,
    samples_per_shard: int | None = None,
    **options: Any,
) -> RegionsSummary:
    """Append to `out` the images of `images` that its plan does not have, as new shards, and extract their regions.

    An image is known by its key and place, so a folder that has grown may be given again. A new image under a known key is
    a `duplicate_key`. Earlier shards are not touched. `samples_per_shard`: that of the first part where it is None;
    `options` as for `extract_regions`.

    Raises what `extract_regions` raises, and `IncompleteError` where `out` has no plan.
    """
    store = Store.at(out)
    source = {"images": Store.at(images).root, "split": split, "root": root}

    def begin() -> MakePlan:
        load_plan(store)
        listing = list_images(images, split=split, root=root)

        def plan(reporter: Reporter, check: Callable[[], None]) -> Plan:
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
            write = partial(append_plan, store, stored, source=source, samples_per_shard=size, check=check)
            return counted_plan(reporter, "images", chain([first], new), write, before=stored)

        return plan

    return _extract(store, images, begin, ExtractionOptions(**options), "add")


def _extract(
    store: Store, images: str, begin: Callable[[], MakePlan], options: ExtractionOptions, command: str
) -> RegionsSummary:
    """The run itself. `begin` looks at the input before anything is written; what it returns makes the plan, under its lock."""
    with reporting(quiet=options.quiet) as reporter, ExitStack() as stack:
        if options.cluster.cluster != "inline":
            check_shared(images, store.root)
        if options.cluster.works_here:  # a detector that cannot be used says so before anything is written
            options = _one_process_for_the_gpu(options, reporter)
        make_plan = begin()
        workers = Workers(stack, options.cluster, reporter.keep_log(store, command), reporter.say)
        configuration = run_configuration(options, workers)
        if options.cluster.cluster == "local-cuda" and configuration["detector"].get("device") == "cpu":
            reporter.say("the detector computes on the CPU, though each worker has a GPU; see --device")
        with regions_run(store, reporter, workers, options, configuration, make_plan) as run:
            task = ShardTask(
                root=store.root,
                detector=options.detector,
                decode=options.decode,
                threads=options.cluster.threads,
                decode_threads=options.decoders,
                configuration_digest=run.identity,
            )
            probe = partial(probe_shard, task)
            run.pending("extract", partial(extract_shard, task), probe)
            run.failed("retry", partial(retry_shard, task, frozenset(options.retry_failed or ())), probe)
            return run.summary()


def run_configuration(options: ExtractionOptions, workers: Workers) -> dict[str, Any]:
    """What the run's workers extract with: what this process would, where they are processes of this machine.

    Elsewhere one of them is asked: a login node may have neither a GPU nor torch.
    """
    choice = (options.detector, options.decode, options.cluster.threads)
    if options.cluster.works_here:
        return _configuration_here(choice)
    [(_, configuration)] = workers.cluster().complete(_configuration_here, [choice])
    return configuration


def _configuration_here(choice: tuple[DetectorChoice, DecodeOptions, int]) -> dict[str, Any]:
    """The configuration of a detector as this process loads it; a worker's device may be another than the client's."""
    detector, decode, threads = choice
    return regions_configuration(detector_runner(detector, threads).detector, decode)


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
    check_unplanned(store)
    listing = list_images(images, split=split, root=root)
    return chain([next(listing)], listing)
