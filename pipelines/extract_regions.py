"""Images to regions: list, plan, and one task for each shard that decodes, detects and writes.

The same `extract_shard` runs in this process, on a local cluster or on a scheduler's workers. Started again, a run keeps its
plan and skips every shard that has a sound receipt.
"""

from __future__ import annotations

import functools
import hashlib
import platform
import time
import warnings
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from mvptr_data.dataset import layout
from mvptr_data.dataset.fields import REGIONS, claim, load_state
from mvptr_data.dataset.locks import hold_lock
from mvptr_data.dataset.plan import Plan, check_same_plan, load_plan, read_rows, ref_of, write_plan
from mvptr_data.dataset.receipts import Receipt, is_finished, read_receipt
from mvptr_data.dataset.records import encode_regions
from mvptr_data.dataset.shards import ShardWriter, shard_writer
from mvptr_data.detectors import Detector, Regions, load_detector
from mvptr_data.errors import ConfigurationMismatchError, IncompleteError, InputError, SampleFault
from mvptr_data.sources.decoding import DecodedImage, DecodeOptions, decode_image
from mvptr_data.sources.images import ImageRef, list_images, read_image_bytes
from mvptr_data.storage import Store, digest
from pipelines.cluster import Cluster, ClusterOptions, TaskFailure, once_per_process, open_cluster
from pipelines.console import Reporter, reporting
from pipelines.overlap import in_batches, prefetch

#: Images handed to the detector at once.
BATCH_SIZE = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class DetectorChoice:
    """A detector by name and options; hashable, so that each process makes it once."""

    name: str = "compact"
    options: tuple[tuple[str, Any], ...] = ()

    def load(self, threads: int) -> Detector:
        """Raises `InputError` (unknown name or option, unusable value), `MissingDependencyError`, `DamagedFileError`."""
        try:
            detector = load_detector(self.name, **dict(self.options))
        except TypeError as error:
            given = ", ".join(f"{name}={value!r}" for name, value in self.options)
            raise InputError(f"an option of {given} has a value of the wrong kind ({error})", "Correct it.") from error
        import torch  # after the detector has said, in one line, that torch is missing

        torch.set_num_threads(threads)
        return detector


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardTask:
    """All a worker needs to know; a few hundred bytes."""

    root: str
    detector: DetectorChoice
    decode: DecodeOptions
    threads: int
    configuration_digest: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ExtractionSummary:
    """What a data set's regions are after a run. `counts`: inputs, ok and each fault class; `done` shards were skipped."""

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
        configuration = _configuration(made, decode)
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


def extract_shard(task: ShardTask, shard: int) -> Receipt:
    """Decode, detect and write one shard; returns its receipt. Idempotent: the same bytes whenever and wherever it runs."""
    detector = once_per_process(DetectorChoice.load, task.detector, task.threads)
    if digest(_configuration(detector, task.decode)) != task.configuration_digest:
        raise ConfigurationMismatchError(
            "a worker's detector is not the one this run was started with",
            "Give all workers the same release and weights, and start them again.",
        )
    # Pillow warns of odd metadata in images that are sound.
    warnings.filterwarnings("ignore", category=UserWarning, module="PIL")
    store = Store(task.root)
    rows = read_rows(store, shard)
    seconds: defaultdict[str, float] = defaultdict(float)
    decoded = prefetch(_decode(rows, task.decode, seconds), 2 * BATCH_SIZE)
    detected = prefetch(_detect(detector, decoded, seconds), 2)
    with shard_writer(
        store,
        REGIONS,
        shard,
        configuration_digest=task.configuration_digest,
        seconds=seconds,
        environment=_environment(),
    ) as (writer, receipts):
        for batch in detected:
            start = time.perf_counter()
            for found in batch:
                _write(writer, found)
            seconds["write"] += time.perf_counter() - start
    return receipts[0]


def _write(writer: ShardWriter, sample: _Sample) -> None:
    if isinstance(sample.regions, SampleFault):
        writer.add_fault(sample.key, sample.regions, sample.facts)
        return
    assert sample.regions is not None, "a sample is written after it was detected"
    try:
        members = encode_regions(sample.regions, sample.facts["width"], sample.facts["height"])
    except ValueError as error:
        writer.add_fault(sample.key, SampleFault("detector_error", str(error)), sample.facts)
    else:
        writer.add(sample.key, members, {**sample.facts, "regions": len(sample.regions.scores)})


def _configuration(detector: Detector, decode: DecodeOptions) -> dict[str, Any]:
    """All that decides the bytes of the regions."""
    return {"detector": detector.configuration(), "decode": decode.configuration(), "feature_dtype": "float16"}


@dataclass(slots=True)
class _Sample:
    """One input on its way: first with an image, then with regions; a fault stays what it is."""

    key: str
    facts: dict[str, Any]
    image: DecodedImage | None
    regions: Regions | SampleFault | None = None


def _decode(
    rows: Iterable[Mapping[str, Any]], options: DecodeOptions, seconds: defaultdict[str, float]
) -> Iterator[_Sample]:
    """Read and decode each planned input."""
    for row in rows:
        start = time.perf_counter()
        facts: dict[str, Any] = {}
        try:
            if row["fault"] is not None:
                raise SampleFault(row["fault"], row["message"])
            data = read_image_bytes(ref_of(dict(row)))
            sha256 = hashlib.sha256(data)
            facts |= {"sha256": sha256.hexdigest(), "image_id": int.from_bytes(sha256.digest()[:8], "big")}
            image = decode_image(data, options)
            facts |= {"width": image.width, "height": image.height, "format": image.format, "mode": image.mode}
            sample = _Sample(row["key"], facts, image)
        except SampleFault as fault:
            sample = _Sample(row["key"], facts, None, fault)
        seconds["decode"] += time.perf_counter() - start
        yield sample


def _detect(
    detector: Detector, samples: Iterable[_Sample], seconds: defaultdict[str, float]
) -> Iterator[list[_Sample]]:
    """Run the detector over batches; images are released as soon as they were seen."""
    for batch in in_batches(samples, BATCH_SIZE):
        start = time.perf_counter()
        seen = [sample for sample in batch if sample.image is not None]
        for sample, regions in zip(
            seen, _detect_each(detector, [sample.image.image for sample in seen if sample.image]), strict=True
        ):
            sample.regions, sample.image = regions, None
        seconds["detect"] += time.perf_counter() - start
        yield batch


def _detect_each(detector: Detector, images: list[Any]) -> list[Regions | SampleFault]:
    """The regions of each image. One that breaks the detector is found by trying each alone, and becomes a fault."""
    if not images:
        return []
    try:
        return list(detector.detect(images))
    except (RuntimeError, ValueError, ArithmeticError, IndexError) as error:
        if len(images) == 1:
            return [
                SampleFault(
                    "detector_error", f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
                )
            ]
        return [_detect_each(detector, [image])[0] for image in images]


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
    if refs is None or store.exists(
        layout.PLAN
    ):  # the latter: planned by another run while this one waited for the lock
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


def _environment() -> dict[str, str]:
    """What may change bytes without being configuration; recorded in receipts, outside their digest."""
    import torch
    import torchvision

    return {
        "torch": torch.__version__,
        "torchvision": torchvision.__version__,
        "machine": platform.machine(),
        "python": platform.python_version(),
    }
