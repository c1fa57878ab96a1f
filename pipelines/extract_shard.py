"""One shard of regions: decode, detect and write, each in its thread, with a bound on what waits between them.

In: a planned shard. Out: its tar, its parquet with a row for every input, its receipt. Nothing here knows of a cluster.

* `extract_shard` does a shard anew.
* `retry_shard` does again what failed in it: the next generation holds the old samples and the new, every key in its place.
* `probe_shard` decodes and detects a span of it and writes nothing: does the process survive?
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import platform
import socket
import time
import warnings
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Set
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib import metadata
from typing import Any

from mvptr_data.dataset.fields import OK, REGIONS, stem
from mvptr_data.dataset.plan import read_rows, ref_of
from mvptr_data.dataset.receipts import Receipt, read_receipt
from mvptr_data.dataset.records import encode_regions
from mvptr_data.dataset.shards import ShardWriter, shard_writer
from mvptr_data.dataset.shards import read_rows as read_field_rows
from mvptr_data.detectors import Detector, Regions
from mvptr_data.errors import ConfigurationMismatchError, DamagedFileError, OutputError, SampleFault
from mvptr_data.sources.decoding import DecodeOptions, decode_image
from mvptr_data.sources.images import read_image_bytes
from mvptr_data.storage import Store, digest
from pipelines.detector_runner import DetectorChoice, DetectorRunner, compute_with, detector_runner
from pipelines.overlap import in_batches, map_ahead, prefetch

#: What a full or read-only output answers.
_OUTPUT_ERRORS = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG})


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardTask:
    """All a worker needs to know; a few hundred bytes. `threads` compute, `decode_threads` read and decode images."""

    root: str
    detector: DetectorChoice
    decode: DecodeOptions
    threads: int
    configuration_digest: str
    decode_threads: int = 1


def extract_shard(task: ShardTask, shard: int, poison: Set[int] = frozenset()) -> Receipt:
    """Decode, detect and write one shard; returns its receipt. Idempotent: the same bytes whenever and wherever it runs.

    `poison`: positions of inputs that are known to end the process; they are recorded, not touched.
    """
    store = Store(task.root)
    work = _Work(task, poison)
    with _writing(store, shard, work, _stored_generation(store, shard)) as (writer, receipts):
        for sample in work.samples(read_rows(store, shard)):
            work.write(writer, sample)
    return receipts[0]


def retry_shard(task: ShardTask, classes: Set[str], shard: int, poison: Set[int] = frozenset()) -> Receipt:
    """Do again the inputs of a finished shard that failed with one of `classes`; returns the shard's receipt.

    Where an input's fate changed, the shard is written as its next generation; where none did, nothing is. A shard whose
    files are not what its receipt promises is extracted anew, as its next generation.
    """
    store = Store(task.root)
    receipt = read_receipt(store, REGIONS.name, shard)
    if receipt is None:
        return extract_shard(task, shard, poison)
    work = _Work(task, poison)
    planned = read_rows(store, shard)
    known: list[dict[str, Any] | None] = [None] * len(planned)
    if _is_sound(store, receipt):
        known = [*read_field_rows(store, receipt.rows.name)]
    again = [old is None or old["error_class"] in classes for old in known]
    retried = work.samples(row for row, wanted in zip(planned, again, strict=True) if wanted)
    changed = False
    with contextlib.ExitStack() as stack:
        stack.enter_context(contextlib.suppress(_Unchanged))
        writer, receipts = stack.enter_context(_writing(store, shard, work, receipt.generation + 1))
        tar = stack.enter_context(store.open(receipt.tar.name)) if not all(again) else None
        for row, old, wanted in zip(planned, known, again, strict=True):
            if wanted:
                work.write(writer, next(retried))
                changed |= old is None or any(writer.rows[-1].get(name) != old[name] for name in _FATE)
            else:
                assert old is not None
                _copy(writer, tar, row["key"], old)
        if not changed:
            raise _Unchanged
    return receipts[0] if receipts else receipt


def probe_shard(task: ShardTask, shard: int, span: range, poison: Set[int] = frozenset()) -> int:
    """Decode and detect the inputs at the positions `span`, write nothing; returns how many there were."""
    work = _Work(task, poison)
    rows = read_rows(Store(task.root), shard)[span.start : span.stop]
    return sum(1 for _ in work.samples(rows))


def regions_configuration(detector: Detector, decode: DecodeOptions) -> dict[str, Any]:
    """All that decides the bytes of the regions."""
    return {"detector": detector.configuration(), "decode": decode.configuration(), "feature_dtype": "float16"}


#: The columns that say what became of an input.
_FATE = ("status", "error_class", "message")


class _Unchanged(Exception):  # noqa: N818 - leaves a writer's block without writing
    pass


@dataclass(slots=True)
class _Sample:
    """One input on its way: first with a prepared image, then with regions; a fault stays what it is."""

    key: str
    facts: dict[str, Any]
    image: Any = None
    regions: Regions | SampleFault | None = None
    decode_seconds: float = 0.0


class _Work:
    """What the three functions above share: the process's detector, and where the time goes."""

    def __init__(self, task: ShardTask, poison: Set[int]) -> None:
        self.task, self._poison = task, poison
        self._runner: DetectorRunner = detector_runner(task.detector, task.threads)
        if digest(regions_configuration(self._runner.detector, task.decode)) != task.configuration_digest:
            raise ConfigurationMismatchError(
                "a worker's detector is not the one this run was started with",
                "Give all workers the same release and weights, and start them again.",
            )
        # Pillow warns of odd metadata in images that are sound.
        warnings.filterwarnings("ignore", category=UserWarning, module="PIL")
        self.seconds: defaultdict[str, float] = defaultdict(float)
        self._started = time.perf_counter()

    def samples(self, rows: Iterable[Mapping[str, Any]]) -> Iterator[_Sample]:
        """Every planned input with its regions or its fault, in order."""
        ahead = 2 * self._runner.window
        decoded = map_ahead(self._decode, rows, threads=self.task.decode_threads, ahead=ahead)
        for window in prefetch(self._detect(decoded), 2):
            yield from window

    def _decode(self, row: Mapping[str, Any]) -> _Sample:
        """Read, decode and prepare one planned input."""
        start = time.perf_counter()
        sample = _Sample(row["key"], {})
        try:
            if row["fault"] is not None:
                raise SampleFault(row["fault"], row["message"])
            if row["position"] in self._poison:
                raise SampleFault("worker_killed", "the process ended each time this image was tried alone")
            data = read_image_bytes(ref_of(dict(row)))
            sha256 = hashlib.sha256(data)
            sample.facts |= {"sha256": sha256.hexdigest(), "image_id": int.from_bytes(sha256.digest()[:8], "big")}
            image = decode_image(data, self.task.decode)
            sample.facts |= {"width": image.width, "height": image.height, "format": image.format, "mode": image.mode}
            sample.image = self._runner.prepare(image.image)
        except SampleFault as fault:
            sample.regions = fault
        except (RuntimeError, ValueError, ArithmeticError, MemoryError) as error:  # of a detector's `prepare`
            kind = "out_of_memory" if isinstance(error, MemoryError) else "detector_error"
            sample.regions = SampleFault(kind, f"{type(error).__name__}: {error}")
        sample.decode_seconds = time.perf_counter() - start
        return sample

    def _detect(self, samples: Iterable[_Sample]) -> Iterator[list[_Sample]]:
        """Run the detector over windows of images; images are released as soon as they were seen."""
        compute_with(self.task.threads)  # this generator runs in a thread of its own
        for window in in_batches(samples, self._runner.window):
            start = time.perf_counter()
            seen = [sample for sample in window if sample.regions is None]
            for sample, regions in zip(seen, self._runner.detect([sample.image for sample in seen]), strict=True):
                sample.regions, sample.image = regions, None
            self.seconds["detect"] += time.perf_counter() - start
            self.seconds["decode"] += sum(sample.decode_seconds for sample in window)
            yield window

    def write(self, writer: ShardWriter, sample: _Sample) -> None:
        """Append a sample, or the fault it has become."""
        start = time.perf_counter()
        if isinstance(sample.regions, SampleFault):
            writer.add_fault(sample.key, sample.regions, sample.facts)
        else:
            assert sample.regions is not None, "a sample is written after it was detected"
            try:
                members = encode_regions(sample.regions, sample.facts["width"], sample.facts["height"])
            except ValueError as error:
                writer.add_fault(sample.key, SampleFault("detector_error", str(error)), sample.facts)
            else:
                writer.add(sample.key, members, {**sample.facts, "regions": len(sample.regions.scores)})
        self.seconds["write"] += time.perf_counter() - start
        self.seconds["total"] = time.perf_counter() - self._started

    def environment(self) -> dict[str, str]:
        """What may change bytes without being configuration, and when and where; in receipts, outside their digest."""
        versions = {}
        for package in ("torch", "torchvision"):
            with contextlib.suppress(metadata.PackageNotFoundError):
                versions[package] = metadata.version(package)
        return {
            **versions,
            "machine": platform.machine(),
            "python": platform.python_version(),
            "threads": str(self.task.threads),
            "host": socket.gethostname(),
            "finished": f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}",
            **({"memory": self._runner.note} if self._runner.note else {}),
        }


