"""Images to regions: list, plan, and one task for each shard that decodes, detects and writes.

The same `extract_shard` runs in this process, on a local cluster or on a scheduler's workers. Started again, a run keeps its
plan and skips every shard that has a sound receipt.
"""

from __future__ import annotations

import functools
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from mvptr_data.dataset import layout
from mvptr_data.dataset.fields import REGIONS, claim, load_state
from mvptr_data.dataset.locks import hold_lock
from mvptr_data.dataset.plan import Plan, check_same_plan, load_plan, write_plan
from mvptr_data.dataset.receipts import is_finished, read_receipt
from mvptr_data.errors import IncompleteError, InputError
from mvptr_data.sources.decoding import DecodeOptions
from mvptr_data.sources.images import ImageRef, list_images
from mvptr_data.storage import Store
from pipelines.cluster import Cluster, ClusterOptions, TaskFailure, once_per_process, open_cluster
from pipelines.console import Reporter, reporting
from pipelines.extract_shard import DetectorChoice, ShardTask, extract_shard, regions_configuration


@dataclass(frozen=True, slots=True, kw_only=True)
class ExtractionSummary:
    """What a data set's regions are after a run. `counts`: inputs, ok and each fault class."""

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
    detector: DetectorChoice | None = None,
    decode: DecodeOptions | None = None,
    split: str | None = None,
    root: str | None = None,
    samples_per_shard: int = 1000,
    cluster: ClusterOptions | None = None,
    quiet: bool = False,
) -> ExtractionSummary:
    """Extract the regions of `images` (folder, file list, tar or folder of tars; path or URL) into the data set `out`.

    `split` is recorded for every image; `root` is what absolute paths of a file list are relative to. Every input gets a
    row in `regions/*.parquet`, the faulty ones with their class.

    Raises `InputError` (nothing to read), `ConfigurationMismatchError` (`out` holds other work), `BusyError` (another run is
    writing there), `IncompleteError` (some shards could not be done; the others are).
    """
    detector, decode, cluster = detector or DetectorChoice(), decode or DecodeOptions(), cluster or ClusterOptions()
    store = Store.at(out)
    with reporting(quiet=quiet) as reporter:
        started = time.monotonic()
        made = once_per_process(DetectorChoice.load, detector, cluster.threads)
        configuration = regions_configuration(made, decode)
        source = {"images": Store.at(images).root, "split": split, "root": root}
        first = None if store.exists(layout.PLAN) else _check_images(store, images, split, root)
        with hold_lock(store, REGIONS.name):
            report = reporter.keep_log(store, "extract-regions")
            plan = _planned(store, reporter, first, source, samples_per_shard)
            identity = claim(store, REGIONS.name, configuration).digest
            store.remove_temporaries(REGIONS.name)
            missing = [shard for shard in range(plan.shards) if not is_finished(store, REGIONS.name, shard, identity)]
            if kept := plan.shards - len(missing):
                reporter.say(f"{kept} of {plan.shards} shards are finished and kept")
            if missing:
                task = ShardTask(
                    root=store.root,
                    detector=detector,
                    decode=decode,
                    threads=cluster.threads,
                    configuration_digest=identity,
                )
                with open_cluster(cluster, report=report) as running:
                    _run(running, reporter, task, plan, missing)
                store.remove_temporaries(REGIONS.name)  # of workers that were killed on the way
            receipts = [read_receipt(store, REGIONS.name, shard) for shard in range(plan.shards)]
        summary = ExtractionSummary(
            plan=plan,
            counts=_summed(receipt.counts for receipt in receipts if receipt),
            regions=sum(receipt.totals["regions"] for receipt in receipts if receipt),
            shards_written=len(missing),
            shards_kept=plan.shards - len(missing),
            seconds=time.monotonic() - started,
            configuration=configuration,
        )
        _report(reporter, store, summary)
    return summary


def _check_images(store: Store, images: str, split: str | None, root: str | None) -> Iterator[ImageRef]:
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
    first = next(listing)

    def whole() -> Iterator[ImageRef]:
        yield first
        yield from listing

    return whole()


def _planned(
    store: Store, reporter: Reporter, refs: Iterator[ImageRef] | None, source: dict[str, Any], samples_per_shard: int
) -> Plan:
    # A plan may have been written by another run since `refs` were listed, just before this run took the lock.
    if refs is None or store.exists(layout.PLAN):
        plan = load_plan(store)
        check_same_plan(plan, store, source, samples_per_shard)
        reporter.say(f"going on with the stored plan: {plan.images:,} images in {plan.shards} shards")
        return plan
    store.remove_temporaries("plan")
    with reporter.step("list", 0, "images") as step:

        def counted() -> Iterator[ImageRef]:
            for ref in refs:
                step.advance()
                yield ref

        plan = write_plan(store, counted(), source=source, samples_per_shard=samples_per_shard)
    faults = f", {plan.faults:,} of them faulty" if plan.faults else ""
    reporter.say(f"planned {plan.images:,} images in {plan.shards} shards{faults}")
    return plan


def _run(cluster: Cluster, reporter: Reporter, task: ShardTask, plan: Plan, missing: list[int]) -> None:
    failures: dict[int, str] = {}
    with reporter.step("extract", sum(plan.rows[shard] for shard in missing), "images") as step:
        for shard, outcome in cluster.run_tasks(functools.partial(extract_shard, task), missing):
            if isinstance(outcome, TaskFailure):
                failures[shard] = outcome.reason
                reporter.say(f"shard {shard} failed: {outcome.reason}")
                continue
            reporter.record(f"shard {shard}: {outcome.counts} {outcome.seconds}")
            step.advance(plan.rows[shard])
    if failures:
        raise IncompleteError(
            f"{len(failures)} of {plan.shards} shards could not be extracted ({', '.join(map(str, sorted(failures)))}): "
            f"{next(iter(failures.values()))}",
            "The others are safe; run the same command again, with --cluster inline to see the first error whole.",
        )


def _summed(parts: Iterable[Mapping[str, int]]) -> dict[str, int]:
    total: Counter[str] = Counter()
    for part in parts:
        total.update(part)
    return dict(total)


def _report(reporter: Reporter, store: Store, summary: ExtractionSummary) -> None:
    faults = {name: count for name, count in summary.counts.items() if name not in ("inputs", "ok")}
    listed = ", ".join(f"{name} {count:,}" for name, count in sorted(faults.items())) or "none"
    reporter.say(
        f"{summary.counts['ok']:,} of {summary.counts['inputs']:,} images have regions ({summary.regions:,}); faults: {listed}"
    )
    if faults:
        reporter.say(f"every fault has a row with its key and reason in {store.path(REGIONS.name)}/*.parquet")
