"""One shard of regions: decode, detect and write, each in its thread, with a bound on what waits between them.

In: a planned shard. Out: its tar, its parquet with a row for every input, its receipt. Nothing here knows of a cluster.
"""

from __future__ import annotations

import hashlib
import platform
import time
import warnings
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from mvptr_data.dataset.fields import REGIONS
from mvptr_data.dataset.plan import read_rows, ref_of
from mvptr_data.dataset.receipts import Receipt
from mvptr_data.dataset.records import encode_regions
from mvptr_data.dataset.shards import ShardWriter, shard_writer
from mvptr_data.detectors import Detector, Regions, load_detector
from mvptr_data.errors import ConfigurationMismatchError, SampleFault
from mvptr_data.sources.decoding import DecodedImage, DecodeOptions, decode_image
from mvptr_data.sources.images import read_image_bytes
from mvptr_data.storage import Store, digest
from pipelines.cluster import once_per_process
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
        detector = load_detector(self.name, **dict(self.options))
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


def extract_shard(task: ShardTask, shard: int) -> Receipt:
    """Decode, detect and write one shard; returns its receipt. Idempotent: the same bytes whenever and wherever it runs."""
    detector = once_per_process(DetectorChoice.load, task.detector, task.threads)
    if digest(regions_configuration(detector, task.decode)) != task.configuration_digest:
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
        environment=_environment(task.threads),
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


def regions_configuration(detector: Detector, decode: DecodeOptions) -> dict[str, Any]:
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
        images = [sample.image.image for sample in seen if sample.image is not None]
        for sample, regions in zip(seen, _detect_each(detector, images), strict=True):
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
            reason = str(error).splitlines()[0] if str(error) else "no message"
            return [SampleFault("detector_error", f"{type(error).__name__}: {reason}")]
        return [_detect_each(detector, [image])[0] for image in images]


def _environment(threads: int) -> dict[str, str]:
    """What may change bytes without being configuration; recorded in receipts, outside their digest."""
    import torch
    import torchvision

    return {
        "torch": torch.__version__,
        "torchvision": torchvision.__version__,
        "machine": platform.machine(),
        "python": platform.python_version(),
        "threads": str(threads),
    }
