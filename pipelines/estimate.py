"""What extracting an input would take, from a sample of it that is really extracted.

1. List the input and draw a seeded, uniform sample (or a sample of its beginning, where the count is given).
2. Extract the sample in a temporary folder by the same `extract_shard` that a run uses; a few images go first, unmeasured, so
   that loading the model and the first use of its kernels are not taken for speed.
3. Scale what was measured to the whole. Time and bytes are proportions; faults have a confidence interval.
"""

from __future__ import annotations

import math
import random
import resource
import tempfile
import time
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from itertools import islice
from typing import Any

import numpy as np

from mvptr_data.dataset.fields import REGIONS, stem
from mvptr_data.dataset.planning import write_plan
from mvptr_data.dataset.receipts import Receipt
from mvptr_data.dataset.shards import read_rows
from mvptr_data.errors import InputError
from mvptr_data.sources.decoding import DecodeOptions
from mvptr_data.sources.images import ImageRef, list_images
from mvptr_data.storage import Store, digest
from pipelines.cluster import ClusterOptions
from pipelines.console import Reporter, reporting
from pipelines.detector_runner import DetectorChoice, detector_runner
from pipelines.extract_regions import ExtractionOptions
from pipelines.extract_shard import ShardTask, extract_shard, regions_configuration

#: Devices (or workers) that the hours are told for.
DEVICES = (1, 8, 64)
#: With `count` given, the sample is drawn from so many times its size of the first images listed.
BEGINNING = 10
#: Standard errors of a 95 % interval.
Z = 1.96


@dataclass(frozen=True, slots=True, kw_only=True)
class Interval:
    """An expected number and the bounds of its 95 % interval."""

    expected: float
    low: float
    high: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """Measured: all from `sampled` to `device_memory_mb`. Scaled from it to `images` inputs: `hours` to `faults`.

    `listed`: inputs that were listed; `whole_listing`: whether the sample is of all of them, or of the beginning only.
    `seconds`: wall seconds an input by phase (decode over `decode_threads`), `total` with the phases overlapping. `bound`: the
    phase that the others wait for. `hours`: by number of devices. `storage_bytes`: tars and parquets. `faults`: inputs by
    class; `unseen_faults`: bound of any class that the sample does not have.
    """

    images: int
    listed: int
    whole_listing: bool
    sampled: int
    ok: int
    regions_per_image: float
    seconds: Mapping[str, float]
    bound: str
    threads: int
    decode_threads: int
    load_seconds: float
    memory_mb: float
    device: str
    device_memory_mb: float | None
    samples_per_shard: int
    shards: int
    hours: Mapping[int, float]
    storage_bytes: Interval
    faults: Mapping[str, Interval]
    unseen_faults: float

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def estimate_extraction(
    images: str,
    *,
    sample: int = 200,
    count: int | None = None,
    seed: int = 0,
    samples_per_shard: int = 1000,
    detector: DetectorChoice | None = None,
    decode: DecodeOptions | None = None,
    split: str | None = None,
    root: str | None = None,
    threads: int = 1,
    decode_threads: int | None = None,
    quiet: bool = False,
) -> Estimate:
    """Extract `sample` inputs of `images` here, with `threads` compute threads or the detector's device, and scale up.

    `count`: how many inputs there are; then only the beginning is listed, and the sample is of that. The other options are
    those of `extract_regions`.

    Raises `InputError` (nothing to read, unusable options) and what loading the detector raises.
    """
    if sample < 1 or (count is not None and count < 1) or samples_per_shard < 1:
        raise InputError(f"sample is {sample}, count {count}, samples_per_shard {samples_per_shard}; give at least 1")
    options = ExtractionOptions(
        detector=detector or DetectorChoice(),
        decode=decode or DecodeOptions(),
        cluster=ClusterOptions(cluster="inline", threads=threads),
        decode_threads=decode_threads,
    )
    with reporting(quiet=quiet) as reporter:
        start = time.perf_counter()
        runner = detector_runner(options.detector, threads)
        loading = time.perf_counter() - start
        refs = list_images(images, split=split, root=root)
        drawn, listed = draw(
            _counted(reporter, refs if count is None else islice(refs, BEGINNING * sample)), sample, seed
        )
        whole = count is None or listed < BEGINNING * sample
        if count is not None and (count < listed or (whole and count != listed)):
            raise InputError(
                f"--count is {count:,}, but {images!r} has {'' if whole else 'at least '}{listed:,} inputs"
            )
        total = listed if count is None else count
        identity = digest(regions_configuration(runner.detector, options.decode))
        with tempfile.TemporaryDirectory(prefix="mvptr-estimate-") as folder:
            store, warm = Store.at(f"{folder}/sample"), Store.at(f"{folder}/warm")
            with reporter.step("warm up", 0, "images") as step:
                few = drawn[: min(runner.window, math.ceil(len(drawn) / 4))]
                _extract(warm, few, options, identity)
                step.advance(len(few))
            with reporter.step("extract the sample", 0, "images") as step:
                receipt = _extract(store, drawn, options, identity)
                step.advance(len(drawn))
            sizes = _sizes(store, receipt)
    return _scaled(
        receipt,
        sizes,
        images=total,
        listed=listed,
        whole_listing=whole,
        load_seconds=loading,
        threads=threads,
        decode_threads=options.decoders,
        samples_per_shard=samples_per_shard,
    )