@contextlib.contextmanager
def _writing(store: Store, shard: int, work: _Work, generation: int) -> Iterator[tuple[ShardWriter, list[Receipt]]]:
    """The shard's writer. Raises `OutputError` where the output is full or read-only: no other shard can be written either."""
    environment: dict[str, str] = {}
    try:
        with shard_writer(
            store,
            REGIONS,
            shard,
            configuration_digest=work.task.configuration_digest,
            generation=generation,
            seconds=work.seconds,
            environment=environment,
        ) as writing:
            yield writing
            environment |= work.environment()
    except OSError as error:
        if error.errno not in _OUTPUT_ERRORS:
            raise
        raise OutputError(
            f"cannot write to {store.root}: {os.strerror(error.errno)}",
            "Make room there and run the same command again; finished shards are kept.",
        ) from error


def _is_sound(store: Store, receipt: Receipt) -> bool:
    """Whether a shard's files are, byte for byte, what its receipt promises."""
    try:
        return all(store.sha256(facts.name) == facts.sha256 for facts in (receipt.tar, receipt.rows))
    except FileNotFoundError:
        return False


def _stored_generation(store: Store, shard: int) -> int:
    """The generation to write a shard anew as: the one it had, so that its files do not mix with an earlier one's."""
    try:
        receipt = read_receipt(store, REGIONS.name, shard)
    except DamagedFileError:
        return 0
    return 0 if receipt is None else receipt.generation


def _copy(writer: ShardWriter, tar: Any, key: str, old: Mapping[str, Any]) -> None:
    """Append an input's stored fate unchanged: its sample's members from the earlier tar, or its fault."""
    facts = {name: old[name] for name, _ in REGIONS.columns}
    if old["status"] != OK:
        writer.add_fault(key, SampleFault(old["error_class"], old["message"]), facts)
        return
    members = {}
    for member in REGIONS.members:
        tar.seek(old[f"{stem(member)}_offset"])
        members[member] = tar.read(old[f"{stem(member)}_size"])
    writer.add(key, members, facts)