def draw(refs: Iterable[ImageRef], size: int, seed: int) -> tuple[list[ImageRef], int]:
    """A uniform sample of `size` refs, in listing order, and how many there were: one pass, memory of the sample alone.

    Each ref after the first `size` takes the place of a random one with the probability that keeps all equal (Vitter 1985,
    algorithm R).
    """
    generator = random.Random(seed)
    kept: list[tuple[int, ImageRef]] = []
    number = -1
    for number, ref in enumerate(refs):
        if number < size:
            kept.append((number, ref))
        elif (place := generator.randrange(number + 1)) < size:
            kept[place] = (number, ref)
    return [ref for _, ref in sorted(kept, key=lambda entry: entry[0])], number + 1


def proportion(hits: int, sampled: int, population: int) -> Interval:
    """Inputs of `population` that `hits` of `sampled` speak for: Wilson's 95 % interval; exact where all were sampled."""
    if sampled == population:
        return Interval(expected=hits, low=hits, high=hits)
    share, square = hits / sampled, Z * Z / sampled
    middle = (share + square / 2) / (1 + square)
    half = Z / (1 + square) * math.sqrt(share * (1 - share) / sampled + square / (4 * sampled))
    # What was seen is there for certain, and so is what was seen to be otherwise.
    low = max(hits, population * (middle - half))
    high = min(population - (sampled - hits), population * (middle + half))
    return Interval(expected=population * share, low=low, high=max(low, high))


def _counted(reporter: Reporter, refs: Iterable[ImageRef]) -> Iterable[ImageRef]:
    with reporter.step("list", 0, "images") as step:
        for ref in refs:
            step.advance()
            yield ref


def _extract(store: Store, refs: list[ImageRef], options: ExtractionOptions, identity: str) -> Receipt:
    """The sample as one shard of a data set of its own."""
    write_plan(store, iter(refs), source={"estimate": True}, samples_per_shard=len(refs))
    task = ShardTask(
        root=store.root,
        detector=options.detector,
        decode=options.decode,
        threads=options.cluster.threads,
        decode_threads=options.decoders,
        configuration_digest=identity,
    )
    return extract_shard(task, 0)


def _sizes(store: Store, receipt: Receipt) -> np.ndarray[Any, Any]:
    """Bytes of each input's members; 0 for one that failed."""
    rows = read_rows(store, receipt.rows.name)
    members = [f"{stem(member)}_size" for member in REGIONS.members]
    return np.array([sum(row[member] or 0 for member in members) for row in rows], dtype=np.float64)


def _scaled(receipt: Receipt, sizes: np.ndarray[Any, Any], **known: Any) -> Estimate:
    images, sampled, ok = known["images"], receipt.counts["inputs"], receipt.counts["ok"]
    per_shard, decoders = known["samples_per_shard"], known["decode_threads"]
    spent = receipt.seconds
    seconds = {name: spent.get(name, 0.0) / sampled for name in ("decode", "detect", "write")}
    seconds["decode"] /= decoders
    seconds["total"] = spent["total"] / sampled
    shards = math.ceil(images / per_shard)
    per_input = (receipt.tar.bytes + receipt.rows.bytes) / sampled
    spread = Z * float(sizes.std(ddof=1)) / math.sqrt(sampled) if 1 < sampled < images else 0.0
    faults = {name: proportion(hits, sampled, images) for name, hits in sorted(receipt.faults.items()) if hits}
    device, device_memory = _device()
    return Estimate(
        **known,
        sampled=sampled,
        ok=ok,
        regions_per_image=receipt.totals["regions"] / ok if ok else 0.0,
        seconds=seconds,
        bound=max(("decode", "detect", "write"), key=lambda name: seconds[name]),
        memory_mb=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        device=device,
        device_memory_mb=device_memory,
        shards=shards,
        # A shard is one device's work: with few shards, more devices do not help.
        hours={
            devices: min(images, math.ceil(shards / devices) * per_shard) * seconds["total"] / 3600
            for devices in DEVICES
        },
        storage_bytes=Interval(
            expected=per_input * images,
            low=max(0.0, per_input - spread) * images,
            high=(per_input + spread) * images,
        ),
        faults=faults,
        unseen_faults=0.0 if sampled == images else proportion(0, sampled, images).high,
    )


def _device() -> tuple[str, float | None]:
    """What computed, and the most of its memory that torch held (MB); None for the CPU."""
    try:
        import torch
    except ImportError:  # a detector of the user's own may do without
        return "cpu", None
    if not torch.cuda.is_initialized():
        return "cpu", None
    return torch.cuda.get_device_name(), torch.cuda.max_memory_reserved() / 2**20
